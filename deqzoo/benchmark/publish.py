"""From a name, a run or a folder to a release on the Hub, checked before anything is sent."""

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deqzoo.benchmark.measure import SAMPLE_FIGURES, sample_figures
from deqzoo.benchmark.package import package
from deqzoo.data import ImageData, TextData, open_data, open_text
from deqzoo.errors import PublishError
from deqzoo.models import entry
from deqzoo.models.text_spec import TEXT_SPECS
from deqzoo.tasks import LanguageModel
from deqzoo.zoo import load
from deqzoo.zoo.card_metadata import EVAL_RESULTS_FOLDER, eval_results
from deqzoo.zoo.cards import write_card
from deqzoo.zoo.checkpoint import find_run, read_checkpoint
from deqzoo.zoo.layout import CONFIG_FILE
from deqzoo.zoo.release import CARD_FILE, LICENSE_FILE, copy_kept, license_text, read_results, release_folder
from deqzoo.zoo.stored import HUB_PREFIX
from deqzoo.zoo.weights_config import read_config

_LOSS_RTOL = 1e-3
"""Of losses, which other machines sum in another order."""


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What was published, or would be.

    Attributes:
        name: of the model.
        repo: where it is, "org/name".
        files: (path, size in bytes) of each file of the release.
        commit: with all of them; None for a dry run.
        tag: of the release; None likewise.
    """

    name: str
    repo: str
    files: tuple[tuple[str, int], ...]
    commit: str | None = None
    tag: str | None = None

    @property
    def load_line(self) -> str:
        """The line of Python that loads it."""
        pin = f"@{self.tag}" if self.tag else ""
        return f'deqzoo.load("{HUB_PREFIX}{self.repo}{pin}")'


def publish(
    source: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    dry_run: bool = False,
    data: ImageData | TextData | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
    show: Callable[[Publication], None] | None = None,
) -> Publication:
    """Publishes a model on the Hub, as a release that anybody can load and verify.

    The release is assembled in a folder of its own, loaded back and checked: its logits are those of the source, bit
    for bit, and its accuracy on the sample in the package is the one in its card. Then it is sent in one commit, which
    is tagged.

    Args:
        source: the name of a model, a folder that `deqzoo export` wrote, or a run or checkpoint, which is measured.
        repo: "org/name"; made if it does not exist.
        private: whether others may not see it.
        revision: branch to commit to, None for main.
        tag: of the release; None takes the next free one of v1, v2, ….
        dry_run: assemble and check, but send nothing.
        data: the test set for the figures of a run; by default that of the model, in ./data.
        device: where to evaluate.
        progress: whether to show bars on a terminal's stderr.
        show: called with what will be sent, after the checks and before the upload.

    Raises:
        WeightsError: if the source has no weights, or they are damaged.
        PublishError: if the release is not as measured, or the Hub does not take it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _assemble(source, folder, data=data, device=device, progress=progress)
        config, results = read_config(folder), read_results(folder)
        found = entry(config.name)
        check_release(folder, load(source), results)
        (folder / LICENSE_FILE).write_text(license_text(), "utf-8")
        scores = folder / EVAL_RESULTS_FOLDER / f"{found.dataset}.yaml"
        scores.parent.mkdir()
        scores.write_text(eval_results(found, results["evaluation"]), "utf-8")
        write_card(folder, folder / CARD_FILE, plots=folder, repo=repo)
        from deqzoo.zoo.hub_push import files_of, push

        planned = Publication(name=found.name, repo=repo, files=tuple(files_of(folder)))
        if show is not None:
            show(planned)
        if dry_run:
            return planned
        message = f"{found.name}, {config.sha256[:12]}"
        done = push(folder, repo, private=private, branch=revision, tag=tag, message=message, progress=progress)
        return Publication(name=found.name, repo=repo, files=planned.files, commit=done.commit, tag=done.tag)


def check_release(folder: Path, source: Any, results: Mapping[str, Any]) -> None:
    """Checks that a release is its source and does what its results say.

    Args:
        folder: of the release.
        source: the model that it was made from, with `.net`.
        results: measured figures.

    Raises:
        PublishError: if logits differ, or the accuracy on the sample in the package does.
    """
    model = load(folder)
    inputs = _probe(model)
    with torch.no_grad():
        wanted, given = source.cpu().eval()(inputs), model(inputs)
    if not torch.equal(wanted, given):
        worst = float((wanted - given).abs().max())
        raise PublishError(
            f"The release in {folder} gives other logits than its source, by up to {worst:.2g}. Only what was measured "
            "is published: export the source again."
        )
    for key, expected, found in differing(results.get("sample"), sample_figures(model)):
        raise PublishError(
            f"The release in {folder} has {key} = {found} on the sample in the package, but its results say "
            f"{expected}. A card tells what the weights do: measure them again with `deqzoo measure`."
        )


def differing(expected: Mapping[str, Any] | None, found: Mapping[str, Any] | None) -> list[tuple[str, Any, Any]]:
    """Returns (figure, what results.json says, what was found) where they do not agree.

    Another machine rounds otherwise: one image may fall to the other side.
    """
    if expected is None or found is None:
        return []
    count = expected["num_images"]
    slack = {"accuracy": 100.5 / count, "converged": 1.005 / count, "evals_mean": 0.05 * (expected["evals_mean"] or 0)}
    wrong = []
    for key in SAMPLE_FIGURES:
        a, b = expected[key], found[key]
        if a is None or b is None:
            same = a is b
        elif key == "loss":
            same = math.isclose(a, b, rel_tol=_LOSS_RTOL)
        else:
            same = abs(a - b) <= slack.get(key, 0)
        if not same:
            wrong.append((key, a, b))
    return wrong


def _probe(model: Any) -> Tensor:
    """Returns a few inputs of a model: noise, the same for everybody."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(model, LanguageModel):
        return torch.randint(len(model.vocabulary), (2, 16), generator=generator)
    return torch.randn(8, *model.net.pretrained_cfg["input_size"], generator=generator)


def _assemble(source: str | Path, folder: Path, *, data: ImageData | TextData | None, **options: Any) -> None:
    """Puts the files of a release that cannot be made from others into a folder."""
    path = Path(source).expanduser()
    is_run = path.suffix == ".ckpt" or (path.is_dir() and not (path / CONFIG_FILE).is_file())
    if not is_run or str(source).startswith(HUB_PREFIX):
        copy_kept(release_folder(source), folder)
        return
    checkpoint = find_run(path)
    dataset = entry(read_checkpoint(checkpoint).name).dataset
    if data is None and dataset in TEXT_SPECS:
        data = open_text(dataset, like=dataset, vocabulary=load(checkpoint).vocabulary)  # pyright: ignore
    package(checkpoint, folder, data=data or open_data(dataset, like=dataset), **options)
