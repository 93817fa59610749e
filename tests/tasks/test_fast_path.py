"""Training on the fast path is training."""

import pytest
import torch

from deqzoo import create_model
from deqzoo.adjoints import Implicit
from deqzoo.models.mdeq import MDEQ, MDEQConfig
from deqzoo.solvers import Picard
from deqzoo.tasks import FastPath, ImageClassifier, TrainingSolver, WarmupEMA

from .tiny import Batches, TinyNet, make_batches, make_trainer, train

# Raised inside of torch, which looks at every input of a graph.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


def test_compiled_training_ends_where_eager_training_does():
    ends = []
    for callbacks in ([], [FastPath(options={"backend": "aot_eager"})]):
        torch.manual_seed(0)
        task = ImageClassifier(TinyNet())
        train(task, make_batches(4), max_epochs=1, callbacks=[*callbacks, WarmupEMA(0.9)])
        ends.append(task.state_dict())
    assert list(ends[0]) == list(ends[1])
    for key, value in ends[0].items():
        torch.testing.assert_close(ends[1][key], value, rtol=1e-4, atol=1e-6, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("channels_last", [True, False])
def test_convolutions_are_laid_out_as_told_and_states_stay_exact(channels_last):
    config = MDEQConfig(channels=(4, 8), head_channels=(2, 2), num_features=5, expansion=2, groups=2)
    net = MDEQ(config, num_classes=3)
    seen = []
    net.equilibrium.cell.register_forward_pre_hook(lambda _, args: seen.append(args))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 16, 16, generator=generator)
    fixed = Picard(rtol=0.0, max_steps=3)
    train(
        ImageClassifier(net),
        Batches([(images, torch.tensor([0, 1, 2, 0]))] * 2),
        max_epochs=1,
        precision="bf16-mixed",
        callbacks=[
            FastPath(compile=False, channels_last=channels_last),
            TrainingSolver(solver=fixed, adjoint=Implicit(solver=fixed)),
        ],
    )
    assert net.stem[0].weight.is_contiguous(memory_format=torch.channels_last) == channels_last
    for state, injection in seen:
        assert injection.dtype == torch.bfloat16
        for part in state:
            assert part.dtype == torch.float32
            assert part.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert all(p.isfinite().all() for p in net.parameters())


def test_monotone_operators_keep_their_pairs_of_kernels():
    """Their parameters have five dimensions, which `Module.to(memory_format=…)` refuses."""
    net = create_model("mondeq-mnist").eval()
    images = torch.randn(2, 1, 28, 28)
    with torch.no_grad():
        before = net(images)
        FastPath(compile=False).setup(make_trainer(), ImageClassifier(net), "fit")
        torch.testing.assert_close(net(images), before, rtol=1e-4, atol=1e-5)
    assert any(p.dim() == 5 for p in net.parameters())
    kernels = [p for p in net.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
