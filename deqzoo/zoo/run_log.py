"""What a training run wrote down: its configuration and its curves."""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deqzoo.errors import WeightsError
from deqzoo.zoo.tables import write_csv

RUN_CONFIG = "config.yaml"
METRICS = "metrics.csv"


@dataclass(frozen=True, kw_only=True)
class RunLog:
    """The record of a run.

    Attributes:
        config: of its last training, {} if there is none.
        rows: of metrics.csv, over all trainings it was resumed in; numbers where there was something to log.
    """

    config: dict[str, Any]
    rows: list[dict[str, float]]

    def curve(self, column: str) -> list[tuple[float, float]]:
        """Returns (step, value) wherever a column has a value."""
        return [(row["step"], row[column]) for row in self.rows if column in row and "step" in row]


def read_run(checkpoint: Path) -> RunLog:
    """Returns what lies beside a checkpoint, in version_<n> there, or above it; empty where nothing does.

    A run that was resumed has one log for each time. It repeats steps that were logged but not saved: what it
    wrote later holds.
    """
    here = checkpoint.absolute().parent
    versions = [path for path in here.glob("version_*") if path.is_dir()]
    versions.sort(key=lambda folder: [int(n) for n in re.findall(r"\d+", folder.name)])
    logs = [(folder, read_rows(folder / METRICS)) for folder in (here, *versions)]
    trained = [(folder, rows) for folder, rows in logs if any("train/loss" in row for row in rows)]
    merged = {(*sorted(row), row.get("step")): row for _, rows in trained for row in rows}
    described = [folder for folder, _ in reversed(trained)] + [here, *reversed(versions), *here.parents[:2]]
    config = next((folder / RUN_CONFIG for folder in described if (folder / RUN_CONFIG).is_file()), None)
    return RunLog(
        config={} if config is None else read_settings(config),
        rows=sorted(merged.values(), key=lambda row: row.get("step", 0.0)),
    )


def write_rows(rows: Iterable[dict[str, float]], path: Path) -> None:
    """Writes a log as CSV, the columns in the order of their names after epoch and step."""
    rows = list(rows)
    names = sorted({name for row in rows for name in row} - {"epoch", "step"})
    write_csv(({k: f"{v:.6g}" for k, v in row.items()} for row in rows), path, columns=["epoch", "step", *names])


def read_settings(path: Path) -> dict[str, Any]:
    """Returns the configuration of a run, {} if the file holds none.

    Raises:
        WeightsError: if it is damaged.
    """
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path} is damaged: {' '.join(str(error).split())}. It should be the YAML that `deqzoo fit` wrote: "
            "restore it, or move it away and give the checkpoint's model another way."
        ) from error
    return found if isinstance(found, dict) else {}


def training_budget(settings: Mapping[str, Any]) -> int | None:
    """Returns the most evaluations that training spent on a solve, None if it solved to a tolerance."""
    callbacks = settings.get("trainer", {}).get("callbacks") or []
    solvers = [(callback.get("init_args") or {}).get("solver") or {} for callback in callbacks]
    budgets = [solver.get("init_args", {}) for solver in solvers]
    return max((budget["max_steps"] for budget in budgets if budget.get("rtol") == 0), default=None)


def read_rows(path: Path) -> list[dict[str, float]]:
    """Returns the rows of a log as far as they hold numbers, none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(file)]
    return [{k: v for k, v in row.items() if v is not None} for row in rows]


def _number(text: Any) -> float | None:
    """Returns the number in a cell, None for an empty one or for half a one, which a run that was killed leaves."""
    try:
        return float(text) if text else None
    except (ValueError, TypeError):  # the latter for cells beyond the last column
        return None
