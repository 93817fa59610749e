"""Spectral radii are those of equilibria, and of nothing else."""

import torch

from deqzoo import create_model, observe_equilibria
from deqzoo.benchmark.radii import spectral_radii


def test_contracting_equilibria_have_radii_below_one():
    torch.manual_seed(0)
    found = spectral_radii(create_model("deq-mnist").eval(), torch.randn(2, 1, 28, 28))
    assert found is not None
    assert (found["num_images"], len(found["max"])) == (2, 1)
    assert 0 < found["mean"][0] <= found["max"][0] < 1


def test_a_differential_equation_has_none():
    net = create_model("node-mnist").eval()
    with observe_equilibria(net) as seen:
        assert spectral_radii(net, torch.randn(2, 1, 28, 28)) is None
    assert seen.solutions
