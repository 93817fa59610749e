"""Several processes find what one finds."""

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from torch import nn
from torch.distributed.tensor import DTensor

from deqzoo.data import NoiseImages, NoiseText
from deqzoo.models.deq_transformer import DEQTransformer
from deqzoo.models.deq_transformer_parts import DEQTransformerConfig
from deqzoo.solvers import Picard
from deqzoo.tasks import DivergenceGuard, ImageClassifier, LanguageModel, RandomState, WarmupCosine, WarmupEMA

from .doomed import as_torchrun, free_port, start
from .ranks import CASES, alone, together
from .tiny import TinyNet, make_batches, make_trainer

TOLERANCE = 1e-12


@functools.cache
def wanted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return alone()


@pytest.fixture(scope="module", params=[2, 4], ids=["two", "four"])
def found(request, tmp_path_factory):
    return together(request.param, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", [f"{net}-{adjoint}" for net, adjoint in CASES])
def test_losses_gradients_and_weights_are_those_of_one_process(case, found):
    want, got = wanted()[case], found[case]
    assert want.keys() <= got.keys()
    assert any(float(value.abs().max()) > 0 for name, value in want.items() if name.startswith("gradient"))
    for name, value in want.items():
        scale = max(float(value.abs().max()), 1e-3)
        assert float((got[name] - value).abs().max()) <= TOLERANCE * scale, name
        # Of a network whose weights are spread over the processes, the gradients are the same.
        if name.startswith("gradient"):
            sharded = got[name.replace("gradient", "sharded")]
            assert float((sharded - value).abs().max()) <= TOLERANCE * scale, f"sharded {name}"


class Tally(Callback):
    """Notes the labels that were evaluated on."""

    def __init__(self) -> None:
        self.labels: list[int] = []

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.labels += batch[1].tolist()


def make_task(dtype: torch.dtype, *, norm: bool) -> ImageClassifier:
    """Returns a task with a network, with or without statistics that every process has for itself."""
    seed_everything(0, verbose=False)
    net = TinyNet()
    if not norm:
        net.norm = nn.Identity()
    net = net.to(dtype)
    net.pretrained_cfg["input_size"], net.num_classes, net.fc = (1, 4, 4), 10, nn.Linear(8, 10, dtype=dtype)
    return ImageClassifier(net, schedule=WarmupCosine(), optimizer=lambda g: torch.optim.SGD(g, 0.3))


def make_data(world_size: int) -> NoiseImages:
    """Returns 40 images to train on, and 23 to evaluate on."""
    return NoiseImages("mnist", size=4, num_images=63, batch_size=4 // world_size, eval_batch_size=5, val_size=23)


def fit(rank: int, world_size: int, port: int, folder: Path, strategy: str, norm: bool) -> None:
    """Trains on 40 images, 8 per optimizer step, and evaluates on 23, which no number of processes divides.

    Args:
        rank: of this process.
        world_size: number of processes.
        port: by which they meet.
        folder: for what is found.
        strategy: of several processes.
        norm: whether the network has a BatchNorm.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if world_size > 1:
        as_torchrun(rank, world_size, port)
    # Lightning spreads no weights in float64.
    precision, dtype = ("32-true", torch.float32) if strategy == "sharded" else ("64-true", torch.float64)
    task, data = make_task(dtype, norm=norm), make_data(world_size)
    tally = Tally()
    trainer = make_trainer(
        max_epochs=2,
        precision=precision,
        devices=world_size,
        strategy="auto" if world_size == 1 else strategy,
        accumulate_grad_batches=2,
        gradient_clip_val=0.5,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[WarmupEMA(decay=0.5), DivergenceGuard(skip=1), RandomState(), tally],
    )
    trainer.fit(task, data)
    weights = task.state_dict()
    assert world_size == 1 or (strategy == "sharded") == isinstance(weights["net.fc.weight"], DTensor)
    figures = {key: float(value) for key, value in trainer.callback_metrics.items()}
    weights = {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in weights.items()}
    content = {"weights": weights, "figures": figures, "labels": tally.labels}
    torch.save(content, folder / f"{world_size}-{rank}.pt")


def run(do: Callable[..., None], world_sizes: tuple[int, ...], folder: Path, *args: Any) -> list[dict]:
    """Returns what each of the processes of runs of such sizes found."""
    port = free_port()
    ranks = [(rank, size) for size in world_sizes for rank in range(size)]
    processes = [start(do, rank, size, port, folder, *args) for rank, size in ranks]
    for process in processes:
        process.join(200)
    assert [process.exitcode for process in processes] == [0] * len(ranks)
    return [torch.load(folder / f"{size}-{rank}.pt", weights_only=True) for rank, size in ranks]


@pytest.mark.parametrize(("strategy", "world_size"), [("ddp", 2), ("ddp", 4), ("sharded", 2)])
def test_training_and_evaluation_agree_with_one_process(strategy, world_size, tmp_path):
    one, *several = run(fit, (1, world_size), tmp_path, strategy, False)
    # Every image once and in all epochs: no process has what another one has, and nothing is padded.
    assert len(one["labels"]) == 2 * 23
    assert sorted(label for each in several for label in each["labels"]) == sorted(one["labels"])
    exact = 1e-5 if strategy == "sharded" else 1e-12
    figures = ["val/top1", "val/top5", "val/loss", "val/ece", "val/evals_mean", "val/residual_max"]
    figures += ["train/evals_mean", "train/residual_max", "train/converged", "train/backward_evals_mean"]
    for each in several:
        for name, value in one["weights"].items():
            torch.testing.assert_close(each["weights"][name], value, rtol=exact, atol=exact / 100)
        for name in figures:
            assert each["figures"][name] == pytest.approx(one["figures"][name], rel=max(100 * exact, 1e-6)), name


@pytest.mark.parametrize("strategy", ["ddp", "sharded"])
def test_all_processes_evaluate_what_is_saved(strategy, tmp_path):
    first, second = run(fit, (2,), tmp_path, strategy, True)
    dtype = first["weights"]["net.fc.weight"].dtype
    task = make_task(dtype, norm=True)
    task.load_state_dict(first["weights"])
    precision = "64-true" if dtype == torch.float64 else "32-true"
    (alone,) = make_trainer(precision=precision).validate(task, make_data(1), verbose=False)
    assert not torch.equal(first["weights"]["net.norm.running_mean"], make_task(dtype, norm=True).net.norm.running_mean)
    for name in ("val/top1", "val/loss", "val/evals_mean"):
        for each in (first, second):
            assert each["figures"][name] == pytest.approx(alone[name], rel=1e-5), name


def read(rank: int, world_size: int, port: int, folder: Path, stream: bool) -> None:
    """Evaluates a language model on 300 tokens, in windows or as a stream that it remembers.

    Args:
        rank: of this process.
        world_size: number of processes.
        port: by which they meet.
        folder: for what is found.
        stream: whether the network has a memory.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if world_size > 1:
        as_torchrun(rank, world_size, port)
    torch.manual_seed(0)
    config = DEQTransformerConfig(width=16, heads=2, hidden=16, context=8, memory=8 if stream else 0)
    task = LanguageModel(DEQTransformer(config, vocab_size=65, solver=Picard(rtol=1e-3, max_steps=60)))
    data = NoiseText("tiny-shakespeare", num_tokens=3000, context=8, eval_batch_size=5, stream=stream)
    trainer = make_trainer(devices=world_size, strategy="ddp" if world_size > 1 else "auto")
    (figures,) = trainer.test(task, data, verbose=False)
    torch.save(figures, folder / f"{world_size}-{rank}.pt")


@pytest.mark.parametrize("stream", [False, True], ids=["windows", "stream"])
def test_a_text_is_read_once_however_many_read_it(stream, tmp_path):
    one, *three = run(read, (1, 3), tmp_path, stream)
    for each in three:
        assert each == pytest.approx(one, rel=1e-5)


def fit_with_nan(rank: int, world_size: int, port: int, folder: Path) -> None:
    """Trains on four batches, of which the third has a NaN in the last process."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    as_torchrun(rank, world_size, port)
    torch.manual_seed(0)
    net = TinyNet()
    net.norm = nn.Identity()  # whose statistics would keep the NaN
    batches = make_batches(4, 8, seed=rank)
    if rank == world_size - 1:
        batches[2][0][5, 0, 1, 1] = torch.nan
    before = {}

    class Note(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            before[trainer.fit_loop.batch_idx] = all(p.grad is None for p in pl_module.parameters())

    task, guard = ImageClassifier(net), DivergenceGuard(skip=1)
    options = {"strategy": "ddp", "devices": world_size, "use_distributed_sampler": False, "limit_val_batches": 0}
    make_trainer(max_epochs=1, callbacks=[guard, Note()], **options).fit(task, batches)
    torch.save({"weights": task.state_dict(), "left_out": [i for i, out in before.items() if out]}, folder / f"{rank}")


def test_a_batch_that_one_process_cannot_use_is_left_out_by_all(tmp_path):
    port = free_port()
    processes = [start(fit_with_nan, rank, 2, port, tmp_path) for rank in range(2)]
    for process in processes:
        process.join(200)
    assert [process.exitcode for process in processes] == [0, 0]
    one, other = (torch.load(tmp_path / str(rank), weights_only=True) for rank in range(2))
    assert one["left_out"] == other["left_out"] == [2]
    for name, value in one["weights"].items():
        assert value.isfinite().all() and torch.equal(value, other["weights"][name]), name
