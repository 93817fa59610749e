"""Tables of solvers and adjoints, and which pair to take."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from deqzoo.benchmark.board_files import header
from deqzoo.zoo.rounding import at_least, at_most, at_most_significant

GOOD_ENOUGH = 1e-2
"""The largest relative error of a gradient that is recommended."""


def pairs_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns all pairs as a Markdown table."""
    names = ("model", "solver", "adjoint", "converged", "evaluations", "backward", "gradient error", "forward, ms")
    names = (*names, "forward and backward, ms", "MiB")
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        told = [f"{row['model']}{' (random weights)' if row['weights'] == 'random' else ''}"]
        told += [row["solver"], row["adjoint"]]
        if row["failure"] is not None:
            cells = [*told, f"cannot be used: {row['failure']}", *[""] * 6]
        else:
            error = row["gradient_error"]
            cells = [
                *told,
                f"{at_least(100 * row['converged'])} %",
                at_most(row["evals"]),
                "" if row["backward_evals"] is None else str(row["backward_evals"]),
                "not a number" if error is None else at_most_significant(error),
                at_most(row["forward_ms"]),
                at_most(row["total_ms"]),
                at_most(row["peak_mb"]),
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def recommendations(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a Markdown table: of each model the fastest pair, and that of least memory, that can be trusted.

    Trusted are pairs whose solves converged and whose gradients are within `GOOD_ENOUGH` of the exact one.
    """
    lines = ["| model | fastest | ms | least memory | MiB |", "|---|---|---|---|---|"]
    for model in dict.fromkeys(row["model"] for row in rows):
        good = [row for row in rows if row["model"] == model and _trusted(row)]
        if not good:
            lines.append(f"| {model} | none converged with gradients within {GOOD_ENOUGH:g} | | | |")
            continue
        fast, small = (min(good, key=lambda row, key=key: row[key]) for key in ("total_ms", "peak_mb"))
        lines.append(
            f"| {model} | {fast['solver']}, {fast['adjoint']} | {at_most(fast['total_ms'])} | "
            f"{small['solver']}, {small['adjoint']} | {at_most(small['peak_mb'])} |"
        )
    return "\n".join(lines)


def write_pairs(rows: Sequence[Any], path: Path, **settings: Any) -> None:
    """Writes the rows as JSON, with what they were measured by and with."""
    told = header("small batches", torch.device("cpu"), quick=False) | settings
    found = {"header": told, "pairs": [asdict(row) for row in rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", "utf-8")


def _trusted(row: Mapping[str, Any]) -> bool:
    error = row["gradient_error"]
    return row["converged"] == 1 and error is not None and error <= GOOD_ENOUGH
