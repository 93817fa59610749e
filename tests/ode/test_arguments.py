"""What is refused, and in which words."""

import math

import pytest
import torch

from deqzoo.errors import StructureError
from deqzoo.ode import RK4, DormandPrince, Euler, odeint

H0 = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DormandPrince(rtol=-1.0), r"DormandPrince got rtol=-1\.0\. Tolerances are finite.*use rtol=1e-4"),
        (lambda: DormandPrince(atol=math.inf), r"got atol=inf"),
        (lambda: DormandPrince(rtol=math.nan), r"got rtol=nan"),
        (lambda: DormandPrince(rtol=0.0), r"rtol=0 and atol=0\. No step is free of error.*RK4\(num_steps=8\)"),
        (lambda: DormandPrince(max_steps=0), r"max_steps=0\. It takes at least one step: use max_steps=100"),
        (lambda: RK4(0), r"RK4 got num_steps=0\. It takes at least one step: use RK4\(1\)"),
        (lambda: Euler(num_steps=-2), r"Euler got num_steps=-2"),
    ],
)
def test_impossible_integrators(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ({"t1": math.inf}, r"t1 is not finite\. An integration ends somewhere: use finite times"),
        ({"t0": math.nan}, r"t0 is not finite"),
        ({"t1": torch.ones(3)}, r"t1 has shape \(3,\) for a batch of 2.*tensor of shape \(2,\)"),
        ({"t0": torch.zeros((), requires_grad=True)}, r"t0 requires gradients\. Times are constants.*detach it"),
    ],
)
def test_impossible_times(times, message):
    with pytest.raises(StructureError, match=message):
        odeint(lambda h, t: -h, H0, **times)


@pytest.mark.parametrize(
    ("f", "h0", "message"),
    [
        (
            lambda h, t: h[:, :2],
            H0,
            r"changed the shape of leaf 0 from \(2, 3\) to \(2, 2\)\. A derivative has the shape",
        ),
        (lambda h, t: (h,), H0, r"A derivative has the structure of the state"),
        (lambda h, t: h.mul_(2), H0, r"wrote into the state that it was given.*in-place"),
        (lambda h, t: -h, [H0], r"Found list in a state"),
        (lambda h, t: -h, torch.zeros(2, dtype=torch.int64), r"dtype torch\.int64.*floating point"),
    ],
)
def test_impossible_fields_and_states(f, h0, message):
    with pytest.raises(StructureError, match=message):
        odeint(f, h0)


def test_an_unknown_policy():
    with pytest.raises(ValueError, match=r"unconverged='maybe' is no policy\. Choose"):
        odeint(lambda h, t: -h, H0, unconverged="maybe")


def test_what_the_caller_gave_is_left_alone():
    h0 = torch.ones(2, 3)
    value = odeint(lambda h, t: 0 * h, h0).value
    value.add_(5)
    assert torch.equal(h0, torch.ones(2, 3))
    value = odeint(lambda h, t: -h, h0, t1=0.0).value
    value.add_(5)
    assert torch.equal(h0, torch.ones(2, 3))
