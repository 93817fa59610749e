"""One solve, step by step: how solvers approach the equilibrium, and when the prediction settles."""

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from deqzoo.benchmark.tally import number
from deqzoo.errors import SolverError, StructureError, UnconvergedWarning
from deqzoo.nn import equilibria, observe_equilibria, runtime_kept, set_runtime
from deqzoo.solution import Status
from deqzoo.solvers import Anderson, Broyden, FixedPointSolver, Picard


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What a budget of steps leads to.

    Attributes:
        max_steps: of each equilibrium.
        evals: evaluations of f, summed over the equilibria.
        residual: the worst of them, relative; None if it is not a number.
        probabilities: of the classes in `Trace.classes`.
    """

    max_steps: int
    evals: int
    residual: float | None
    probabilities: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Path:
    """The way of one solver.

    Attributes:
        solver: its name.
        outcome: how it ended, in words.
        moments: budget after budget, up to the first that suffices.
    """

    solver: str
    outcome: str
    moments: tuple[Moment, ...]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One input on its way to the equilibrium.

    Attributes:
        rtol: that is asked for.
        classes: that are likeliest at the end, by name.
        paths: of several solvers, the network's own first.
        states: what its own solver found, by name of the equilibrium: tensors (C, H, W), (T, C) or (N,).
    """

    rtol: float
    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    states: tuple[tuple[str, Tensor], ...]


@torch.no_grad()
def trace(model: nn.Module, inputs: Tensor, *, top_k: int = 4) -> Trace:
    """Returns how solvers come to the equilibria of one input. The network's own solvers are as before afterwards.

    A moment after k steps is what the network gives with a budget of k: exactly what a user of that budget gets.

    Args:
        model: with `.net`, in eval mode, as `deqzoo.load` returns it.
        inputs: (1, C, H, W) normalised image, or (1, T) tokens, whose last one's successor is predicted.
        top_k: classes to follow.

    Raises:
        StructureError: if the network has no equilibrium, or one that is no fixed point.
    """
    net: Any = model.net
    own = _first_solver(net)
    with runtime_kept(net):
        final, seen = _run(model, inputs)
        chosen = final.topk(min(top_k, len(final))).indices
        states = tuple(
            (f"{name or 'equilibrium'}{f' {i}' if i else ''}", leaf[0].float().cpu())
            for name, solution in seen.solutions
            for i, leaf in enumerate(tree_leaves(solution.value))
        )
        paths = [_path(model, inputs, solver, chosen) for solver in _solvers(own)]
    return Trace(
        rtol=own.rtol,
        classes=tuple(_class_name(model, int(k)) for k in chosen),
        paths=tuple(path for path in paths if path is not None),
        states=states,
    )


def budgets(own: int) -> list[int]:
    """Returns 1, 2, 3, … 16 and then ever larger budgets up to `own`."""
    found = [1]
    while found[-1] < own:
        found.append(min(max(found[-1] + 1, found[-1] * 9 // 8), own))
    return found


def _solvers(own: FixedPointSolver) -> list[FixedPointSolver]:
    shared = {"rtol": own.rtol, "atol": own.atol, "max_steps": own.max_steps}
    others: list[FixedPointSolver] = [kind(**shared) for kind in (Picard, Anderson, Broyden)]
    return [own, *(solver for solver in others if type(solver) is not type(own))]


def _path(model: Any, inputs: Tensor, solver: FixedPointSolver, chosen: Tensor) -> Path | None:
    moments = []
    status = Status.MAX_STEPS
    for budget in budgets(solver.max_steps):
        set_runtime(model.net, solver=dataclasses.replace(solver, max_steps=budget))
        try:
            probabilities, seen = _run(model, inputs)
        except SolverError:  # it solves another kind of equation than this network has
            return None
        status = Status(int(seen.status))
        moments.append(
            Moment(
                max_steps=budget,
                evals=int(seen.num_steps),
                residual=number(seen.residual),
                probabilities=tuple(probabilities[chosen].tolist()),
            )
        )
        if status is not Status.MAX_STEPS:
            break
    return Path(solver=type(solver).__name__, outcome=status.describe(), moments=tuple(moments))


def _run(model: Any, inputs: Tensor) -> tuple[Tensor, Any]:
    """Returns the probabilities (K,) of an input's classes, and the solves."""
    with warnings.catch_warnings(), observe_equilibria(model.net) as seen:
        warnings.simplefilter("ignore", UnconvergedWarning)
        logits: Tensor = model(inputs)
    last = logits[0] if logits.ndim == 2 else logits[0, -1]
    return last.double().softmax(0).cpu(), seen


def _class_name(model: Any, index: int) -> str:
    cfg = model.net.pretrained_cfg
    if "input_size" not in cfg:
        return repr(model.vocabulary.decode([index]))
    names: Sequence[str] | None = cfg.get("label_names")
    return names[index] if names else str(index)


def _first_solver(net: nn.Module) -> FixedPointSolver:
    first = next((module.solver for module in equilibria(net).values()), None)
    if not isinstance(first, FixedPointSolver):
        what = "has no equilibrium" if first is None else f"integrates an ODE by {type(first).__name__}"
        raise StructureError(
            f"{type(net).__name__} {what}. A trace follows the iterations to a fixed point: choose a network with one."
        )
    return first
