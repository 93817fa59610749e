"""A run that is killed, at whatever moment, goes on and ends with the weights of one that was not."""

import pytest
import torch

from deqzoo.errors import CheckpointError
from deqzoo.tasks.safe_checkpoints import SafeCheckpointIO, is_whole, newest_whole

from .doomed import LANGUAGE, MULTISCALE, SMALL, VISION, run


def ends(folder, name="last.ckpt"):
    return torch.load(folder / name, weights_only=True)


def assert_same_weights(one, other):
    assert one["global_step"] == other["global_step"]
    for key in ("state_dict", "current_model_state"):
        if key in one:
            torch.testing.assert_close(one[key], other[key], rtol=0, atol=0, equal_nan=True)
    for mine, others in zip(one["optimizer_states"], other["optimizer_states"], strict=True):
        assert mine["param_groups"] == others["param_groups"]
        torch.testing.assert_close(mine["state"], others["state"], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("recipe", [VISION, MULTISCALE, LANGUAGE], ids=["vision", "multiscale", "language"])
def test_a_run_that_is_killed_over_and_over_ends_as_if_it_had_not_been(recipe, tmp_path):
    arguments = [*recipe, *SMALL, "--trainer.max_epochs=3"]
    code, told = run(arguments, tmp_path / "whole")
    assert code == 0, told
    doomed, resume = tmp_path / "doomed", ["--ckpt_path=last"]

    # Twice the same command starts and resumes. SIGTERM leaves time to save the batches of a part of an epoch.
    code, told = run([*arguments, *resume], doomed, "SIGTERM", at=1)
    assert code == 143, told
    assert "told to end by SIGTERM. --ckpt_path last resumes" in told
    assert ends(doomed)["global_step"] == 2
    # SIGKILL does not: what counts is the epoch before.
    code, told = run([*arguments, *resume], doomed, "SIGKILL", at=4)
    assert code == -9, told
    assert ends(doomed)["global_step"] == 4
    # Nor does it while a checkpoint is written, of which half is there.
    code, told = run([*arguments, *resume], doomed, "halfway", at=0)
    assert code == -9, told
    assert (doomed / "last.ckpt.partial").stat().st_size > 1000
    assert ends(doomed)["global_step"] == 4
    # A checkpoint that something else cut short is named, and the one before it taken.
    content = (doomed / "last.ckpt").read_bytes()
    (doomed / "last.ckpt").write_bytes(content[: len(content) // 2])
    code, told = run([*arguments, *resume], doomed)
    assert code == 0, told
    assert f"{doomed}/last.ckpt is damaged" in told and f"used instead: {doomed}/previous.ckpt" in told
    assert not (doomed / "last.ckpt.partial").exists()
    assert_same_weights(ends(tmp_path / "whole"), ends(doomed))
    assert ends(doomed, "previous.ckpt")["global_step"] == 8


def test_a_full_disk_stops_the_run_and_leaves_the_last_checkpoint(tmp_path):
    arguments = [*VISION, *SMALL]
    assert run([*arguments, "--trainer.max_epochs=1"], tmp_path)[0] == 0
    before = (tmp_path / "last.ckpt").read_bytes()
    code, told = run([*arguments, "--trainer.max_epochs=2", "--ckpt_path=last"], tmp_path, "full", at=len(before) // 2)
    assert code == 1
    assert "last.ckpt could not be written: File too large" in told
    assert "The one from before is whole" in told and "make room" in told
    assert (tmp_path / "last.ckpt").read_bytes() == before
    assert not (tmp_path / "last.ckpt.partial").exists()


def test_a_checkpoint_is_whole_or_it_is_not(tmp_path):
    path = tmp_path / "last.ckpt"
    SafeCheckpointIO().save_checkpoint({"weights": torch.arange(5000.0), "epoch": 3}, path)
    assert is_whole(path)
    content = path.read_bytes()
    for damaged in (b"", content[:10], content[: len(content) // 2], content[:-1]):
        path.write_bytes(damaged)
        assert not is_whole(path)
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    path.write_bytes(flipped)
    assert not is_whole(path)
    assert not is_whole(tmp_path / "missing.ckpt")


def test_the_newest_whole_one_is_found(tmp_path):
    assert newest_whole(tmp_path) == (None, [])
    writer = SafeCheckpointIO()
    for epoch in range(3):
        writer.save_checkpoint({"epoch": epoch}, tmp_path / "last.ckpt")
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    assert [ends(tmp_path, path.name)["epoch"] for path in (last, previous)] == [2, 1]
    assert newest_whole(tmp_path) == (last, [])
    last.write_bytes(b"")
    assert newest_whole(tmp_path) == (previous, [last])
    previous.write_bytes(b"")
    assert newest_whole(tmp_path) == (None, [last, previous])


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    SafeCheckpointIO().save_checkpoint({"epoch": 0}, tmp_path / "last.ckpt")
    (tmp_path / "last.ckpt.partial").mkdir()
    with pytest.raises(CheckpointError, match=r"could not be written: Is a directory.*is whole: .*last\.ckpt"):
        SafeCheckpointIO().save_checkpoint({"epoch": 1}, tmp_path / "last.ckpt")
    assert ends(tmp_path)["epoch"] == 0
