"""Every checkpoint that the zoo publishes keeps what its card says."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import deqzoo
from deqzoo.benchmark.evaluate import evaluate
from deqzoo.benchmark.evaluate_text import evaluate_text
from deqzoo.data import EmbeddedSample, EmbeddedText, TextData, open_data, open_text
from deqzoo.errors import DataError
from deqzoo.models import entry
from deqzoo.models.certified import Certified
from deqzoo.models.text_spec import TEXT_SPECS
from deqzoo.nn import equilibria
from deqzoo.zoo.manifest import published

ROOT = Path(__file__).parents[2]
NAMES = deqzoo.list_models(pretrained=True)
every_checkpoint = pytest.mark.parametrize("name", NAMES)
every_classifier = pytest.mark.parametrize("name", deqzoo.list_models(pretrained=True, task="image-classification"))
every_implicit_classifier = pytest.mark.parametrize(
    "name",
    [n for n in deqzoo.list_models(pretrained=True, task="image-classification") if equilibria(entry(n).build())],
)
every_language_model = pytest.mark.parametrize("name", deqzoo.list_models(pretrained=True, task="text-generation"))


def inputs(name: str, count: int) -> torch.Tensor:
    """Returns that many embedded images of the model's data set, as it wants them."""
    data = EmbeddedSample(entry(name).dataset, eval_batch_size=count)
    return data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)[0][:count]


def all_converge(name: str) -> bool:
    """Whether the results tell of no image whose equilibrium was not reached."""
    return published(name).results["converged"] in (None, 1)


def agreement(name: str, logits: torch.Tensor) -> float:
    """Returns 1e-5, or eight float32 spacings of the largest logit where that is more.

    It is ten times as much where a map hardly contracts, which enlarges what rounding does; and the tolerance of the
    solve where one image in a hundred is not even solved.
    """
    results = published(name).results
    if results["converged"] is not None and results["converged"] < 0.99:
        return results["rtol"]
    return (1 if all_converge(name) else 10) * max(1e-5, 8 * float(np.spacing(np.float32(logits.abs().max()))))


def test_there_is_something_to_test():
    assert {"pcdeq-mnist", "pcdeq-mnist-linear"} <= set(NAMES)


@every_checkpoint
def test_it_has_a_recipe_and_a_card(name):
    assert (ROOT / "recipes" / f"{entry(name).recipe}.yaml").is_file()
    card = (ROOT / "model_cards" / f"{name}.md").read_text("utf-8")
    assert f'deqzoo.load("{name}")' in card


@every_classifier
def test_it_is_right_on_the_embedded_sample(name):
    found = evaluate(deqzoo.load(name), EmbeddedSample(entry(name).dataset))
    assert found.num_images == 300
    share = published(name).results["converged"]
    # Of so few images, three times as many may miss the tolerance as of all.
    assert found.converged is None if share is None else found.converged >= 1 - 3 * (1 - share)
    # 300 images cannot tell the published accuracy from one three points below it.
    assert found.accuracy >= published(name).results["accuracy"] - 3


@pytest.mark.filterwarnings("ignore::deqzoo.errors.UnconvergedWarning")  # of models that say so in their results
@every_classifier
def test_a_sample_does_not_depend_on_its_batch(name):
    model, images = deqzoo.load(name), inputs(name, 64)
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(alone, together, rtol=0, atol=agreement(name, together))


@every_implicit_classifier
def test_one_image_of_nan_harms_no_other(name):
    model, images = deqzoo.load(name), inputs(name, 8)
    with torch.no_grad():
        want = model(images)
        images[3] = torch.nan
        with pytest.warns(deqzoo.errors.UnconvergedWarning, match="1 of 8 samples met NaN or inf"):
            found = model(images)
    assert found[3].isnan().all()
    rest = [i for i in range(8) if i != 3]
    torch.testing.assert_close(found[rest], want[rest], rtol=0, atol=agreement(name, want))


@every_classifier
def test_its_certificate_holds(name):
    net = deqzoo.load(name).net
    if not isinstance(net, Certified):
        pytest.skip(f"{name} comes without a certificate")
    proof = net.certificate(inputs(name, 16))
    assert proof.unique
    assert ((proof.rate >= 0) & (proof.rate <= 1)).all()
    assert proof.estimated or proof.max_steps.isfinite().all()


@pytest.mark.timeout(1200)  # ten thousand images, on slow machines too
@every_classifier
def test_the_full_test_set_gives_the_published_accuracy(name):
    root = os.environ.get("DEQZOO_DATA")
    if root is None:
        pytest.skip("DEQZOO_DATA names no folder with the full data sets")
    folder = Path(root) / entry(name).dataset
    where = folder if folder.is_dir() else folder.name
    model, threads = deqzoo.load(name), torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        found = evaluate(model, open_data(where, root=root, like=entry(name).dataset))
    finally:
        torch.set_num_threads(threads)
    # Rounding decides about an image in 10,000, and about a few where a map hardly contracts.
    few = 0.011 if all_converge(name) else 0.05
    assert found.accuracy == pytest.approx(published(name).results["accuracy"], abs=few)
    assert found.converged == pytest.approx(published(name).results["converged"], abs=0 if all_converge(name) else 2e-3)


@every_language_model
def test_it_reads_the_beginning_of_its_text_as_well_as_all_of_it(name, tmp_path):
    model, dataset = deqzoo.load(name), entry(name).dataset
    try:
        whole = EmbeddedText(dataset)
    except DataError:  # it may not be passed on
        root = os.environ.get("DEQZOO_DATA")
        if root is None or not (Path(root) / dataset).is_dir():
            pytest.skip(f"needs the folder {dataset} in the folder that DEQZOO_DATA names")
        whole = open_text(dataset, root=root, like=dataset)
    lines = iter(whole.text(TEXT_SPECS[dataset].split).splitlines(keepends=True))
    part = ""
    while len(model.vocabulary.encode(part)) < 8 * model.net.context:
        part += next(lines)
    (tmp_path / "part.txt").write_text(part, "utf-8")
    data = TextData(tmp_path / "part.txt", vocabulary=model.vocabulary, context=model.net.context)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", deqzoo.errors.UnconvergedWarning)
        found = evaluate_text(model, data, split="all")
    assert found.loss == pytest.approx(published(name).results["loss"], rel=0.2)
