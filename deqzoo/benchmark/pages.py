"""Every table and figure of the README, of the other pages and of the cards, from results files:

`python -m deqzoo.benchmark.pages` in the root of a checkout. What it writes is between comments
`<!-- generated: NAME -->` and `<!-- end: NAME -->`; the rest stays as it is.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from deqzoo.benchmark.board_files import ratios, read_board, title, write_board
from deqzoo.benchmark.compare import Row, chosen_models, compare
from deqzoo.benchmark.compare_files import comparison_table, write_comparison
from deqzoo.benchmark.fast_path import fast_path_markdown, fast_path_title
from deqzoo.benchmark.pairs_table import GOOD_ENOUGH, against_peers, pairs_markdown, pairs_settings, recommendations
from deqzoo.benchmark.robustness import draw_thinking, mean_trials_markdown
from deqzoo.benchmark.solvers_table import Row as CellRow
from deqzoo.benchmark.solvers_table import summary
from deqzoo.errors import DataError
from deqzoo.models import entries, entry
from deqzoo.zoo import list_models
from deqzoo.zoo.embed import write_embedded_card
from deqzoo.zoo.figures import headline
from deqzoo.zoo.manifest import published
from deqzoo.zoo.rounding import at_least, at_most, counted
from deqzoo.zoo.tables import markdown_table

RESULTS = "benchmarks"
"""The folder of results files, and of what is drawn from them, in a checkout."""
README, MODEL_PAGE, SOLVER_PAGE = "README.md", "model_cards/README.md", f"{RESULTS}/README.md"


def write_pages(root: Path) -> list[Path]:
    """Writes pages, cards and figures of a checkout anew, and returns the pages.

    Raises:
        DataError: if a page is missing or has not the comments that say where tables go, or a results file is damaged.
        WeightsError: if results of published weights are missing.
    """
    texts = {page: _text(root / page) for page in PAGES}
    for name in _embedded():
        write_embedded_card(name, cards=root / "model_cards")
    folder = root / RESULTS
    for path in _files(root, "benchmark"):
        write_board(read_board(path), folder)
    for path in _files(root, "corruptions"):
        draw_thinking(_read(path, "trials")["trials"], path.with_suffix(".svg"))
    for dataset in _compared():
        write_comparison(_comparison(dataset), folder, name=dataset)
    rendered = {root / page: render(page, text, root) for page, text in texts.items()}
    for path, text in rendered.items():
        path.write_text(text, "utf-8")
    return list(rendered)


def render(page: str, text: str, root: Path) -> str:
    """Returns the text of a page with its tables written from the results files of a checkout.

    Args:
        page: a key of `PAGES`.
        text: of the page as it is.
        root: of the checkout.

    Raises:
        DataError: if a comment that says where a table goes is missing, or a results file is damaged.
    """
    for name, section in PAGES[page].items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise DataError(
                f"{page} has {begin} … {end} not once. Tables are written between such comments: put them where "
                "the table shall be."
            )
        body = section(root)
        whole = f"{begin}\n\n{body}\n\n{end}" if body else f"{begin}\n{end}"
        text = pattern.sub(lambda _, whole=whole: whole, text)
    return text


def _text(page: Path) -> str:
    if not page.is_file():
        raise DataError(f"There is no {page}. Tables are written into the pages of a checkout: run this in its root.")
    return page.read_text("utf-8")


def _models(root: Path) -> str:
    lines = ["| name | parameters | on test data | evaluations | what it is |", "|---|---|---|---|---|"]
    for name in list_models(pretrained=True):
        record, found = published(name), entry(name)
        assert record is not None
        results = record.results
        evals = "" if results.get("evals_mean") is None else at_most(results["evals_mean"])
        lines.append(
            f"| [{name}](model_cards/{name}.md) | {results['num_parameters']:,} | {headline(results)} | {evals} | "
            f"{found.description} |"
        )
    return "\n".join(lines)


def _by_task(root: Path) -> str:
    lines = [
        "| task | data | most accurate | fewest evaluations | explicit, to compare with | to be trained first |",
        "|---|---|---|---|---|---|",
    ]
    for task, dataset in dict.fromkeys((found.task, found.dataset) for found in entries()):
        here = [found for found in entries() if (found.task, found.dataset) == (task, dataset)]
        records = {found.name: published(found.name) for found in here}
        figures = {name: record.results for name, record in records.items() if record is not None}
        solved = [name for name in figures if figures[name].get("evals_mean") is not None]
        explicit = [name for name in figures if name not in solved]
        best = sorted(solved, key=lambda name: figures[name].get("accuracy") or -figures[name]["loss"])[-1:]
        fastest = sorted(solved, key=lambda name: figures[name]["evals_mean"])[:1]
        untrained = [
            found
            for found in here
            if found.name not in figures and (root / "recipes" / f"{found.recipe}.yaml").is_file()
        ]
        cells = [
            task.replace("-", " "),
            dataset,
            ", ".join(f"[{name}]({name}.md), {headline(figures[name])}" for name in best),
            ", ".join(f"[{name}]({name}.md), {at_most(figures[name]['evals_mean'])}" for name in fastest),
            ", ".join(f"[{name}]({name}.md), {headline(figures[name])}" for name in explicit),
            ", ".join(f"[{found.name}](../recipes/{found.recipe}.yaml)" for found in untrained),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _side_by_side(root: Path) -> str:
    parts = []
    for dataset in _compared():
        parts += [f"Test images of {dataset}:", markdown_table(comparison_table(_comparison(dataset)))]
        if (root / RESULTS / f"compare-{dataset}.svg").is_file():
            parts.append(f"![Errors against parameters](../{RESULTS}/compare-{dataset}.svg)")
    return "\n\n".join(parts)


def _compared() -> list[str]:
    """Returns the data sets that have several classifiers with weights."""
    sets = [entry(name).dataset for name in list_models(pretrained=True, task="image-classification")]
    return [dataset for dataset in dict.fromkeys(sets) if sets.count(dataset) > 1]


def _comparison(dataset: str) -> list[Row]:
    """Returns the published figures of a data set, without those of speed: they are of different hours."""
    of_speed = ("images_per_second", "memory_mb", "batch_size", "device", "num_threads")
    return [dataclasses.replace(row, **dict.fromkeys(of_speed)) for row in compare(chosen_models(dataset))]


def _boards(root: Path) -> str:
    parts = []
    for path in _files(root, "benchmark"):
        found = read_board(path)
        lines = [
            "| network | accuracy | parameters | MFLOPs per image | one image | images/s |",
            "|---|---|---|---|---|---|",
        ]
        for row in found["entries"]:
            speed = row["throughput"][-1]
            known = "random weights" if row["accuracy"] is None else f"{at_least(row['accuracy'])} %"
            lines.append(
                f"| {row['name']} | {known} | {row['num_parameters']:,} | {at_most(row['flops_mean'] / 1e6)} | "
                f"{at_most(row['latency']['median'])} ms | {int(speed['images_per_second']):,} (batches of "
                f"{speed['batch_size']}) |"
            )
        parts += [title(found["header"]), "\n".join(lines)]
        parts.append("\n".join(f"- {line}" for line in ratios(found, skip_random=True)))
        drawn = {cost: path.with_name(f"{path.stem}-{cost}.svg") for cost in ("flops", "parameters", "latency")}
        links = {cost: f"{RESULTS}/{figure.name}" for cost, figure in drawn.items() if figure.is_file()}
        if "flops" in links:
            parts.append(f"![Errors against operations]({links.pop('flops')})")
        others = (f"[against {cost}]({link})" for cost, link in links.items())
        parts.append(", ".join([f"[All columns]({RESULTS}/{path.stem}.md)", *others]))
    return "\n\n".join(part for part in parts if part)


def _robustness(root: Path) -> str:
    parts = []
    for path in _files(root, "corruptions"):
        results = _read(path, "trials")
        whole = f"{RESULTS}/{path.with_suffix('.md').name}"
        trials = results["trials"]
        kinds = len({trial["corruption"] for trial in trials if trial["severity"]})
        told = f"Means over {counted(kinds, 'corruption')} of {trials[0]['num_images']:,} images."
        parts += [f"{_measured(results['header'], whole)} {told}", mean_trials_markdown(trials)]
        plot = path.with_suffix(".svg")
        if plot.is_file():
            parts.append(f"![Accuracy and evaluations over severity]({RESULTS}/{plot.name})")
    question = (
        "Does an implicit network think longer on harder images? Evaluations under corruptions of five severities:"
    )
    return "\n\n".join([question, *parts]) if parts else ""


def _pairs(root: Path) -> str:
    parts = []
    for path in _files(root, "pairs"):
        results = _read(path, "pairs", "batch_size", "rtol", "max_steps", "repeats")
        rows = results["pairs"]
        told = f"{_measured(results['header'], path.name)} {pairs_settings(results['header'])}"
        parts += [told, recommendations(rows)]
        parts += ["\n".join(f"- {line}" for line in against_peers(rows)), pairs_markdown(rows)]
    return "\n\n".join(part for part in parts if part)


def _cells(root: Path) -> str:
    parts = []
    for path in _files(root, "solvers"):
        results = _read(path, "rows", "repeats")
        told = f"Medians of {results['header']['repeats']} rounds in which all took turns."
        parts.append(f"{_measured(results['header'], path.name)} {told}")
        parts.append("\n".join(f"- {line}" for line in summary([CellRow(**row) for row in results["rows"]])))
    return "\n\n".join(parts)


def _solvers(root: Path) -> str:
    tables = [recommendations(_read(path, "pairs")["pairs"]) for path in _files(root, "pairs")]
    question = (
        "Which solver and which adjoint? The fastest pair, and that of least memory, among those that converged and "
        f"whose gradients are within {GOOD_ENOUGH:.0%} of the exact ones:"
    )
    return "\n\n".join([question, *tables, f"[All solvers with all adjoints]({SOLVER_PAGE})"]) if tables else ""


def _fast_paths(root: Path) -> str:
    parts = []
    for path in _files(root, "fast-path"):
        results = _read(path, "rows", "repeats")
        parts += [fast_path_title(results["header"]), fast_path_markdown(results["rows"])]
    return "\n\n".join(parts)


PAGES: dict[str, dict[str, Callable[[Path], str]]] = {
    README: {"models": _models, "networks": _boards, "corruptions": _robustness, "solvers": _solvers},
    MODEL_PAGE: {"by task": _by_task, "side by side": _side_by_side},
    SOLVER_PAGE: {"cells": _cells, "pairs": _pairs, "fast paths": _fast_paths},
}
"""Pages and their written parts by name; a part is empty where nothing was measured."""


def _embedded() -> list[str]:
    records = {name: published(name) for name in list_models(pretrained=True)}
    return [name for name, record in records.items() if record is not None and record.source == "embedded"]


def _files(root: Path, kind: str) -> list[Path]:
    return sorted((root / RESULTS).glob(f"{kind}*.json"))


def _read(path: Path, key: str, *settings: str) -> dict[str, Any]:
    """Returns a results file, of which `key` and, in the header, `settings` are needed."""
    try:
        found = json.loads(path.read_text("utf-8"))
        kept = {"header", key} <= found.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} could not be read: {error}. It should be a results file: measure again.") from error
    if not kept:
        raise DataError(f"{path} has no header or no {key}. It should be a results file: measure again.")
    if missing := [setting for setting in settings if setting not in found["header"]]:
        raise DataError(
            f"The header of {path} has no {', '.join(missing)}. An earlier version wrote it: measure again."
        )
    return found


def _measured(header: Mapping[str, Any], link: str) -> str:
    threads = counted(header["num_threads"], "thread")
    return (
        f"On {header['data']}; {header['device']}, {threads}, {header['precision']}, torch {header['torch_version']}, "
        f"deqzoo {header['library_version']} ([all figures]({link}))."
    )


def main(root: Annotated[Path, typer.Argument(help="Of the checkout.")] = Path(".")) -> None:
    """Write README, the other pages, cards and figures again, from results files."""
    for path in write_pages(root):
        typer.echo(path)


if __name__ == "__main__":
    typer.run(main)
