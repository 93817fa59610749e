"""Language models in folders and checkpoints, with their vocabularies."""

import json
from pathlib import Path
from typing import Any, Unpack

import pytest
import torch
import yaml
from torch import Tensor

import deqzoo
from deqzoo import create_model, load
from deqzoo.errors import WeightsError
from deqzoo.models import TextRuntime, register
from deqzoo.models.deq_transformer import DEQTransformer
from deqzoo.models.deq_transformer_parts import DEQTransformerConfig
from deqzoo.models.vocabulary import CharVocabulary, WordVocabulary
from deqzoo.tasks import LanguageModel
from deqzoo.zoo import save

VOCABULARY = CharVocabulary("\n abc")


@register(task="text-generation", dataset="tiny-shakespeare")
def text_probe(**runtime: Unpack[TextRuntime]) -> DEQTransformer:
    """A probe for texts."""
    config = DEQTransformerConfig(width=16, heads=2, hidden=16, context=16)
    return DEQTransformer(config, **{"vocab_size": 65, **runtime})


@pytest.fixture
def model() -> LanguageModel:
    torch.manual_seed(3)
    model = LanguageModel(create_model("text-probe", vocab_size=len(VOCABULARY)))
    model.vocabulary = VOCABULARY
    return model.eval()


@pytest.fixture
def folder(model: LanguageModel, tmp_path: Path) -> Path:
    save(model.net, tmp_path / "saved", name="text-probe")
    return tmp_path / "saved"


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(torch.tensor([[1, 2, 3, 4, 0]]))


def change(folder: Path, edit: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    edit(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_a_folder_gives_the_model_back_with_its_vocabulary(model: LanguageModel, folder: Path):
    loaded: Any = load(folder)
    assert isinstance(loaded, LanguageModel)
    assert not loaded.training
    assert loaded.vocabulary == VOCABULARY
    assert torch.equal(logits(loaded), logits(model))
    assert loaded.generate("abc", max_new_tokens=20, seed=0) == model.generate("abc", max_new_tokens=20, seed=0)
    config = json.loads((folder / "config.json").read_text())
    assert (config["vocab_size"], config["context"]) == (5, 16)
    assert config["pretrained_cfg"]["vocabulary"] == {"level": "char", "tokens": "\n abc"}
    assert "num_classes" not in config
    save(loaded.net, folder / "again", name="text-probe")
    again = json.loads((folder / "again" / "config.json").read_text())
    assert again == config


def test_a_checkpoint_gives_the_model_back_with_its_vocabulary(model: LanguageModel, tmp_path: Path):
    made = {"class_path": "deqzoo.create_model", "init_args": {"name": "text-probe"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": {"net": made}}))
    state = {f"net.{k}": v for k, v in model.net.state_dict().items()}
    torch.save({"state_dict": state, "vocabulary": VOCABULARY.as_dict()}, tmp_path / "last.ckpt")
    loaded: Any = load(tmp_path)
    assert loaded.vocabulary == VOCABULARY
    assert torch.equal(logits(loaded), logits(model))


def test_an_untrained_model_has_the_size_of_its_text_and_no_vocabulary():
    net: Any = create_model("text-probe")
    assert (net.vocab_size, net.pretrained_cfg["vocabulary"]) == (65, None)
    assert net.pretrained_cfg["tag"] == "tiny-shakespeare"


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda c: c["pretrained_cfg"].update(vocabulary=CharVocabulary("abcdef").as_dict()),
         r"said to be for 5 tokens, and the vocabulary beside them has 6"),
        (lambda c: (c.update(vocab_size=6), c["pretrained_cfg"].update(
            vocab_size=6, vocabulary=WordVocabulary(("<unk>", "<eos>", "a", "b", "c", "d")).as_dict())),
         r"do not fit DEQTransformer.*wrong shape"),
        (lambda c: (c.update(vocab_size=4_000_000), c["pretrained_cfg"].update(vocab_size=4_000_000, vocabulary=None)),
         r"said to be for 4,000,000 tokens, and are too few for them"),
        (lambda c: c.update(vocab_size=5e9), r"vocab_size is 5000000000.0. It should be a whole number from 2"),
        (lambda c: c["pretrained_cfg"].update(vocab_size=7), r"It should be vocab_size of the whole, 5"),
        (lambda c: c["pretrained_cfg"].update(vocabulary={"level": "char", "tokens": "aabbc"}),
         r"The vocabulary of the weights in .* cannot be used: .* is no vocabulary"),
        (lambda c: c["pretrained_cfg"].update(vocabulary="abcde"), r"vocabulary is 'abcde'. It should be an object"),
    ],
)  # fmt: skip
def test_a_vocabulary_that_does_not_fit_is_refused(folder: Path, edit: Any, told: str):
    change(folder, edit)
    with pytest.raises(WeightsError, match=told):
        load(folder)


def test_classes_and_vocabularies_are_not_mixed_up(folder: Path):
    with pytest.raises(ValueError, match=r"num_classes=10.*for text-probe. A language model has neither"):
        create_model("text-probe", num_classes=10)
    with pytest.raises(ValueError, match=r"in_chans=3 for text-probe"):
        load(folder, in_chans=3)
    with pytest.raises(ValueError, match=r"vocab_size=9 for pcdeq-mnist-linear. Only language models"):
        create_model("pcdeq-mnist-linear", vocab_size=9)


def test_budgets_are_chosen_at_loading(folder: Path):
    loaded: Any = load(folder, max_steps=3, rtol=0.0)
    assert loaded.net.equilibrium.solver.max_steps == 3


def test_language_models_are_listed_and_described():
    assert "deq-lm-shakespeare-tiny" in deqzoo.list_models(task="text-generation")
    assert "pcdeq-mnist" not in deqzoo.list_models(task="text-generation")
    told = str(deqzoo.describe("deq-lm-ptb"))
    assert "tokens of 10,000 kinds, each a word" in told
    assert "LDC User Agreement" in told
