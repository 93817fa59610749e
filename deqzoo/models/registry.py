"""Names of models: `@register` puts a configuration into the zoo, `entry` finds it again."""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict, TypeVar

from torch import nn

from deqzoo.adjoints import Adjoint
from deqzoo.errors import UnknownModelError
from deqzoo.models.paper import Paper
from deqzoo.ode import Integrator, ODEAdjoint
from deqzoo.solvers import FixedPointSolver


class Sizes(TypedDict, total=False):
    """The sizes of input and output that every image classifier takes."""

    num_classes: int
    in_chans: int


class SolverRuntime(TypedDict, total=False):
    """How to solve. It is no part of the architecture: weights fit whatever it is."""

    solver: FixedPointSolver
    adjoint: Adjoint


class Runtime(SolverRuntime, Sizes, total=False):
    """What every image classifier with equilibria takes."""


class ODERuntime(Sizes, total=False):
    """What every image classifier with ODEs takes: how to integrate, and the sizes."""

    solver: Integrator
    adjoint: ODEAdjoint


class TextSizes(TypedDict, total=False):
    """The size that every language model takes."""

    vocab_size: int


class TextRuntime(SolverRuntime, TextSizes, total=False):
    """What every language model with an equilibrium takes: how to solve, and the size of the vocabulary."""


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A named configuration.

    Attributes:
        name: canonical, such as "pcdeq-mnist".
        build: makes the network, untrained; takes the keywords of `Runtime`, `ODERuntime`, `Sizes`,
            `TextRuntime` or `TextSizes`.
        task: what it does, such as "image-classification".
        dataset: what it is meant for, a key of `INPUT_SPECS` for images, of `TEXT_SPECS` for text.
        recipe: the recipe that trains it, None where there is none.
        description: one sentence.
        paper: that the architecture is from, None if it is from none.

    """

    name: str
    build: Callable[..., nn.Module]
    task: str
    dataset: str
    recipe: str | None
    description: str
    paper: Paper | None


_ENTRIES: dict[str, ModelEntry] = {}
_Build = TypeVar("_Build", bound=Callable[..., nn.Module])


def register(
    *, task: str, dataset: str, recipe: str | None = None, paper: Paper | None = None
) -> Callable[[_Build], _Build]:
    """Returns a decorator that registers a configuration under its function's name.

    Args:
        task: what it does, such as "image-classification".
        dataset: what it is meant for.
        recipe: the recipe that trains it.
        paper: that the architecture is from.

    Raises:
        ValueError: if the name is taken or the function has no docstring to describe it.

    """

    def decorate(build: _Build) -> _Build:
        name = canonical(build.__name__)
        if name in _ENTRIES:
            raise ValueError(f"The name {name!r} is registered already. Names are unique: choose another.")
        if not build.__doc__:
            raise ValueError(
                f"{build.__name__} has no docstring. Its first line describes the model to users: add one."
            )
        _ENTRIES[name] = ModelEntry(
            name=name,
            build=build,
            task=task,
            dataset=dataset,
            recipe=recipe,
            description=build.__doc__.strip().splitlines()[0],
            paper=paper,
        )
        return build

    return decorate


def canonical(name: str) -> str:
    """Returns the one spelling of a model's name: lower case, words joined by hyphens."""
    return re.sub(r"[-_\s]+", "-", name.strip()).lower()


def entry(name: str) -> ModelEntry:
    """Returns the configuration of that name, in any spelling.

    Raises:
        UnknownModelError: with the nearest names, if there is none.

    """
    found = _ENTRIES.get(canonical(name))
    if found is None:
        near = difflib.get_close_matches(canonical(name), _ENTRIES, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "deqzoo.list_models() names them all."
        raise UnknownModelError(f"No model is called {name!r}. {hint}")
    return found


def entries() -> tuple[ModelEntry, ...]:
    """Returns every configuration, in the order people count in (tiny2 before tiny10)."""
    return tuple(sorted(_ENTRIES.values(), key=lambda e: _natural(e.name)))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
