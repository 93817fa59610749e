"""bfloat16 saves time on one processor and costs it on another."""

import time
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from timm.optim import muon
from torch.optim import Optimizer

_TOO_SLOW = 4.0  # with instructions for bfloat16 it is the faster one, so that noise does not come near


@rank_zero_only
def warn_if_slow(trainer: Trainer) -> None:
    """Says so if `trainer` would compute in bfloat16 on a CPU without instructions for it: hours for minutes."""
    if not str(trainer.precision).startswith("bf16") or trainer.strategy.root_device.type != "cpu":
        return
    times = bfloat16_slowdown()
    if times > _TOO_SLOW:
        rank_zero_warn(
            f"This CPU has no instructions for bfloat16: a product of matrices takes {times:.0f} times as long in it "
            f"as in float32, and precision={trainer.precision} will slow everything down. Train in float32 instead, "
            'with `--trainer.precision 32-true` or Trainer(precision="32-true").'
        )


def keep_muon_fast(optimizer: Optimizer, device: torch.device) -> None:
    """Lets timm's Muon orthogonalise in float32 on a CPU that is slow in bfloat16, whatever the trainer's precision.

    Elsewhere, and for any other optimizer, nothing changes. The steps are the same ones, rounded less.

    Args:
        optimizer: of a run.
        device: on which it runs.
    """
    if not isinstance(optimizer, muon.Muon) or device.type != "cpu" or bfloat16_slowdown() <= _TOO_SLOW:
        return
    # Muon has no option for it: its steps look the function up, which takes bfloat16 unless told otherwise.
    name = "zeropower_via_newtonschulz"
    in_bfloat16 = getattr(muon, name)
    in_float32 = partial(in_bfloat16, dtype=torch.float32)

    def before(*_: Any) -> None:
        setattr(muon, name, in_float32)

    def after(*_: Any) -> None:
        setattr(muon, name, in_bfloat16)

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


def bfloat16_slowdown(size: int = 128, repeats: int = 5) -> float:
    """Returns how many times as long a product of matrices takes on the CPU in bfloat16 as in float32.

    Measured, as no public call of torch tells for all kinds of processors.

    Args:
        size: rows and columns. Small enough for milliseconds where bfloat16 is slow.
        repeats: of which the fastest counts.
    """
    return _seconds(torch.bfloat16, size, repeats) / _seconds(torch.float32, size, repeats)


def _seconds(dtype: torch.dtype, size: int, repeats: int) -> float:
    matrix = torch.ones(size, size, dtype=dtype)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(matrix, matrix)
        times.append(time.perf_counter() - start)
    return min(times)
