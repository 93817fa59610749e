"""Training solves in its own way, and nothing else does."""

from contextlib import nullcontext

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from deqzoo.adjoints import Implicit, OneStep
from deqzoo.nn import ImplicitModule
from deqzoo.ode import Euler
from deqzoo.solvers import Anderson, Picard
from deqzoo.tasks import ImageClassifier, TrainingSolver

from .tiny import TinyCell, TinyData, TinyNet, make_batches, make_trainer, train

LOOSE = Picard(rtol=1e-2, max_steps=100)


class Watched(Callback):
    """Notes what the equilibrium is solved with in each kind of batch, and between them."""

    def __init__(self) -> None:
        self.seen = {"train": set(), "val": set(), "test": set(), "between": set()}

    def note(self, kind, pl_module) -> None:
        equilibrium = pl_module.net.equilibrium
        self.seen[kind].add((equilibrium.solver, equilibrium.adjoint))

    def on_before_backward(self, trainer, pl_module, loss):
        self.note("train", pl_module)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.note("train", pl_module)

    def on_validation_batch_start(self, trainer, pl_module, *_):
        self.note("val", pl_module)

    def on_test_batch_start(self, trainer, pl_module, *_):
        self.note("test", pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        self.note("between", pl_module)

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        self.note("between", pl_module)


def test_training_batches_alone_are_solved_differently(tmp_path):
    net = TinyNet()
    own = (net.equilibrium.solver, net.equilibrium.adjoint)
    watched = Watched()
    trainer = make_trainer(
        max_epochs=2,
        val_check_interval=2,  # in the middle of an epoch
        callbacks=[TrainingSolver(solver=LOOSE, adjoint=OneStep()), watched],
        enable_checkpointing=True,
        default_root_dir=tmp_path,
    )
    task = ImageClassifier(net)
    trainer.fit(task, TinyData())
    trainer.test(task, TinyData(), verbose=False)
    assert watched.seen == {"train": {(LOOSE, OneStep())}, "val": {own}, "test": {own}, "between": {own}}
    assert (net.equilibrium.solver, net.equilibrium.adjoint) == own


def test_the_looser_solver_is_what_training_costs():
    def evaluations(*callbacks):
        torch.manual_seed(0)
        trainer = train(ImageClassifier(TinyNet()), make_batches(1), max_steps=1, callbacks=list(callbacks))
        return {key: trainer.callback_metrics[f"train/{key}evals_mean"] for key in ("", "backward_")}

    own, loose = evaluations(), evaluations(TrainingSolver(solver=LOOSE))
    assert loose[""] < own[""]
    assert loose["backward_"] == pytest.approx(own["backward_"], abs=1)  # the adjoint is the net's own
    assert evaluations(TrainingSolver(adjoint=Implicit(solver=LOOSE)))["backward_"] < own["backward_"]


def test_equilibria_of_different_solvers_each_get_their_own_back():
    net = TinyNet()
    net.dropout = nn.Sequential(ImplicitModule(TinyCell(), solver=Anderson(rtol=1e-4), adjoint=OneStep()))
    train(ImageClassifier(net), make_batches(2), max_epochs=1, callbacks=[TrainingSolver(solver=LOOSE)])
    assert net.equilibrium.solver == Picard(rtol=1e-4)
    assert (net.dropout[0].solver, net.dropout[0].adjoint) == (Anderson(rtol=1e-4), OneStep())


class Stops(ImageClassifier):
    """Ends a batch before its regular end."""

    how: BaseException | None

    def on_train_batch_start(self, batch, batch_idx):
        assert self.net.equilibrium.solver == LOOSE
        if self.how is None:
            return -1  # skips the rest of the epoch
        raise self.how


@pytest.mark.parametrize("how", [RuntimeError("broken"), KeyboardInterrupt(), None], ids=repr)
def test_a_training_that_ends_early_leaves_the_nets_own(how):
    net = TinyNet()
    own = (net.equilibrium.solver, net.equilibrium.adjoint)
    task = Stops(net)
    task.how = how
    ends = nullcontext() if how is None else pytest.raises((SystemExit, RuntimeError))
    with ends:
        train(task, make_batches(2), max_epochs=1, callbacks=[TrainingSolver(solver=LOOSE, adjoint=OneStep())])
    assert (net.equilibrium.solver, net.equilibrium.adjoint) == own


def test_a_network_without_equilibria_is_named():
    task = ImageClassifier(TinyNet())
    task.net.equilibrium = nn.Identity()
    with pytest.raises(ValueError, match="no equilibrium to solve"):
        train(task, make_batches(1), max_steps=1, callbacks=[TrainingSolver(solver=LOOSE)])


class Budgets(Callback):
    """Notes the budget of every batch."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_before_backward(self, trainer, pl_module, loss):
        self.seen.append(pl_module.net.equilibrium.solver.max_steps)


def test_budgets_may_grow_over_a_run():
    net, budgets = TinyNet(), Budgets()
    early, late = Picard(rtol=0, max_steps=3), Picard(rtol=0, max_steps=7)
    callbacks = [TrainingSolver(solver=early, end=0.5), TrainingSolver(solver=late, start=0.5), budgets]
    train(ImageClassifier(net), make_batches(4), max_epochs=2, callbacks=callbacks)
    assert budgets.seen == [3] * 4 + [7] * 4
    assert net.equilibrium.solver == TinyNet().equilibrium.solver


def test_random_budgets_belong_to_steps(tmp_path):
    def budgets(seed: int, **trainer) -> list[int]:
        torch.manual_seed(seed)
        seen = Budgets()
        solver = TrainingSolver(solver=Picard(rtol=0, max_steps=3), budgets=(2, 5))
        train(ImageClassifier(TinyNet()), make_batches(30), max_epochs=2, callbacks=[solver, seen], **trainer)
        return seen.seen

    drawn = budgets(0)
    assert len(drawn) == 60
    assert set(drawn) == {2, 3, 4, 5}
    assert drawn[:30] != drawn[30:]
    assert budgets(1) == drawn, "another rank, or a resumed run, has the same"
    twice = budgets(0, accumulate_grad_batches=2)
    assert twice == [budget for budget in drawn[:30] for _ in range(2)], "one for each step of the optimiser"


@pytest.mark.parametrize(
    ("solver", "budgets", "message"),
    [
        (None, (2, 5), "Only solvers of fixed points have budgets"),
        (Euler(num_steps=3), (2, 5), "Only solvers of fixed points have budgets"),
        (LOOSE, (5, 2), "1 <= fewest <= most"),
        (LOOSE, (0, 2), "1 <= fewest <= most"),
    ],
    ids=repr,
)
def test_refuses_budgets_that_are_none(solver, budgets, message):
    with pytest.raises(ValueError, match=message):
        TrainingSolver(solver=solver, budgets=budgets)


@pytest.mark.parametrize("span", [{"start": 0.5, "end": 0.5}, {"start": -0.1}, {"end": 1.1}])
def test_refuses_spans_that_are_none(span):
    with pytest.raises(ValueError, match="leave them away for all of it"):
        TrainingSolver(solver=LOOSE, **span)
