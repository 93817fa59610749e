"""monDEQ: margins that hold for all weights, one equilibrium from everywhere, and a certificate that tells both."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deqzoo.errors import StructureError
from deqzoo.fixed_point import fixed_point
from deqzoo.models import entry
from deqzoo.models.certified import Certificate
from deqzoo.models.mondeq import MonDEQ, MonDEQConfig
from deqzoo.models.mondeq_cell import MonotoneCell
from deqzoo.models.mondeq_parts import MonotoneConv, MonotoneMatrix
from deqzoo.models.mondeq_tiers import MonotoneTiers
from deqzoo.models.pcdeq_parts import PositiveConcaveCell, positive_injection
from deqzoo.nn import ForwardBackward, PeacemanRachford, observe_equilibria
from deqzoo.solvers import Anderson, Picard

SHAPES = {"matrix": ((5,),), "convolution": ((2, 4, 5),), "tiers": ((2, 5, 4), (3, 3, 2))}
MARGIN, NORM = "margin, the least eigenvalue of I − (W + Wᵀ) / 2", "‖I − W‖₂"
every_kind = pytest.mark.parametrize("kind", SHAPES)
CONFIGS = {
    "dense": MonDEQConfig(widths=(6,), image_size=8, dense=True),
    "single": MonDEQConfig(widths=(4,), image_size=8, stem=(3,), stride=2, cells=2),
    "quartered": MonDEQConfig(widths=(4,), image_size=8, stem=(3, 3), stride=4),
    "tiers": MonDEQConfig(widths=(3, 4), image_size=8, cells=2),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def operator_of(kind: str, margin: float, size: float = 1.0, seed: int = 0):
    """An operator in float64, with weights `size` times those it would start with."""
    torch.manual_seed(seed)
    made = {
        "matrix": lambda: MonotoneMatrix(5, margin=margin),
        "convolution": lambda: MonotoneConv(2, margin=margin),
        "tiers": lambda: MonotoneTiers((2, 3), margin=margin),
    }[kind]().double()
    with torch.no_grad():
        for p in made.parameters():
            p.mul_(size)
    return made


def state(kind: str, batch: int):
    parts = tuple(torch.randn(batch, *shape, dtype=torch.float64) for shape in SHAPES[kind])
    return parts if len(parts) > 1 else parts[0]


def dense_form(operator, kind: str) -> torch.Tensor:
    """W as a matrix (N, N), one unit vector after the other."""
    parts = SHAPES[kind]
    sizes = [torch.Size(shape).numel() for shape in parts]
    eye = torch.eye(sum(sizes), dtype=torch.float64)
    z = tuple(block.reshape(-1, *shape) for block, shape in zip(eye.split(sizes, dim=1), parts, strict=True))
    with torch.no_grad():
        wz = operator(z if len(z) > 1 else z[0])
    wz = wz if isinstance(wz, tuple) else (wz,)
    return torch.cat([part.flatten(1) for part in wz], dim=1).mT


def certificate_of(net: MonDEQ) -> Certificate:
    return net.certificate(torch.zeros(1, net.in_chans, net.config.image_size, net.config.image_size))


@given(
    kind=st.sampled_from(list(SHAPES)),
    margin=st.floats(0.01, 2),
    size=st.floats(-2, 1.5),
    seed=st.integers(0, 2**20),
)
@settings(max_examples=25)
def test_the_margin_holds_whatever_the_weights(kind, margin, size, seed):
    operator = operator_of(kind, margin, 10**size, seed)
    w = dense_form(operator, kind)
    g = torch.eye(len(w)).double() - w
    least = torch.linalg.eigvalsh((g + g.mT) / 2).min()
    norm = torch.linalg.matrix_norm(g, ord=2)
    slack = 1e-8 * float(norm)
    assert least >= margin - slack
    like = state(kind, 1)
    told, lipschitz = operator.least_eigenvalue(like), operator.lipschitz(like)
    if kind == "tiers":
        assert told >= least - slack
        assert 0.8 * norm <= lipschitz <= 1.05 * norm + slack
    else:
        assert margin - slack <= told <= least + slack
        assert lipschitz >= norm - slack
    if kind == "matrix":
        assert abs(told - least) <= slack


def test_tiers_transpose_and_estimate_closely():
    operator = operator_of("tiers", 0.3)
    w = dense_form(operator, "tiers")
    z = state("tiers", 3)
    rows = torch.cat([part.flatten(1) for part in z], dim=1)
    found = torch.cat([part.flatten(1) for part in operator.transposed(z)], dim=1)
    torch.testing.assert_close(found, rows @ w)
    g = torch.eye(len(w)).double() - w
    least = float(torch.linalg.eigvalsh((g + g.mT) / 2).min())
    assert abs(operator.least_eigenvalue(z) - least) < 1e-6


@pytest.mark.parametrize(("height", "width"), [(4, 5), (7, 7), (9, 3)])
@pytest.mark.parametrize("taps", [3, 5])
def test_the_inverse_on_the_torus_is_that_of_the_operator(height, width, taps):
    """With z zero in the border, (I + α (I − W)) z, computed plainly, is undone by the inverse."""
    torch.manual_seed(0)
    operator = MonotoneConv(3, margin=0.4, taps=taps).double()
    z = torch.randn(2, 3, height, width, dtype=torch.float64)
    with torch.no_grad():
        wide = torch.nn.functional.pad(z, [operator.reach] * 4)
        image = 1.7 * wide - 0.7 * operator(wide)  # W reaches into the border, which has room for it
        room = operator.embed(z)
        assert min(room.shape[2] - height, room.shape[3] - width) >= operator.reach
        torus = torch.zeros_like(room)
        for i in range(image.shape[2]):
            for j in range(image.shape[3]):
                row, column = (i - operator.reach) % room.shape[2], (j - operator.reach) % room.shape[3]
                torus[:, :, row, column] += image[:, :, i, j]
        solved = operator.resolve(torus, operator.inverse(0.7, z))
        torch.testing.assert_close(operator.crop(solved, z), z)
        torch.testing.assert_close(solved, room)


@every_kind
@pytest.mark.parametrize("splitting", [ForwardBackward(), PeacemanRachford(alpha=0.3)], ids=str)
def test_64_starts_meet_in_one_point(kind, splitting):
    if kind == "tiers" and isinstance(splitting, PeacemanRachford):
        pytest.skip("refused for tiers")
    operator = operator_of(kind, 0.5)
    cell = MonotoneCell(operator, splitting=splitting)
    one = state(kind, 1)
    x = (
        tuple(part.expand(64, *part.shape[1:]) for part in one)
        if isinstance(one, tuple)
        else one.expand(64, *one.shape[1:])
    )
    scatter = [10.0 ** torch.linspace(-2, 2, 64).double()[(...,) + (None,) * len(shape)] for shape in SHAPES[kind]]
    starts = tuple(
        scale * part
        for scale, part in zip(scatter, state(kind, 64) if kind == "tiers" else (state(kind, 64),), strict=True)
    )
    found = fixed_point(
        cell,
        starts if kind == "tiers" else starts[0],
        x,
        solver=Anderson(rtol=1e-9, max_steps=1000, patience=500),
        iterate=cell.iterate(x),
    )
    assert found.stats.converged.all()
    for part in found.value if isinstance(found.value, tuple) else (found.value,):
        torch.testing.assert_close(part, part[:1].expand_as(part), rtol=1e-6, atol=1e-7)
        assert part.abs().sum() > 0


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_64_starts_of_a_positive_concave_map_meet_in_one_point(activation):
    torch.manual_seed(0)
    cell = PositiveConcaveCell(6, activation=activation, dense=True).double()
    with torch.no_grad():
        cell.linear.weight = torch.rand(6, 6, dtype=torch.float64)
    p = positive_injection(torch.randn(1, 6, dtype=torch.float64), activation).expand(64, 6)
    starts = 10.0 ** torch.linspace(-2, 2, 64).double()[:, None] * torch.rand(64, 6, dtype=torch.float64)
    found = fixed_point(cell, starts, p, solver=Picard(rtol=1e-11, max_steps=2000))
    assert found.stats.converged.all()
    torch.testing.assert_close(found.value, found.value[:1].expand(64, 6), rtol=1e-8, atol=1e-9)


@every_config
def test_splittings_give_the_same_logits(config):
    torch.manual_seed(0)
    net = MonDEQ(config, num_classes=3, solver=Anderson(rtol=1e-9, max_steps=500)).double().eval()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    logits = []
    for splitting in (None, ForwardBackward(), ForwardBackward(alpha=0.2), net.equilibrium.cell.splitting):
        net.equilibrium.cell.splitting = splitting
        with torch.no_grad(), observe_equilibria(net) as seen:
            logits.append(net(x))
        assert seen.converged.all()
    for other in logits[1:]:
        torch.testing.assert_close(other, logits[0], rtol=1e-7, atol=1e-8)


@every_config
def test_the_certificate_tells_margin_norm_and_rate(config):
    torch.manual_seed(0)
    net = MonDEQ(config, num_classes=3).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    proof = certificate_of(net)
    assert proof.unique
    assert 1 - 1e-9 <= proof.at_least[MARGIN] < proof.at_most[NORM]
    assert proof.estimated == (len(config.widths) > 1)
    assert ("are estimates" in net.guarantee) == proof.estimated
    assert 0 < proof.rate <= 1
    if not isinstance(net.equilibrium.cell.operator, MonotoneTiers):
        assert proof.rate < 1
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with torch.no_grad():
        for p in net.equilibrium.cell.operator.parameters():
            p.mul_(2)
    assert certificate_of(net).at_most[NORM] > proof.at_most[NORM]


def test_steps_contract_at_the_certified_rate():
    torch.manual_seed(0)
    net = MonDEQ(CONFIGS["single"], num_classes=3).double().eval()
    for splitting in (PeacemanRachford(alpha=0.4), PeacemanRachford(alpha=3.0), ForwardBackward()):
        net.equilibrium.cell.splitting = splitting
        rate = float(certificate_of(net).rate)
        x = net.injection(torch.randn(3, 3, 8, 8, dtype=torch.float64))
        step = net.equilibrium.cell.iterate(x)
        with torch.no_grad():
            prepared = step.prepare(x)
            u, v = (torch.randn_like(step.start(x, *prepared)) for _ in range(2))
            for _ in range(5):
                gap = (u - v).flatten(1).norm(dim=1)
                u, v = step(u, *prepared), step(v, *prepared)
                assert ((u - v).flatten(1).norm(dim=1) <= rate * gap + 1e-12).all()


def test_a_violated_margin_is_noticed():
    """The certificate looks at W itself, not at how it should have been made."""
    net = MonDEQ(CONFIGS["dense"], num_classes=3)
    torch.nn.utils.parametrize.remove_parametrizations(net.equilibrium.cell.operator, "weight")
    with torch.no_grad():
        net.equilibrium.cell.operator.weight.copy_(3 * torch.eye(6))
    proof = certificate_of(net)
    assert proof.at_least[MARGIN] == pytest.approx(-2)
    assert not proof.unique
    assert (float(proof.rate), float(proof.max_steps)) == (1, float("inf"))


# Ours, and what the published ones have besides: gains g and h of each A and B, and head weights for their borders.
PUBLISHED = {
    "dense": (MonotoneMatrix(87, margin=1.0), 784 * 87 + 87 + 870 + 10, 84_313),
    "tiers mnist": (MonotoneTiers((16, 32, 32), margin=1.0), 9 * 16 + 16 + 8 + 32 * 9**2 * 10 + 10, 81_394),
    "tiers cifar": (MonotoneTiers((16, 32, 60), margin=1.0), 27 * 16 + 16 + 8 + 60 * 10**2 * 10 + 10, 170_194),
    "tiers cifar large": (MonotoneTiers((64, 128, 128), margin=1.0), 27 * 64 + 64 + 8 + 12_800 * 10 + 10, 1_014_546),
}


@pytest.mark.parametrize(("operator", "rest", "published"), PUBLISHED.values(), ids=PUBLISHED)
def test_operators_have_the_published_sizes(operator, rest, published):
    assert sum(p.numel() for p in operator.parameters()) + rest == published


@pytest.mark.parametrize(
    ("name", "most"), [("mondeq-mnist", 84_460), ("mondeq-mnist-dense", 84_313), ("mondeq-cifar", 1_020_000)]
)
def test_our_networks_are_no_larger_than_they_may_be(name, most):
    net = entry(name).build()
    assert sum(p.numel() for p in net.parameters()) <= most
    x = torch.randn(2, net.in_chans, net.config.image_size, net.config.image_size)
    with torch.no_grad(), observe_equilibria(net) as seen:
        assert net(x).shape == (2, 10)
    assert seen.converged.all()


@every_config
def test_maps_are_as_large_as_they_say(config):
    net = MonDEQ(config, num_classes=3).eval()
    sides = [maps.shape[2:] for maps in net.forward_maps(torch.randn(1, 3, 8, 8)) if maps.ndim == 4]
    assert sides == [(8 // info["reduction"],) * 2 for info in net.feature_info]


@every_config
def test_training_moves_all_weights(config):
    torch.manual_seed(0)
    net = MonDEQ(config, num_classes=3)
    x = torch.randn(6, 3, 8, 8)
    torch.nn.functional.cross_entropy(net(x), torch.arange(6) % 3).backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"widths": ()}, r"widths=\(\)"),
        ({"widths": (4, 5), "dense": True}, r"widths=\(4, 5\) with dense=True.*just one"),
        ({"widths": (4,), "margin": 0.0}, r"margin=0\.0.*positive margins"),
    ],
)
def test_wrong_sizes_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        MonDEQConfig(image_size=8, **kwargs)


def test_wrong_images_are_named():
    net = MonDEQ(CONFIGS["single"])
    with pytest.raises(StructureError, match=r"9x9 pixels.*takes 8x8"):
        net(torch.zeros(2, 3, 9, 9))
    with pytest.raises(StructureError, match=r"9x9 pixels.*takes 8x8"):
        net.certificate(torch.zeros(1, 3, 9, 9))
