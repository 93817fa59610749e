"""Spectral radii at the equilibria of a network."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from deqzoo.errors import UnconvergedWarning
from deqzoo.nn import equilibria, observe_equilibria
from deqzoo.nn.implicit_module import ImplicitModule
from deqzoo.stability import spectral_radius


@torch.no_grad()
def spectral_radii(model: nn.Module, inputs: Tensor) -> dict[str, Any] | None:
    """Returns the spectral radii of the Jacobians at the equilibria for `inputs` (B, ...), None without equilibria.

    Below 1, plain iteration contracts near an equilibrium. Lists have one value for each solve, in their order.

    Returns:
        "num_images", "max" and "mean", and "settled", the share of images whose eigenvalue is one to the tolerance.
    """
    given: list[tuple[ImplicitModule, tuple[Any, ...]]] = []

    def remember(module: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(module, ImplicitModule)
        given.append((module, args))

    # Solutions of differential equations are no equilibria.
    modules = {name: module for name, module in equilibria(model).items() if isinstance(module, ImplicitModule)}
    handles = [module.register_forward_pre_hook(remember) for module in modules.values()]
    try:
        with warnings.catch_warnings(), observe_equilibria(model) as seen:
            warnings.simplefilter("ignore", UnconvergedWarning)
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not given:
        return None
    solutions = [solution for name, solution in seen.solutions if name in modules]
    found = [
        spectral_radius(module.cell, solution.value, *injection)
        for (module, injection), solution in zip(given, solutions, strict=True)
    ]
    return {
        "num_images": len(inputs),
        "max": [float(radius.value.max()) for radius in found],
        "mean": [float(radius.value.mean()) for radius in found],
        "settled": [float(radius.settled.float().mean()) for radius in found],
    }
