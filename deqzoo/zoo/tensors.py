"""Tensors in safetensors files, which hold no code: writing, checking and reading them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from deqzoo.errors import DamagedWeightsError, WeightsError, listed

_HALF = (torch.float16, torch.bfloat16)


def sha256(content: bytes) -> str:
    """Returns the SHA-256 of `content` in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes tensors to a safetensors file."""
    # A copy of each, because the format refuses tensors that share memory.
    copies = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    path.write_bytes(safetensors.torch.save(copies))


def read_tensors(path: Path, *, digest: str, size: int) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file, whose bytes are checked before they are parsed.

    Args:
        path: the file.
        digest: the SHA-256 that it must have.
        size: its length in bytes.

    Raises:
        DamagedWeightsError: if it is truncated or changed.
        WeightsError: if it is missing, or no such file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{path} could not be read: {error.strerror or error}. It should hold the weights: correct the "
            "path, or install or download them again."
        ) from error
    if len(content) < size:
        raise DamagedWeightsError(
            f"{path} is truncated: it has {len(content):,} of {size:,} bytes. Weights are only read whole: "
            "install or download them again."
        )
    if sha256(content) != digest:
        raise DamagedWeightsError(
            f"{path} was changed after it was published: its SHA-256 is {sha256(content)}, not {digest}. "
            "Such weights are not read: install or download them again."
        )
    try:
        return safetensors.torch.load(content)
    except (safetensors.SafetensorError, LookupError) as error:  # the latter for a dtype that torch does not have
        raise WeightsError(
            f"{path} is no complete safetensors file ({error}). Weights are read from that format alone: "
            "download or export them again."
        ) from error


def load_tensors(net: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Copies tensors into the parameters and buffers of `net`; names, shapes and dtypes must fit, numbers be finite.

    Weights stored in half precision are widened to the dtype of the network.

    Args:
        net: of the architecture that the tensors belong to.
        tensors: a state dict.
        origin: where they come from, for messages.

    Raises:
        WeightsError: naming what does not fit. `net` is then unchanged.
    """
    own = net.state_dict()
    missing, unexpected = own.keys() - tensors.keys(), tensors.keys() - own.keys()
    both = own.keys() & tensors.keys()
    shapes = [
        f"{k} is {tuple(tensors[k].shape)} and should be {tuple(own[k].shape)}"
        for k in sorted(both)
        if tensors[k].shape != own[k].shape
    ]
    dtypes = [
        f"{k} is {tensors[k].dtype} and should be {own[k].dtype}"
        for k in sorted(both)
        if tensors[k].dtype != own[k].dtype and not (own[k].is_floating_point() and tensors[k].dtype in _HALF)
    ]
    faults = [
        f"{what}: {listed(names, 4)}"
        for what, names in (
            ("missing", sorted(missing)),
            ("unexpected", sorted(unexpected)),
            ("wrong shape", shapes),
            ("wrong dtype", dtypes),
        )
        if names
    ]
    if faults:
        raise WeightsError(
            f"The weights in {origin} do not fit {type(net).__name__}. {'; '.join(faults)}. Every tensor "
            "must fit: check that the name is that of the weights, and that both come from the same "
            "version."
        )
    broken = [k for k in sorted(own) if not tensors[k].isfinite().all()]
    if broken:
        raise WeightsError(
            f"The weights in {origin} hold NaN or inf: {listed(broken, 4)}. No trained weight is either: the training "
            "diverged or the file was made wrongly, so take an earlier checkpoint or another source."
        )
    net.load_state_dict({k: tensors[k].to(own[k].dtype) for k in own})
