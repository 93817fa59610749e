"""Data modules in a trainer: stages, augmentation of training alone, exact resumption."""

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from deqzoo.data import MNIST, Batch, RandomAffine, RandomShift
from deqzoo.errors import DataError

# Lightning 2.6 asks torch about its trees in a way that torch 2.15 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.:FutureWarning")


class Recorder(LightningModule):
    """Trains one weight and remembers the batches it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[tuple[Tensor, Tensor]]] = {"train": [], "val": [], "test": []}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.seen["train"].append(batch)
        return self.weight * batch[0].mean()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.seen["val"].append(batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.seen["test"].append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def trainer(**options: Any) -> Trainer:
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        "num_sanity_val_steps": 0,
    }
    return Trainer(**defaults | options)


def data(root: Any, **options: Any) -> MNIST:
    return MNIST(root, **{"batch_size": 16, "augment": [RandomShift(pixels=2)]} | options)


def assert_same(ours: list[tuple[Tensor, Tensor]], theirs: list[tuple[Tensor, Tensor]]) -> None:
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_batches_arrive_normalised_and_only_training_is_augmented(mnist_root):
    module = data(mnist_root, val_size=10, augment=[RandomAffine(degrees=20)])
    net = Recorder()
    trainer(max_epochs=1).fit(net, module)
    trainer().test(net, module, verbose=False)
    mean, std = module.spec.mean[0], module.spec.std[0]
    for split in ("train", "val", "test"):
        images = torch.cat([images for images, _ in net.seen[split]])
        labels = torch.cat([labels for _, labels in net.seen[split]])
        raw = module.image_set(split)
        assert images.dtype == torch.float32 and labels.dtype == torch.int64
        assert len(images) == len(raw) == {"train": 30, "val": 10, "test": 20}[split]
        if split == "train":
            assert images.min() >= (0 - mean) / std - 1e-5 and images.max() <= (1 - mean) / std + 1e-5
            assert not any(torch.equal(images[0], (x / 255 - mean) / std) for x in raw.images)
        else:
            torch.testing.assert_close(images, (raw.images / 255 - mean) / std)
            assert torch.equal(labels, raw.labels)


def test_validation_images_are_no_training_images(mnist_root):
    module = data(mnist_root, val_size=10)
    train, val = module.image_set("train"), module.image_set("val")
    whole = {tuple(image.flatten().tolist()) for image in module.read("train").images}
    parts = [{tuple(image.flatten().tolist()) for image in part.images} for part in (train, val)]
    assert parts[0] | parts[1] == whole and not parts[0] & parts[1]
    assert torch.equal(torch.bincount(val.labels), torch.ones(10, dtype=torch.int64))


def test_without_a_validation_set_training_runs_without_validating(mnist_root):
    net = Recorder()
    trainer(max_epochs=2).fit(net, data(mnist_root))
    assert len(net.seen["train"]) == 6 and net.seen["val"] == []


def test_epochs_differ_and_the_seed_decides_them(mnist_root):
    runs = []
    for global_seed, seed in ((0, 0), (1, 0), (0, 1)):
        torch.manual_seed(global_seed)
        net = Recorder()
        trainer(max_epochs=2).fit(net, data(mnist_root, seed=seed))
        runs.append(net.seen["train"])
    assert_same(runs[0], runs[1])
    assert not torch.equal(runs[0][0][0], runs[2][0][0])
    assert not torch.equal(runs[0][0][0], runs[0][3][0])


@pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path., callbacks:UserWarning")
@pytest.mark.parametrize("steps", [1, 3, 4, 5, 6])
def test_a_resumed_run_sees_what_it_would_have_seen(mnist_root, tmp_path, steps):
    """An epoch has 3 steps: checkpoints fall into the middle of epochs and onto their ends."""
    whole = Recorder()
    trainer(max_epochs=4).fit(whole, data(mnist_root))
    assert len(whole.seen["train"]) == 12

    every_step = ModelCheckpoint(tmp_path / "saved", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    first, second = Recorder(), Recorder()
    trainer(max_epochs=4, max_steps=steps, callbacks=[every_step], enable_checkpointing=True).fit(
        first, data(mnist_root)
    )
    trainer(max_epochs=4).fit(second, data(mnist_root), ckpt_path=tmp_path / "saved" / f"step={steps}.ckpt")
    assert_same(first.seen["train"] + second.seen["train"], whole.seen["train"])


def test_a_run_resumes_after_epochs_with_validation(mnist_root, tmp_path):
    whole = Recorder()
    trainer(max_epochs=3).fit(whole, data(mnist_root, val_size=5))
    first, second = Recorder(), Recorder()
    first_trainer = trainer(max_epochs=2)
    first_trainer.fit(first, data(mnist_root, val_size=5))
    first_trainer.save_checkpoint(tmp_path / "end.ckpt")
    trainer(max_epochs=3).fit(second, data(mnist_root, val_size=5), ckpt_path=tmp_path / "end.ckpt")
    assert_same(first.seen["train"] + second.seen["train"], whole.seen["train"])


def test_limited_epochs_resume_too(mnist_root, tmp_path):
    options = {"limit_train_batches": 2}
    whole = Recorder()
    trainer(max_epochs=3, **options).fit(whole, data(mnist_root))
    first, second = Recorder(), Recorder()
    first_trainer = trainer(max_epochs=1, **options)
    first_trainer.fit(first, data(mnist_root))
    first_trainer.save_checkpoint(tmp_path / "end.ckpt")
    trainer(max_epochs=3, **options).fit(second, data(mnist_root), ckpt_path=tmp_path / "end.ckpt")
    assert_same(first.seen["train"] + second.seen["train"], whole.seen["train"])


def test_overfitting_sees_the_same_images_in_every_epoch(mnist_root):
    net = Recorder()
    with pytest.warns(UserWarning, match=r"requested to overfit"):
        trainer(max_epochs=2, overfit_batches=1).fit(net, data(mnist_root, augment=()))
    assert_same(net.seen["train"][:1], net.seen["train"][1:])


def test_images_take_the_precision_of_the_trainer(mnist_root):
    net = Recorder()
    trainer(max_epochs=1, precision="64-true").fit(net, data(mnist_root))
    assert net.seen["train"][0][0].dtype == torch.float64


def test_a_trainer_tells_the_ranks_apart(mnist_root):
    class TwoProcesses:
        overfit_batches = 0.0
        world_size = 2

        def __init__(self, rank: int) -> None:
            self.global_rank = rank

    shares = []
    for rank in (0, 1):
        module = data(mnist_root)
        module.trainer = TwoProcesses(rank)  # pyright: ignore[reportAttributeAccessIssue]
        train, test = list(module.train_dataloader()), list(module.test_dataloader())
        assert sum(len(b.labels) for b in train) == 20 and sum(len(b.labels) for b in test) == 10
        shares.append((train[0].key, train[0].images))
    assert shares[0][0] != shares[1][0] and not torch.equal(shares[0][1], shares[1][1])


def test_augmentation_is_the_same_for_the_same_key(mnist_root):
    module = data(mnist_root)
    raw = module.image_set("train")
    first, again, other = (module.on_after_batch_transfer(Batch(raw.images, raw.labels, key))[0] for key in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_stage_reads_only_what_it_needs_and_reads_it_once(mnist_root, monkeypatch):
    module = data(mnist_root)
    read, splits = module.read, []
    monkeypatch.setattr(module, "read", lambda split: splits.append(split) or read(split))
    module.setup("test")
    module.setup("test")
    assert splits == ["test"]
    module.setup("fit")
    assert splits == ["test", "train"]


def test_wrong_options_are_refused(mnist_root):
    with pytest.raises(ValueError, match=r"batch_size = 0.*at least one image"):
        data(mnist_root, batch_size=0)
    with pytest.raises(ValueError, match=r"val_size = -1"):
        data(mnist_root, val_size=-1)
    with pytest.raises(TypeError, match=r"num_workers"):
        data(mnist_root, num_workers=4)
    with pytest.raises(DataError, match=r"val_size = 40 of 40 training images.*lower val_size"):
        data(mnist_root, val_size=40).setup("fit")
    with pytest.raises(DataError, match=r"MNIST has no validation images.*set val_size"):
        data(mnist_root).image_set("val")
