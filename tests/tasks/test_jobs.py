"""Jobs of several processes that die, are told to end, or are queued again."""

import os
import subprocess
import time

import torch
from torch.distributed.tensor import DTensor

import deqzoo

from .doomed import LANGUAGE, RECIPES, SMALL, VISION, free_port, run_as_rank, run_ranks, start


def test_a_process_that_dies_ends_the_job(tmp_path):
    arguments = [*LANGUAGE, *SMALL, "--trainer.max_epochs=50", "--trainer.devices=2", "--trainer.strategy=ddp"]
    port = free_port()
    processes = [start(run_as_rank, rank, 2, port, arguments, tmp_path, "SIGKILL", 6) for rank in range(2)]
    processes[1].join(200)
    assert processes[1].exitcode == -9
    died = time.monotonic()
    processes[0].join(100)
    assert processes[0].exitcode not in (None, 0), "the other process waits for the one that died"
    assert time.monotonic() - died < 30
    # What there was is there.
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 0


def test_processes_that_are_told_to_end_save_together(tmp_path):
    arguments = [*LANGUAGE, *SMALL, "--trainer.max_epochs=50", "--trainer.devices=2", "--trainer.strategy=ddp"]
    # One hears of it, in the sixth batch of four per epoch; all have to end.
    assert run_ranks(arguments, tmp_path, "SIGTERM", 5) == [143, 143]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 6


def assert_same_end(one, other):
    ends = [torch.load(folder / "last.ckpt", weights_only=True) for folder in (one, other)]
    assert ends[0]["global_step"] == ends[1]["global_step"] == 12
    torch.testing.assert_close(ends[0]["state_dict"], ends[1]["state_dict"], rtol=0, atol=0)


def test_a_job_whose_time_is_over_is_queued_again_and_ends_as_if_it_had_not_been(tmp_path):
    whole, parts, commands = tmp_path / "whole", tmp_path / "parts", tmp_path / "parts" / "bin"
    arguments = [*VISION, *SMALL, "--trainer.max_epochs=3", "--ckpt_path=last"]
    arguments += ["--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.strategy=ddp"]
    assert run_ranks(arguments, whole, launcher="slurm") == [0, 0]
    commands.mkdir(parents=True)
    (commands / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (commands / "scontrol").chmod(0o755)
    # One process hears of it, in the sixth batch of four per epoch.
    assert run_ranks(arguments, parts, "SIGUSR1", 5, "slurm") == [138, 138]
    assert (tmp_path / "asked").read_text() == "requeue 4242\n"
    assert torch.load(parts / "last.ckpt", weights_only=True)["global_step"] == 6
    assert not list(parts.glob("hpc_ckpt_*"))
    assert "told to end by SIGUSR1" in (parts / "output0.txt").read_text()
    assert run_ranks(arguments, parts, launcher="slurm") == [0, 0]
    assert_same_end(whole, parts)


def test_the_template_for_slurm_hands_everything_on(tmp_path):
    (tmp_path / "srun").write_text('#!/bin/sh\nprintf "%s\\n" "$SRUN_CPUS_PER_TASK" "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    told = {"SLURM_NNODES": "4", "SLURM_NTASKS_PER_NODE": "8", "SLURM_CPUS_PER_TASK": "12"}
    command = ["bash", str(RECIPES / "slurm.sh"), "some.yaml", "--data.root", "/data"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **told}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    wanted = "12 --kill-on-bad-exit=1 python -m deqzoo fit -c some.yaml --trainer.num_nodes 4 --trainer.devices 8 "
    wanted += "--trainer.strategy ddp --ckpt_path last --data.root /data"
    assert done.stdout.split() == wanted.split()


def test_an_average_of_whole_weights_is_refused_where_they_are_spread(tmp_path):
    arguments = [*VISION, *SMALL, "--trainer.devices=2", "--trainer.strategy=sharded"]
    arguments += ["--trainer.callbacks=[{class_path: lightning.pytorch.callbacks.EMAWeightAveraging}]"]
    assert run_ranks(arguments, tmp_path) == [1, 1]
    told = (tmp_path / "output0.txt").read_text()
    assert "EMAWeightAveraging averages whole weights" in told and "--trainer.strategy ddp" in told


def test_spread_weights_are_saved_whole_and_resumed(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    arguments = [*VISION, *SMALL, "--trainer.devices=2", "--trainer.strategy=sharded"]
    arguments += ["--trainer.max_epochs=3", "--ckpt_path=last"]
    assert run_ranks(arguments, whole) == [0, 0]
    # In the second epoch, of which SIGTERM leaves time to save a part.
    assert run_ranks(arguments, parts, "SIGTERM", 5) == [143, 143]
    assert run_ranks(arguments, parts) == [0, 0]
    assert_same_end(whole, parts)
    assert not any(isinstance(p, DTensor) for p in deqzoo.load(parts).parameters())
