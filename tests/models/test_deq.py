"""The original layer: every solver finds its equilibrium, and every adjoint differentiates it."""

import pytest
import torch

from deqzoo.adjoints import Implicit
from deqzoo.errors import StructureError
from deqzoo.models import entry
from deqzoo.models.deq import DEQ, DEQCell
from deqzoo.nn import ImplicitModule, observe_equilibria, set_runtime
from deqzoo.solvers import Anderson, Broyden, NewtonKrylov, Picard

SOLVERS = [Picard(), Anderson(), Broyden(), NewtonKrylov()]
every_shape = pytest.mark.parametrize("dense", [False, True], ids=["convolution", "matrix"])


def small(**how) -> DEQ:
    torch.manual_seed(0)
    return DEQ(6, image_size=8, stem=4, cells=2, in_chans=2, num_classes=3, **how)


@pytest.mark.parametrize(("name", "most"), [("deq-mnist", 100_000), ("deq-mnist-dense", 100_000)])
def test_named_networks_are_small_and_converge(name, most):
    net = entry(name).build()
    assert sum(p.numel() for p in net.parameters()) < most
    with torch.no_grad(), observe_equilibria(net) as seen:
        assert net(torch.randn(4, 1, 28, 28)).shape == (4, 10)
    assert seen.converged.all()


@every_shape
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_all_solvers_agree(dense, solver):
    net = small(dense=dense).double().eval()
    x = torch.randn(4, 2, 8, 8, dtype=torch.float64)
    logits = []
    for chosen in (solver, Picard()):
        set_runtime(net, solver=chosen, rtol=1e-10, max_steps=500)
        with torch.no_grad(), observe_equilibria(net) as seen:
            logits.append(net(x))
        assert seen.converged.all()
    torch.testing.assert_close(*logits, rtol=1e-8, atol=1e-9)


@every_shape
def test_the_spectral_map_contracts_however_large_its_weights(dense):
    torch.manual_seed(0)
    cell = DEQCell(5, dense=dense).double()
    with torch.no_grad():
        for p in cell.parameters():
            p.copy_(100 * torch.randn_like(p))
    shape = (3, 5) if dense else (3, 5, 7, 6)
    x, u, v = (torch.randn(shape, dtype=torch.float64) for _ in range(3))
    with torch.no_grad():
        before, after = (u - v).flatten(1).norm(dim=1), (cell(u, x) - cell(v, x)).flatten(1).norm(dim=1)
    assert (after <= 0.95 * before).all()


@pytest.mark.parametrize("stability", ["spectral", "weight", "none"])
@every_shape
def test_gradients_agree_with_a_long_unroll(stability, dense):
    torch.manual_seed(0)
    cell = DEQCell(4, dense=dense, stability=stability).double()
    x = torch.randn((3, 4) if dense else (3, 4, 5, 5), dtype=torch.float64, requires_grad=True)
    precise = Anderson(rtol=1e-12, max_steps=300)
    found = ImplicitModule(cell, solver=precise, adjoint=Implicit(solver=precise))(x)
    wanted = torch.zeros_like(x)
    for _ in range(300):
        wanted = cell(wanted, x)
    inputs = [x, *cell.parameters()]
    gradients = [torch.autograd.grad(z.square().sum(), inputs) for z in (found, wanted)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


@every_shape
def test_training_moves_all_weights(dense):
    net = small(dense=dense)
    torch.nn.functional.cross_entropy(net(torch.randn(6, 2, 8, 8)), torch.arange(6) % 3).backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name


def test_unknown_stability_and_wrong_images_are_named():
    with pytest.raises(ValueError, match=r"stability='rigid' is unknown.*\"spectral\", \"weight\" or \"none\""):
        small(stability="rigid")
    with pytest.raises(StructureError, match=r"9x8 pixels.*takes 8x8"):
        small()(torch.zeros(2, 2, 9, 8))
