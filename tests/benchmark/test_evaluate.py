"""Figures of models on test sets."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from deqzoo import create_model, observe_equilibria
from deqzoo.benchmark.evaluate import evaluate
from deqzoo.benchmark.predict import predict, predict_files, predict_sample
from deqzoo.benchmark.tally import Tally, percentile, wilson_interval
from deqzoo.data import EmbeddedSample, normalise, open_data, to_float
from deqzoo.errors import DataError, StructureError
from deqzoo.nn import Observed
from deqzoo.ode import Euler
from deqzoo.solution import Solution, Stats, Status
from deqzoo.tasks import ImageClassifier
from deqzoo.tree import State


@pytest.fixture(scope="module")
def model() -> ImageClassifier:
    """A network with random weights, none of whose figures are round."""
    torch.manual_seed(1)
    return ImageClassifier(create_model("pcdeq-mnist-linear")).eval()


@pytest.fixture(scope="module")
def sample() -> EmbeddedSample:
    return EmbeddedSample("mnist")


class Explicit(nn.Module):
    """A linear classifier without an equilibrium, for inputs of MNIST."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(784, 10)
        self.num_classes = 10
        self.pretrained_cfg = create_model("pcdeq-mnist-linear").pretrained_cfg

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))


def test_every_figure_is_that_of_the_whole_set_at_once(model: ImageClassifier, sample: EmbeddedSample):
    found = evaluate(model, sample, batch_size=77)
    data = sample.image_set("test")
    images = normalise(to_float(data.images), (0.1307,), (0.3081,))
    with torch.no_grad(), observe_equilibria(model) as seen:
        logits = model(images).double()
    correct = logits.argmax(1) == data.labels
    assert found.num_images == 300
    assert found.accuracy == pytest.approx(100 * float(correct.double().mean()), abs=1e-9)
    assert found.loss == pytest.approx(float(F.cross_entropy(logits, data.labels)), rel=1e-6)
    ece = multiclass_calibration_error(logits.softmax(1), data.labels, 10, n_bins=15)
    assert found.calibration_error == pytest.approx(float(ece), rel=1e-4)
    assert found.evals_mean == pytest.approx(float(seen.num_steps.double().mean()))
    assert found.evals_max == int(seen.num_steps.max())
    assert found.evals_p95 == float(seen.num_steps.double().quantile(0.95, interpolation="higher"))
    assert found.converged == 1.0
    assert found.residual_max is not None
    assert 0 < found.residual_max <= 1e-4
    assert found.num_parameters == sum(p.numel() for p in model.net.parameters())
    assert (found.data, found.device, found.dtype, found.solver) == ("mnist", "cpu", "float32", "Picard")
    assert found.images_per_second > 0


def test_figures_are_one_flat_object_of_json(model: ImageClassifier, sample: EmbeddedSample):
    figures = evaluate(model, sample).as_dict()
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert all(value is None or isinstance(value, str | int | float) for value in figures.values())


def test_samples_that_run_out_of_steps_are_counted_and_nobody_is_warned(sample: EmbeddedSample):
    torch.manual_seed(1)
    net = create_model("pcdeq-mnist-linear", max_steps=2)
    found = evaluate(ImageClassifier(net), sample)  # warnings are errors
    assert (found.converged, found.num_max_steps, found.max_steps) == (0.0, 300, 2)
    assert found.residual_max is not None
    assert found.residual_max > 1e-4


def test_a_fixed_budget_has_no_share_that_converged(sample: EmbeddedSample):
    net = create_model("pcdeq-mnist-linear", max_steps=3, rtol=0.0)
    found = evaluate(ImageClassifier(net), sample)
    assert (found.converged, found.num_max_steps, found.num_stalled, found.rtol) == (None, 300, 0, 0.0)
    assert (found.evals_mean, found.evals_max) == (3.0, 3)
    ode = create_model("node-mnist", solver=Euler(2))
    found = evaluate(ImageClassifier(ode), sample)
    assert (found.converged, found.num_max_steps, found.evals_mean) == (None, 300, 2.0)


def test_the_model_is_left_in_eval_mode_and_its_policy_alone(sample: EmbeddedSample):
    model = ImageClassifier(create_model("pcdeq-mnist-linear")).train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    evaluate(model, sample)
    assert not model.training
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())


def test_weights_that_give_nan_give_no_figures_but_do_not_count_as_right(sample: EmbeddedSample):
    net: Any = create_model("pcdeq-mnist-linear")
    net.fc.weight.data[3] = torch.nan
    found = evaluate(ImageClassifier(net), sample)
    assert (found.accuracy, found.loss, found.calibration_error) == (0.0, None, None)
    net.stages[0].entry.weight.data.fill_(torch.nan)
    found = evaluate(ImageClassifier(net), sample)
    assert (found.num_nonfinite, found.converged, found.residual_max) == (300, 0.0, None)


def test_a_network_without_equilibria_has_no_figures_of_them(sample: EmbeddedSample):
    found = evaluate(ImageClassifier(Explicit()), sample)
    fields = (found.converged, found.evals_mean, found.residual_max, found.solver, found.rtol)
    assert fields == (None,) * 5
    assert found.loss is not None


def test_other_labels_and_other_images_are_refused(model: ImageClassifier, sample: EmbeddedSample):
    with pytest.raises(DataError, match=r"labels of cifar10 \(10\) are not those of the model \(10, mnist\).*'0'"):
        evaluate(model, EmbeddedSample("cifar10"))
    digits = EmbeddedSample("cifar10")
    digits.spec = dataclasses.replace(digits.spec, label_names=sample.spec.label_names)
    with pytest.raises(StructureError, match=r"\(8, 3, 32, 32\)"):
        evaluate(model, digits)
    ten_of_more = ImageClassifier(create_model("pcdeq-mnist-linear", num_classes=12))
    with pytest.raises(DataError, match=r"the numbers of labels differ"):
        evaluate(ten_of_more, sample)
    bare = ImageClassifier(nn.Linear(3, 3))
    with pytest.raises(StructureError, match=r"Linear carries no pretrained_cfg"):
        evaluate(bare, sample)


def test_a_folder_gives_what_its_images_give(model: ImageClassifier, sample: EmbeddedSample, tmp_path: Path):
    data = sample.image_set("test")
    for i in range(40):
        path = tmp_path / "test" / str(int(data.labels[i])) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.images[i, 0].numpy()).save(path)
    found = evaluate(model, open_data(tmp_path, like="mnist"))
    images = normalise(to_float(data.images[:40]), (0.1307,), (0.3081,))
    with torch.no_grad():
        hits = int((model(images).argmax(1) == data.labels[:40]).sum())
    assert (found.num_images, found.accuracy) == (40, pytest.approx(100 * hits / 40))


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (9954, 10000), (1, 2)])
def test_wilson_interval_solves_its_equation(successes: int, trials: int):
    z, p = 1.959963984540054, successes / trials
    for end in wilson_interval(successes, trials):
        assert (p - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / trials, rel=1e-9, abs=1e-15)
    low, high = wilson_interval(successes, trials)
    assert 0 <= low < high <= 1


def test_calibration_error_of_a_known_case():
    shares = torch.tensor([[0.9, 0.1]] * 4 + [[1.0, 0.0]], dtype=torch.float64)
    tally = Tally(num_classes=2)
    for part in (slice(0, 2), slice(2, 5)):
        labels = torch.tensor([0, 0, 1, 1, 0])[part]
        tally.add(shares[part].log().clamp_min(-700), labels, Observed())
    assert tally.figures()["calibration_error"] == pytest.approx(0.4 * 4 / 5, rel=1e-12)


def test_the_status_of_an_image_is_that_of_its_worst_solve():
    def solution(*codes: Status) -> Solution[State]:
        zeros = torch.zeros(len(codes))
        stats = Stats(num_evals=1, num_steps=zeros.long(), residual=zeros, status=torch.tensor(codes))
        return Solution(value=zeros, stats=stats)

    first = solution(Status.CONVERGED, Status.NONFINITE, Status.CONVERGED)
    second = solution(Status.MAX_STEPS, Status.STALLED, Status.CONVERGED)
    found = Observed(solutions=[("a", first), ("b", second)]).status
    assert found.tolist() == [Status.MAX_STEPS, Status.NONFINITE, Status.CONVERGED]


def test_percentile_is_a_value_that_occurred():
    values = torch.tensor([5.0, 1.0, 3.0, 2.0, 4.0])
    assert [percentile(values, q) for q in (0.0, 0.2, 0.21, 0.8, 0.95, 1.0)] == [1.0, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_an_image_of_nan_spoils_its_own_prediction_only(model: ImageClassifier):
    images = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    clean = predict(model, images)
    images[1, 0, 4, 4] = torch.nan
    found = predict(model, images)
    assert found[1].status is Status.NONFINITE
    assert found[1].labels == ()
    assert found[1].as_dict() == {
        "labels": [], "probabilities": [], "evals": found[1].evals, "residual": None, "status": "nonfinite"
    }  # fmt: skip
    for i in (0, 2):
        assert found[i].labels == clean[i].labels
        assert found[i].probabilities == pytest.approx(clean[i].probabilities, rel=1e-5)
        assert found[i].status is Status.CONVERGED
        assert found[i].evals == clean[i].evals


def test_predictions_are_the_likeliest_classes_in_order(model: ImageClassifier):
    images = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    found = predict(model, images, top_k=99)
    with torch.no_grad():
        shares = model(images).double().softmax(1)
    for row, p in zip(shares, found, strict=True):
        assert [int(label) for label in p.labels] == row.argsort(descending=True).tolist()
        assert p.probabilities == pytest.approx(row.sort(descending=True).values.tolist())
        assert sum(p.probabilities) == pytest.approx(1)


def test_files_are_prepared_as_the_models_own_transform_does(model: ImageClassifier, tmp_path: Path):
    pixels = torch.randint(256, (40, 30, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "coloured.png"
    Image.fromarray(pixels.numpy()).save(path)
    with Image.open(path) as image:
        expected = predict(model, model.transform(image)[None], top_k=2)
    assert predict_files(model, [path], top_k=2) == [(str(path), expected[0])]
    many = predict_files(model, [path] * 130, top_k=2)  # more than are taken at once
    assert len(many) == 130
    assert {(name, answer.labels) for name, answer in many} == {(str(path), expected[0].labels)}


def test_a_grey_image_suits_a_model_for_coloured_ones(tmp_path: Path):
    path = tmp_path / "grey.png"
    Image.fromarray(torch.zeros(32, 32, dtype=torch.uint8).numpy()).save(path)
    colour = ImageClassifier(create_model("pcdeq-cifar-single")).eval()
    assert predict_files(colour, [path])[0][1].labels


def test_files_that_are_no_images_are_named(model: ImageClassifier, tmp_path: Path):
    path = tmp_path / "notes.png"
    path.write_text("no image")
    with pytest.raises(DataError, match=r"notes\.png could not be decoded"):
        predict_files(model, [path])
    with pytest.raises(DataError, match=r"There is no .*absent\.png\. Correct the path"):
        predict_files(model, [tmp_path / "absent.png"])


def test_the_sample_is_named_by_its_true_labels(model: ImageClassifier, sample: EmbeddedSample):
    found = predict_sample(model, 3)
    labels = sample.image_set("test").labels
    assert [name for name, _ in found] == [f"image {i} (a {labels[i]})" for i in range(3)]
