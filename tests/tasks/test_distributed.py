"""Several processes find what one finds, and none is left waiting for one that died."""

import functools
import socket
import time
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from torch import nn

from deqzoo.data import NoiseImages
from deqzoo.tasks import ImageClassifier, RandomState, WarmupCosine, WarmupEMA

from .doomed import LANGUAGE, SMALL, as_torchrun, context, run_as_rank
from .ranks import CASES, alone, together
from .tiny import TinyNet, make_trainer

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


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Tally(Callback):
    """Notes the labels that were evaluated on."""

    def __init__(self) -> None:
        self.labels: list[int] = []

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.labels += batch[1].tolist()


def fit(rank: int, world_size: int, port: int, folder: Path) -> None:
    """Trains on 40 images, 8 per optimizer step, and evaluates on 23, which no number of processes divides."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if world_size > 1:
        as_torchrun(rank, world_size, port)
    seed_everything(0, verbose=False)
    net = TinyNet()
    net.norm = nn.Identity()  # whose statistics every process has for itself
    task = ImageClassifier(net.double(), schedule=WarmupCosine(), optimizer=lambda g: torch.optim.SGD(g, 0.3))
    data = NoiseImages("mnist", size=4, num_images=63, batch_size=4 // world_size, eval_batch_size=5, val_size=23)
    net.pretrained_cfg["input_size"], net.num_classes, net.fc = (1, 4, 4), 10, nn.Linear(8, 10).double()
    tally = Tally()
    trainer = make_trainer(
        max_epochs=2,
        precision="64-true",
        devices=world_size,
        strategy="ddp" if world_size > 1 else "auto",
        accumulate_grad_batches=2,
        gradient_clip_val=0.5,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[WarmupEMA(decay=0.5), RandomState(), tally],
    )
    trainer.fit(task, data)
    figures = {key: float(value) for key, value in trainer.callback_metrics.items()}
    content = {"weights": task.state_dict(), "figures": figures, "labels": tally.labels}
    torch.save(content, folder / f"{world_size}-{rank}.pt")


def start(target, *args):
    process = context().Process(target=target, args=args)
    process.start()
    return process


def test_training_and_evaluation_agree_with_one_process(tmp_path):
    port = free_port()
    processes = [start(fit, rank, world, port, tmp_path) for world in (1, 2) for rank in range(world)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    one, *two = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
    # Every image once and in all epochs: no process has what another one has, and nothing is padded.
    assert len(one["labels"]) == 2 * 23
    assert sorted(two[0]["labels"] + two[1]["labels"]) == sorted(one["labels"])
    for each in two:
        for name, value in one["weights"].items():
            torch.testing.assert_close(each["weights"][name], value, rtol=1e-12, atol=1e-14)
        for name in ("val/top1", "val/top5", "val/loss", "val/ece", "val/evals_mean", "val/residual_max"):
            assert each["figures"][name] == pytest.approx(one["figures"][name], rel=1e-6), name


def test_a_process_that_dies_ends_the_job(tmp_path):
    arguments = [*LANGUAGE, *SMALL, "--trainer.max_epochs=50", "--trainer.devices=2", "--trainer.strategy=ddp"]
    port = free_port()
    processes = [start(run_as_rank, rank, 2, port, arguments, tmp_path, "SIGKILL", 6) for rank in range(2)]
    processes[1].join(120)
    assert processes[1].exitcode == -9
    died = time.monotonic()
    processes[0].join(60)
    assert processes[0].exitcode not in (None, 0), "the other process waits for the one that died"
    assert time.monotonic() - died < 30
    # What there was is there.
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 0


def test_processes_that_are_told_to_end_save_together(tmp_path):
    arguments = [*LANGUAGE, *SMALL, "--trainer.max_epochs=50", "--trainer.devices=2", "--trainer.strategy=ddp"]
    port = free_port()
    # One hears of it, in the sixth batch of four per epoch; all have to end.
    processes = [start(run_as_rank, rank, 2, port, arguments, tmp_path, "SIGTERM", 5) for rank in range(2)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [143, 143]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 6
