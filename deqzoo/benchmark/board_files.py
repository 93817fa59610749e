"""What a board looks like: JSON, CSV, Markdown and plots, all from the same figures."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from deqzoo.benchmark.board import Entry
from deqzoo.benchmark.board_plots import draw_board
from deqzoo.benchmark.machine import machine
from deqzoo.errors import DataError
from deqzoo.version import __version__
from deqzoo.zoo.rounding import at_least, at_most, counted
from deqzoo.zoo.solve_figures import converged_share
from deqzoo.zoo.tables import markdown_table, write_csv

_CALM = 1.5  # quartiles of a quiet machine are closer than this

Board = dict[str, Any]
"""What board.json holds: "header" and "entries", of plain values."""

_BRACKETS = "In square brackets the first and the third quartile."


def board(entries: Sequence[Entry], *, data: str, device: torch.device, quick: bool) -> Board:
    """Returns what was measured and by what, as plain values."""
    plain = [asdict(entry) for entry in entries]
    return {"header": header(data, device, quick=quick) | {"apart": _apart(plain)}, "entries": plain}


def header(data: str, device: torch.device, *, quick: bool) -> dict[str, Any]:
    """Returns by what something is measured here and now.

    Args:
        data: name of the test set.
        device: where it runs.
        quick: whether it is a quick look only.
    """
    return {
        "data": data,
        **machine(device),
        "kind": device.type,
        "torch_version": torch.__version__,
        "library_version": __version__,
        "precision": str(torch.get_default_dtype()).removeprefix("torch."),
        "quick": quick,
    }


def stem(header: Mapping[str, Any], kind: str = "benchmark") -> str:
    """Returns the name of the files of a benchmark, which tells data, precision, torch and device, as timm's do."""
    version = header["torch_version"].partition("+")[0]
    words = (kind, header["data"], header["precision"], f"pt{version}", header["kind"], header["device"])
    threads = (f"{header['num_threads']}t",) if header["kind"] == "cpu" else ()
    quick = ("quick",) if header["quick"] else ()
    return "-".join(re.sub(r"[^a-z0-9.]+", "-", word.lower()).strip("-") for word in (*words, *threads, *quick))


def write_board(found: Board, folder: Path) -> list[Path]:
    """Writes the JSON, CSV and Markdown of a board and, if matplotlib is installed, its plots. Returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    base = stem(found["header"])
    files = [folder / f"{base}.{suffix}" for suffix in ("json", "csv", "md")]
    files[0].write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", "utf-8")
    write_csv(map(flat, found["entries"]), files[1])
    files[2].write_text(f"{title(found['header'])} {_BRACKETS}\n\n{markdown(found)}\n", "utf-8")
    return files + draw_board(found["entries"], folder, base)


def read_board(path: Path) -> Board:
    """Returns what `write_board` wrote as JSON.

    Raises:
        DataError: if it cannot be read, or is something else.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
        kept = {"header", "entries"} <= found.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} could not be read: {error}. `deqzoo benchmark` writes such files: run it.") from error
    if not kept:
        raise DataError(f"{path} has no header or no entries. It should be JSON of `deqzoo benchmark`: run it again.")
    return found


def flat(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an entry without its curve as one row of a table, a column for each figure."""
    row: dict[str, Any] = {}
    for key, value in entry.items():
        if key == "latency":
            row |= {f"latency_{name}_ms": value[name] for name in ("median", "low", "high", "p95")}
        elif key == "throughput":
            for speed in value:
                row |= _speed_columns(f"batch{speed['batch_size']}", speed)
        elif key == "training":
            row |= {} if value is None else _speed_columns("training", value)
        elif key != "curve":
            row[key] = value
    return row


def title(header: Mapping[str, Any]) -> str:
    """Returns what was measured and by what, in a sentence."""
    threads = f", {counted(header['num_threads'], 'thread')}" if header["kind"] == "cpu" else ""
    quick = " A quick look: few repeats." if header["quick"] else ""
    if header["apart"] > _CALM:
        quick += (
            f" Other work disturbed the machine: quartiles are up to {at_most(header['apart'], 1)} times apart. Run it "
            "again when it is quiet."
        )
    return (
        f"Test images of {header['data']}; {header['device']}{threads}, {header['precision']}, torch "
        f"{header['torch_version']}, deqzoo {header['library_version']}. Times are medians of one run in which all "
        f"networks took turns; that of one image comes right after that of another.{quick}"
    )


def markdown(found: Board) -> str:
    """Returns the board as a Markdown table."""
    return markdown_table(board_rows(found))


def board_rows(found: Board) -> list[tuple[str, ...]]:
    """Returns the board in words, header first. Rounding never flatters."""
    entries = found["entries"]
    sizes = [speed["batch_size"] for speed in entries[0]["throughput"]]
    trained = any(entry["training"] for entry in entries)
    head = [
        "network",
        "accuracy",
        "calibration error",
        "parameters",
        "MFLOPs per image (p95)",
        "evaluations (p95)",
        "converged",
        "one image, ms (p95)",
        *(f"images/s at {size}" for size in sizes),
        f"MiB at {max(sizes)}",
    ]
    if trained:
        head += ["training, images/s", "step, ms", "MiB"]
    return [tuple(head), *(_words(entry, sizes, trained=trained) for entry in entries)]


def ratios(found: Board, *, skip_random: bool = False) -> list[str]:
    """Returns a sentence for each implicit and each explicit network: what the first costs, in terms of the second.

    Args:
        found: the board.
        skip_random: whether to leave out explicit networks with random weights.
    """
    lines = []
    explicit = [e for e in found["entries"] if e["kind"] == "explicit" and not (skip_random and e["accuracy"] is None)]
    for mine in (e for e in found["entries"] if e["kind"] == "implicit"):
        for other in explicit:
            costs = [
                ("parameters", mine["num_parameters"] / other["num_parameters"]),
                ("FLOPs", mine["flops_mean"] / other["flops_mean"]),
                ("latency", mine["latency"]["median"] / other["latency"]["median"]),
            ]
            for speed, reference in zip(mine["throughput"], other["throughput"], strict=True):
                share = reference["images_per_second"] / speed["images_per_second"]
                costs.append((f"time at batch {speed['batch_size']}", share))
            told = ", ".join(f"{value:.3g} x the {what}" for what, value in costs)
            lines.append(f"{mine['name']} takes {told} of {other['name']} ({_agreement(mine, other)}).")
    return lines


def _agreement(mine: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    if mine["accuracy"] is None or other["accuracy"] is None:
        return "accuracies cannot be compared: random weights"
    if mine["accuracy_low"] > other["accuracy_high"]:
        return "and is more accurate"
    return "and is less accurate" if mine["accuracy_high"] < other["accuracy_low"] else "of the same accuracy"


def _apart(entries: Sequence[Mapping[str, Any]]) -> float:
    """Returns how many times longer the third quartile of a time is than the first, where that is most."""
    times = [entry["latency"] for entry in entries]
    times += [
        speed["milliseconds"] for entry in entries for speed in (*entry["throughput"], entry["training"]) if speed
    ]
    return max(time["high"] / time["low"] for time in times)


def _words(entry: Mapping[str, Any], sizes: Sequence[int], *, trained: bool) -> tuple[str, ...]:
    known = entry["accuracy"] is not None
    latency = entry["latency"]
    words = [
        entry["name"],
        f"{at_least(entry['accuracy'])} % ({at_least(entry['accuracy_low'])} to {at_most(entry['accuracy_high'])})"
        if known
        else "random weights",
        at_most(entry["calibration_error"], 4) if entry["calibration_error"] is not None else "",
        f"{entry['num_parameters']:,}",
        f"{at_most(entry['flops_mean'] / 1e6)} ({at_most(entry['flops_p95'] / 1e6)})",
        "" if entry["evals_mean"] is None else f"{at_most(entry['evals_mean'])} ({entry['evals_p95']:g})",
        converged_share(entry["converged"]) if known and entry["evals_mean"] is not None else "",
        f"{at_most(latency['median'])} [{at_least(latency['low'])}, {at_most(latency['high'])}] "
        f"({at_most(latency['p95'])})",
        *(_throughput(speed) for speed in entry["throughput"]),
        at_most(max(entry["throughput"], key=lambda s: s["batch_size"])["peak_mb"], 1),
    ]
    if trained:
        step = entry["training"]
        times = step["milliseconds"]
        words += [_throughput(step), at_most(times["median"], 1), at_most(step["peak_mb"], 1)]
    return tuple(words)


def _throughput(speed: Mapping[str, Any]) -> str:
    times, size = speed["milliseconds"], speed["batch_size"]
    low, high = (1e3 * size / times[key] for key in ("high", "low"))
    return f"{int(speed['images_per_second']):,} [{int(low):,}, {-int(-high // 1):,}]"


def _speed_columns(prefix: str, speed: Mapping[str, Any]) -> dict[str, float]:
    times = speed["milliseconds"]
    return {
        f"{prefix}_images_per_second": speed["images_per_second"],
        **{f"{prefix}_{name}_ms": times[name] for name in ("median", "low", "high")},
        f"{prefix}_peak_mb": speed["peak_mb"],
    }
