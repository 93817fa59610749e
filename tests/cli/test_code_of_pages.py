"""Every block of code in the pages runs, as it stands there, on little data."""

import importlib.util
import itertools
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deqzoo.models import registry

from .test_training import QUIET, workplace, write_idx  # noqa: F401

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "model_cards/README.md", "benchmarks/README.md", "recipes/README.md", "deqzoo/models/README.md"]

# For speed alone. What these verbs do in full is tested beside this file.
FASTER = {
    "fit": [*QUIET, "--trainer.accelerator=cpu", "--trainer.max_steps=1", "--trainer.log_every_n_steps=1"],
    "test": [*QUIET, "--trainer.accelerator=cpu"],
    "export": ["--device=cpu"],
    "eval": ["--device=cpu"],
    "benchmark": ["--quick", "--device=cpu"],
    "corruptions": ["--corruption=contrast", "--device=cpu"],
}
# Puts weights into the package itself.
UNSAFE = "--embed"


def blocks(page: str) -> list[tuple[str, str]]:
    """Returns language and text of every block of code."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)


def shell(line: str, deqzoo: Any) -> None:
    """Runs what a line asks of this package."""
    for part in line.split(" && "):
        words = shlex.split(part, comments=True)
        match words:
            case ["deqzoo", verb, *rest]:
                code, _, err = deqzoo(verb, *(word for word in rest if word != UNSAFE), *FASTER.get(verb, ()))
                assert code in (0, None), f"{part}: {err}"
            case ["python", "-m", module, *_]:
                assert importlib.util.find_spec(module), part
            case [] | ["pip" | "python3" | "." | "pytest", *_]:
                pass
            case _:
                pytest.fail(f"{part!r} is run by nobody")


@pytest.fixture
def place(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """A checkout with a few images, whose registrations are forgotten afterwards."""
    shutil.copytree(ROOT / "recipes", workplace / "recipes")
    raw = workplace / "data" / "FashionMNIST" / "raw"
    shutil.copytree(workplace / "data" / "MNIST" / "raw", raw)
    Image.fromarray(np.zeros((28, 28), dtype=np.uint8)).save("digit.png")
    for split, kind in itertools.product(("train", "test"), ("rose", "tulip")):
        folder = workplace / "photos" / split / kind
        folder.mkdir(parents=True)
        Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8)).save(folder / "1.png")
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    return workplace


@pytest.mark.filterwarnings(
    "ignore:Starting from v1.9.0", "ignore:.*does not have many workers", "ignore:.*number of training batches"
)
@pytest.mark.filterwarnings("ignore::deqzoo.errors.UnconvergedWarning", "ignore:You defined a `validation_step`")
@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs(page: str, place: Path, deqzoo: Any):
    found = blocks(page)
    assert found
    names: dict[str, Any] = {"__name__": "a_page"}
    for language, text in found:
        match language:
            case "python" if ".cuda()" in text and not torch.cuda.is_available():
                compile(text, page, "exec")
            case "python":
                exec(compile(text, page, "exec"), names)
            case "bash":
                for line in text.splitlines():
                    shell(line, deqzoo)
            case "yaml":
                name = re.search(r"name: ([\w-]+)\}", text)
                assert name is not None
                (place / "recipes" / f"{name[1]}.yaml").write_text(text)
            case _:
                pytest.fail(f"{page} has a block of {language}, which nobody runs")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str):
    for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text("utf-8")):
        assert ((ROOT / page).parent / link).exists(), link


def test_every_page_is_reached_from_the_first():
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text("utf-8"))
    assert set(PAGES[1:]) <= set(links)
