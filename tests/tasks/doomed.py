"""Runs of the command line, in processes of their own, that end in the way they are told to."""

import multiprocessing
import os
import signal
import sys
import warnings
from multiprocessing.context import ForkServerContext
from pathlib import Path

RECIPES = Path(__file__).parents[2] / "recipes"
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]
VISION = ["-c", str(RECIPES / "pcdeq-mnist-linear.yaml"), "--data.batch_size=16"]
LANGUAGE = ["-c", str(RECIPES / "deq-lm-shakespeare-tiny.yaml"), "--data.batch_size=2", "--data.context=12"]
SMALL = ["--synthetic=true", "--trainer.limit_train_batches=4", "--trainer.limit_val_batches=1"]


def context() -> ForkServerContext:
    """Returns what starts processes that have imported everything already, and nothing else of this one."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["deqzoo.cli.training"])
    return made


def run(arguments: list[str], folder: Path, doom: str = "", at: int = 0) -> tuple[int, str]:
    """Returns the exit code and what was written of `deqzoo fit …`, which `doom` befalls at some point.

    Args:
        arguments: after "fit".
        folder: to work in, and of the run.
        doom: "SIGTERM" or "SIGKILL" in the backward pass of batch `at` of those that this process runs; "halfway"
            for SIGKILL when half of the last.ckpt after `at` others has been written; "full" for a disk that takes no
            more than `at` bytes in a file; "" for none.
        at: see above.
    """
    folder.mkdir(exist_ok=True)
    process = context().Process(target=_run, args=(arguments, folder, doom, at))
    process.start()
    process.join(240)
    assert process.exitcode is not None
    return process.exitcode, (folder / "output.txt").read_text()


def _run(arguments: list[str], folder: Path, doom: str, at: int) -> None:
    import torch

    from deqzoo.cli.training import main
    from deqzoo.errors import DeqzooError

    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)
    os.chdir(folder)
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    _arrange(doom, at)
    try:
        main(["fit", *arguments, *QUIET, "--trainer.default_root_dir=."])
    except DeqzooError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)


def _arrange(doom: str, at: int) -> None:
    import deqzoo.tasks.safe_checkpoints as writer
    from deqzoo.tasks.base import Task

    if doom == "full":
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (at, at))
    elif doom == "halfway":
        write, calls = writer._write, []

        def half(path: Path, content: memoryview) -> None:
            calls.extend([path] if path.name.startswith(writer.LAST) else [])
            if len(calls) <= at:
                write(path, content)
                return
            write(path, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

        writer._write = half
    elif doom:
        after, seen = Task.on_after_backward, []

        def die(task: Task) -> None:
            seen.append(task)
            if len(seen) == at + 1:
                os.kill(os.getpid(), signal.Signals[doom])
            after(task)

        Task.on_after_backward = die


def run_as_rank(rank: int, world_size: int, port: int, arguments: list[str], folder: Path, doom: str, at: int) -> None:
    """Runs one process of a job of several, of which `doom` befalls the last."""
    as_torchrun(rank, world_size, port)
    _run(arguments, folder, doom if rank == world_size - 1 else "", at)


def as_torchrun(rank: int, world_size: int, port: int) -> None:
    """Sets what torchrun tells its processes."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "none",
    }
