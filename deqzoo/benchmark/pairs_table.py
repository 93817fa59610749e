"""Tables of solvers and adjoints, and which pair to take."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from deqzoo.benchmark.board_files import header
from deqzoo.benchmark.peer_solvers import PEER
from deqzoo.zoo.rounding import at_least, at_most, at_most_significant, counted

GOOD_ENOUGH = 1e-2
"""The largest relative error of a gradient that is recommended."""
_RATIOS = {"evals": "evaluations", "total_ms": "time", "gradient_error": "gradient error"}


def pairs_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns all pairs as a Markdown table, with ratios against torchdeq where it took part."""
    peers = {model: _best_peer(rows, model) for model in {row["model"] for row in rows}}
    told_ratios = any(peers.values())
    names = ("model", "solver", "adjoint", "converged", "evaluations", "backward", "gradient error", "forward, ms")
    names = (*names, "forward and backward, ms", "MiB")
    names += tuple(f"{name} ÷ {PEER}" for name in _RATIOS.values()) if told_ratios else ()
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        told = [f"{row['model']}{' (random weights)' if row['weights'] == 'random' else ''}"]
        told += [row["solver"], row["adjoint"]]
        if row["failure"] is not None:
            cells = [*told, f"cannot be used: {row['failure']}", *[""] * (len(names) - 4)]
        else:
            error = row["gradient_error"]
            cells = [
                *told,
                f"{at_least(100 * row['converged'])} %",
                at_most(row["evals"]),
                "" if row["backward_evals"] is None else str(row["backward_evals"]),
                "unknown" if error is None else at_most_significant(error),
                at_most(row["forward_ms"]),
                at_most(row["total_ms"]),
                at_most(row["peak_mb"]),
                *(_ratios(row, peers[row["model"]]) if told_ratios else ()),
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def pairs_settings(header: Mapping[str, Any]) -> str:
    """Returns what the pairs were measured with, in a sentence."""
    return (
        f"Batches of {header['batch_size']}; all solves to {header['rtol']:g}, in at most "
        f"{counted(header['max_steps'], 'step')}; medians of {header['repeats']} rounds in which all pairs took turns."
    )


def recommendations(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a Markdown table: of each model the fastest pair, and that of least memory, that can be trusted.

    Trusted are pairs whose solves converged and whose gradients are within `GOOD_ENOUGH` of the exact one.
    """
    lines = ["| model | fastest | ms | least memory | MiB |", "|---|---|---|---|---|"]
    for model in dict.fromkeys(row["model"] for row in rows):
        good = [row for row in rows if row["model"] == model and _trusted(row) and not _is_peer(row)]
        ran = [row for row in rows if row["model"] == model and row["failure"] is None]
        if ran and all(row["gradient_error"] is None for row in ran):
            lines.append(f"| {model} | no exact gradient to compare with was found | | | |")
            continue
        if not good:
            lines.append(f"| {model} | none converged with gradients within {GOOD_ENOUGH:g} | | | |")
            continue
        fast, small = (min(good, key=lambda row, key=key: row[key]) for key in ("total_ms", "peak_mb"))
        lines.append(
            f"| {model} | {fast['solver']}, {fast['adjoint']} | {at_most(fast['total_ms'])} | "
            f"{small['solver']}, {small['adjoint']} | {at_most(small['peak_mb'])} |"
        )
    return "\n".join(lines)


def write_pairs(rows: Sequence[Any], path: Path, *, batch_size: int, rtol: float, max_steps: int, repeats: int) -> None:
    """Writes the rows as JSON, with what they were measured by and with."""
    settings = {"batch_size": batch_size, "rtol": rtol, "max_steps": max_steps, "repeats": repeats}
    told = header("small batches", torch.device("cpu"), quick=False) | settings
    found = {"header": told, "pairs": [asdict(row) for row in rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", "utf-8")


def against_peers(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns, of each model that torchdeq took part for, how the fastest pairs of both that can be trusted compare."""
    lines = []
    for model in dict.fromkeys(row["model"] for row in rows if _is_peer(row)):
        own = [row for row in rows if row["model"] == model and _trusted(row) and not _is_peer(row)]
        peer, mine = _best_peer(rows, model), min(own, key=lambda row: row["total_ms"], default=None)
        if peer is None or mine is None:
            lines.append(f"{model}: {'no pair of ' + PEER if mine else 'none'} converged with a good gradient.")
            continue
        lines.append(
            f"{model}: {mine['solver']}, {mine['adjoint']} is {at_least(peer['total_ms'] / mine['total_ms'])} times as "
            f"fast as {peer['solver']}, {peer['adjoint']}, with {at_most(mine['evals'] / peer['evals'])} times its "
            "evaluations in the forward pass."
        )
    return lines


def _best_peer(rows: Sequence[Mapping[str, Any]], model: str) -> Mapping[str, Any] | None:
    """Returns torchdeq's fastest pair on a model that can be trusted, None if there is none."""
    good = [row for row in rows if row["model"] == model and _is_peer(row) and _trusted(row)]
    return min(good, key=lambda row: row["total_ms"], default=None)


def _ratios(row: Mapping[str, Any], peer: Mapping[str, Any] | None) -> list[str]:
    if peer is None:
        return [""] * len(_RATIOS)
    return ["" if row[key] is None or not peer[key] else at_most(row[key] / peer[key]) for key in _RATIOS]


def _is_peer(row: Mapping[str, Any]) -> bool:
    return row["solver"].startswith(PEER)


def _trusted(row: Mapping[str, Any]) -> bool:
    error = row["gradient_error"]
    return row["converged"] == 1 and error is not None and error <= GOOD_ENOUGH
