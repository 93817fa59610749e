"""Neural ODEs: sizes, cost per sample, runtime, gradients through the network."""

import pytest
import torch

import deqzoo
from deqzoo.adjoints import Implicit
from deqzoo.errors import AdjointError, SolverError, StructureError, UnconvergedWarning
from deqzoo.models import entry
from deqzoo.models.neural_ode import ConvDynamics, NeuralODE
from deqzoo.nn import Dynamics, ODEModule, observe_equilibria, set_runtime
from deqzoo.ode import RK4, Checkpointed, Continuous, DormandPrince, Unrolled
from deqzoo.solvers import Anderson

NAMES = ["node-mnist", "node-cifar"]


def images(net: NeuralODE, batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, net.in_chans, 28, 28)


def small(**how) -> NeuralODE:
    """A network in float64 whose flows are not slow."""
    torch.manual_seed(0)
    net = NeuralODE(8, (8, 16), in_chans=1, num_classes=3, **how).double().eval()
    with torch.no_grad():
        for stage in net.stages:
            stage.flow.dynamics.norm3.weight.fill_(2.0)
    return net


@pytest.mark.parametrize(("name", "most"), [("node-mnist", 220_000), ("node-cifar", 172_000)])
def test_networks_are_no_larger_than_they_may_be(name, most):
    net = entry(name).build()
    assert sum(p.numel() for p in net.parameters()) <= most
    assert all(stage.augment == 0 for stage in net.stages)


@pytest.mark.parametrize("name", NAMES)
def test_every_flow_arrives_for_random_images(name):
    net = entry(name).build().eval()
    with torch.no_grad(), observe_equilibria(net) as seen:
        logits = net(images(net))
    assert logits.shape == (4, 10)
    assert seen.converged.all()
    assert (seen.residual <= 1e-3).all()
    assert [where for where, _ in seen.solutions] == [f"stages.{i}.flow" for i in range(len(net.stages))]
    assert torch.equal(seen.num_steps, sum(s.stats.num_steps for _, s in seen.solutions))


def test_logits_do_not_depend_on_the_batch():
    net = small()
    x = images(net, 8).double()
    with torch.no_grad(), observe_equilibria(net) as seen:
        together, steps = net(x), seen.num_steps
        for i in (0, 7):
            seen.clear()
            torch.testing.assert_close(net(x[i : i + 1])[0], together[i], rtol=1e-10, atol=1e-10)
            assert seen.num_steps[0] == steps[i]


def test_tolerances_set_the_cost_and_the_error():
    net = small(solver=DormandPrince(rtol=1e-7))
    x = torch.randn(2, 1, 8, 8).double()
    costs, errors = [], []
    with torch.no_grad(), observe_equilibria(net) as seen:
        exact = net(x)
        for rtol in (1e-1, 1e-3, 1e-5):
            seen.clear()
            set_runtime(net, rtol=rtol)
            errors.append(float((net(x) - exact).abs().max()))
            costs.append(float(seen.num_steps.double().mean()))
    assert costs == sorted(costs) and costs[2] > costs[0]
    assert errors == sorted(errors, reverse=True) and errors[2] < 1e-4


def test_every_adjoint_gives_the_gradient():
    net = small()
    x = torch.randn(2, 1, 8, 8).double()

    def gradient(adjoint, rtol):
        set_runtime(net, adjoint=adjoint, solver=DormandPrince(rtol=rtol))
        return torch.cat([g.flatten() for g in torch.autograd.grad(net(x).square().sum(), [*net.parameters()])])

    errors = []
    for rtol in (1e-3, 1e-5):
        exact = gradient(Unrolled(), rtol)
        torch.testing.assert_close(gradient(Checkpointed(), rtol), exact, rtol=1e-10, atol=1e-10)
        errors.append(float((gradient(Continuous(), rtol) - exact).norm() / exact.norm()))
    assert errors[1] < 0.05 * errors[0]
    assert errors[1] < 1e-3


def test_the_dynamics_know_the_time():
    dynamics = ConvDynamics(8, 16).double()
    h, t = torch.randn(2, 8, 5, 5).double(), torch.tensor([0.2, 0.9]).double()
    both = dynamics(h, t)
    torch.testing.assert_close(dynamics(h[:1], t[:1]), both[:1], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(dynamics(h, t.flip(0)), both)
    assert not torch.allclose(dynamics(h, torch.zeros_like(t)), dynamics(h, torch.ones_like(t)))


def test_augmented_channels_start_at_zero():
    net = NeuralODE(8, (8, 8), augment=8, in_chans=1)
    seen = []
    for stage in net.stages:
        stage.flow.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    maps = net.forward_maps(images(net))
    for h, end in zip(seen, maps, strict=True):
        assert h.shape == end.shape and h.shape[1] == 16
        assert not h[:, 8:].any() and h[:, :8].any()
        assert end[:, 8:].any()


def test_runtime_is_no_part_of_the_weights():
    a, b = small(solver=RK4(2), adjoint=Unrolled()), small()
    b.load_state_dict(a.state_dict())
    assert not any("solver" in key or "adjoint" in key for key in a.state_dict())
    assert "RK4(num_steps=2)" in repr(a)


def test_load_and_create_take_the_runtime():
    net = deqzoo.create_model("node-mnist", rtol=1e-2, max_steps=50, adjoint=Continuous())
    assert net.stages[0].flow.solver == DormandPrince(rtol=1e-2, max_steps=50)
    assert net.stages[0].flow.adjoint == Continuous()
    assert deqzoo.create_model("node-mnist", solver=RK4(3)).stages[0].flow.solver == RK4(3)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"solver": Anderson()}, SolverError, r"ODEModule got solver=Anderson\. It integrates an ODE: .*deqzoo\.ode"),
        ({"adjoint": Implicit()}, AdjointError, r"ODEModule got adjoint=.*Implicit\. It integrates.*deqzoo\.ode"),
        ({"solver": RK4(2), "rtol": 1e-3}, ValueError, r"RK4\(num_steps=2\) has no rtol.*DormandPrince\(rtol=1e-4\)"),
        ({"rtol": 0.0}, ValueError, r"rtol=0 and atol=0\. No step is free of error"),
    ],
)
def test_unfit_runtimes_are_refused_and_leave_the_network_as_it_was(how, error, message):
    net = small()
    before = repr(net)
    with pytest.raises(error, match=message):
        set_runtime(net, **how)
    assert repr(net) == before


def test_equilibria_refuse_integrators():
    with pytest.raises(
        SolverError, match=r"ImplicitModule got solver=RK4\. It solves for a fixed point.*deqzoo\.solvers"
    ):
        deqzoo.create_model("pcdeq-mnist", solver=RK4(3))


@pytest.mark.parametrize("layer", [torch.nn.BatchNorm2d(8), torch.nn.Dropout(0.1)], ids=["norm", "dropout"])
def test_layers_that_mix_or_draw_are_refused(layer):
    class Field(Dynamics):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, h, t):
            return self.layer(h)

    with pytest.raises(StructureError, match="'layer' is a"):
        ODEModule(Field(), solver=RK4(1), adjoint=Unrolled())


@pytest.mark.parametrize("kwargs", [{"channels": 12}, {"channels": 8, "hidden": 4}])
def test_odd_widths_are_named(kwargs):
    with pytest.raises(ValueError, match=r"Channels are normalised in groups of 8: use a multiple, such as"):
        ConvDynamics(**kwargs)


def test_one_image_of_nan_harms_no_other():
    net = small()
    x = images(net).double()
    x[1, 0, 3, 3] = torch.nan
    with torch.no_grad(), observe_equilibria(net) as seen:
        wanted = net(x[[0, 2, 3]])
        seen.clear()
        with pytest.warns(UnconvergedWarning, match=r"1 of 4 samples met NaN or inf"):
            found = net(x)
    torch.testing.assert_close(found[[0, 2, 3]], wanted, rtol=1e-10, atol=1e-10)
    assert found[1].isnan().all()
    assert seen.converged.tolist() == [True, False, True, True]


def test_checkpoints_are_an_adjoint():
    net = small(adjoint=Unrolled())
    with pytest.raises(StructureError, match=r"kept by adjoint=Unrolled\(\).*adjoint=deqzoo\.ode\.Checkpointed\(\)"):
        net.set_grad_checkpointing()
    set_runtime(net, adjoint=Checkpointed())
    net.set_grad_checkpointing()
