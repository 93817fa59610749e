"""Solvers and adjoints are values: frozen, comparable, picklable, and strict about what they are given."""

import copy
import dataclasses
import math
import pickle

import pytest

from deqzoo.adjoints import Implicit, Phantom
from deqzoo.solvers import GMRES, Anderson, Broyden, NewtonKrylov, Picard, Reversible

from .catalogue import every_linear_solver, every_value


@every_value
def test_a_value_is_frozen_hashable_and_survives_copies(value):
    fields = dataclasses.fields(value)
    for field in fields:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, 1)
    for twin in (copy.deepcopy(value), pickle.loads(pickle.dumps(value)), dataclasses.replace(value)):
        assert twin == value
        assert hash(twin) == hash(value)
    assert type(value)() == type(value)()
    assert repr(value).startswith(type(value).__name__ + "(")
    assert all(f"{field.name}=" in repr(value) for field in fields)


@every_value
def test_unknown_keywords_and_positions_are_type_errors(value):
    with pytest.raises(TypeError, match="tolerance"):
        type(value)(tolerance=1e-3)
    with pytest.raises(TypeError):
        type(value)(1e-3)


@every_linear_solver
@pytest.mark.parametrize("name", ["rtol", "atol"])
@pytest.mark.parametrize("bad", [-1e-9, math.inf, math.nan])
def test_bad_tolerances_are_named(solver, name, bad):
    with pytest.raises(ValueError, match=rf"{type(solver).__name__} got {name}={bad}.*finite.*use {name}="):
        type(solver)(**{name: bad})


@every_linear_solver
@pytest.mark.parametrize("name", ["max_steps", "patience"])
@pytest.mark.parametrize("bad", [0, -3])
def test_bad_budgets_are_named(solver, name, bad):
    with pytest.raises(ValueError, match=rf"{type(solver).__name__} got {name}={bad}.*at least one"):
        type(solver)(**{name: bad})


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (Picard, {"damping": 0.0}),
        (Picard, {"damping": 1.5}),
        (Picard, {"check_every": 0}),
        (Anderson, {"memory": 0}),
        (Anderson, {"damping": -0.1}),
        (Anderson, {"ridge": 0.0}),
        (Anderson, {"period": 0}),
        (Broyden, {"memory": 0}),
        (GMRES, {"memory": 0}),
        (NewtonKrylov, {"forcing": 0.0}),
        (NewtonKrylov, {"forcing": 1.0}),
        (NewtonKrylov, {"inner_steps": 0}),
        (Reversible, {"damping": 1.0}),
        (Reversible, {"damping": 0.0}),
        (Phantom, {"steps": 0}),
        (Phantom, {"damping": 0.0}),
    ],
    ids=str,
)
def test_a_hyperparameter_out_of_range_is_named(cls, kwargs):
    ((name, value),) = kwargs.items()
    with pytest.raises(ValueError, match=rf"{cls.__name__} got {name}={value}\. .+"):
        cls(**kwargs)


def test_fixed_budget_means_no_tolerance_at_all():
    assert Picard(rtol=0).fixed_budget
    assert not Picard(rtol=0, atol=1e-6).fixed_budget
    assert not Picard().fixed_budget


def test_values_with_different_hyperparameters_differ():
    assert Anderson(memory=3) != Anderson()
    assert Implicit(solver=Picard()) != Implicit()
    assert Picard() != Anderson()
