"""What makes two runs comparable: everything but seed, machine and where the data lie."""

import copy
from typing import Any

import pytest

from deqzoo.benchmark.same_recipe import first_difference


@pytest.fixture
def settings() -> dict[str, Any]:
    solver = {"class_path": "deqzoo.solvers.Picard", "init_args": {"max_steps": 6}}
    return {
        "seed_everything": 0,
        "model": {"init_args": {"net": {"init_args": {"name": "mdeq-cifar-tiny"}}, "schedule": None}},
        "trainer": {"max_epochs": 70, "devices": 1, "callbacks": [{"init_args": {"solver": solver}}]},
        "data": {"class_path": "deqzoo.data.CIFAR10", "init_args": {"root": "data", "batch_size": 128}},
    }


def test_seed_machine_and_source_are_no_part_of_a_recipe(settings: dict[str, Any]):
    other = copy.deepcopy(settings)
    other["seed_everything"] = 1
    other["trainer"] |= {"devices": "auto", "default_root_dir": "runs/1"}
    other["data"]["class_path"] = "deqzoo.data.ImageFolder"
    other["data"]["init_args"] |= {"root": "elsewhere", "like": "cifar10"}
    other["ckpt_path"] = "last"
    assert first_difference(settings, other) is None
    assert first_difference(settings, {}) is None


def test_everything_else_is(settings: dict[str, Any]):
    def changed(*path: Any, to: Any) -> dict[str, Any]:
        other: Any = copy.deepcopy(settings)
        node = other
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = to
        return other

    solver = ("trainer", "callbacks", 0, "init_args", "solver")
    for path, old, new in (
        (("trainer", "max_epochs"), 70, 50),
        ((*solver, "init_args", "max_steps"), 6, 7),
        ((*solver, "class_path"), "deqzoo.solvers.Picard", "deqzoo.solvers.Anderson"),
        (("model", "init_args", "schedule"), None, {"class_path": "deqzoo.tasks.WarmupCosine"}),
    ):
        dotted = ".".join(str(key) for key in path)
        assert first_difference(settings, changed(*path, to=new)) == (dotted, old, new)
    callbacks = settings["trainer"]["callbacks"]
    assert first_difference(settings, changed("trainer", "callbacks", to=[])) == ("trainer.callbacks", callbacks, [])
    assert first_difference(settings, changed("data", "init_args", "batch_size", to=64)) == ("data.batch_size", 128, 64)
