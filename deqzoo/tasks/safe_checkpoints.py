"""Checkpoints that survive whatever happens to a run."""

import io
import os
import re
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from deqzoo.errors import CheckpointError

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
_PARTIAL = ".partial"
_CHUNK = 1 << 22


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints so that, at any moment, the newest whole one is on the disk under its name.

    The bytes go to a file beside, are forced to the disk, and only then take the name. Whoever loses the power, the
    process or the space before that has the checkpoint from before. That of `last.ckpt` is kept as `previous.ckpt`
    when a new one takes its name. Lightning's own writer puts the bytes into the folder for temporary files, often
    another disk, and then copies them over the old checkpoint.

    Addresses such as s3://… go to Lightning's own.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a checkpoint.

        Raises:
            CheckpointError: if the disk is full, or does not take the file for another reason.
        """
        if re.match(r"\w\w+://", str(path)):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        torch.save(checkpoint, content)
        partial = target.with_name(target.name + _PARTIAL)
        try:
            _write(partial, content.getbuffer())
            if target.name == LAST and target.exists():
                _keep(target, target.with_name(PREVIOUS))
            os.replace(partial, target)
            _flush_folder(target.parent)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            needed = content.getbuffer().nbytes
            left = f" and {_mib(shutil.disk_usage(target.parent).free)} are free" if target.parent.is_dir() else ""
            kept = f"The one from before is whole: {target}." if target.exists() else "There is none from before."
            raise CheckpointError(
                f"The checkpoint {target} could not be written: {error.strerror or error}. It takes {_mib(needed)}"
                f"{left}. {kept} Training stops rather than go on unsaved: make room, or choose another folder with "
                "--trainer.default_root_dir, and resume with --ckpt_path."
            ) from error


def is_whole(path: Path) -> bool:
    """Whether a checkpoint has all of its bytes, as they were written: sizes and checksums are in the file itself."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError):
        return False


def newest_whole(folder: Path) -> tuple[Path | None, list[Path]]:
    """Returns the newest whole checkpoint of a run, and those that are newer but damaged.

    A run leaves last.ckpt and, from before, previous.ckpt.

    Args:
        folder: of the run.
    """
    damaged = []
    for path in (folder / LAST, folder / PREVIOUS):
        if path.is_file():
            if is_whole(path):
                return path, damaged
            damaged.append(path)
    return None, damaged


def _write(path: Path, content: memoryview) -> None:
    with path.open("wb") as file:
        for start in range(0, len(content), _CHUNK):
            file.write(content[start : start + _CHUNK])
        file.flush()
        os.fsync(file.fileno())


def _keep(path: Path, as_path: Path) -> None:
    """Gives a file a second name, so that it is there under one of them at any moment."""
    link = as_path.with_name(as_path.name + _PARTIAL)
    with suppress(FileNotFoundError):
        link.unlink()
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links
        os.replace(path, as_path)
    else:
        os.replace(link, as_path)


def _flush_folder(folder: Path) -> None:
    """Forces new names in a folder to the disk, where the system lets one do so."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MiB"
