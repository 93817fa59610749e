"""A run that goes wrong stops, or leaves a batch out, and says where it went wrong."""

from copy import deepcopy

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from deqzoo import ode
from deqzoo.errors import DivergedError
from deqzoo.nn import Dynamics, ODEModule, observe_equilibria
from deqzoo.tasks import DivergenceGuard, ImageClassifier
from deqzoo.tasks.diagnosis import RecentSolves, diagnose

from .test_solver_report import FIRST, SECOND, observed
from .tiny import TinyNet, make_batches, train

pytestmark = pytest.mark.filterwarnings("ignore::deqzoo.errors.UnconvergedWarning")


@pytest.fixture
def net() -> TinyNet:
    net = TinyNet()
    net.norm = nn.Identity()  # which would spread NaN to a batch and to all that follow
    return net


def spoilt(*indices: int, num_batches: int = 6):
    """Returns batches of which some have one image with NaN."""
    batches = make_batches(num_batches)
    for index in indices:
        batches.batches[index][0][5, 0, 1, 1] = torch.nan
    return batches


def test_what_is_not_finite_is_named():
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(7)))
    with torch.no_grad():
        for layer in net.parameters():
            layer[0] = torch.nan
    images = torch.zeros(3, 1, 2, 2)
    images[1, 0, 0, 1] = torch.inf
    told = diagnose(net, images, observed(("first", FIRST), ("second", SECOND)), RecentSolves())
    assert told == (
        "Images with NaN or inf: 1 of 3. "
        "Weights: 0.weight, 0.bias, 1.weight, 1.bias, 2.weight and 9 more. "
        "Solves: second (1 of 3 samples). "
        "Worst solve: second, with residuals ‖f(z) − z‖ / ‖f(z)‖ of 0.02 in the median and 0.04 at most."
    )


def test_the_spectral_radius_is_that_of_the_cell(net):
    # Where nothing is injected the equilibrium is 0, and the Jacobian there the matrix itself.
    nn.init.zeros_(net.entry.weight)
    nn.init.zeros_(net.entry.bias)
    recent = RecentSolves()
    recent.watch(net)
    images = make_batches(1)[0][0]
    with observe_equilibria(net) as seen:
        net(images)
    want = float(torch.linalg.eigvals(net.equilibrium.cell.linear.weight.detach()).abs().max())
    assert recent.radius("equilibrium").tolist() == pytest.approx([want] * 32, rel=1e-3)
    assert f"is {want:.2f} in the median" in diagnose(net, images, seen, recent)
    recent.forget()
    assert recent.radius("equilibrium") is None
    assert not net.equilibrium._forward_hooks


def test_batches_with_nan_are_left_out(net):
    reference = deepcopy(net)
    kept = make_batches(6)
    kept.batches = [kept[i] for i in (0, 1, 3, 4, 5)]
    train(ImageClassifier(reference), kept, max_epochs=1)
    with pytest.warns(UserWarning, match=r"batch 2 in epoch 0 .*1 of 32.*dropped, the 1\. in a row of at most 1"):
        train(ImageClassifier(net), spoilt(2), max_epochs=1, callbacks=[DivergenceGuard(skip=1)])
    for name, value in net.state_dict().items():
        assert torch.equal(value, reference.state_dict()[name]), name


def half_precision(scale: float) -> MixedPrecision:
    return MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=scale))


def test_batches_are_left_out_in_half_precision_too(net):
    before = deepcopy(net.state_dict())
    guard = DivergenceGuard(skip=6)
    with pytest.warns(UserWarning, match=r"dropped, the \d\. in a row of at most 6"):
        train(ImageClassifier(net), spoilt(*range(6)), max_epochs=1, callbacks=[guard], plugins=[half_precision(8.0)])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with pytest.warns(UserWarning, match=r"batch 2 .*dropped"):
        train(ImageClassifier(net), spoilt(2), max_epochs=1, callbacks=[guard], plugins=[half_precision(8.0)])
    assert all(value.isfinite().all() for value in net.state_dict().values())
    assert not all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_gradients_that_overflow_for_being_scaled_are_the_scalers_to_leave_out(net, recwarn):
    plugin = half_precision(1e38)
    batches = make_batches(60)
    train(ImageClassifier(net), batches, max_epochs=1, callbacks=[DivergenceGuard(skip=1)], plugins=[plugin])
    assert plugin.scaler is not None and plugin.scaler.get_scale() < 1e38
    assert not any("dropped" in str(w.message) for w in recwarn)
    assert all(value.isfinite().all() for value in net.state_dict().values())


def test_only_so_many_in_a_row(net):
    batches = spoilt(0, 2, 3)
    with (
        pytest.warns(UserWarning, match="gradients are dropped"),
        pytest.raises(DivergedError, match=r"batch 3 in epoch 0 .* is nan"),
    ):
        train(ImageClassifier(net), batches, max_epochs=1, callbacks=[DivergenceGuard(skip=1)])


def test_an_infinite_gradient_of_a_finite_loss_is_left_out(net):
    before = deepcopy(net.state_dict())
    net.fc.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.warns(UserWarning, match=r"^The gradient, or another process's, of batch 0 .* is NaN or infinite"):
        train(ImageClassifier(net), make_batches(1), max_epochs=1, callbacks=[DivergenceGuard(skip=1)])
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_statistics_with_nan_cannot_be_left_out():
    with pytest.raises(DivergedError, match=r"Statistics: norm\.running_mean, norm\.running_var\."):
        train(ImageClassifier(TinyNet()), spoilt(1), max_epochs=1, callbacks=[DivergenceGuard(skip=3)])


def test_solves_that_keep_failing_stop_the_run(net):
    with torch.no_grad():
        net.equilibrium.cell.linear.weight.mul_(12)  # orthogonal times 6: no iteration converges
    guard = DivergenceGuard(residual=1e-2, patience=2)
    with pytest.raises(DivergedError) as caught:
        train(ImageClassifier(net), make_batches(6), max_epochs=1, callbacks=[guard])
    message = str(caught.value)
    assert "solves of 3 batches in a row failed, the last of them batch 2 in epoch 0" in message
    assert "Worst solve: equilibrium" in message and "above 1 (where plain iteration expands) in" in message
    assert "JacobianPenalty" in message


class Recording(DivergenceGuard):
    """Also writes down, of every batch, whether its solves failed."""

    def __init__(self, *, residual: float, patience: int) -> None:
        super().__init__(residual=residual, patience=patience)
        self.threshold = residual
        self.failed: list[bool] = []

    def judge(self, task, step, recent) -> None:
        over = [residual > self.threshold for residual in step.seen.residual.tolist()]
        self.failed.append(sum(over) > len(over) / 2)
        super().judge(task, step, recent)


def test_failing_batches_between_good_ones_do_not(net):
    with torch.no_grad():
        net.equilibrium.cell.linear.weight.mul_(12)
    batches = make_batches(6)
    for images, _ in batches.batches[1::2]:
        images.mul_(1e4)  # where tanh is flat, so that one evaluation is all it takes
    guard = Recording(residual=1e-2, patience=1)
    trainer = train(ImageClassifier(net), batches, max_epochs=1, callbacks=[guard])
    assert guard.failed == [True, False] * 3
    assert trainer.global_step == 6


def test_batches_whose_solves_fail_are_left_out_if_so_wanted(net):
    with torch.no_grad():
        net.equilibrium.cell.linear.weight.mul_(12)
    before = deepcopy(net.state_dict())
    task = ImageClassifier(net, optimizer=lambda groups: torch.optim.SGD(groups, 0.1))
    guard = DivergenceGuard(residual=1e-2, patience=3, drop=True)
    dropped = pytest.warns(UserWarning, match=r"failed: its gradients are dropped, the \d\. in a row of at most 3\. ")
    with dropped:
        train(task, make_batches(3), max_epochs=1, callbacks=[guard])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with pytest.raises(DivergedError, match="solves of 4 batches in a row failed"):
        train(
            ImageClassifier(net), make_batches(4), max_epochs=1, callbacks=[DivergenceGuard(residual=1e-2, patience=3)]
        )


class Decay(Dynamics):
    """h' = −h."""

    def forward(self, h, t):  # pyright: ignore[reportIncompatibleMethodOverride]
        return -h


def test_odes_of_fixed_steps_have_no_residual_and_do_not_fail(net):
    net.equilibrium = ODEModule(Decay(), solver=ode.Euler(num_steps=3), adjoint=ode.Unrolled())
    guard = DivergenceGuard(residual=1e-2, patience=0)
    trainer = train(ImageClassifier(net), make_batches(3), max_epochs=1, callbacks=[guard])
    assert trainer.global_step == 3


@pytest.mark.parametrize("options", [{"skip": -1}, {"patience": -1}, {"residual": 0.0}, {"drop": True}], ids=str)
def test_values_out_of_range(options):
    with pytest.raises(ValueError, match="correct the value"):
        DivergenceGuard(**options)
