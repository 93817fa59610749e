"""Image classification."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from timm.data.mixup import Mixup
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer
from torch.optim.optimizer import ParamsT
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from deqzoo.errors import DataError, StructureError
from deqzoo.nn import observe_equilibria
from deqzoo.tasks.base import Task
from deqzoo.tasks.image_transform import ImageTransform
from deqzoo.tasks.schedules import Schedule
from deqzoo.tasks.solver_report import forward_figures

LabelledImages: TypeAlias = tuple[Tensor, Tensor]
"""Normalised images (B, C, H, W) and int64 labels (B,)."""


class ImageClassifier(Task):
    """Trains and evaluates a network with cross-entropy. Called on normalised images, it returns logits.

    In training it logs, as train/…, loss, top1 and learning rate (lr), and of the solves the evaluations
    per sample (evals_mean), the share of samples with all solves converged, and the worst residual
    (residual_max); the same of the backward solves as train/backward_…. In evaluation, as val/… or test/…:
    loss, top1, top5 (of more than five classes), the calibration error over 15 bins (ece), and the solves.
    Shares are in [0, 1]. Accuracies count images, not classes.

    Args:
        net: images (B, C, H, W) -> logits (B, num_classes); has timm's `num_classes` and `pretrained_cfg`.
        optimizer: makes the optimizer from parameter groups, those of `weight_decay_groups`.
        schedule: of the learning rate, stepped with the optimizer; None keeps it constant.
        label_smoothing: share of the label that is spread over all classes.
        mixup: α of mixup, 0 for none. Each batch is mixed with its own reverse, at one ratio per batch
            (timm's "batch" mode); with mixup and cutmix both on, every batch gets one of the two, at even
            odds. A batch with an odd number of images is left unmixed.
        cutmix: α of cutmix, 0 for none.
    """

    best = ("val/top1", "max")

    def __init__(
        self,
        net: nn.Module,
        *,
        optimizer: Callable[[ParamsT], Optimizer] = AdamW,
        schedule: Schedule | None = None,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
    ) -> None:
        super().__init__(net, optimizer=optimizer, schedule=schedule)
        if not 0 <= label_smoothing < 1 or mixup < 0 or cutmix < 0:
            raise ValueError(
                f"label_smoothing = {label_smoothing}, mixup = {mixup}, cutmix = {cutmix}. The first is a "
                "share in [0, 1), the others are 0 or more: correct the value."
            )
        self.label_smoothing = label_smoothing
        self.mixup = mixup
        self.cutmix = cutmix
        self._mix: Mixup | None = None

    @property
    def transform(self) -> ImageTransform:
        """What turns a PIL image into an input (C, H, W), from the network's `pretrained_cfg`.

        Raises:
            StructureError: if that is missing or incomplete.
        """
        try:
            cfg: Any = self.net.pretrained_cfg
        except AttributeError:
            cfg = {}
        return ImageTransform.from_cfg(cfg)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) normalised images -> (B, num_classes) logits."""
        return self.net(images)

    def setup(self, stage: str) -> None:
        """Prepares what depends on the number of classes, which may have changed since the network was made.

        What is trained on data of as many classes goes by their names from then on.

        Raises:
            StructureError: if the network gives features instead of logits.
            DataError: if the data has more classes than the network.
        """
        super().setup(stage)
        classes: int = self.net.num_classes  # pyright: ignore[reportAssignmentType]
        if classes < 2:
            raise StructureError(
                f"The network has num_classes = {classes}. A classifier chooses among two or more: give it "
                "a head with reset_classifier(num_classes)."
            )
        # Lightning sets the attribute from outside of the class, where type checkers do not see it.
        data: Any = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        labels = getattr(data, "num_classes", None) or 0
        if labels > classes:
            raise DataError(
                f"The data has {labels} classes and the network chooses among {classes}. Give it a head for them with "
                f"num_classes={labels}. (With `like`, labels are those of that data set: leave it out to number the "
                "folders.)"
            )
        names = getattr(getattr(data, "spec", None), "label_names", None)
        if stage == "fit" and names is not None:
            self._name_labels(names)
        self.val_metrics = _metrics(classes, "val/")
        self.test_metrics = _metrics(classes, "test/")
        if self.mixup or self.cutmix:
            self._mix = Mixup(self.mixup, self.cutmix, mode="batch", label_smoothing=0.0, num_classes=classes)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the names of the classes that the weights tell apart."""
        if checkpoint.get("label_names") is not None:
            self._name_labels(checkpoint["label_names"])

    def _name_labels(self, names: Sequence[str]) -> None:
        net: Any = self.net
        cfg = getattr(net, "pretrained_cfg", None)
        if isinstance(cfg, dict) and net.num_classes == len(names):
            net.pretrained_cfg = {**cfg, "num_classes": len(names), "label_names": list(names)}

    def training_step(self, batch: LabelledImages, batch_idx: int) -> Tensor:
        """Returns the mean loss of a batch."""
        images, labels = batch
        targets = labels
        if self._mix is not None and len(images) % 2 == 0:
            images, targets = self._mix(images.clone(), labels)  # which would otherwise be changed in place
        with observe_equilibria(self.net) as seen:
            logits = self.net(images)
        loss = F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(images))
        if targets is labels:
            hits = (logits.detach().argmax(1) == labels).float().mean()
            self.log("train/top1", hits, on_step=False, on_epoch=True, batch_size=len(images), sync_dist=True)
        return self.watch(loss, seen, index=batch_idx, images=images)

    def validation_step(self, batch: LabelledImages, batch_idx: int) -> None:
        """Adds a batch to the validation metrics."""
        self._evaluate(batch, self.val_metrics, "val/")

    def test_step(self, batch: LabelledImages, batch_idx: int) -> None:
        """Adds a batch to the test metrics."""
        self._evaluate(batch, self.test_metrics, "test/")

    def predict_step(self, batch: Tensor | LabelledImages, batch_idx: int) -> Tensor:
        """Returns the logits (B, num_classes) of a batch of images, or of images with labels."""
        return self(batch if isinstance(batch, Tensor) else batch[0])

    def _evaluate(self, batch: LabelledImages, metrics: MetricCollection, prefix: str) -> None:
        images, labels = batch
        with observe_equilibria(self.net) as seen:
            logits = self.net(images)
        # Probabilities: torchmetrics takes logits that happen to lie in [0, 1] for such, and gives those that are
        # exactly 1 a bin of their own.
        metrics.update(logits.float().softmax(-1).clamp(max=1 - 1e-7), labels)
        figures = {"loss": F.cross_entropy(logits, labels), **forward_figures(seen)}
        self.log_figures(prefix, figures, batch_size=len(images))
        self.log_dict(dict(metrics.items()), batch_size=len(images))


def _metrics(num_classes: int, prefix: str) -> MetricCollection:
    metrics: dict[str, Any] = {
        "top1": MulticlassAccuracy(num_classes, average="micro"),
        "ece": MulticlassCalibrationError(num_classes, n_bins=15),
    }
    if num_classes > 5:
        metrics["top5"] = MulticlassAccuracy(num_classes, average="micro", top_k=5)
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)
