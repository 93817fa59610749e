"""What a prediction costs: executed operations, and time on a machine that is named."""

import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from deqzoo.benchmark.machine import machine, seconds_of
from deqzoo.benchmark.rounds import peak_mb
from deqzoo.benchmark.tally import percentile
from deqzoo.errors import UnconvergedWarning


@torch.no_grad()
def executed_flops(model: nn.Module, inputs: Tensor) -> dict[str, Any]:
    """Returns the floating-point operations that are executed for each of `inputs` (B, ...), one at a time.

    Counted, not estimated: a sample that needs more evaluations costs more. A multiplication and an addition are two
    operations; those of convolutions and matrix products count.

    Returns:
        "num_images", "mean" and "p95".
    """
    counts = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconvergedWarning)
        for sample in inputs:
            with FlopCounterMode(display=False) as counter:
                model(sample[None])
            counts.append(counter.get_total_flops())
    flops = torch.tensor(counts, dtype=torch.float64)
    return {"num_images": len(counts), "mean": float(flops.mean()), "p95": percentile(flops, 0.95)}


@torch.no_grad()
def latency(model: nn.Module, inputs: Tensor, *, warmups: int = 3) -> dict[str, Any]:
    """Returns how long single inputs of `inputs` (B, ...) take, in milliseconds, and where.

    Returns:
        "latency_p50_ms" and "latency_p95_ms"; what `machine` says of where, and the "kind" of the device.
    """
    device = inputs.device
    seconds = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconvergedWarning)
        for sample in [*inputs[:1].expand(warmups, *inputs.shape[1:]), *inputs]:
            seconds.append(seconds_of(partial(model, sample[None]), device))
    times = torch.tensor(seconds[warmups:], dtype=torch.float64) * 1e3
    return {
        **machine(device),
        "kind": device.type,
        "latency_p50_ms": percentile(times, 0.5),
        "latency_p95_ms": percentile(times, 0.95),
    }


@torch.no_grad()
def inference_memory(model: nn.Module, inputs: Tensor) -> dict[str, Any]:
    """Returns the most memory that a prediction for `inputs` (B, ...) takes at once, beside the weights.

    Returns:
        "peak_mb", in MiB, and "batch_size".
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconvergedWarning)
        return {"peak_mb": peak_mb(lambda: model(inputs), inputs.device), "batch_size": len(inputs)}
