"""Weights from Lightning's checkpoints to safetensors and back, and nothing that runs on the way."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from deqzoo import create_model, load
from deqzoo.data import EmbeddedSample
from deqzoo.errors import WeightsError
from deqzoo.models.vocabulary import CharVocabulary
from deqzoo.tasks import ImageClassifier
from deqzoo.zoo.convert import convert
from deqzoo.zoo.tensors import sha256


class Bomb:
    """What a malicious file holds: loading it the careless way makes a file appear."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_there_and_back_again_nothing_is_lost(net: Any, folder: Path, tmp_path: Path):
    convert(folder, tmp_path / "there.ckpt")
    convert(tmp_path / "there.ckpt", tmp_path / "back")
    assert (tmp_path / "back/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    model: Any = load(tmp_path / "there.ckpt")
    assert all(
        torch.equal(a, b) for a, b in zip(model.net.state_dict().values(), net.state_dict().values(), strict=True)
    )


def test_other_sizes_come_along(tmp_path: Path):
    from deqzoo.zoo import save

    save(create_model("zoo-probe", num_classes=4, in_chans=3), tmp_path / "saved", name="zoo-probe")
    convert(tmp_path / "saved", tmp_path / "there.ckpt")
    model: Any = load(tmp_path / "there.ckpt")
    assert (model.net.num_classes, model.net.in_chans) == (4, 3)


def test_a_vocabulary_comes_along(tmp_path: Path):
    from deqzoo.zoo import save

    net: Any = create_model("deq-lm-shakespeare-tiny", vocab_size=8)
    net.pretrained_cfg["vocabulary"] = CharVocabulary("abcdefgh").as_dict()
    save(net, tmp_path / "saved", name="deq-lm-shakespeare-tiny")
    convert(tmp_path / "saved", tmp_path / "there.ckpt")
    model: Any = load(tmp_path / "there.ckpt")
    assert model.net.vocab_size == 8
    assert model.net.pretrained_cfg["vocabulary"] == net.pretrained_cfg["vocabulary"]


def test_lightning_reads_what_was_converted(net: Any, folder: Path, tmp_path: Path):
    path = tmp_path / "there.ckpt"
    convert(folder, path)
    task = ImageClassifier.load_from_checkpoint(path, net=create_model("zoo-probe"))
    assert torch.equal(task.net.fc.weight, net.fc.weight)  # pyright: ignore
    fresh = ImageClassifier(create_model("zoo-probe"))
    trainer = Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False, limit_test_batches=1)
    trainer.test(fresh, EmbeddedSample("mnist"), ckpt_path=path, verbose=False)
    assert torch.equal(fresh.net.fc.weight, net.fc.weight)  # pyright: ignore


@pytest.mark.parametrize("file", ["bomb.ckpt", "bomb.pth", "bomb.pt", "bomb.pkl", "model.safetensors"])
def test_a_malicious_file_executes_nothing(folder: Path, tmp_path: Path, file: str):
    mark = tmp_path / "exploded"
    path = (folder if file == "model.safetensors" else tmp_path) / file
    torch.save({"state_dict": {"net.x": torch.zeros(1)}, "bomb": Bomb(mark)}, path)
    if file == "model.safetensors":  # with a hash that is right
        config = json.loads((folder / "config.json").read_text())
        config["deqzoo"]["weights"] = {"sha256": sha256(path.read_bytes()), "size": path.stat().st_size}
        (folder / "config.json").write_text(json.dumps(config))
    source, name = (folder, None) if file == "model.safetensors" else (path, "pcdeq-mnist-linear")
    with pytest.raises(WeightsError):
        convert(source, tmp_path / "out", name=name)
    assert not mark.exists()
    torch.load(io.BytesIO(path.read_bytes()), weights_only=False)  # the bomb is a real one
    assert mark.exists()
