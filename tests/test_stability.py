"""Stability tools against closed forms and exact Jacobians."""

import pytest
import torch
from torch import Tensor, nn

from deqzoo.adjoints import Implicit, OneStep, Phantom, Unrolled
from deqzoo.errors import AdjointError, StructureError
from deqzoo.fixed_point import fixed_point
from deqzoo.solution import Status
from deqzoo.solvers import Anderson, Broyden, Picard
from deqzoo.stability import (
    corrected_fixed_point,
    correction_loss,
    dominant_growth,
    jacobian_penalty,
    spectral_radius,
)


def linear(z: Tensor, matrices: Tensor) -> Tensor:
    """z -> M z with one matrix M per sample."""
    return torch.einsum("bij,bj->bi", matrices, z)


def tanh_map(z: Tensor, weight: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(z @ weight.T + x)


@pytest.fixture
def problem() -> tuple[Tensor, Tensor, Tensor]:
    """Returns z (3, 5), weight (5, 5), x (3, 5) in float64."""
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(3, 5, generator=generator, dtype=torch.float64),
        torch.randn(5, 5, generator=generator, dtype=torch.float64) * 0.4,
        torch.randn(3, 5, generator=generator, dtype=torch.float64),
    )


def exact_penalty(z: Tensor, weight: Tensor, x: Tensor) -> Tensor:
    jacobians = (1 - torch.tanh(z @ weight.T + x) ** 2)[:, :, None] * weight
    return (jacobians**2).sum((1, 2)) / z.shape[1]


class TestJacobianPenalty:
    def test_a_scaled_identity_needs_one_sample(self):
        scales = torch.tensor([0.5, -2.0, 0.0])
        penalty = jacobian_penalty(lambda z: z * scales[:, None, None], torch.randn(3, 4, 2))
        torch.testing.assert_close(penalty, scales**2)

    def test_is_unbiased(self, problem):
        generator = torch.Generator().manual_seed(0)
        draws = torch.stack([jacobian_penalty(tanh_map, *problem, generator=generator) for _ in range(2000)])
        error = (draws.mean(0) - exact_penalty(*problem)).abs()
        assert (error <= 4 * draws.std(0) / 2000**0.5).all()
        assert (draws.std(0) > 0).all()

    def test_samples_are_averaged(self, problem):
        draws = [torch.stack([jacobian_penalty(tanh_map, *problem, samples=n) for _ in range(200)]) for n in (1, 16)]
        torch.testing.assert_close(draws[1].mean(0), exact_penalty(*problem), rtol=0.1, atol=0)
        assert (draws[1].std(0) < 0.5 * draws[0].std(0)).all()

    def test_a_nest_counts_all_its_leaves(self):
        def f(z):
            a, (b,) = z
            return 3 * a, (2 * b,)

        penalty = jacobian_penalty(f, (torch.randn(2, 4), (torch.randn(2, 1, 2),)))
        torch.testing.assert_close(penalty, torch.full((2,), (4 * 9 + 2 * 4) / 6))

    def test_the_gradient_agrees_with_finite_differences(self, problem):
        z, weight, x = problem

        def penalty(weight, x):
            return jacobian_penalty(tanh_map, z, weight, x, samples=2, generator=torch.Generator().manual_seed(0))

        assert torch.autograd.gradcheck(penalty, (weight.requires_grad_(), x.requires_grad_()))

    def test_parameters_of_a_module_get_the_gradient_and_z_none(self):
        net, z = nn.Linear(4, 4).double(), torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
        jacobian_penalty(lambda z: 0.5 * net(z).tanh(), z).sum().backward()
        assert net.weight.grad is not None and net.weight.grad.abs().min() > 0
        assert z.grad is None

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_without_a_graph_the_value_is_the_same(self, problem, mode):
        want = jacobian_penalty(tanh_map, *problem, generator=torch.Generator().manual_seed(3))
        z, weight, x = problem
        weight = weight.clone().requires_grad_()
        with mode():
            got = jacobian_penalty(tanh_map, z + 0, weight, x + 0, generator=torch.Generator().manual_seed(3))
        torch.testing.assert_close(got, want)
        assert not got.requires_grad

    # The tracer looks at `.grad` of whatever leaves a graph break.
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
    # Torch 2.11's of a generator.
    @pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace")
    def test_torch_compile_leaves_it_alone(self, problem):
        z, weight, x = problem
        weight.requires_grad_()

        def loss(weight):
            generator = torch.Generator().manual_seed(0)
            return (jacobian_penalty(tanh_map, z, 2 * weight, x, generator=generator) * 3).sum()

        (want,) = torch.autograd.grad(loss(weight), weight)
        (got,) = torch.autograd.grad(torch.compile(loss, backend="aot_eager")(weight), weight)
        torch.testing.assert_close(got, want)

    def test_a_map_that_ignores_z_costs_nothing(self):
        weight = torch.ones(2, 3, requires_grad=True)
        assert jacobian_penalty(lambda z: weight * 2, torch.zeros(2, 3)).tolist() == [0, 0]
        assert jacobian_penalty(lambda z: torch.ones(2, 3), torch.zeros(2, 3)).tolist() == [0, 0]

    def test_half_precision_is_summed_in_float32(self):
        penalty = jacobian_penalty(lambda z: z * 300, torch.zeros(1, 8, dtype=torch.float16))
        torch.testing.assert_close(penalty, torch.tensor([90000.0]))  # beyond float16

    def test_refuses_no_samples_and_wrong_shapes(self):
        with pytest.raises(ValueError, match="samples=0"):
            jacobian_penalty(lambda z: z, torch.zeros(1, 2), samples=0)
        with pytest.raises(StructureError, match="changed the shape"):
            jacobian_penalty(lambda z: z[:, :1], torch.zeros(1, 2))


def dominant(matrices: Tensor) -> Tensor:
    return torch.linalg.eigvals(matrices).abs().amax(1)


def rotation(radius: float, angle: float) -> Tensor:
    t = torch.tensor(angle, dtype=torch.float64)
    return radius * torch.stack([torch.stack([t.cos(), -t.sin()]), torch.stack([t.sin(), t.cos()])])


class TestSpectralRadius:
    def test_symmetric(self):
        matrices = torch.randn(4, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        matrices = matrices + matrices.mT
        found = spectral_radius(linear, torch.zeros(4, 20, dtype=torch.float64), matrices, rtol=1e-8, steps=1000)
        torch.testing.assert_close(found.value, dominant(matrices), rtol=1e-6, atol=0)
        assert found.settled.all()

    def test_nonsymmetric_with_real_and_complex_pairs(self):
        matrices = torch.randn(16, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.eigvals(matrices)
        leading = values.gather(1, values.abs().argmax(1, keepdim=True))
        assert 0 < (leading.imag.abs() > 0.1).sum() < 16  # both kinds are met
        found = spectral_radius(linear, torch.zeros(16, 24, dtype=torch.float64), matrices, rtol=1e-7, steps=3000)
        assert found.settled.all()
        torch.testing.assert_close(found.value, dominant(matrices), rtol=1e-5, atol=0)

    @pytest.mark.parametrize("angle", [0.01, 1.0, 1.5707963, 3.0])
    def test_a_rotation_of_any_angle(self, angle):
        block = torch.block_diag(rotation(0.9, angle), torch.diag(torch.linspace(-0.5, 0.5, 30).double()))
        found = spectral_radius(linear, torch.zeros(1, 32, dtype=torch.float64), block[None], rtol=1e-6)
        torch.testing.assert_close(found.value, torch.tensor([0.9], dtype=torch.float64), rtol=1e-5, atol=0)
        assert found.settled.all()

    def test_opposite_eigenvalues_and_defective_ones(self):
        opposite = torch.diag(torch.tensor([0.8, -0.8, 0.1]))
        jordan = torch.tensor([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [0.0, 0.0, 0.5]])
        zero = torch.zeros(3, 3)
        found = spectral_radius(linear, torch.zeros(3, 3), torch.stack([opposite, jordan, zero]))
        torch.testing.assert_close(found.value, torch.tensor([0.8, 0.5, 0.0]), rtol=1e-2, atol=1e-6)
        assert found.settled.all()

    def test_a_tanh_cell_at_its_equilibrium(self, problem):
        z, weight, x = problem
        z = fixed_point(tanh_map, z, weight, x, solver=Anderson(rtol=1e-10)).value
        jacobians = (1 - torch.tanh(z @ weight.T + x) ** 2)[:, :, None] * weight
        found = spectral_radius(tanh_map, z, weight, x)
        torch.testing.assert_close(
            found.value, dominant(jacobians), rtol=1e-9, atol=0
        )  # the memory holds all of it: exact

    def test_a_sample_does_not_depend_on_its_batch(self):
        matrices = torch.randn(6, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        z = torch.zeros(6, 40, dtype=torch.float64)
        together = spectral_radius(linear, z, matrices, steps=600)
        for i in range(6):
            alone = spectral_radius(linear, z[i : i + 1], matrices[i : i + 1], steps=600)
            torch.testing.assert_close(together.value[i : i + 1], alone.value, rtol=1e-9, atol=0)
            assert together.settled[i] == alone.settled[0]

    def test_what_did_not_settle_says_so(self):
        # Eigenvalues on two circles of nearly one radius, far more than memory.
        blocks = [rotation(0.9 - 1e-4 * i, 0.1 * i + 0.05) for i in range(30)]
        found = spectral_radius(
            linear,
            torch.zeros(1, 60, dtype=torch.float64),
            torch.block_diag(*blocks)[None],
            rtol=1e-6,
            steps=24,
            memory=16,
        )
        assert found.settled.tolist() == [False]
        assert found.num_products == 24
        assert 0.8 < float(found.value) <= 0.9 + 1e-6

    def test_settled_samples_stop_the_work(self):
        found = spectral_radius(linear, torch.zeros(2, 50), torch.eye(50).expand(2, 50, 50) * 0.3)
        assert found.num_products <= 16
        torch.testing.assert_close(found.value, torch.full((2,), 0.3))

    def test_a_broken_sample_harms_nobody(self):
        matrices = torch.stack([torch.eye(3) * 0.4, torch.full((3, 3), torch.nan), torch.eye(3) * torch.inf])
        found = spectral_radius(linear, torch.zeros(3, 3), matrices)
        assert found.settled.tolist() == [True, False, False]
        assert found.value[1:].isnan().all()
        torch.testing.assert_close(found.value[0], torch.tensor(0.4))

    @pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
    def test_every_grad_mode_gives_the_same_and_no_graph(self, problem, mode):
        want = spectral_radius(tanh_map, *problem)
        z, weight, x = problem
        with mode():
            found = spectral_radius(tanh_map, z * 1, weight.requires_grad_(), x * 1)
        torch.testing.assert_close(found.value, want.value)
        assert not found.value.requires_grad

    def test_inference_tensors_inside_f_are_named(self, problem):
        z, weight, x = problem
        with torch.inference_mode():
            hidden = weight * 1
            with pytest.raises(AdjointError, match="Hand them over as arguments"):
                spectral_radius(lambda z: torch.tanh(z @ hidden.T + x), z)

    def test_nonnormal_and_clustered_spectra_larger_than_the_memory(self):
        generator = torch.Generator().manual_seed(0)
        matrices = torch.randn(8, 200, 200, generator=generator) / 200**0.5
        found = spectral_radius(linear, torch.zeros(8, 200), matrices, steps=400)
        assert found.settled.all()
        torch.testing.assert_close(found.value, dominant(matrices), rtol=2e-3, atol=0)

    def test_the_budget_is_kept(self):
        matrices = torch.randn(1, 200, 200, generator=torch.Generator().manual_seed(0)) / 200**0.5
        calls = []

        class Spy(torch.autograd.Function):
            @staticmethod
            def forward(ctx, z):
                return z @ matrices[0].T

            @staticmethod
            def backward(ctx, grad):
                calls.append(1)
                return grad @ matrices[0]

        found = spectral_radius(Spy.apply, torch.zeros(1, 200), steps=50, rtol=1e-9)
        assert 40 < len(calls) == found.num_products <= 50

    def test_nests_and_empty_batches(self):
        def f(z):
            a, b = z
            return 0.2 * a, 0.7 * b

        assert spectral_radius(f, (torch.zeros(2, 3), torch.zeros(2, 1, 2))).value.tolist() == pytest.approx([0.7] * 2)
        empty = spectral_radius(f, (torch.zeros(0, 3), torch.zeros(0, 1, 2)))
        assert empty.value.shape == empty.settled.shape == (0,)

    @pytest.mark.parametrize("wrong", [{"memory": 3}, {"steps": 4}, {"rtol": 0.0}])
    def test_refuses_settings_that_cannot_work(self, wrong):
        with pytest.raises(ValueError, match="spectral_radius got"):
            spectral_radius(linear, torch.zeros(1, 2), torch.zeros(1, 2, 2), **wrong)


class TestCorrection:
    def test_the_states_are_those_of_the_uncut_solve(self, problem):
        z0, weight, x = problem
        states = corrected_fixed_point(
            tanh_map, z0, weight, x, at=(3, 7), solver=Picard(rtol=0, max_steps=10), adjoint=OneStep()
        )
        assert len(states) == 3
        z = z0
        for step in range(2, 11):
            z = tanh_map(z, weight, x)
            if step in (3, 7, 10):
                torch.testing.assert_close(states[(3, 7, 10).index(step)].value, z, rtol=0, atol=0)
        assert [s.stats.num_evals for s in states] == [3, 5, 4]

    @pytest.mark.parametrize("solver", [Anderson(rtol=1e-9), Broyden(rtol=1e-9)], ids=["anderson", "broyden"])
    def test_the_last_state_is_the_equilibrium_with_its_exact_gradient(self, problem, solver):
        z0, weight, x = problem
        weight.requires_grad_()
        exact = Implicit(solver=Anderson(rtol=1e-11))
        found = corrected_fixed_point(tanh_map, z0, weight, x, at=(4, 8), solver=solver, adjoint=exact)[-1]
        assert found.stats.converged.all()
        want = fixed_point(tanh_map, z0, weight, x, solver=Picard(rtol=1e-13, max_steps=2000), adjoint=Unrolled())
        torch.testing.assert_close(found.value, want.value, rtol=1e-6, atol=1e-8)
        (got,) = torch.autograd.grad(found.value.square().sum(), weight)
        (truth,) = torch.autograd.grad(want.value.square().sum(), weight)
        torch.testing.assert_close(got, truth, rtol=1e-6, atol=1e-8)

    def test_each_state_has_the_gradient_of_the_correction(self, problem):
        z0, weight, x = problem
        weight.requires_grad_()
        first = corrected_fixed_point(tanh_map, z0, weight, x, at=(3,), solver=Picard(), correction=OneStep())[0]
        (got,) = torch.autograd.grad(first.value.sum(), weight)
        (want,) = torch.autograd.grad(tanh_map(first.value.detach(), weight, x).sum(), weight)
        torch.testing.assert_close(got, want)
        phantom = Phantom(steps=2, damping=1)
        first = corrected_fixed_point(tanh_map, z0, weight, x, at=(3,), solver=Picard(), correction=phantom)[0]
        (got,) = torch.autograd.grad(first.value.sum(), weight)
        twice = tanh_map(tanh_map(first.value.detach(), weight, x), weight, x)
        (want,) = torch.autograd.grad(twice.sum(), weight)
        torch.testing.assert_close(got, want)

    def test_nothing_flows_from_one_state_to_the_one_before(self, problem):
        z0, weight, x = problem
        x.requires_grad_()
        solver, unrolled = Picard(rtol=0, max_steps=6), Unrolled()
        states = corrected_fixed_point(tanh_map, z0, weight, x, at=(3, 5), solver=solver, adjoint=unrolled)
        (got,) = torch.autograd.grad(states[-1].value.sum(), x)
        (want,) = torch.autograd.grad(tanh_map(states[-2].value.detach(), weight, x).sum(), x)
        torch.testing.assert_close(got, want)

    def test_nests_of_tuples(self):
        def f(z, x):
            a, (b,) = z
            return 0.5 * a + x, (0.25 * b + 3 * x,)

        x = torch.ones(2, 3)
        last = corrected_fixed_point(f, (torch.zeros(2, 3), (torch.zeros(2, 3),)), x, at=(2,))[-1]
        torch.testing.assert_close(last.value, (2 * x, (4 * x,)), rtol=1e-4, atol=1e-4)

    def test_only_the_end_has_to_converge(self, problem):
        states = corrected_fixed_point(tanh_map, *problem, at=(2, 4), unconverged="raise")
        assert (states[0].stats.status == Status.MAX_STEPS).all()
        assert states[-1].stats.converged.all()

    @pytest.mark.parametrize("at", [(1,), (4, 4), (6, 3), (50,), (60,)])
    def test_refuses_steps_out_of_order(self, problem, at):
        with pytest.raises(ValueError, match="increase, lie above 1 and below max_steps"):
            corrected_fixed_point(tanh_map, *problem, at=at)

    def test_the_loss_weighs_the_equilibrium_in_full(self):
        losses = [torch.tensor([8.0, 16.0]), torch.tensor([4.0, 8.0]), torch.tensor([2.0, 4.0])]
        assert correction_loss(losses, gamma=0.5).tolist() == [2 + 2 + 2, 4 + 4 + 4]

    def test_the_loss_refuses_nothing_and_wrong_weights(self):
        with pytest.raises(ValueError, match="got no losses"):
            correction_loss([])
        with pytest.raises(ValueError, match=r"gamma=1\.5"):
            correction_loss([torch.zeros(())], gamma=1.5)


class TestDominantGrowth:
    def test_finds_the_one_direction_that_does_not_contract(self):
        # ‖J‖²_F / N hardly tells: the outlier is one of a hundred.
        eigenvalues = torch.linspace(0, 0.5, 100, dtype=torch.float64)
        eigenvalues[3] = -1.3
        z = torch.randn(2, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        growth = dominant_growth(lambda z: eigenvalues * z, z, steps=8)
        torch.testing.assert_close(growth, torch.full_like(growth, 1.3), rtol=1e-3, atol=0)

    def test_a_small_disturbance_sees_the_spectral_radius(self, problem):
        _, weight, x = problem
        z = fixed_point(tanh_map, torch.zeros_like(x), weight, x, solver=Anderson(rtol=1e-12, max_steps=200)).value
        symmetric = (weight + weight.T) / 2
        z = fixed_point(tanh_map, z, symmetric, x, solver=Anderson(rtol=1e-6, max_steps=200)).value
        growth = dominant_growth(tanh_map, z, symmetric, x, steps=200, radius=1e-5)
        slopes = 1 - torch.tanh(z @ symmetric.T + x) ** 2
        radii = torch.linalg.eigvals(slopes[:, :, None] * symmetric).abs().amax(1)
        # D W has the eigenvalues of D^½ W D^½; growth is measured in another norm than theirs, along eigenvectors.
        torch.testing.assert_close(growth, radii, rtol=1e-3, atol=0)

    def test_its_gradient_is_that_of_differences_along_a_fixed_direction(self, problem):
        z, weight, x = problem
        weight = weight.clone().requires_grad_()
        [gradient] = torch.autograd.grad(dominant_growth(tanh_map, z, weight, x, steps=0).sum(), weight)
        with torch.no_grad():
            d = tanh_map(z, weight, x) - z
            d *= 0.1 * z.norm(dim=1, keepdim=True) / d.norm(dim=1, keepdim=True)
        again = weight.detach().clone().requires_grad_()
        change = tanh_map(z + d, again, x) - tanh_map(z, again, x)
        [expected] = torch.autograd.grad((change.norm(dim=1) / d.norm(dim=1)).sum(), again)
        torch.testing.assert_close(gradient, expected)

    def test_a_map_that_rests_grows_nothing(self):
        growth = dominant_growth(lambda z: z, torch.zeros(3, 4))
        assert torch.equal(growth, torch.zeros(3))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_states_that_are_met_to_the_last_bit_have_a_growth_too(self, dtype):
        z = torch.tensor([[40.0, 40.0], [40.0, 40.0], [0.0, 0.0]], dtype=dtype)
        slopes = torch.tensor([[0.1, 0.5], [0.0, 0.0], [0.5, 0.5]], dtype=dtype, requires_grad=True)
        growth = dominant_growth(lambda z, slopes: 40 + slopes * (z - 40), z, slopes, steps=4)
        torch.testing.assert_close(growth, torch.tensor([0.5, 0.0, 0.0], dtype=dtype), rtol=0.1, atol=0)
        growth.sum().backward()
        assert slopes.grad is not None and slopes.grad.isfinite().all()

    @pytest.mark.parametrize("options", [{"steps": -1}, {"radius": 0.0}])
    def test_refuses_impossible_searches(self, options):
        with pytest.raises(ValueError, match=r"steps=2, radius=0\.1"):
            dominant_growth(lambda z: z, torch.ones(1, 1), **options)
