"""Every pretrained model of a data set side by side."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from deqzoo.benchmark.evaluate import evaluate
from deqzoo.benchmark.inputs import input_spec, prepared
from deqzoo.benchmark.machine import machine
from deqzoo.benchmark.rounds import Work, in_turns, peak_mb
from deqzoo.data import ImageData
from deqzoo.errors import UnconvergedWarning, UnknownModelError, listed
from deqzoo.models import INPUT_SPECS, canonical, entry
from deqzoo.zoo import list_models, load
from deqzoo.zoo.manifest import embedded_folder, published
from deqzoo.zoo.release import RESULTS_FILE, read_results

_WARMUPS, _REPEATS = 1, 7


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model of a comparison. What is not known is None.

    Attributes:
        name: of the model.
        dataset: that all of them are for.
        num_parameters: of its network.
        num_images: that the accuracy is of.
        accuracy: in per cent.
        accuracy_low: lower end of its 95 % interval (Wilson).
        accuracy_high: upper end.
        evals_mean: evaluations of f for each image, summed over equilibria; None for models without any.
        converged: share of images of which every equilibrium reached the tolerance, likewise; None with fixed budgets
            too.
        rtol: that tolerance, None for models without equilibria.
        images_per_second: of the network alone.
        images_per_second_low: first quartile of the turns; None for figures of a release.
        images_per_second_high: third quartile, likewise.
        memory_mb: the most memory that an image takes in its batch, in MiB, beside the weights.
        batch_size: of speed and memory.
        device: that they are of, by its own name.
        num_threads: of the CPU.
    """

    name: str
    dataset: str
    num_parameters: int
    num_images: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    evals_mean: float | None = None
    converged: float | None = None
    rtol: float | None = None
    images_per_second: float | None = None
    images_per_second_low: float | None = None
    images_per_second_high: float | None = None
    memory_mb: float | None = None
    batch_size: int | None = None
    device: str | None = None
    num_threads: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Returns the figures as one flat object of JSON."""
        return asdict(self)

    @property
    def circumstances(self) -> tuple[str, int | None, int | None] | None:
        """What figures of speed have to share to be compared: device, threads of the CPU, batches."""
        return None if self.device is None else (self.device, self.num_threads, self.batch_size)


_COST = ("images_per_second", "memory_mb", "batch_size", "device", "num_threads")
_ACCURACY = ("num_images", "accuracy", "accuracy_low", "accuracy_high", "evals_mean", "converged", "rtol")


def chosen_models(wanted: str) -> list[str]:
    """Returns the pretrained image classifiers that a data set or a pattern means: all for the same data set.

    Args:
        wanted: the name of a data set, such as "mnist", or a pattern of names with * and ?, such as "pcdeq-*".

    Raises:
        UnknownModelError: if it means none, or such for several data sets.
    """
    classifiers = list_models(pretrained=True, task="image-classification")
    sets = sorted({entry(name).dataset for name in classifiers})
    if canonical(wanted) in INPUT_SPECS:
        found = [name for name in classifiers if entry(name).dataset == canonical(wanted)]
    else:
        found = [name for name in list_models(wanted) if name in classifiers]
    if not found:
        if canonical(wanted) in INPUT_SPECS:
            why = "no model for it has published weights"
        elif untrained := list_models(wanted):
            why = f"{listed(untrained, 3)}: no image classifiers with published weights"
        else:
            why = "no data set and no model has that name"
        raise UnknownModelError(
            f"{wanted!r} leaves nothing to compare ({why}). Models are compared by the weights that are published: "
            f"name a data set that has some ({listed(sets, 9)}), or a pattern of names, such as "
            f"{classifiers[0] if classifiers else 'pcdeq-*'}*."
        )
    met = sorted({entry(name).dataset for name in found})
    if len(met) > 1:
        raise UnknownModelError(
            f"{wanted!r} means models for {listed(met, 9)}. Accuracies on different images do not compare: name one "
            "of these data sets, or a narrower pattern."
        )
    return found


def compare(
    names: Sequence[str],
    *,
    data: ImageData | None = None,
    speed_on: ImageData | None = None,
    device: str | torch.device = "cpu",
    batch_size: int = 64,
    progress: bool = False,
) -> list[Row]:
    """Returns a row for each model, best accuracy first.

    Args:
        names: of pretrained models, all for the same data set.
        data: the test set to measure accuracy and convergence on; None takes the figures that were published.
        speed_on: whose first test images speed and memory are measured for, of all models in turns in one run; None
            takes the published figures, if all of them are of the same machine, threads and batches.
        device: where to measure.
        batch_size: of speed and memory.
        progress: whether to show a bar on a terminal's stderr.

    Raises:
        WeightsError: if weights are missing or damaged.
        DataError: if the data cannot be read, or has other labels than the models.
    """
    rows = {name: _published(name) for name in names}
    if len({row.circumstances for row in rows.values()} - {None}) > 1:
        rows = {name: replace(row, **dict.fromkeys(_COST)) for name, row in rows.items()}
    device = torch.device(device)
    if data is not None or speed_on is not None:
        models: dict[str, Any] = {name: load(name).to(device) for name in names}
        turns = (_WARMUPS + _REPEATS) * (speed_on is not None) + (data is not None)
        with tqdm(total=turns * len(names), desc="comparing", unit="turn", disable=None if progress else True) as bar:
            if data is not None:
                for name, model in models.items():
                    found = evaluate(model, data, device=device).as_dict()
                    rows[name] = replace(rows[name], **{key: found[key] for key in _ACCURACY})
                    bar.update()
            if speed_on is not None:
                for name, cost in _costs(models, speed_on, device, batch_size, bar).items():
                    rows[name] = replace(rows[name], **cost)
    return sorted(rows.values(), key=lambda row: (-row.accuracy, row.num_parameters))


def _published(name: str) -> Row:
    record = published(name)
    assert record is not None
    folder = embedded_folder(name)
    # Releases on the Hub have theirs in the manifest, so that nothing needs to be fetched.
    embedded = record.source == "embedded" and (folder / RESULTS_FILE).is_file()
    results: Mapping[str, Any] = read_results(folder) if embedded else {"evaluation": record.results}
    evaluation, speed, memory = (results.get(key) or {} for key in ("evaluation", "speed", "memory"))
    return Row(
        name=name,
        dataset=entry(name).dataset,
        num_parameters=evaluation["num_parameters"],
        **{key: evaluation[key] for key in _ACCURACY},
        images_per_second=speed.get("images_per_second"),
        memory_mb=memory["peak_mb"] / memory["batch_size"] if memory else None,
        batch_size=speed.get("batch_size"),
        device=speed.get("device"),
        num_threads=speed.get("num_threads"),
    )


@torch.no_grad()
def _costs(
    models: Mapping[str, Any], data: ImageData, device: torch.device, batch_size: int, bar: tqdm
) -> dict[str, dict[str, Any]]:
    """Returns speed and memory of each model for one batch, all of them in turns."""
    batch = data.image_set("test").images[:batch_size].to(device)
    works = {name: Work(run=partial(model, prepared(batch, input_spec(model.net)))) for name, model in models.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconvergedWarning)  # the share that converged is a figure of its own
        times = in_turns(works, repeats=_REPEATS, warmups=_WARMUPS, device=device, bar=bar)
        memory = {name: peak_mb(work.run, device) for name, work in works.items()}
    return {
        name: {
            "images_per_second": 1e3 * len(batch) / times[name].median,
            "images_per_second_low": 1e3 * len(batch) / times[name].high,
            "images_per_second_high": 1e3 * len(batch) / times[name].low,
            "memory_mb": memory[name] / len(batch),
            "batch_size": len(batch),
            **machine(device),
        }
        for name in works
    }
