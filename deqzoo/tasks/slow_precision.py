"""bfloat16 saves time on one processor and costs it on another."""

import time
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from timm.optim import muon
from torch import Tensor
from torch.optim import Optimizer

_TOO_SLOW = 4.0  # with instructions for bfloat16 it is the faster one, so that noise does not come near
_zeropower = muon.zeropower_via_newtonschulz


def warn_if_slow(trainer: Trainer) -> None:
    """Says so if `trainer` would compute in bfloat16 on a CPU without instructions for it: hours for minutes."""
    if not str(trainer.precision).startswith("bf16") or trainer.strategy.root_device.type != "cpu":
        return
    times = bfloat16_slowdown()
    if times > _TOO_SLOW:
        rank_zero_warn(
            f"bfloat16 is slow on this CPU: a product of matrices takes {times:.0f} times as long in it as in float32, "
            f"and precision={trainer.precision} will slow everything down. Train in float32 instead, with "
            '`--trainer.precision 32-true` or Trainer(precision="32-true").'
        )


def keep_muon_fast(optimizer: Optimizer, task: LightningModule) -> None:
    """Lets timm's Muon orthogonalise in float32 on a CPU that is slow in bfloat16, whatever the trainer's precision.

    Muon has no option for it, so that from then on every Muon of this process does what lies on a CPU in float32. Its
    steps are the same ones, rounded less. Elsewhere, and for any other optimizer, nothing changes.

    Args:
        optimizer: of a run.
        task: of that run, attached to its trainer if the optimizer is a Muon.
    """
    if not isinstance(optimizer, muon.Muon) or task.trainer.strategy.root_device.type != "cpu":
        return
    # The first process decides for all: their steps have to be the same.
    if task.trainer.strategy.broadcast(bfloat16_slowdown()) > _TOO_SLOW:
        muon.zeropower_via_newtonschulz = _zeropower_in_float32_on_cpu


def _zeropower_in_float32_on_cpu(update: Tensor, *args: Any, **options: Any) -> Tensor:
    """Calls timm's function, which takes bfloat16 unless told otherwise. Arguments and result are those of that one."""
    if update.is_cpu:
        options["dtype"] = torch.float32
    return _zeropower(update, *args, **options)


def bfloat16_slowdown(size: int = 128, repeats: int = 5) -> float:
    """Returns how many times as long a product of matrices takes on the CPU in bfloat16 as in float32.

    Measured, as no public call of torch tells for all kinds of processors.

    Args:
        size: rows and columns. Small enough for milliseconds where bfloat16 is slow.
        repeats: of which the fastest counts.
    """
    return _seconds(torch.bfloat16, size, repeats) / _seconds(torch.float32, size, repeats)


def _seconds(dtype: torch.dtype, size: int, repeats: int) -> float:
    matrix = torch.ones(size, size, dtype=dtype, device="cpu")
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(matrix, matrix)
        times.append(time.perf_counter() - start)
    return min(times)
