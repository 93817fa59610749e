"""What the zoo has: names and descriptions."""

import fnmatch
from dataclasses import dataclass, field
from typing import Any

import torch

from deqzoo.models import INPUT_SPECS, canonical, entries, entry
from deqzoo.models.text_spec import TEXT_SPECS
from deqzoo.zoo.figures import evaluation_rows
from deqzoo.zoo.layout import LICENSE, runtime_of
from deqzoo.zoo.manifest import published
from deqzoo.zoo.text_figures import UNITS


def list_models(pattern: str = "*", *, pretrained: bool | None = None, task: str | None = None) -> list[str]:
    """Returns the names of models, in the order people count in.

    Args:
        pattern: with * and ? as in file names, in any spelling.
        pretrained: only those with (True) or without (False) published weights.
        task: only those for a task, such as "image-classification".

    Raises:
        ValueError: for a task that no model is for.
    """
    tasks = sorted({e.task for e in entries()})
    if task is not None and canonical(task) not in tasks:
        raise ValueError(f"There is no task {task!r}. Models are for {' or '.join(tasks)}: choose one of these.")
    return [
        e.name
        for e in entries()
        if fnmatch.fnmatchcase(e.name, canonical(pattern))
        and (pretrained is None or pretrained == (published(e.name) is not None))
        and (task is None or canonical(task) == e.task)
    ]


@dataclass(frozen=True, kw_only=True)
class Description:
    """A model of the zoo in words; print it.

    Attributes:
        name: canonical.
        description: one sentence.
        task: what it does.
        dataset: what it is meant for.
        inputs: what it takes.
        outputs: what it gives.
        num_parameters: of its network.
        solver: of each kind of equilibrium in it.
        adjoint: likewise.
        recipe: the file that trains it.
        pretrained: where its weights come from, None if it has none.
        license: of the weights.
        data_license: of the data set.
        results: measured figures of the weights.
    """

    name: str
    description: str
    task: str
    dataset: str
    inputs: str
    outputs: str
    num_parameters: int
    solver: tuple[str, ...]
    adjoint: tuple[str, ...]
    recipe: str | None
    pretrained: str | None
    license: str
    data_license: str
    results: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        how = "load" if self.pretrained else "create_model"
        rows = [
            ("task", f"{self.task} ({self.dataset})"),
            ("inputs", self.inputs),
            ("outputs", self.outputs),
            ("parameters", f"{self.num_parameters:,}"),
            ("solver", "; ".join(self.solver) or "none"),
            ("adjoint", "; ".join(self.adjoint) or "none"),
            ("recipe", self.recipe or "none"),
            ("weights", f"{self.pretrained}, {self.license}" if self.pretrained else "none published"),
            ("data licence", self.data_license),
            *(evaluation_rows(self.results)[:-1] if self.results else ()),
            ("in Python", f'deqzoo.{how}("{self.name}")'),
        ]
        width = max(len(key) for key, _ in rows)
        return "\n".join([f"{self.name}: {self.description}", *(f"  {key:<{width}}  {value}" for key, value in rows)])


def describe(name: str) -> Description:
    """Returns what is known of a model, in any spelling of its name.

    Raises:
        UnknownModelError: if there is no such name.
    """
    found = entry(name)
    with torch.random.fork_rng(devices=[]):
        net: Any = found.build()
    solvers, adjoints = runtime_of(net)
    inputs, outputs, data_license = _sizes(found.dataset, net)
    record = published(found.name)
    return Description(
        name=found.name,
        description=found.description,
        task=found.task,
        dataset=found.dataset,
        inputs=inputs,
        outputs=outputs,
        num_parameters=sum(p.numel() for p in net.parameters()),
        solver=tuple(solvers),
        adjoint=tuple(adjoints),
        recipe=f"recipes/{found.recipe}.yaml" if found.recipe else None,
        pretrained=None
        if record is None
        else "in the package"
        if record.source == "embedded"
        else f"Hub: {record.repo}",
        license=LICENSE,
        data_license=data_license,
        results=dict(record.results) if record else {},
    )


def _sizes(dataset: str, net: Any) -> tuple[str, str, str]:
    """Returns what a network takes, what it gives, and the licence of its data, in words."""
    if dataset in TEXT_SPECS:
        spec = TEXT_SPECS[dataset]
        inputs = f"up to {net.context:,} tokens of {net.vocab_size:,} kinds, each a {UNITS[spec.level]}"
        return inputs, f"{net.vocab_size:,} logits for the token after each", spec.license
    if dataset in INPUT_SPECS:
        spec = INPUT_SPECS[dataset]
        return f"{spec.channels}x{spec.size[0]}x{spec.size[1]} images", f"{net.num_classes} logits", spec.license
    unknown = "see the model's documentation"
    return unknown, unknown, "see the data set"
