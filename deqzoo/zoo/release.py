"""A release: the folder that a model is published as, and what each of its files is for."""

import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from deqzoo.errors import WeightsError
from deqzoo.zoo import manifest
from deqzoo.zoo.layout import CONFIG_FILE, WEIGHTS_FILE
from deqzoo.zoo.run_log import RunLog, read_rows, read_settings
from deqzoo.zoo.stored import HUB_PREFIX, locate, open_published
from deqzoo.zoo.told_by_author import AUTHORS_FILES

RESULTS_FILE = "results.json"
"""Everything that was measured, and by what. All figures of cards are from here, but for what its author tells."""
RECIPE_FILE = "recipe.yaml"
LOG_FILE = "metrics.csv"
KEPT = (WEIGHTS_FILE, CONFIG_FILE, RESULTS_FILE, RECIPE_FILE, LOG_FILE, *AUTHORS_FILES)
"""The files that cannot be made from others."""
CARD_FILE = "README.md"
LICENSE_FILE = "LICENSE"


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """Writes what was measured into a folder."""
    (folder / RESULTS_FILE).write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", "utf-8")


def read_results(folder: Path) -> dict[str, Any]:
    """Returns what was measured of the weights in a folder.

    Raises:
        WeightsError: if it is missing or damaged.
    """
    path = folder / RESULTS_FILE
    try:
        results = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise WeightsError(
            f"{path} could not be read: {error.strerror or error}. Cards and checks stand on measured results: measure "
            "the weights with `deqzoo measure`, or export them again from their run."
        ) from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged: {error}. It should be JSON: measure the weights again.") from error
    if not isinstance(results, dict) or not isinstance(results.get("evaluation"), dict):
        raise WeightsError(
            f"{path} holds no evaluation. It should be what `deqzoo measure` or `deqzoo export` wrote: measure again."
        )
    return results


def copy_kept(source: Path, target: Path) -> None:
    """Copies the files of a release that cannot be made from others; those it does not have are left out."""
    target.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def release_log(folder: Path) -> RunLog:
    """Returns what the run of a release wrote down, as far as it was kept."""
    settings = folder / RECIPE_FILE
    return RunLog(config=read_settings(settings) if settings.is_file() else {}, rows=read_rows(folder / LOG_FILE))


def license_text() -> str:
    """Returns the licence of code and weights.

    Raises:
        WeightsError: if the installation lacks it.
    """
    beside = Path(__file__).parents[2] / LICENSE_FILE
    if beside.is_file():  # a checkout
        return beside.read_text("utf-8")
    for file in metadata.files("deqzoo") or ():
        if file.name == LICENSE_FILE:
            return file.read_text("utf-8")
    raise WeightsError(
        "This installation of deqzoo has no LICENSE file, which goes with published weights: install it again."
    )


def release_folder(name_or_path: str | Path) -> Path:
    """Returns the folder of a release: that of a name, a local one, or a snapshot of one on the Hub.

    Raises:
        UnknownModelError: if it is no name, and nothing lies there.
        WeightsError: if there is none.
    """
    text = str(name_or_path)
    if text.startswith(HUB_PREFIX):
        from deqzoo.zoo import hub

        repo, revision = hub.parse(text.removeprefix(HUB_PREFIX))
        return hub.fetch_release(repo, revision)
    name, path = locate(name_or_path)
    if name is None:
        if not (path / CONFIG_FILE).is_file():
            raise WeightsError(
                f"{path.absolute()} is no release: it has no {CONFIG_FILE}. Give the name of a model, a folder that "
                "`deqzoo export` wrote, or hf-hub:org/name."
            )
        return path
    record = manifest.published(name)
    if record is None:
        open_published(name)  # says why not
    elif record.source == "hub":
        from deqzoo.zoo import hub

        assert record.repo is not None
        return hub.fetch_release(record.repo, record.revision)
    return manifest.embedded_folder(name)
