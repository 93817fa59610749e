"""Writing a network and its figures into a folder that `load` reads."""

from pathlib import Path
from typing import Any

import torch

from deqzoo.errors import WeightsError, listed
from deqzoo.models import entry
from deqzoo.zoo.layout import WEIGHTS_FILE, build_config, write_config
from deqzoo.zoo.stored import open_folder
from deqzoo.zoo.tensors import sha256, write_tensors


def save(net: Any, folder: str | Path, *, name: str, results: dict[str, Any] | None = None, half: bool = False) -> None:
    """Writes model.safetensors and config.json, reads them back and compares.

    Args:
        net: a network that `create_model` made.
        folder: is made if it does not exist; files of these names in it are replaced.
        name: of the model, in any spelling.
        results: measured figures to keep beside the weights, plain values of JSON.
        half: whether float32 weights are stored in float16, at half the size and three digits.

    Raises:
        UnknownModelError: if there is no such name.
        WeightsError: if a weight is not finite, or what was read back differs.
    """
    found, folder = entry(name), Path(folder).expanduser()
    wanted = {
        key: tensor.detach().cpu().to(torch.float16 if half and tensor.dtype == torch.float32 else tensor.dtype)
        for key, tensor in net.state_dict().items()
    }
    broken = [key for key, tensor in wanted.items() if not tensor.isfinite().all()]
    if broken:
        raise WeightsError(
            f"These weights hold NaN or inf, or numbers beyond the range of float16: {listed(broken, 4)}. No trained "
            "weight does, and `load` refuses them: look at the training, or save without `half`."
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WEIGHTS_FILE
    write_tensors(wanted, path)
    content = path.read_bytes()
    weights = {"sha256": sha256(content), "size": len(content)}
    write_config(folder, build_config(found, net, results=results or {}, weights=weights))
    stored = open_folder(folder).tensors
    for key, tensor in wanted.items():
        if key not in stored or not torch.equal(stored[key], tensor):
            raise WeightsError(
                f"{path} does not give {key!r} back as it was written. Saved weights equal those in memory: check the "
                "disk and save again."
            )
