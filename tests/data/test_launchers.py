"""A recipe on several processes that torchrun starts, as in its own words."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("webdataset")

from .test_timm_stream import write_shards

RECIPE = Path(__file__).parents[2] / "recipes" / "pcdeq-mnist-linear.yaml"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_two_nodes_train_and_evaluate_on_shared_shards(tmp_path):
    """One process on each of two nodes, on streamed shards; evaluation is of 17 images, which two cannot share."""
    names = write_shards(tmp_path, "some", (7, 4, 6))
    meet = ["--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={free_port()}"]
    arguments = ["deqzoo", "fit", "-c", str(RECIPE), f"--trainer.default_root_dir={tmp_path}"]
    arguments += ["--data=deqzoo.data.TimmStream", f"--data.root={tmp_path}", f"--data.train={names}"]
    arguments += [f"--data.val={names}", "--data.like=mnist", "--data.num_workers=0", "--data.batch_size=4"]
    arguments += ["--data.eval_batch_size=5", "--trainer.max_epochs=1", "--trainer.devices=1", "--trainer.num_nodes=2"]
    arguments += ["--trainer.accelerator=cpu", "--trainer.strategy=ddp", "--trainer.enable_progress_bar=false"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(RECIPE.parents[1])}
    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *meet, f"--node_rank={node}", "-m", *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for node in range(2)
    ]
    told = [node.communicate(timeout=280)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], told
    assert "MEMBER: 2/2" in "".join(told)
    # Nine images a process, in full batches of two: it shares those of four.
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 5
    header, *rows = (tmp_path / "version_0" / "metrics.csv").read_text().splitlines()
    top1 = [row.split(",")[header.split(",").index("val/top1")] for row in rows]
    (share,) = [float(value) for value in top1 if value]
    assert share * 17 == pytest.approx(round(share * 17), abs=1e-5)
