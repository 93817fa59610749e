"""Networks side by side."""

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from deqzoo.benchmark.board import Entry, measure_board
from deqzoo.benchmark.board_files import (
    Board,
    board,
    board_rows,
    markdown,
    ratios,
    read_board,
    stem,
    title,
    write_board,
)
from deqzoo.benchmark.board_speed import Effort, TrainingStep, measure_speeds
from deqzoo.benchmark.cost import executed_flops
from deqzoo.benchmark.evaluate import evaluate
from deqzoo.benchmark.inputs import input_spec, prepared
from deqzoo.benchmark.opened_images import open_test_images
from deqzoo.benchmark.points import at
from deqzoo.benchmark.rounds import Work, in_turns
from deqzoo.benchmark.subjects import open_subject
from deqzoo.data import EmbeddedSample
from deqzoo.errors import DataError, StructureError, UnknownModelError, WeightsError
from deqzoo.models import INPUT_SPECS
from deqzoo.nn import equilibria

MNIST = INPUT_SPECS["mnist"]
NAME, BASELINE = "pcdeq-mnist-linear", "timm:resnet10t"
EFFORT = Effort(batch_sizes=(2, 4), repeats=3, latencies=3, warmups=1, num_flops=3)


@pytest.fixture(scope="module")
def sample() -> EmbeddedSample:
    return EmbeddedSample("mnist")


@pytest.fixture(scope="module")
def entries(sample: EmbeddedSample) -> list[Entry]:
    return measure_board([open_subject(name, MNIST) for name in (NAME, BASELINE)], sample, EFFORT)


@pytest.fixture(scope="module")
def found(entries: list[Entry]) -> Board:
    return board(entries, data="mnist-sample", device=torch.device("cpu"), quick=True)


def test_the_figures_are_those_of_the_parts(entries: list[Entry], sample: EmbeddedSample):
    mine, other = entries
    subject = open_subject(NAME, MNIST)
    wanted = evaluate(subject.model, sample).as_dict()
    for key in ("accuracy", "accuracy_low", "num_parameters", "evals_mean", "evals_p95", "converged", "num_images"):
        assert getattr(mine, key) == wanted[key]
    images = prepared(sample.image_set("test").images[:3], input_spec(subject.net))
    flops = executed_flops(subject.model, images)
    assert (mine.flops_mean, mine.flops_p95) == (flops["mean"], flops["p95"])
    assert (mine.kind, mine.weights) == ("implicit", "trained")
    assert (other.kind, other.weights, other.evals_mean, other.curve) == ("explicit", "random", None, ())
    assert other.flops_mean == other.flops_p95  # the same operations for every image


def test_random_weights_have_no_accuracy(entries: list[Entry], found: Board):
    assert entries[1].accuracy is None and entries[1].calibration_error is None
    row = board_rows(found)[2]
    assert row[:3] == (BASELINE, "random weights", "")
    assert ratios(found)[0].endswith("(accuracies cannot be compared: random weights).")


def test_a_curve_ends_at_the_own_budget_and_costs_grow(entries: list[Entry]):
    curve = entries[0].curve
    assert [point.max_steps for point in curve][:3] == [1, 2, 4]
    spent = [point.flops_mean for point in curve]
    assert spent == sorted(spent) and spent[0] < spent[2]
    assert curve[-1].accuracy == entries[0].accuracy
    assert curve[-1].flops_mean == entries[0].flops_mean
    assert all(point.latency_ms is not None and point.latency_ms > 0 for point in curve)


def test_a_budget_is_given_back(entries: list[Entry]):
    subject = open_subject(NAME, MNIST)
    own = [module.solver for module in equilibria(subject.net).values()]
    with at(subject.net, entries[0].curve[0]):
        assert [module.solver.max_steps for module in equilibria(subject.net).values()] == [1]
    assert [module.solver for module in equilibria(subject.net).values()] == own


def test_speeds(entries: list[Entry]):
    for entry in entries:
        assert [speed.batch_size for speed in entry.throughput] == [2, 4]
        assert entry.latency.repeats == 3
        assert entry.latency.low <= entry.latency.median <= entry.latency.high <= entry.latency.p95
        small, large = entry.throughput
        assert large.images_per_second == 4e3 / large.milliseconds.median
        assert entry.training is not None
        # Activations grow with the batch; training keeps gradients on top of them.
        assert small.peak_mb < large.peak_mb < entry.training.peak_mb


def test_all_take_turns_and_warmups_do_not_count():
    order: list[str] = []
    works = {name: Work(run=lambda n=name: order.append(n), prepare=lambda: order.append("-")) for name in "ab"}
    times = in_turns(works, repeats=3, warmups=2, device=torch.device("cpu"))
    assert "".join(order) == "-a-b" * 5
    assert times["a"].repeats == 3


def test_one_image_is_timed_right_after_another(sample: EmbeddedSample):
    subject = open_subject(BASELINE, MNIST)
    images = prepared(sample.image_set("test").images[:7], input_spec(subject.net))
    seen: list[torch.Tensor] = []
    subject.model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    effort = Effort(batch_sizes=(7,), repeats=1, latencies=2, warmups=1, train=False, curves=False)
    measure_speeds([subject], {BASELINE: images}, {}, effort, torch.device("cpu"), False)
    alone = torch.cat([x for x in seen if len(x) == 1])
    assert torch.equal(alone, images[:6])


def test_a_training_step_changes_nothing_but_a_copy():
    net = open_subject(BASELINE, MNIST).net
    before = {key: value.clone() for key, value in net.state_dict().items()}
    step = TrainingStep(net, torch.randn(2, 1, 28, 28))
    step()
    assert not net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(parameter.grad is not None for parameter in step.net.parameters())


def test_files(found: Board, tmp_path: Path):
    files = write_board(found, tmp_path / "new")
    base = stem(found["header"])
    assert base.startswith(f"benchmark-mnist-sample-float32-pt{torch.__version__.partition('+')[0]}-cpu-")
    assert base.endswith("-1t-quick")
    plots = [f"{base}-{cost}.svg" for cost in ("parameters", "flops", "latency")]
    assert [file.name for file in files] == [f"{base}.json", f"{base}.csv", f"{base}.md", *plots]
    assert read_board(files[0]) == json.loads(json.dumps(found))
    with files[1].open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["flops_mean"]) == found["entries"][0]["flops_mean"]
    assert float(rows[1]["batch4_images_per_second"]) == found["entries"][1]["throughput"][1]["images_per_second"]
    assert rows[1]["accuracy"] == ""
    assert markdown(found) in files[2].read_text()
    # The same figures draw the same files.
    again = write_board(found, tmp_path / "again")
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]


def test_ratios_say_whether_accuracies_agree(found: Board):
    mine, other = found["entries"]
    other = other | {"num_parameters": 2 * mine["num_parameters"], "flops_mean": mine["flops_mean"] / 4}
    for accuracy, words in ((99.0, "of the same accuracy"), (50.0, "and is more accurate")):
        known = {"accuracy": accuracy, "accuracy_low": accuracy - 1, "accuracy_high": accuracy + 1}
        (line,) = ratios({"header": {}, "entries": [mine, other | known]})
        assert line.startswith(f"{NAME} takes 0.5 x the parameters, 4 x the FLOPs, ")
        assert line.endswith(f"({words}).")


def test_a_busy_machine_is_told(found: Board):
    header = found["header"]
    quartiles = [entry["latency"] for entry in found["entries"]]
    assert header["apart"] >= max(times["high"] / times["low"] for times in quartiles) >= 1
    assert "disturbed" not in title(header | {"apart": 1.4})
    assert "quartiles are up to 2.4 times apart" in title(header | {"apart": 2.34})


class _Intruder:
    """What runs code where a pickle is trusted."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._mark,)


def test_weights_of_a_file_are_trained_ones(tmp_path: Path):
    net = open_subject(BASELINE, MNIST).net
    with torch.no_grad():
        net.get_classifier().bias.fill_(7)
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    subject = open_subject(f"{BASELINE}@{tmp_path / 'weights.pth'}", MNIST)
    assert subject.trained
    assert bool((subject.net.get_classifier().bias == 7).all())
    torch.save({"state_dict": _Intruder(tmp_path / "opened")}, tmp_path / "code.pth")
    with pytest.raises(WeightsError, match=r"code\.pth cannot be loaded into timm:resnet10t@"):
        open_subject(f"{BASELINE}@{tmp_path / 'code.pth'}", MNIST)
    assert not (tmp_path / "opened").exists()
    with pytest.raises(WeightsError, match=r"missing\.pth cannot be loaded into timm:resnet10t@"):
        open_subject(f"{BASELINE}@missing.pth", MNIST)


def test_random_weights_are_the_same_each_time_and_draw_nothing():
    state = torch.random.get_rng_state()
    first, second = (open_subject("timm:resnet10t", MNIST).net.state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_timm_networks_fit_the_images():
    subject = open_subject("timm:resnet10t", INPUT_SPECS["cifar100"])
    assert subject.net.get_classifier().out_features == 100
    assert subject.model(torch.zeros(1, 3, 32, 32)).shape == (1, 100)
    assert input_spec(subject.net).label_names == INPUT_SPECS["cifar100"].label_names


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("timm:resnett18", UnknownModelError, "timm has no network 'resnett18'"),
        ("timm:resnet18.a1_in1k", DataError, r"other classes than mnist's\. Leave \.a1_in1k out"),
        ("mdeq-cifar-tiny-original-x", UnknownModelError, "Did you mean"),
        ("deq-lm-ptb", DataError, "no image classifier"),
        ("pcdeq-cifar-single", StructureError, "32x32 pixels alone"),
    ],
)
def test_what_cannot_be_opened_says_why(name: str, error: Any, words: str):
    with pytest.raises(error, match=words):
        open_subject(name, MNIST)


def test_networks_of_timm_that_need_larger_images_say_so():
    small = dataclasses.replace(MNIST, size=(8, 8))
    with pytest.raises(StructureError, match=r"timm cannot make test_vit for images of 1x8x8 .* Choose a network that"):
        open_subject("timm:test_vit", small)


def test_lists_that_make_no_sense_are_refused(sample: EmbeddedSample):
    subject = open_subject("resnet8-mnist", MNIST)
    with pytest.raises(ValueError, match="every network once"):
        measure_board([subject, subject], sample, EFFORT)
    with pytest.raises(ValueError, match="every size at least 1"):
        measure_board([subject], sample, dataclasses.replace(EFFORT, batch_sizes=(0,)))


def test_images_of_a_sample_or_some_of_them(tmp_path: Path):
    assert len(open_test_images("mnist-sample", root=tmp_path).image_set("test")) == 300
    assert len(open_test_images("mnist-sample", root=tmp_path, limit=500).image_set("test")) == 300
    for name, index in ((name, index) for name in ("cat", "dog") for index in range(20)):
        path = tmp_path / "test" / name / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(path)
    (tmp_path / "train").symlink_to(tmp_path / "test")
    few = open_test_images(str(tmp_path), root=tmp_path, like="cifar10", limit=15)
    labels = few.image_set("test").labels
    assert len(labels) == 15
    assert labels.unique().tolist() == [3, 5]  # and not that of the first folder alone
    again = open_test_images(str(tmp_path), root=tmp_path, like="cifar10", limit=15)
    assert torch.equal(labels, again.image_set("test").labels)
    with pytest.raises(DataError, match="given as test images"):
        few.image_set("train")
    with pytest.raises(DataError, match="neither a known data set"):
        open_test_images("nothing-sample", root=tmp_path)


def test_named_images_are_like_themselves(tmp_path: Path):
    for name in ("mnist", "mnist-sample"):
        with pytest.raises(DataError, match=rf"{name} was given with like='cifar10'. That is for folders"):
            open_test_images(name, root=tmp_path, like="cifar10")


def test_other_files_are_no_boards(tmp_path: Path):
    with pytest.raises(DataError, match="could not be read"):
        read_board(tmp_path / "missing.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match="no header or no entries"):
        read_board(tmp_path / "other.json")


def test_untrained_zoo_models_take_the_classes_of_the_data():
    spec = INPUT_SPECS["cifar100"]
    subject = open_subject("mdeq-cifar", spec)
    assert subject.weights == "random"
    assert subject.net.get_classifier().out_features == 100
