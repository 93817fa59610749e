"""pcDEQ: the published sizes, W >= 0 at all times, and a certificate that holds."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deqzoo.adjoints import Implicit
from deqzoo.errors import StructureError, UnconvergedWarning
from deqzoo.fixed_point import fixed_point
from deqzoo.models import entry
from deqzoo.models.pcdeq import PcDEQ
from deqzoo.models.pcdeq_parts import PositiveConcaveCell, iteration_bounds, positive_injection
from deqzoo.nn import observe_equilibria, set_runtime
from deqzoo.solvers import Anderson, Picard

PUBLISHED = {
    "pcdeq-mnist-linear": 70_410,
    "pcdeq-mnist-single": 69_136,
    "pcdeq-mnist-multi": 41_278,
    "pcdeq-cifar-single": 164_760,
    "pcdeq-cifar-multi": 661_470,
}
SMALLEST = "smallest entry of all W"
SIGMAS = ["tanh", "softsign", "relu6", "sigmoid"]


def images(net: PcDEQ, batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, net.in_chans, net.image_size, net.image_size)


def stage_problems(net: PcDEQ, x: torch.Tensor):
    """Yields (cell, p, z*) of each equilibrium in float64, z* by iterating long from zero."""
    net = net.double().eval()
    x = x.double().flatten(1) if net.dense else net.stem(x.double())
    for stage in net.stages:
        cell, p = stage.equilibrium.cell, stage.injection(x)
        z = torch.zeros_like(p)
        for _ in range(3000):
            z, before = cell(z, p), z
            if torch.equal(z, before):
                break
        yield cell, p, z
        out = stage.norm_out(stage.pool(z))
        x = x + out if stage.skip else out


def small(activation: str = "relu6", *, dense: bool = False, scale: float = 1.0, seed: int = 0) -> PcDEQ:
    """A network with weights far from their small start."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"widths": (5,), "dense": True} if dense else {"widths": (4, 6), "pool_size": 4}
    net = PcDEQ(**shape, image_size=8, activation=activation, in_chans=2, num_classes=3)
    with torch.no_grad():
        for stage in net.stages:
            stage.equilibrium.cell.linear.weight = scale * torch.rand_like(stage.equilibrium.cell.linear.weight)
            stage.norm_in.weight.uniform_(0.5, 2)
            stage.norm_in.bias.normal_()
    return net


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_published_networks_have_their_published_number_of_parameters(name, count):
    assert sum(p.numel() for p in entry(name).build().parameters()) == count


@pytest.mark.parametrize(
    ("name", "most"), [("pcdeq-mnist", 70_000), ("pcdeq-cifar", 661_470), ("pcdeq-cifar-tiny", 661_470)]
)
def test_our_networks_are_no_larger_than_they_may_be(name, most):
    assert sum(p.numel() for p in entry(name).build().parameters()) <= most


@pytest.mark.parametrize("name", [*PUBLISHED, "pcdeq-mnist", "pcdeq-cifar-tiny"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_every_equilibrium_converges_for_random_images(name, train):
    net = entry(name).build().train(train)
    x = images(net, 2 if "cifar" in name else 6)
    with torch.no_grad(), observe_equilibria(net) as seen:
        logits = net(x)
    assert logits.shape == (len(x), 10)
    assert seen.converged.all()
    assert (seen.residual <= 1e-4).all()
    assert len(seen.solutions) == len(net.stages)


@pytest.mark.parametrize("name", ["pcdeq-mnist", "pcdeq-mnist-linear", "pcdeq-mnist-single", "pcdeq-mnist-multi"])
def test_logits_do_not_depend_on_the_batch(name):
    net = entry(name).build().eval()
    x = images(net, 64 if name != "pcdeq-mnist-single" else 16)
    with torch.no_grad():
        together = net(x)
        for i in (0, 7, 15):
            torch.testing.assert_close(net(x[i : i + 1])[0], together[i], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dense", [False, True])
def test_weights_are_nonnegative_after_any_step_of_any_optimiser(dense):
    net = small(dense=dense)
    set_runtime(net, adjoint=Implicit(solver=Picard(rtol=1e-3, max_steps=500)))
    for make in (
        lambda ps: torch.optim.SGD(ps, lr=1e4),
        lambda ps: torch.optim.AdamW(ps, lr=100.0, weight_decay=10.0),
        lambda ps: torch.optim.Rprop(ps, lr=5.0),
    ):
        linears = [stage.equilibrium.cell.linear for stage in net.stages]
        optimizer = make([p for linear in linears for p in linear.parameters()])
        for _ in range(3):
            for linear in linears:
                for p in linear.parameters():
                    p.grad = torch.randn_like(p)
            optimizer.step()
            for linear in linears:
                assert (linear.weight >= 0).all()
                assert linear.weight.isfinite().all()


def test_nonnegative_weights_still_learn():
    net = small("softsign", scale=0.05)
    net(images(net)).square().sum().backward()
    for stage in net.stages:
        for p in stage.equilibrium.cell.linear.parameters():
            assert p.grad.abs().sum() > 0


@given(
    activation=st.sampled_from(SIGMAS),
    width=st.integers(1, 9),
    scale=st.floats(-3, 1.5),
    shift=st.floats(-0.5, 1),
    seed=st.integers(0, 2**20),
)
def test_there_is_one_equilibrium_and_iteration_climbs_to_it(activation, width, scale, shift, seed):
    generator = torch.Generator().manual_seed(seed)
    cell = PositiveConcaveCell(width, activation=activation, dense=True).double()
    with torch.no_grad():
        cell.linear.weight = 10**scale * torch.rand(width, width, generator=generator, dtype=torch.float64)
        p = positive_injection(torch.randn(3, width, generator=generator, dtype=torch.float64) + shift, activation)
        zero = torch.zeros_like(p)
        top = torch.full_like(p, 6.0 if activation == "relu6" else 1.0)
        start = cell(zero, p)
        assert (start >= 0).all()
        low, high, path = zero, top, []
        for _ in range(4000):
            path.append(low)
            low, high = cell(low, p), cell(high, p)
            assert (low >= path[-1] - 1e-12).all()
            if (high - low).abs().max() < 1e-12:
                break
        assert (low <= high + 1e-9).all()
        mu = (start / high).amin(1, keepdim=True)
        if float(mu.min()) > 0.01:
            torch.testing.assert_close(low, high, rtol=1e-9, atol=1e-10)
            for k, z in enumerate(path[:60]):
                assert (high - z <= (1 - mu) ** k * high + 1e-10).all()
        if activation == "sigmoid":
            assert (1 - mu <= 0.5).all()
        for solver in (
            Picard(rtol=1e-9, max_steps=20000, patience=20000),
            Anderson(rtol=1e-9, max_steps=2000),
        ):
            if float(mu.min()) > 0.01:
                anywhere = torch.rand(3, width, generator=generator, dtype=torch.float64)
                found = fixed_point(cell, anywhere, p, solver=solver, unconverged="ignore")
                there = found.stats.converged  # always for plain iteration; Anderson has no guarantee at kinks
                assert there.all() or isinstance(solver, Anderson)
                torch.testing.assert_close(found.value[there], high[there], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", SIGMAS)
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("scale", [0.01, 0.2, 3.0])
def test_the_certificate_holds(activation, dense, scale):
    net = small(activation, dense=dense, scale=scale)
    set_runtime(net, solver=Picard(rtol=1e-12, max_steps=5000))
    x = images(net)
    proof = net.certificate(x, rtol=1e-4)
    assert proof.rate.shape == proof.max_steps.shape == (4, len(net.stages))
    assert ((proof.rate >= 0) & (proof.rate <= 1)).all()
    assert proof.at_least[SMALLEST] >= 0
    if activation == "sigmoid":
        assert (proof.rate <= 0.5 + 1e-9).all()
        assert (proof.max_steps <= 14).all()
    for (cell, p, z_star), rate, enough in zip(stage_problems(net, x), proof.rate.T, proof.max_steps.T, strict=True):
        true_rate = 1 - (cell(torch.zeros_like(p), p) / z_star).flatten(1).amin(1)
        assert (rate >= true_rate - 1e-9).all()
        torch.testing.assert_close(rate, true_rate, rtol=1e-3, atol=1e-6)
        z = torch.zeros_like(p)
        for k in range(1, 40):
            z = cell(z, p)
            error = ((z_star - z) / z_star).flatten(1).amax(1)
            assert (error <= rate**k + 1e-9).all()
            assert (error[k >= enough] <= 1e-4 * (1 + 1e-6)).all()


def test_the_certificate_holds_behind_a_stem_and_along_skips():
    torch.manual_seed(0)
    net = PcDEQ((4, 4, 6, 6), image_size=8, strides=(2, 1, 2, 1), stem=4, in_chans=2, num_classes=3).eval()
    assert [stage.skip for stage in net.stages] == [False, True, False, True]
    set_runtime(net, solver=Picard(rtol=1e-12, max_steps=5000))
    x = images(net)
    proof = net.certificate(x, rtol=1e-4)
    for (cell, p, z_star), enough in zip(stage_problems(net, x), proof.max_steps.T, strict=True):
        z = torch.zeros_like(p)
        for k in range(1, 30):
            z = cell(z, p)
            error = ((z_star - z) / z_star).flatten(1).amax(1)
            assert (error[k >= enough] <= 1e-4 * (1 + 1e-6)).all()
    net = net.double()
    maps = net.forward_maps(x.double())
    assert [m.shape[1:] for m in maps] == [(4, 4, 4), (4, 4, 4), (6, 2, 2), (6, 2, 2)]
    assert [info["reduction"] for info in net.feature_info] == [2, 2, 4, 4]
    out = net.stages[1].norm_out(net.stages[1].pool(net.stages[1].equilibrium(net.stages[1].injection(maps[0]))))
    torch.testing.assert_close(maps[1], maps[0] + out)


def test_sums_are_of_equal_maps_and_never_of_images():
    assert not any(stage.skip for stage in PcDEQ((4, 6), image_size=8, in_chans=4).stages)
    for widths, strides in (((4, 4), (1, 1)), ((4, 4), (2, 1))):
        net = PcDEQ(widths, image_size=8, strides=strides, padding=0)
        assert not any(stage.skip for stage in net.stages)
        assert net(torch.randn(2, 3, 8, 8)).shape == (2, 10)


def test_the_certificate_stops_without_a_loss():
    """Against all refinements, for a batch of easy and hard images."""
    net = small("relu6", dense=True, scale=0.15).double().eval()
    [stage] = net.stages
    cell = stage.equilibrium.cell
    p = torch.cat([torch.full((1, 5), 1e-6), torch.full((1, 5), 2.0), torch.rand(2, 5)]).double()
    calls = 0

    def counted(*_: Any) -> None:
        nonlocal calls
        calls += 1

    with torch.no_grad():
        above, below, mus = torch.full_like(p, 6.0), torch.zeros_like(p), []
        for _ in range(200):
            above = cell(above, p)
        for _ in range(200):
            below = cell(below, p)
            mus.append((below / above).amin(1).clamp_max(1))
        cell.register_forward_hook(counted)
        for rtol in (1e-2, 1e-4, 1e-8):
            steps = [m * (math.log(rtol) / torch.log1p(-mu)).ceil().clamp_min(1) for m, mu in enumerate(mus, 1)]
            rate, enough = iteration_bounds(cell, p, rtol)
            torch.testing.assert_close(rate, 1 - mus[0])
            assert torch.equal(enough, torch.stack(steps).amin(0))
    assert calls < 3 * 400


def test_images_of_any_size_unless_the_head_counts_them():
    net = PcDEQ((4, 6), image_size=8, in_chans=2, num_classes=3).eval()
    assert not net.fixed_input_size
    assert net(torch.randn(2, 2, 12, 10)).shape == (2, 3)
    whole = PcDEQ((4, 6), image_size=8, pool_size=4, in_chans=2, num_classes=3).eval()
    whole.load_state_dict(net.state_dict())
    x = images(net)
    torch.testing.assert_close(whole(x), net(x))
    assert whole.fixed_input_size


def test_the_certificate_follows_the_weights_and_leaves_the_network_alone():
    net = small(scale=0.01).train()
    x = images(net)
    before = net.certificate(x)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    assert net.training
    with torch.no_grad():
        for stage in net.stages:
            stage.equilibrium.cell.linear.weight = 50 * stage.equilibrium.cell.linear.weight
    after = net.certificate(x)
    assert (after.rate > before.rate).all()
    assert not torch.equal(after.max_steps, before.max_steps)
    assert before.at_least[SMALLEST] * 49 < after.at_least[SMALLEST]
    assert set(state) == set(net.state_dict())
    assert all(p.dtype == torch.float32 for p in net.parameters())
    assert torch.equal(net.stages[0].norm_in.running_mean, state["stages.0.norm_in.running_mean"])


@pytest.mark.parametrize("bias", [-5.0, -20.0, -200.0])
def test_a_vanishing_injection_is_not_certified_to_be_fast(bias):
    """There 1 − μ is 1 to working precision: the bound comes from several steps taken as one, and is no less true."""
    net = small("tanh", dense=True)
    with torch.no_grad():
        net.stages[0].norm_in.bias.fill_(bias)
        net.stages[0].norm_in.weight.fill_(1e-3)
    set_runtime(net, solver=Picard(max_steps=2000, patience=2000))
    proof = net.certificate(images(net))
    assert not proof.rate.isnan().any()
    cell, p, z_star = next(stage_problems(net, images(net)))
    needed, z = 0, torch.zeros_like(p)
    while not (z >= (1 - proof.rtol) * z_star).all() and needed < 5000:
        z, needed = cell(z, p), needed + 1
    assert (proof.max_steps >= needed - 1).all()
    # A bound that proves nothing is infinite; one that proves something is of the right size.
    assert ((proof.max_steps <= 4 * needed) | (proof.max_steps > 1e3)).all()


def slow() -> PcDEQ:
    """z = min(0.999 z + 0.004, 6), with z* = 4."""
    net = PcDEQ((1,), image_size=2, dense=True, activation="relu6", in_chans=1).double()
    with torch.no_grad():
        net.stages[0].equilibrium.cell.linear.weight = torch.tensor([[0.999]]).double()
        net.stages[0].norm_in.weight.zero_()
        net.stages[0].norm_in.bias.fill_(math.log(math.expm1(5 * 0.004)) / 5)
    return net


def test_a_slow_equilibrium_above_one_is_certified_to_be_slow():
    """The bound has to come from above, however slowly."""
    proof = slow().certificate(torch.zeros(2, 1, 2, 2))
    assert (proof.rate >= 0.999 - 1e-9).all()
    assert (proof.max_steps >= math.log(1e-4) / math.log(0.999)).all()


def test_injections_are_as_published():
    x = torch.tensor([-1.0, 0.0, 2.0]).double()
    assert torch.equal(positive_injection(x, "sigmoid"), torch.tensor([0.0, 0.0, 2.0]).double())
    for activation in ("tanh", "softsign", "relu6"):
        torch.testing.assert_close(positive_injection(x, activation), torch.log1p(torch.exp(5 * x)) / 5)


def test_a_tighter_accuracy_needs_more_certified_steps():
    net, x = slow(), torch.zeros(2, 1, 2, 2)
    steps = [net.certificate(x, rtol=rtol).max_steps for rtol in (1e-2, 1e-4, 1e-8)]
    assert (steps[0] < steps[1]).all()
    assert (steps[1] < steps[2]).all()
    assert math.isclose(net.certificate(x, rtol=1e-8).rtol, 1e-8)


@pytest.mark.parametrize("rtol", [0.0, 1.0, -1e-4, 2.0, math.nan])
def test_a_certificate_for_an_impossible_accuracy_is_refused(rtol):
    with pytest.raises(ValueError, match=r"Got rtol=.*lies in \(0, 1\)"):
        small().certificate(torch.zeros(1, 2, 8, 8), rtol=rtol)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 3, 8, 8), r"shape \(2, 3, 8, 8\).*\(B, 2, H, W\).*in_chans="),
        (torch.zeros(2, 8, 8), r"shape \(2, 8, 8\).*`x\[None\]`"),
        (torch.zeros(2, 8, 8, 2), r"shape \(2, 8, 8, 2\).*`x\.permute\(0, 3, 1, 2\)`"),
        (torch.zeros(2, 2, 8, 8).numpy(), r"type ndarray.*torch\.from_numpy"),
        (torch.zeros(2, 2, 8, 8, dtype=torch.uint8), r"dtype torch\.uint8.*`\.transform`"),
        (torch.zeros(2, 2, 9, 9), r"9x9 pixels.*8x8"),
        (torch.zeros(2, 2, 8, 7), r"8x7 pixels"),
        (torch.zeros(2, 2, 8, 8).double(), r"torch\.float64.*torch\.float32"),
        (torch.zeros(2, 2, 8, 8).half(), r"torch\.float16.*torch\.float32"),
    ],
)
@pytest.mark.parametrize("dense", [False, True])
def test_wrong_images_are_named(x, message, dense):
    with pytest.raises(StructureError, match=message):
        small(dense=dense).eval()(x)


def test_one_image_of_nan_harms_no_other():
    net = small().eval()
    x = images(net)
    x[1, 0, 3, 3] = torch.nan
    with torch.no_grad(), observe_equilibria(net) as seen:
        wanted = net(x[[0, 2, 3]])
        seen.clear()
        with pytest.warns(UnconvergedWarning, match=r"1 of 4 samples met NaN or inf"):
            found = net(x)
    torch.testing.assert_close(found[[0, 2, 3]], wanted, rtol=0, atol=1e-5)
    assert found[1].isnan().all()
    assert seen.converged.tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"widths": (4,), "activation": "gelu"}, r"activation='gelu'.*concave.*Choose one of tanh"),
        ({"widths": (4, 5), "dense": True}, r"one equilibrium and no convolutions, got widths=\(4, 5\)"),
        ({"widths": (4,), "dense": True, "stem": 3}, r"no convolutions, got .*stem=3"),
        ({"widths": (4, 5), "strides": (2,)}, r"widths=\(4, 5\), strides=\(2,\) and stem=None\. Give one stride"),
        ({"widths": (4,), "strides": (0,)}, r"strides=\(0,\).*1 and more"),
        ({"widths": (4,), "stem": 0}, r"stem=0.*1 and more"),
        ({"widths": (4,), "pool_size": 9}, r"pool_size=9.*last maps are 8x8, and nothing is left"),
        ({"widths": (4,), "num_classes": -1}, r"num_classes=-1"),
    ],
)
def test_wrong_architectures_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PcDEQ(image_size=8, **kwargs)


def test_heads_can_be_replaced_and_left_out():
    net = small().eval()
    x = images(net)
    features = net.forward_features(x)
    pooled = net.forward_head(features, pre_logits=True)
    assert pooled.shape == (4, net.num_features)
    torch.testing.assert_close(net.get_classifier()(pooled), net(x))
    net.reset_classifier(7)
    assert net(x).shape == (4, 7)
    net.reset_classifier(0)
    torch.testing.assert_close(net(x), pooled)


@pytest.mark.parametrize("in_chans", [1, 4])
def test_other_channels_can_be_asked_for(in_chans):
    net = entry("pcdeq-mnist").build(in_chans=in_chans, num_classes=3)
    assert net(images(net, 2)).shape == (2, 3)
