"""Signals on which a run saves itself and ends."""

import os
import signal
import subprocess
import threading
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

_END, _END_AND_REQUEUE = 1, 2


class PreemptedException(SIGTERMException):
    """The cluster said that the time is over: the run is saved, and its job queued again."""


class Told:
    """What the processes of a run were told by signals. They obey together, after a batch.

    Lightning would act inside of the handler: with several processes those then wait for each other for ever, and
    between two statements of a step no checkpoint is exact.
    """

    def __init__(self) -> None:
        self._what = 0

    def listen(self, trainer: Trainer) -> None:
        """Takes SIGTERM, if there are several processes, and SLURM's signal from Lightning's handlers."""
        if threading.current_thread() is not threading.main_thread():
            return
        if trainer.world_size > 1:
            signal.signal(signal.SIGTERM, lambda *_: self._hear(_END))
        cluster: Any = trainer._accelerator_connector.cluster_environment
        if isinstance(cluster, SLURMEnvironment) and cluster.auto_requeue and cluster.requeue_signal is not None:
            signal.signal(cluster.requeue_signal, lambda *_: self._hear(_END_AND_REQUEUE))

    def obey(self, trainer: Trainer) -> None:
        """Ends training in all processes if one of them was told to.

        Raises:
            SIGTERMException: to do so.
        """
        what = self._what
        if trainer.world_size > 1:
            told = torch.tensor(float(what), device=trainer.strategy.root_device)
            what = int(trainer.strategy.reduce(told, reduce_op="max"))
        if what == _END_AND_REQUEUE:
            raise PreemptedException
        if what == _END:
            raise SIGTERMException

    def _hear(self, what: int) -> None:
        self._what = max(self._what, what)


def requeue() -> None:
    """Asks SLURM to start the job of this process again; it then ends the one that runs."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        why = done.stderr.strip() or f"code {done.returncode}" if done.returncode else ""
    except OSError as error:
        why = str(error)
    if why:
        rank_zero_warn(
            f"Job {job} could not be queued again: {why}. The run is saved: submit it once more with --ckpt_path last."
        )
    else:
        rank_zero_info(f"Job {job} is queued again.")
