"""How good a model is on a test set, what its equilibria cost, and whether they were found."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from tqdm import tqdm

from deqzoo.benchmark.inputs import input_spec, prepared
from deqzoo.benchmark.machine import Stopwatch
from deqzoo.benchmark.tally import Tally
from deqzoo.data import EvalBatches, ImageData
from deqzoo.errors import DataError, UnconvergedWarning
from deqzoo.models import InputSpec
from deqzoo.nn import equilibria, observe_equilibria

Flat: TypeAlias = dict[str, str | int | float | None]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures of one model on one test set. What was not measured, or is not a number, is None.

    Attributes:
        data: the test set.
        num_images: in it.
        accuracy: per cent of images whose largest logit is that of their label.
        accuracy_low: lower end of its 95 % interval (Wilson), in per cent.
        accuracy_high: upper end.
        loss: mean cross-entropy in nats.
        calibration_error: mean distance of confidence and accuracy over 15 bins, from 0 to 1.
        num_parameters: of the network.
        converged: share of images of which every equilibrium reached the tolerance, from 0 to 1; None with fixed
            budgets, which have none.
        num_max_steps: images that ran out of steps, or spent a fixed budget.
        num_stalled: images whose residual stopped improving.
        num_nonfinite: images that met NaN or inf.
        evals_mean: evaluations of f for each image, summed over its equilibria.
        evals_p95: 95th percentile.
        evals_max: the most.
        residual_max: the worst relative residual of any equilibrium.
        images_per_second: of the network alone, without reading images; after one warm-up.
        device: where it ran.
        dtype: of the parameters.
        batch_size: most images at once.
        num_threads: of the CPU.
        solver: of the equilibria.
        max_steps: budget of each.
        rtol: tolerance of each.
        torch_version: that it ran with.
    """

    data: str
    num_images: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    loss: float | None
    calibration_error: float | None
    num_parameters: int
    converged: float | None
    num_max_steps: int
    num_stalled: int
    num_nonfinite: int
    evals_mean: float | None
    evals_p95: float | None
    evals_max: int | None
    residual_max: float | None
    images_per_second: float
    device: str
    dtype: str
    batch_size: int
    num_threads: int
    solver: str | None
    max_steps: int | None
    rtol: float | None
    torch_version: str

    def as_dict(self) -> Flat:
        """Returns the figures as one flat object of JSON."""
        return asdict(self)


def evaluate(
    model: nn.Module,
    data: ImageData,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = 512,
    progress: bool = False,
) -> Evaluation:
    """Runs a model of the zoo over the test split of `data` and returns its figures.

    Images are normalised as the model wants them, whatever the data set's own statistics are. Sums are in
    float64. The model is moved to `device` and put into eval mode.

    Args:
        model: with `.net`, as `deqzoo.load` returns it.
        data: whose test images have the model's size, channels and labels.
        device: where to run.
        batch_size: most images at once; the figures do not depend on it, but for the speed.
        progress: whether to show a bar on a terminal's stderr.

    Raises:
        DataError: if the data cannot be read, or has other labels than the model.
        StructureError: if the images have another size or other channels.
    """
    device = torch.device(device)
    net: Any = model.net
    spec = input_spec(net)
    _check_labels(net.pretrained_cfg, spec, data.spec)
    batches = EvalBatches(data.image_set("test"), batch_size=batch_size)
    model = model.to(device).eval()
    tally = Tally(num_classes=net.num_classes)
    # Which samples failed is part of the figures; a warning for each batch would only repeat it.
    with torch.no_grad(), warnings.catch_warnings(), observe_equilibria(net) as seen:
        warnings.simplefilter("ignore", UnconvergedWarning)
        model(prepared(batches.data.batch(torch.arange(min(8, len(batches.data))), None).images.to(device), spec))
        watch = Stopwatch(device)
        bar = tqdm(total=len(batches.data), desc="evaluating", unit="image", disable=None if progress else True)
        for batch in batches:
            seen.clear()
            with watch:
                logits: Tensor = model(prepared(batch.images.to(device), spec))
            tally.add(logits, batch.labels.to(device), seen)
            bar.update(len(batch.labels))
        bar.close()
    return Evaluation(
        data=data.spec.dataset,
        images_per_second=tally.num_images / watch.seconds,
        batch_size=batch_size,
        **tally.figures(),
        **circumstances(net, device),
        **budget(net),
    )


def circumstances(net: nn.Module, device: torch.device) -> dict[str, Any]:
    """Returns `num_parameters` and `dtype` of a network, and by what it is run: the name of a GPU, or "cpu"."""
    return {
        "num_parameters": sum(p.numel() for p in net.parameters()),
        "dtype": str(next(net.parameters()).dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "num_threads": torch.get_num_threads(),
        "torch_version": torch.__version__,
    }


def budget(net: nn.Module) -> dict[str, Any]:
    """Returns `solver`, `max_steps` and `rtol` of a network's equilibria, the largest where they differ."""
    solvers = [module.solver for module in equilibria(net).values()]
    if not solvers:
        return {"solver": None, "max_steps": None, "rtol": None}
    return {
        "solver": "; ".join(sorted({type(solver).__name__ for solver in solvers})),
        "max_steps": max(solver.max_steps for solver in solvers),
        "rtol": max(solver.rtol for solver in solvers),
    }


def _check_labels(cfg: Mapping[str, Any], model: InputSpec, data: InputSpec) -> None:
    same = model.label_names == data.label_names
    unnamed = "label_names" not in cfg and len(model.label_names) == len(data.label_names)
    if not same and not unnamed:
        pairs = zip(model.label_names, data.label_names, strict=False)
        first = next(((a, b) for a, b in pairs if a != b), None)
        found = f"label {first[0]!r} of the model meets {first[1]!r}" if first else "the numbers of labels differ"
        raise DataError(
            f"The labels of {data.dataset} ({len(data.label_names)}) are not those of the model "
            f"({len(model.label_names)}, {model.dataset}): {found}. Accuracy needs the same classes: "
            f"evaluate on {model.dataset}, or name the folders after the model's classes."
        )
