"""Sections of model cards: convergence, training, licences, limits and citation."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from deqzoo.models import INPUT_SPECS, ModelEntry
from deqzoo.models.text_spec import TEXT_SPECS
from deqzoo.zoo.figures import at_most, certificate_rows, radius_rows
from deqzoo.zoo.layout import LICENSE
from deqzoo.zoo.release import LOG_FILE, RECIPE_FILE
from deqzoo.zoo.text_cards import text_limits


def convergence(results: Mapping[str, Any]) -> str | None:
    """Returns spectral radii, and the certificate or what else is certain; None where there is nothing of it."""
    radius, certificate = results.get("spectral_radius"), results.get("certificate")
    parts = []
    if radius is not None:
        parts.append(
            "## Convergence\n\nSpectral radius of the Jacobian at the equilibria, below 1 where plain iteration "
            f"contracts, for {radius['num_images']:,} test images, one value for each equilibrium in turn.\n\n"
            + table(radius_rows(radius))
        )
    if certificate is not None:
        parts.append(
            "## Certificate\n\n" + " ".join(_proved(certificate)) + "\n\n" + table(certificate_rows(certificate))
        )
    elif results.get("guarantee") is not None:
        parts.append(f"## Guarantee\n\n{results['guarantee']}")
    return "\n\n".join(parts) or None


def _proved(certificate: Mapping[str, Any]) -> Iterator[str]:
    """Yields the sentences above the table of a certificate."""
    if certificate["guarantee"] is not None:
        yield certificate["guarantee"]
    if not certificate["unique"]:
        yield "For these very weights nothing is proved: what the proof stands on does not hold."
    if certificate["num_images"] is None:
        yield "Recomputed from the stored weights, in float64; the figures hold for every image,"
    else:
        yield (
            f"Recomputed from the stored weights for {certificate['num_images']:,} images of {certificate['data']}, "
            "one value for each equilibrium in turn;"
        )
    yield (
        "and are estimates, no bounds."
        if certificate["estimated"]
        else "rates and bounds are upper ones, up to rounding in float64."
    )


def training(
    found: ModelEntry, results: Mapping[str, Any], kept: Mapping[str, str | None], plot: str | None
) -> str | None:
    """Returns how the weights were made, None where it is not known.

    Args:
        found: the configuration.
        results: measured figures.
        kept: links to the run's files, None for those that were not kept.
        plot: link to the curves, likewise.
    """
    facts = results.get("training") or {}
    if facts.get("epochs") is None:
        return None
    planned, seed = facts.get("planned_epochs"), facts.get("seed")
    lines = [
        "## Training",
        f"The weights after {facts['epochs']} epochs ({facts['steps']:,} steps)"
        f"{f' of {planned} planned' if planned not in (None, facts['epochs']) else ''}"
        f"{f', seed {seed}' if seed is not None else ''}, by",
    ]
    recipe = f"recipes/{found.recipe}.yaml" if found.recipe else kept[RECIPE_FILE]
    lines.append(f"```sh\ndeqzoo fit -c {recipe}\n```" if recipe else "(no recipe was kept).")
    if facts.get("hours") is not None:
        memory = facts.get("peak_gib")
        lines.append(
            f"It took {at_most(facts['hours'])} hours"
            f"{f' and {at_most(memory, 1)} GiB at its peak' if memory is not None else ''}."
        )
    links = [f"[{what}]({kept[file]})" for what, file in (("log", LOG_FILE), ("settings", RECIPE_FILE)) if kept[file]]
    if links:
        lines.append(f"What the run wrote down: {', '.join(links)}.")
    if plot:
        lines.append(f"![Training curves]({plot})")
    return "\n\n".join(lines)


def licences(found: ModelEntry) -> str:
    """Returns the licences of weights and data."""
    spec = TEXT_SPECS.get(found.dataset) or INPUT_SPECS.get(found.dataset)
    data = spec.license if spec else "see the data set"
    return "## Licences\n\n" + table([("weights", LICENSE), (f"data ({found.dataset})", data)])


def limits(found: ModelEntry, results: Mapping[str, Any]) -> str:
    """Returns what the weights are not good for."""
    evaluation, told = results["evaluation"], []
    if found.dataset in INPUT_SPECS:
        told.append(
            f"Trained for the classes of {found.dataset} alone: any other image gets one of them too, often with "
            "confidence. The shares that it gives are not tested off its data set."
        )
        if len(results.get("seeds") or []) < 2:
            told.append(
                f"One training run. The interval above is that of {evaluation['num_images']:,} test images; another "
                "seed may fall outside of it."
            )
    elif found.dataset in TEXT_SPECS:
        told += text_limits(found.dataset, evaluation, num_seeds=len(results.get("seeds") or []))
    if "num_images" in evaluation and evaluation.get("converged") is not None and evaluation["converged"] < 1:
        lost = at_most(100 * (1 - evaluation["converged"]))
        told.append(f"{lost} % of test images miss the tolerance; their predictions count in all figures.")
    if results.get("half"):
        told.append("Stored in float16 and widened on loading; the figures are those of the stored weights.")
    told.append("Times and throughputs are those of the machine that is named, and of no other.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in told)


def citations(found: ModelEntry) -> str | None:
    """Returns whom to cite, None where it is not known here."""
    if found.paper is None:
        return None
    return f"## Citation\n\nThe architecture is from\n\n```bibtex\n{found.paper.bibtex()}\n```"


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """Returns rows of equal length as a table."""
    rows = list(rows)
    width = len(rows[0])
    return "\n".join(["|" + " |" * width, "|" + "---|" * width, *("| " + " | ".join(row) + " |" for row in rows)])
