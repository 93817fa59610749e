"""Runs of the command line, in processes of their own, that end in the way they are told to."""

import multiprocessing
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parents[2] / "recipes"
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]
VISION = ["-c", str(RECIPES / "pcdeq-mnist-linear.yaml"), "--data.batch_size=16"]
# Their bfloat16 takes minutes on CPUs that only imitate it.
FLOAT32 = "--trainer.precision=32-true"
MULTISCALE = [
    "-c",
    str(RECIPES / "mdeq-cifar-tiny.yaml"),
    "--data.batch_size=4",
    "--trainer.log_every_n_steps=2",
    FLOAT32,
]
LANGUAGE = ["-c", str(RECIPES / "deq-lm-shakespeare-tiny.yaml"), "--data.batch_size=2", "--data.context=12", FLOAT32]
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


def _run(arguments: list[str], folder: Path, doom: str, at: int, told: str = "output.txt") -> None:
    import torch

    from deqzoo.cli.training import main
    from deqzoo.errors import DeqzooError

    torch.set_num_threads(1)
    torch.compiler.set_stance("force_eager")  # compiling takes a minute, and is tested beside this
    warnings.simplefilter("ignore", FutureWarning)
    os.chdir(folder)
    output = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
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


def free_port() -> int:
    """Returns a port by which processes can meet."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(target: Callable[..., None], *args: Any) -> ForkServerProcess:
    """Starts a process that calls `target`."""
    process = context().Process(target=target, args=args)
    process.start()
    return process


def run_ranks(arguments: list[str], folder: Path, doom: str = "", at: int = 0, launcher: str = "") -> list[int | None]:
    """Returns the exit codes of a run of two processes, see `run_as_rank`."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    processes = [start(run_as_rank, rank, 2, port, arguments, folder, doom, at, launcher) for rank in range(2)]
    for process in processes:
        process.join(200)
    return [process.exitcode for process in processes]


def run_as_rank(
    rank: int, world_size: int, port: int, arguments: list[str], folder: Path, doom: str, at: int, launcher: str = ""
) -> None:
    """Runs one process of a job of several, of which `doom` befalls the last.

    Args:
        rank: of this process.
        world_size: number of them.
        port: by which they meet.
        arguments: after "fit".
        folder: of the run. It gets output<rank>.txt; what is in its bin/ is found before other commands.
        doom: see `run`.
        at: see `run`.
        launcher: "slurm" for one process on each of several nodes, else all on one and started by torchrun.
    """
    (as_slurm if launcher == "slurm" else as_torchrun)(rank, world_size, port)
    os.environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    _run(arguments, folder, doom if rank == world_size - 1 else "", at, f"output{rank}.txt")


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


def as_slurm(rank: int, world_size: int, port: int) -> None:
    """Sets what srun tells its processes, of which each has a node of its own."""
    os.environ |= {
        "SLURM_JOB_ID": "4242",
        "SLURM_JOB_NAME": "deqzoo",
        "SLURM_NNODES": str(world_size),
        "SLURM_NTASKS": str(world_size),
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NODELIST": ",".join(["localhost"] * world_size),
        "SLURM_NODEID": str(rank),
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": "0",
        "MASTER_PORT": str(port),
    }
