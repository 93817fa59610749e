"""Releases: cards that tell what was measured, and folders that keep it."""

import json
from pathlib import Path

import pytest
import yaml

import deqzoo
from deqzoo.errors import WeightsError
from deqzoo.models import entry
from deqzoo.zoo.card_metadata import eval_results, front_matter
from deqzoo.zoo.cards import render_card
from deqzoo.zoo.manifest import embedded_folder, published
from deqzoo.zoo.release import LICENSE_FILE, license_text, read_results, release_folder

ROOT = Path(__file__).parents[2]
NAMES = deqzoo.list_models(pretrained=True)
every_release = pytest.mark.parametrize("name", NAMES)
every_classifier = pytest.mark.parametrize("name", deqzoo.list_models(pretrained=True, task="image-classification"))
every_language_model = pytest.mark.parametrize("name", deqzoo.list_models(pretrained=True, task="text-generation"))


@every_release
def test_the_card_in_the_repository_is_written_from_the_results(name: str):
    card = ROOT / "model_cards" / f"{name}.md"
    want = render_card(embedded_folder(name), card, plots=ROOT / "model_cards" / name)
    assert card.read_text("utf-8") == want, f"write it again: deqzoo measure {name}, or deqzoo export … --embed"


@every_classifier
def test_a_card_has_everything_that_a_user_asks_for(name: str):
    text = (ROOT / "model_cards" / f"{name}.md").read_text("utf-8")
    results = read_results(embedded_folder(name))
    for heading in ("Use", "Results", "Training", "Licences", "Limits", "Citation"):
        assert f"\n## {heading}\n" in text
    for row in ("| accuracy |", "95 % interval", "| executed operations |", "| speed |"):
        assert row in text
    implicit = bool(results["curve"])
    for part in ("\n## Accuracy and compute\n", "| converged |", "implicit-model"):
        assert (part in text) == implicit
    # Differential equations have no equilibrium to contract to.
    contracts = results["spectral_radius"] is not None
    assert contracts == ("\n## Convergence\n" in text) == ("spectral" in text)
    assert f'deqzoo.load("{name}")' in text


@every_language_model
def test_a_card_of_a_language_model_has_everything_that_a_user_asks_for(name: str):
    text = (ROOT / "model_cards" / f"{name}.md").read_text("utf-8")
    for heading in ("Use", "Results", "A text", "Inputs", "Training", "Licences", "Citation"):
        assert f"\n## {heading}\n" in text
    for row in ("| loss |", "| bits per character |", "level: "):
        assert row in text
    implicit = bool(read_results(embedded_folder(name))["budgets"])
    for part in ("\n## Loss and compute\n", "| converged |"):
        assert (part in text) == implicit
    assert f'deqzoo.load("{name}")' in text


@every_release
def test_the_same_figures_are_everywhere(name: str):
    results = read_results(embedded_folder(name))
    record = published(name)
    config = json.loads((embedded_folder(name) / "config.json").read_text())
    assert record is not None
    assert record.results == config["deqzoo"]["results"]
    assert record.results.items() <= results["evaluation"].items()


@every_classifier
def test_the_curve_leads_to_the_published_accuracy(name: str):
    results = read_results(embedded_folder(name))
    # A budget that is the model's own gives the headline again.
    evaluation = results["evaluation"]
    own = [
        point["accuracy"]
        for point in results["curve"]
        if (point["max_steps"], point.get("rtol", evaluation["rtol"])) == (evaluation["max_steps"], evaluation["rtol"])
    ]
    assert own in ([], [evaluation["accuracy"]])


@every_release
def test_every_name_on_the_hub_is_pinned(name: str):
    record = published(name)
    assert record is not None
    assert len(record.sha256) == 64
    if record.source == "hub":
        assert record.repo is not None
        assert record.revision is not None
        assert len(record.revision) == 40  # a commit, which never moves


def test_front_matter_and_results_are_rounded_against_the_model():
    evaluation = {"accuracy": 99.5899, "loss": 0.06271, "num_images": 10000}
    front = yaml.safe_load(front_matter(entry("pcdeq-mnist"), evaluation))
    metrics = front["model-index"][0]["results"][0]["metrics"]
    assert [m["value"] for m in metrics] == [99.58, 0.0628]
    assert front["metrics"] == ["accuracy"]
    (scored,) = yaml.safe_load(eval_results(entry("pcdeq-mnist"), evaluation))
    assert scored["value"] == 99.58
    assert scored["dataset"] == {"id": "mnist", "task_id": "accuracy"}


def test_the_hubs_client_understands_both_kinds_of_results():
    from huggingface_hub import ModelCardData
    from huggingface_hub._eval_results import parse_eval_result_entries

    found, evaluation = entry("pcdeq-mnist"), {"accuracy": 99.58, "loss": 0.06, "num_images": 10000}
    card = ModelCardData(**yaml.safe_load(front_matter(found, evaluation)))
    assert card.eval_results[0].metric_value == 99.58  # pyright: ignore
    (scored,) = parse_eval_result_entries(yaml.safe_load(eval_results(found, evaluation)))
    assert (scored.dataset_id, scored.value) == ("mnist", 99.58)


def test_architectures_name_their_papers():
    for name, number in (("pcdeq-mnist", "2402.04029"), ("mdeq-cifar", "2006.08656"), ("resnet8-mnist", "1512.03385")):
        paper = entry(name).paper
        assert paper is not None
        assert f"arXiv:{number}" in paper.bibtex()
    assert entry("zoo-probe").paper is None


def test_the_licence_goes_with_the_weights():
    assert license_text() == (ROOT / LICENSE_FILE).read_text("utf-8")


def test_folders_that_are_no_release_say_what_they_lack(package: Path, tmp_path: Path, folder: Path):
    with pytest.raises(WeightsError, match=r"results\.json could not be read.*deqzoo measure"):
        read_results(folder)
    (folder / "results.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"holds no evaluation"):
        read_results(folder)
    with pytest.raises(WeightsError, match=r"is no release: it has no config\.json"):
        release_folder(tmp_path)
    with pytest.raises(WeightsError, match=r"No pretrained weights exist for 'zoo-probe-rgb'"):
        release_folder("zoo-probe-rgb")
    assert release_folder("zoo-probe") == package / "weights/zoo-probe"
