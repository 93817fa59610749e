"""Jacobian regularisation."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deqzoo.fixed_point import eager
from deqzoo.stability.linearisation import linearise
from deqzoo.tree import State


@eager
def jacobian_penalty(
    f: Callable[..., State],
    z: State,
    *args: Any,
    samples: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(B,) unbiased estimates of ‖J‖²_F / N per sample, J the (N, N) Jacobian of f at z.

    E ‖Jᵀ v‖² = ‖J‖²_F for random signs v (Hutchinson 1990), which vary less than normal v and are exact where
    J Jᵀ is diagonal. A small ‖J‖_F bounds the spectral radius, so that solves and backward solves stay short
    (Bai, Koltun & Kolter 2021, "Stabilizing equilibrium models by Jacobian regularization", section 4): add a
    multiple of the mean to the loss, in some of the steps.

    Differentiable with respect to `args` and the parameters of f, if f is twice; z is taken as a constant.
    Under no_grad and in inference mode the estimate comes without a graph. Costs one evaluation of f and one
    vector-Jacobian product per sample.

    Args:
        f: the map whose fixed point z is, (z, *args) -> z-like; it must not mix samples.
        z: where to look, usually the equilibrium: a tensor (B, ...) or a nest of tuples of such tensors.
        *args: passed on to f.
        samples: random vectors to average over.
        generator: of the random vectors, on the device of z.

    Raises:
        StructureError: if z is no state, or f changes its structure or shapes.

    """
    if samples < 1:
        raise ValueError(f"jacobian_penalty got samples={samples}. An average needs at least one: samples=1.")
    differentiable = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        at_z = linearise(f, z, args)
        total = torch.zeros((), device=at_z.z.device)
        for _ in range(samples):
            bits = torch.randint(2, at_z.z.shape, generator=generator, device=at_z.z.device)
            row = at_z.transposed_times((2 * bits - 1).to(at_z.z.dtype), create_graph=differentiable)
            row = row.to(torch.promote_types(row.dtype, torch.float32))
            total = total + (row * row).sum(1)
        return total / (samples * max(1, at_z.z.shape[1]))
