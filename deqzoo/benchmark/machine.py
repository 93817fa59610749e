"""The machine that something is measured on: what it is called, and the time that it takes."""

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch


def device_name(device: torch.device) -> str:
    """Returns what a device calls itself, such as "AMD EPYC" or "NVIDIA H100"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8", "replace").splitlines() if cpuinfo.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def machine(device: torch.device) -> dict[str, Any]:
    """Returns "device", by its own name, and "num_threads" of the CPU."""
    return {"device": device_name(device), "num_threads": torch.get_num_threads()}


class Stopwatch:
    """Adds up the time that a device takes for what `with` blocks give it, and for nothing from before them.

    Args:
        device: that is waited for.

    Attributes:
        seconds: of all blocks so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._device = device
        self._started = 0.0

    def __enter__(self) -> Self:
        self._started = now(self._device)
        return self

    def __exit__(self, *reason: object) -> None:
        self.seconds += now(self._device) - self._started


def seconds_of(compute: Callable[[], object], device: torch.device) -> float:
    """Returns the time that a device takes for a computation."""
    with Stopwatch(device) as watch:
        compute()
    return watch.seconds


def now(device: torch.device) -> float:
    """Returns the time, in seconds since some moment, once a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
