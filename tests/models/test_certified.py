"""What is proved of equilibria: of random weights, of trained ones, and of none that do not deserve it."""

import pytest
import torch
from torch.nn import functional as F

import deqzoo
from deqzoo.data import EmbeddedSample
from deqzoo.fixed_point import fixed_point
from deqzoo.models.certified import Certified
from deqzoo.models.deq import DEQ
from deqzoo.models.mondeq import MonDEQ, MonDEQConfig
from deqzoo.models.neural_ode import NeuralODE
from deqzoo.models.pcdeq import PcDEQ
from deqzoo.nn import ForwardBackward, PeacemanRachford, equilibria
from deqzoo.solvers import Anderson, Picard

CONFIGS = {
    "dense": MonDEQConfig(widths=(6,), image_size=8, dense=True, norms=False, margin=0.4),
    "single": MonDEQConfig(widths=(4,), image_size=8, stem=(3,), stride=2, cells=2),
    "tiers": MonDEQConfig(widths=(3, 4), image_size=8, cells=2, margin=0.7),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
MARGIN = "margin, the least eigenvalue of I − (W + Wᵀ) / 2"
CERTIFIED = ["pcdeq-mnist-linear", "pcdeq-mnist", "mondeq-mnist", "deq-mnist", "deq-mnist-dense"]
SHIPPED = [name for name in CERTIFIED if name in deqzoo.list_models(pretrained=True)]


def trained(config: MonDEQConfig) -> MonDEQ:
    """A network after steps that are as large as training's may get."""
    torch.manual_seed(0)
    net = MonDEQ(config, in_chans=2, num_classes=3)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    x, labels = torch.randn(24, 2, 8, 8), torch.arange(24) % 3
    for _ in range(15):
        optimizer.zero_grad()
        F.cross_entropy(net(x), labels).backward()
        optimizer.step()
    return net.double().eval()


def scattered(like: torch.Tensor, *, nonnegative: bool = False) -> torch.Tensor:
    """64 starts of the shape of one state, from small to large."""
    sizes = 10.0 ** torch.linspace(-2, 1.5, 64, dtype=like.dtype)[(...,) + (None,) * (like.ndim - 1)]
    noise = torch.randn(64, *like.shape[1:], dtype=like.dtype, generator=torch.Generator().manual_seed(1))
    return sizes * (noise.abs() if nonnegative else noise)


def repeated(x):
    return tuple(map(repeated, x)) if isinstance(x, tuple) else x.expand(64, *x.shape[1:])


def one_point(value, *, atol: float) -> None:
    for part in value if isinstance(value, tuple) else (value,):
        assert part.abs().sum() > 0
        torch.testing.assert_close(part, part[:1].expand_as(part), rtol=0, atol=atol)


@every_config
def test_training_keeps_margin_uniqueness_and_the_agreement_of_splittings(config):
    net = trained(config)
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    torch.manual_seed(0)
    before = MonDEQ(config, in_chans=2, num_classes=3).certificate(x)
    proof = net.certificate(x)
    assert proof.unique
    assert proof.at_least[MARGIN] >= config.margin - 1e-9
    # It has been trained indeed.
    assert proof.at_most["‖I − W‖₂"] != pytest.approx(before.at_most["‖I − W‖₂"], rel=0.02)
    cell, injection = net.equilibrium.cell, net.injection(x)
    splittings = [ForwardBackward(), PeacemanRachford(alpha=0.2)][: 1 if len(config.widths) > 1 else 2]
    met = []
    for splitting in splittings:
        cell.splitting = splitting
        parts = injection if isinstance(injection, tuple) else (injection,)
        starts = tuple(map(scattered, parts))
        found = fixed_point(
            cell,
            starts if isinstance(injection, tuple) else starts[0],
            repeated(injection),
            solver=Anderson(rtol=1e-8, max_steps=1500, patience=700),
            iterate=cell.iterate(repeated(injection)),
        )
        assert found.stats.converged.all()
        one_point(found.value, atol=1e-6)
        met.append(found.value)
    torch.testing.assert_close(met[0], met[-1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_have_one_equilibrium_for_64_starts(name):
    net = deqzoo.load(name).net.double()  # pyright: ignore
    images = EmbeddedSample("mnist").image_set("test").images[:1].double() / 255
    assert isinstance(net, Certified)
    assert net.certificate(images).unique
    (key, module), *_ = equilibria(net).items()  # pyright: ignore
    given: list = []
    handle = module.register_forward_pre_hook(lambda _, args: given.extend(args))
    with torch.no_grad():
        net(images)  # pyright: ignore
    handle.remove()
    x, positive = given[0], isinstance(net, PcDEQ)
    cell = module.cell
    found = fixed_point(
        cell,
        scattered(x, nonnegative=positive),
        repeated(x),
        solver=Picard(rtol=1e-9, max_steps=5000, patience=5000) if positive else Anderson(rtol=1e-9, max_steps=2000),
        iterate=cell.iterate(repeated(x)),
    )
    assert found.stats.converged.all(), key
    one_point(found.value, atol=1e-6)


@pytest.mark.parametrize("dense", [False, True], ids=["convolution", "matrix"])
def test_a_deq_contracts_at_its_certified_rate(dense):
    torch.manual_seed(0)
    net = DEQ(5, image_size=8, stem=3, cells=2, dense=dense, in_chans=2).double().eval()
    x = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    proof = net.certificate(x, rtol=1e-3)
    rate, steps = float(proof.rate), int(proof.max_steps)
    assert 0.1 < rate <= 0.95 + 1e-9
    cell, injection = net.equilibrium.cell, net.inject(x)
    # ‖W‖₂ itself: of a matrix, and of the convolution as one.
    shape = injection.shape[1:]
    eye = torch.eye(shape.numel(), dtype=torch.float64).unflatten(1, shape)
    with torch.no_grad():
        true = float(torch.linalg.matrix_norm(cell.weights(eye).flatten(1), ord=2))
    assert true <= rate + 1e-9
    assert rate <= (1 + 1e-9 if dense else 1.4) * true
    with torch.no_grad():
        u, v = torch.randn(2, 3, *shape, dtype=torch.float64)
        for _ in range(4):
            gap = (u - v).flatten(1).norm(dim=1)
            u, v = cell(u, injection), cell(v, injection)
            assert ((u - v).flatten(1).norm(dim=1) <= rate * gap + 1e-12).all()
        z = near = torch.zeros_like(injection)
        for k in range(600):
            z = cell(z, injection)
            near = z if k + 1 == steps else near
        assert ((near - z).flatten(1).norm(dim=1) <= 1e-3 * z.flatten(1).norm(dim=1)).all()


def test_weights_that_may_stretch_are_not_certified():
    torch.manual_seed(0)
    net = DEQ(5, image_size=8, dense=True, stability="weight", in_chans=2)
    assert net.guarantee is None
    with torch.no_grad():
        net.equilibrium.cell.weights.parametrizations.weight.original0.fill_(3)
    proof = net.certificate(torch.zeros(1, 2, 8, 8))
    assert not proof.unique
    assert (float(proof.rate), float(proof.max_steps)) == (1, float("inf"))
    with pytest.raises(ValueError, match=r"rtol=2.*lies in \(0, 1\)"):
        net.certificate(torch.zeros(1, 2, 8, 8), rtol=2)


def test_what_is_certain_is_told_only_where_it_is():
    assert "Every flow exists" in NeuralODE(8, (8,)).guarantee
    assert deqzoo.create_model("revdeq-cifar").guarantee is None
