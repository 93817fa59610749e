"""Nothing that exists escapes the suites."""

import importlib
import inspect
import pkgutil

import pytest

from deqzoo import adjoints, solvers
from deqzoo.adjoints import Adjoint
from deqzoo.solvers import FixedPointSolver

from .catalogue import ADJOINTS, LINEAR, SOLVERS


@pytest.mark.parametrize(
    ("package", "base", "met"), [(solvers, FixedPointSolver, SOLVERS + LINEAR), (adjoints, Adjoint, ADJOINTS)]
)
def test_every_concrete_class_of_a_package_is_exported_and_met(package, base, met):
    modules = [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    written = {
        c
        for module in modules
        for _, c in inspect.getmembers(module, inspect.isclass)
        if issubclass(c, base) and not inspect.isabstract(c) and c.__module__.startswith(package.__name__)
    }
    assert written == {type(value) for value in met}
    assert len(met) >= 5


@pytest.mark.parametrize("package", [solvers, adjoints])
def test_exports_are_sorted_and_real(package):
    assert all(name in vars(package) for name in package.__all__)
    assert len(set(package.__all__)) == len(package.__all__)
