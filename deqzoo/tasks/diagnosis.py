"""Where training went wrong: which weights, which solve, how far from an equilibrium, how unstable there."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle

from deqzoo.errors import listed
from deqzoo.nn import ImplicitModule, Observed, equilibria
from deqzoo.solution import Status
from deqzoo.stability import spectral_radius


class RecentSolves:
    """The latest solve of each equilibrium, with what was injected into it.

    No tensor is copied: those that a batch needs anyway are kept until `forget`.
    """

    def __init__(self) -> None:
        self._solves: dict[str, tuple[ImplicitModule, tuple[Any, ...], Any]] = {}
        self._hooks: list[RemovableHandle] = []

    def watch(self, net: nn.Module) -> None:
        """Keeps the solves of `net` from now on."""
        self.forget()
        for name, module in equilibria(net).items():
            if isinstance(module, ImplicitModule):
                self._hooks.append(module.register_forward_hook(partial(self._keep, name)))

    def forget(self) -> None:
        """Leaves the network and the tensors alone."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._solves = {}

    def radius(self, name: str) -> Tensor | None:
        """Returns (B,) the spectral radius of a cell's Jacobian where its solve ended; None for an unknown one."""
        if name not in self._solves:
            return None
        module, injection, z = tree_map_only(Tensor, torch.Tensor.detach, self._solves[name])
        # Not the cell itself: that may be compiled, and compiled maps have no second derivative.
        return spectral_radius(module.cell.forward, z, *injection, steps=48).value

    def _keep(self, name: str, module: nn.Module, injection: tuple[Any, ...], z: Any) -> None:
        assert isinstance(module, ImplicitModule)
        self._solves[name] = module, injection, z


def diagnose(net: nn.Module, images: Tensor | None, seen: Observed, recent: RecentSolves) -> str:
    """Returns sentences on what is NaN or infinite, and on the worst solve.

    Args:
        net: in the state in which it went wrong.
        images: of the batch, (B, …), if it has images.
        seen: the solves of the batch.
        recent: the same solves, with what was injected into them.
    """
    return f"{_nonfinite(net, images, seen)} {_worst_solve(seen, recent)}".rstrip()


def _nonfinite(net: nn.Module, images: Tensor | None, seen: Observed) -> str:
    inputs = ""
    if images is not None:
        bad_images = int((~images.isfinite().flatten(1).all(1)).sum())
        inputs = f"Images with NaN or inf: {bad_images} of {len(images)}. "
    weights = [name for name, p in net.named_parameters() if not bool(p.isfinite().all())]
    buffers = nonfinite_buffers(net)
    solves = [
        f"{name} ({count} of {len(solution.stats.status)} samples)"
        for name, solution in seen.solutions
        if (count := int((solution.stats.status == Status.NONFINITE).sum()))
    ]
    statistics = f" Statistics: {listed(buffers, 3)}." if buffers else ""
    return f"{inputs}Weights: {listed(weights, 5)}. Solves: {listed(solves, 5)}.{statistics}"


def nonfinite_buffers(net: nn.Module) -> list[str]:
    """Returns the names of buffers, such as BatchNorm's statistics, that hold NaN or infinity."""
    return [name for name, b in net.named_buffers() if b.is_floating_point() and not bool(b.isfinite().all())]


def _worst_solve(seen: Observed, recent: RecentSolves) -> str:
    if not seen.solutions:
        return ""
    residuals = [(solution.stats.residual.nan_to_num(torch.inf, torch.inf), name) for name, solution in seen.solutions]
    residual, name = max(residuals, key=lambda each: float(each[0].max()))
    text = (
        f"Worst solve: {name}, with residuals ‖f(z) − z‖ / ‖f(z)‖ of {float(residual.median()):.2g} in the median and "
        f"{float(residual.max()):.2g} at most"
    )
    try:
        radius = recent.radius(name)
    except (RuntimeError, ValueError) as error:  # the diagnosis of a failure must not become another one
        return f"{text}; no spectral radius could be found ({str(error).splitlines()[0]})."
    if radius is None:
        return f"{text}."
    finite = radius[radius.isfinite()]
    if not len(finite):
        return f"{text}; the Jacobian there is not finite."
    expands = int((finite > 1).sum())
    return (
        f"{text}; the spectral radius of its Jacobian there is {float(finite.median()):.2f} in the median and "
        f"{float(finite.max()):.2f} at most, above 1 (where plain iteration expands) in {expands} of {len(radius)} "
        "samples."
    )
