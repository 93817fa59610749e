"""The learning rate over a run."""

import pytest
import torch

from deqzoo.tasks import WarmupCosine


def rates(schedule: WarmupCosine, num_steps: int, lr: float = 0.1) -> list[float]:
    """Returns the learning rate that each step of a run uses."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = schedule.attach(optimizer, num_steps)
    used = []
    for _ in range(num_steps):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return used


def test_the_rate_at_start_middle_and_end():
    schedule = WarmupCosine(warmup=0.2, final=0.1)
    assert schedule.factor(0.0) == 0.0
    assert schedule.factor(0.1) == pytest.approx(0.5)
    assert schedule.factor(0.2) == pytest.approx(1.0)
    assert schedule.factor(0.6) == pytest.approx(0.55)
    assert schedule.factor(1.0) == pytest.approx(0.1)


def test_each_step_gets_the_factor_at_its_middle():
    used = rates(WarmupCosine(warmup=0.5, final=0.0), num_steps=4)
    assert used == pytest.approx([0.025, 0.075, 0.1 * 0.8535534, 0.1 * 0.1464466])


def test_without_warmup_it_starts_near_the_full_rate():
    used = rates(WarmupCosine(warmup=0.0), num_steps=100)
    assert used[0] == pytest.approx(0.1, rel=1e-3)
    assert used == sorted(used, reverse=True)
    assert 0 < used[-1] < 1e-4


def test_after_the_end_the_rate_stays():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = WarmupCosine(warmup=0.1, final=0.25).attach(optimizer, 3)
    for _ in range(10):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.25)


@pytest.mark.parametrize("wrong", [{"warmup": 1.0}, {"warmup": -0.1}, {"final": 1.5}], ids=str)
def test_impossible_shares_are_refused(wrong):
    with pytest.raises(ValueError, match=r"Both are shares.*choose warmup from \[0, 1\)"):
        WarmupCosine(**wrong)
