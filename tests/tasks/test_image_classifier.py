"""Training and evaluation of image classifiers."""

import csv
from copy import deepcopy

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch import nn

from deqzoo.adjoints import OneStep
from deqzoo.data import ImageFolder
from deqzoo.errors import DataError, DeqzooError, DivergedError, StructureError
from deqzoo.nn import observe_equilibria
from deqzoo.tasks import ImageClassifier, WarmupCosine, base
from deqzoo.tasks.on_its_way import OnItsWay
from deqzoo.tasks.solver_report import forward_figures

from .tiny import NUM_CLASSES, Batches, PixelsAsLogits, TinyData, TinyNet, make_batches, make_trainer, train


@pytest.fixture
def net() -> TinyNet:
    torch.manual_seed(0)
    return TinyNet()


def cross_entropy(logits, labels, smoothing=0.0):
    """The mean over samples of −Σ q log p, with q the smoothed label."""
    log_p = logits.double().log_softmax(-1)
    q = torch.full_like(log_p, smoothing / log_p.shape[1])
    q[torch.arange(len(labels)), labels] += 1 - smoothing
    return -(q * log_p).sum(1).mean().item()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_training_loss_is_the_cross_entropy(net, smoothing):
    ((images, labels),) = batches = make_batches(1)
    expected = cross_entropy(deepcopy(net)(images).detach(), labels, smoothing)
    trainer = train(ImageClassifier(net, label_smoothing=smoothing), batches, max_steps=1)
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(expected, rel=1e-5)


def test_two_epochs_teach_something(net):
    task = ImageClassifier(net, optimizer=lambda p: torch.optim.AdamW(p, lr=0.03), schedule=WarmupCosine())
    (before,) = make_trainer().validate(task, TinyData(), verbose=False)
    trainer = make_trainer(max_epochs=2)
    trainer.fit(task, TinyData())
    assert before["val/top1"] < 0.4
    assert trainer.callback_metrics["val/top1"] > 0.9
    assert trainer.callback_metrics["val/loss"] < before["val/loss"] / 2


def evaluate(logits, labels, size=7):
    """Returns the test metrics for logits (N, K) that come in batches of at most `size` images."""
    images = logits[:, None, None, :]
    batches = Batches(zip(images.split(size), labels.split(size), strict=True))
    task = ImageClassifier(PixelsAsLogits(logits.shape[1]))
    (metrics,) = make_trainer().test(task, batches, verbose=False)
    return metrics


def test_accuracy_counts_images_not_classes():
    labels = torch.tensor([0] * 17 + [1, 2, 3])
    logits = torch.zeros(20, 6)
    logits[:, 0] = 1.0  # right for all of class 0 and none of the others
    assert evaluate(logits, labels)["test/top1"] == pytest.approx(17 / 20)


def test_top5_and_loss_over_uneven_batches():
    logits = torch.randn(23, 9, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(23) % 9
    metrics = evaluate(logits, labels)
    among = (logits.topk(5).indices == labels[:, None]).any(1).double().mean().item()
    assert metrics["test/top5"] == pytest.approx(among)
    assert metrics["test/loss"] == pytest.approx(cross_entropy(logits, labels), rel=1e-5)


def test_top5_of_five_classes_is_not_reported():
    assert "test/top5" not in evaluate(torch.rand(8, 5), torch.zeros(8, dtype=torch.long))


@pytest.mark.parametrize("scale", [1, 5])
def test_the_calibration_error_has_fifteen_bins_of_probabilities(scale):
    # At scale 1, logits lie within [0, 1] and could be taken for probabilities.
    logits = scale * torch.rand(200, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(200) % 6
    confidence, guess = logits.double().softmax(-1).max(-1)
    hits = (guess == labels).double().numpy()
    bins = np.minimum((confidence.numpy() * 15).astype(int), 14)
    expected = sum(
        abs(hits[bins == b].mean() - confidence.numpy()[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)
    )
    assert evaluate(logits, labels)["test/ece"] == pytest.approx(expected, abs=1e-5)


def test_solves_are_reported_in_evaluation(net):
    batches = make_batches(2, seed=2)
    (metrics,) = make_trainer().test(ImageClassifier(net), batches, verbose=False)
    seen_by_hand = []
    with torch.no_grad():
        for images, _ in batches:
            with observe_equilibria(net.eval()) as seen:
                net(images)
            seen_by_hand.append((seen.num_steps, seen.residual, seen.converged))
    steps, residuals, converged = (torch.cat(parts) for parts in zip(*seen_by_hand, strict=True))
    assert metrics["test/evals_mean"] == pytest.approx(steps.double().mean().item())
    assert metrics["test/residual_max"] == pytest.approx(residuals.max().item())
    assert metrics["test/converged"] == converged.double().mean().item() == 1.0


def test_solves_are_reported_in_the_steps_that_are_logged_alone(net, tmp_path, monkeypatch):
    computed = []
    monkeypatch.setattr(base, "forward_figures", lambda seen: computed.append(seen) or forward_figures(seen))
    logger = CSVLogger(tmp_path, name="", version="")
    trainer = train(ImageClassifier(net), make_batches(6), max_epochs=1, log_every_n_steps=3, logger=logger)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("train/evals_mean", "train/backward_evals_mean", "train/lr"):
        assert [row["step"] for row in rows if row[name]] == ["2", "5"]
    assert len(computed) == 2
    for prefix in ("train/", "train/backward_"):
        assert 2 < trainer.callback_metrics[prefix + "evals_mean"] < 50
        assert trainer.callback_metrics[prefix + "converged"] == 1.0
        assert 0 < trainer.callback_metrics[prefix + "residual_max"] <= 1e-4


def test_an_adjoint_that_solves_nothing_reports_no_backward_solve(net):
    net.equilibrium.adjoint = OneStep()
    trainer = train(ImageClassifier(net), make_batches(1), max_steps=1)
    assert "train/evals_mean" in trainer.callback_metrics
    assert "train/backward_evals_mean" not in trainer.callback_metrics


def first_loss(net, batches, **options):
    torch.manual_seed(0)
    np.random.seed(0)
    trainer = train(ImageClassifier(deepcopy(net), **options), batches, max_steps=1)
    return trainer.callback_metrics["train/loss"].item()


@pytest.mark.parametrize("options", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}], ids=str)
def test_mixing_changes_even_batches_but_not_the_data(net, options):
    batches = make_batches(1)
    kept = batches[0][0].clone()
    assert first_loss(net, batches, **options) != pytest.approx(first_loss(net, batches), rel=1e-3)
    assert torch.equal(batches[0][0], kept)


def test_an_odd_batch_is_left_unmixed(net):
    batches = make_batches(1, size=31)
    assert first_loss(net, batches, mixup=1.0) == first_loss(net, batches)


def test_a_mixed_batch_has_labels_in_the_ratio_of_its_images():
    # With pixels as logits, the loss of a mixture tells the ratio: images and labels must have the same one.
    images, labels = torch.eye(2)[:, None, None, :] * 10, torch.tensor([0, 1])
    task = ImageClassifier(PixelsAsLogits(2), mixup=1.0)
    task.trainer = make_trainer()
    task.setup("fit")
    np.random.seed(3)
    assert task._mix is not None
    mixed, targets = task._mix(images.clone(), labels)
    torch.testing.assert_close(mixed.flatten(1) / 10, targets)
    assert 0.05 < targets[0, 0] < 0.95


@pytest.mark.filterwarnings("ignore::deqzoo.errors.UnconvergedWarning")
def test_nan_in_an_image_stops_training(net):
    batches = make_batches(3)
    batches[2][0][5, 0, 1, 1] = torch.nan
    net.norm = nn.Identity()  # which would spread it to the batch
    reference = deepcopy(net)
    train(ImageClassifier(reference), make_batches(2), max_epochs=1)
    with pytest.raises(DivergedError) as caught:
        train(ImageClassifier(net), batches, max_epochs=1, log_every_n_steps=50)
    for name, value in net.state_dict().items():
        assert torch.equal(value, reference.state_dict()[name]), f"{name} was changed by the batch with NaN"
    message = str(caught.value)
    assert "batch 2 in epoch 0 (step 2) is nan" in message
    assert "Images with NaN or inf: 1 of 32. Weights: none." in message
    assert "Solves: equilibrium (1 of 32 samples)." in message
    assert "lower the learning rate" in message


@pytest.mark.filterwarnings("ignore::deqzoo.errors.UnconvergedWarning")
def test_nan_in_an_accumulated_batch_stops_training(net):
    batches = make_batches(4)
    batches[1][0][5, 0, 1, 1] = torch.nan
    before = deepcopy(net.fc)
    with pytest.raises(DivergedError, match=r"batch 1 in epoch 0 \(step 0\) is nan"):
        train(ImageClassifier(net), batches, max_epochs=1, accumulate_grad_batches=4)
    assert torch.equal(net.fc.weight, before.weight)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_number_on_its_way_is_that_of_its_moment():
    value = torch.zeros((), device="cuda")
    torch.cuda._sleep(50_000_000)
    value += 3
    sent = OnItsWay(value)
    value += 4
    assert sent.read() == 3.0


@pytest.mark.filterwarnings("ignore::deqzoo.errors.UnconvergedWarning")
def test_nan_in_the_weights_stops_training(net):
    with torch.no_grad():
        net.entry.weight[0, 0] = torch.inf
    with pytest.raises(DivergedError, match=r"or inf: 0 of 32\. Weights: entry\.weight\. Solves: equil"):
        train(ImageClassifier(net), make_batches(1), max_epochs=1)


def test_a_model_in_eval_mode_is_trained_in_training_mode(net):
    task = ImageClassifier(net).eval()
    train(task, make_batches(1), max_steps=1)
    assert all(module.training for module in task.net.modules())
    assert net.norm.num_batches_tracked == 1


def test_a_part_in_eval_mode_stays_so(net):
    task = ImageClassifier(net)
    net.norm.eval()
    with pytest.warns(UserWarning, match="in eval mode at the start of training"):
        train(task, make_batches(1), max_steps=1)
    assert net.norm.num_batches_tracked == 0


def test_a_head_may_be_changed_after_the_task_was_made(net):
    task = ImageClassifier(net)
    net.fc, net.num_classes = nn.Linear(8, 9), 9
    trainer = make_trainer(max_epochs=1, limit_train_batches=1)
    trainer.fit(task, TinyData())
    assert "val/top1" in trainer.callback_metrics


def test_the_default_optimizer_spares_biases(net):
    optimizer = ImageClassifier(net).configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    assert decays == [0.01, 0.0]


def test_the_schedule_spans_the_run_and_follows_the_steps(net):
    task = ImageClassifier(
        net,
        optimizer=lambda p: torch.optim.SGD(p, lr=1e-3),
        schedule=WarmupCosine(warmup=0.5, final=0.0),
    )
    rates = []

    class Rates(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    train(task, make_batches(4), max_epochs=2, callbacks=[Rates()], accumulate_grad_batches=2)
    expected = [0.25e-3, 0.75e-3, 0.8535534e-3, 0.1464466e-3]
    assert rates == pytest.approx([rate for rate in expected for _ in range(2)])


def test_a_schedule_needs_an_end(net):
    task = ImageClassifier(net, schedule=WarmupCosine())
    with pytest.raises(DeqzooError, match=r"has no end.*Set --trainer\.max_epochs"):
        train(task, make_batches(1), max_epochs=-1)


def test_features_cannot_be_classified():
    with pytest.raises(StructureError, match=r"num_classes = 0.*reset_classifier"):
        train(ImageClassifier(PixelsAsLogits(0)), make_batches(1), max_steps=1)


def test_more_classes_than_the_network_has_are_refused(tmp_path):
    for split, name in ((split, name) for split in ("train", "test") for name in ("cat", "dog")):
        (tmp_path / split / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / split / name / "1.png")
    trainer, task = make_trainer(max_steps=1), ImageClassifier(PixelsAsLogits(2))
    with pytest.raises(DataError, match=r"10 classes and the network chooses among 2\. .*num_classes=10"):
        trainer.fit(task, ImageFolder(tmp_path, like="cifar10"))


@pytest.mark.parametrize("wrong", [{"label_smoothing": 1.0}, {"mixup": -1.0}, {"cutmix": -0.1}], ids=str)
def test_impossible_options_are_refused(net, wrong):
    with pytest.raises(ValueError, match="correct the value"):
        ImageClassifier(net, **wrong)


def test_it_is_called_like_its_network(net):
    images = make_batches(1)[0][0]
    task = ImageClassifier(net).eval()
    assert torch.equal(task(images), net(images))
    assert task(images).shape == (32, NUM_CLASSES)


def test_the_transform_comes_from_the_network(net):
    assert ImageClassifier(net).transform.size == (4, 4)
    with pytest.raises(StructureError, match="pretrained_cfg has no input_size, mean, std"):
        _ = ImageClassifier(PixelsAsLogits(3)).transform
