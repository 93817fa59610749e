"""A network and data small enough to train within a second."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn

from deqzoo.adjoints import Implicit
from deqzoo.nn import Cell, ImplicitModule
from deqzoo.solvers import Picard

NUM_CLASSES = 6


class Batches:
    """Batches in memory. Lightning would take a bare list of them for a list of loaders."""

    def __init__(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        self.batches = list(batches)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.batches)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.batches[index]


class TinyCell(Cell):
    """z ↦ tanh(W z + x) of 8 components."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8, bias=False)
        nn.init.orthogonal_(self.linear.weight, gain=0.5)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return torch.tanh(self.linear(z) + x)

    def initial_state(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return torch.zeros_like(x)


class TinyNet(nn.Module):
    """An equilibrium between a BatchNorm, so that there are buffers, and a head."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_classes = NUM_CLASSES
        self.pretrained_cfg = {"input_size": (1, 4, 4), "mean": (0.5,), "std": (0.25,)}
        self.entry = nn.Linear(16, 8)
        self.norm = nn.BatchNorm1d(8)
        self.dropout = nn.Dropout(dropout)
        self.equilibrium = ImplicitModule(
            TinyCell(), solver=Picard(rtol=1e-4), adjoint=Implicit(solver=Picard(rtol=1e-4))
        )
        self.fc = nn.Linear(8, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = self.equilibrium(self.norm(self.entry(x.flatten(1))))
        assert isinstance(z, Tensor)
        return self.fc(self.dropout(z))


class PixelsAsLogits(nn.Module):
    """Returns its images as logits: no equilibrium, nothing to learn."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def make_batches(num_batches: int = 6, size: int = 32, *, seed: int = 0) -> Batches:
    """Returns noisy images (size, 1, 4, 4) in which each class has pixels of its own, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(NUM_CLASSES, 1, 4, 4, generator=torch.Generator().manual_seed(99))
    batches = []
    for _ in range(num_batches):
        labels = torch.randint(NUM_CLASSES, (size,), generator=generator)
        noise = torch.randn(size, 1, 4, 4, generator=generator)
        batches.append((patterns[labels] + 0.3 * noise, labels))
    return Batches(batches)


class TinyData(LightningDataModule):
    """The same batches in every epoch."""

    def train_dataloader(self) -> Batches:
        return make_batches()

    def val_dataloader(self) -> Batches:
        return make_batches(2, seed=1)

    def test_dataloader(self) -> Batches:
        return make_batches(2, seed=2)


def make_trainer(**options: Any) -> Trainer:
    """Returns a trainer that writes nothing."""
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    }
    return Trainer(**{**quiet, **options})


def train(task: LightningModule, batches: Batches, **options: Any) -> Trainer:
    """Trains without validation and returns the trainer, which has the metrics."""
    trainer = make_trainer(limit_val_batches=0, **options)
    trainer.fit(task, batches, batches)
    return trainer
