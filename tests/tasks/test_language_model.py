"""Language models in training: the loss is that of the text, vocabularies stay with weights, text comes out."""

import math

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn import functional as F

from deqzoo.data import EveryToken, TextData
from deqzoo.errors import DivergedError, VocabularyError
from deqzoo.models.deq_transformer import DEQTransformer
from deqzoo.models.deq_transformer_parts import DEQTransformerConfig
from deqzoo.models.vocabulary import CharVocabulary, WordVocabulary
from deqzoo.solvers import Picard
from deqzoo.tasks import LanguageModel, RandomState, WarmupCosine, WarmupEMA

from .tiny import make_trainer

# Random and half-trained cells of sixteen features may be slow to converge, which is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore::deqzoo.errors.UnconvergedWarning")
TEXT = "the cat sat on the mat, and the dog sat on the cat.\n" * 30
CHARS = CharVocabulary.of([TEXT])


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def make_net(vocab_size=15, **sizes):
    torch.manual_seed(0)
    config = DEQTransformerConfig(**{"width": 16, "heads": 2, "hidden": 16, "context": 16, **sizes})
    return DEQTransformer(config, vocab_size=vocab_size, solver=Picard(rtol=1e-4, max_steps=60))


def make_model(vocabulary=CHARS, **sizes):
    model = LanguageModel(make_net(len(vocabulary), **sizes))
    model.vocabulary = vocabulary
    return model.eval()


def fit(model, data, **options):
    trainer = make_trainer(**{"max_epochs": 1, "limit_val_batches": 0, **options})
    trainer.fit(model, data)
    return trainer


def loss_by_hand(net, text):
    """Window by window and token by token, in float64."""
    nats, windows = [], EveryToken(text, net.context)
    with torch.no_grad():
        for i in range(len(windows)):
            batch = windows.batch(torch.tensor([i]))
            losses = F.cross_entropy(net(batch.tokens)[0].double(), batch.targets[0], reduction="none")
            nats += losses[batch.scored[0]].tolist()
    assert len(nats) == text.num_targets
    return math.fsum(nats) / len(nats)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_loss_is_exact_over_the_whole_text_whatever_the_batches(file, batch_size):
    model = make_model()
    data = TextData(file, context=16, eval_batch_size=batch_size, val_share=0.207)
    (metrics,) = make_trainer().test(model, data, verbose=False)
    expected = loss_by_hand(model.net.eval(), data.text_set("test"))
    assert metrics["test/loss"] == pytest.approx(expected, rel=1e-5)
    assert metrics["test/char_perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)
    assert metrics["test/bits_per_char"] == pytest.approx(expected / math.log(2), rel=1e-5)
    assert metrics["test/converged"] == 1.0


def test_words_are_scored_per_word_and_per_character(file):
    data = TextData(file, level="word", context=8)
    model = make_model(data.vocabulary, context=8)
    (metrics,) = make_trainer().test(model, data, verbose=False)
    text = data.text_set("test")
    assert text.chars_per_token > 3
    assert metrics["test/word_perplexity"] == pytest.approx(math.exp(metrics["test/loss"]), rel=1e-5)
    expected = metrics["test/loss"] * text.num_targets / text.num_chars / math.log(2)
    assert metrics["test/bits_per_char"] == pytest.approx(expected, rel=1e-5)
    assert "test/char_perplexity" not in metrics


def test_training_learns_and_logs_what_solves_cost(file):
    model = LanguageModel(make_net(), optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-2))
    data = TextData(file, context=16, batch_size=8)
    trainer = fit(model, data, max_epochs=6, limit_val_batches=1.0)
    logged = trainer.callback_metrics
    assert logged["val/loss"] < 0.6 * math.log(len(CHARS))
    for name in ("train/loss", "train/evals_mean", "train/backward_evals_mean", "train/lr", "train/converged"):
        assert name in logged
    assert 1 < logged["train/evals_mean"] < 60


def test_a_network_with_memory_sees_what_came_before(file):
    # Its segments are as short as can be, so that all it knows of the text is what it remembers.
    data = TextData(file, context=1, eval_batch_size=1, stream=True)
    model = make_model(context=1, memory=12)
    (with_memory,) = make_trainer().test(model, data, verbose=False)
    text = data.text_set("test")
    nats, memory = [], None
    with torch.no_grad():
        for i in range(text.num_targets):
            token, target = text.tokens[i].long().view(1, 1), text.tokens[i + 1].long().view(1, 1)
            loss, memory = model.net.score(token, target, memory)
            nats.append(loss.item())
    assert with_memory["test/loss"] == pytest.approx(sum(nats) / len(nats), rel=1e-4)
    (without,) = make_trainer().test(make_model(context=1), data, verbose=False)
    assert with_memory["test/loss"] != pytest.approx(without["test/loss"], rel=1e-3)


def test_memory_does_not_outlive_the_text(file):
    data = TextData(file, context=8, batch_size=4, stream=True)
    model = make_model(context=8, memory=8)
    first = make_trainer().test(model, data, verbose=False)
    assert make_trainer().test(model, data, verbose=False) == first


class StopAfter(Callback):
    """Ends training after some epochs."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch + 1 == self.epochs:
            trainer.should_stop = True


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("stream", [False, True])
def test_a_resumed_run_ends_with_the_same_weights(file, tmp_path, stream):
    def run(folder, stop_after=3, ckpt_path=None):
        seed_everything(0, verbose=False)
        model = LanguageModel(make_net(memory=8 if stream else 0, dropout=0.2), schedule=WarmupCosine(warmup=0.25))
        last = ModelCheckpoint(tmp_path / folder, filename="last", save_on_train_epoch_end=True)
        callbacks = [WarmupEMA(decay=0.9), RandomState(), StopAfter(stop_after), last]
        trainer = make_trainer(max_epochs=3, callbacks=callbacks, enable_checkpointing=True)
        trainer.fit(model, TextData(file, context=16, batch_size=8, stream=stream), ckpt_path=ckpt_path)
        return model.state_dict()

    whole = run("whole")
    run("parts", stop_after=1)
    torch.manual_seed(5)
    resumed = run("parts", ckpt_path=tmp_path / "parts" / "last.ckpt")
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_the_vocabulary_stays_with_the_checkpoint(file, tmp_path):
    model = LanguageModel(make_net())
    fit(model, TextData(file, context=16)).save_checkpoint(tmp_path / "x.ckpt")
    loaded = LanguageModel.load_from_checkpoint(
        tmp_path / "x.ckpt", net=make_net(), weights_only=True, map_location="cpu"
    )
    assert loaded.vocabulary == model.vocabulary == CHARS
    # Same number of other characters: nothing but the vocabulary can tell.
    other = tmp_path / "other.txt"
    other.write_text(TEXT.replace("g", "z"))
    with pytest.raises(VocabularyError, match=r"is not that of the checkpoint: token 8 is 'h' against 'g'"):
        make_trainer().test(
            LanguageModel(make_net()), TextData(other, context=16), ckpt_path=tmp_path / "x.ckpt", weights_only=True
        )
    with pytest.raises(VocabularyError, match=r"is not that of the data.*vocabulary=model.vocabulary"):
        fit(loaded, TextData(other, context=16))


def test_a_vocabulary_of_another_size_is_refused(file):
    with pytest.raises(VocabularyError, match=rf"has {len(CHARS)} tokens and the network 9\..*vocab_size={len(CHARS)}"):
        fit(LanguageModel(make_net(9)), TextData(file, context=16))
    with pytest.raises(VocabularyError, match=r"has no vocabulary: it knows its tokens by number alone"):
        LanguageModel(make_net()).generate("the")


def test_a_loss_that_is_not_finite_ends_training(file):
    model = LanguageModel(make_net())
    with torch.no_grad():
        model.net.norm_out.weight.fill_(torch.nan)
    with pytest.raises(DivergedError, match=r"Weights: norm_out.weight.*Lower the learning rate") as caught:
        fit(model, TextData(file, context=16))
    assert "mages" not in str(caught.value)


def test_text_is_the_same_whole_and_in_pieces():
    model = make_model()
    whole = model.generate("the cat", max_new_tokens=40, seed=3)
    pieces = list(model.stream("the cat", max_new_tokens=40, seed=3))
    assert "".join(pieces) == whole
    assert len(pieces) == len(whole) == 40
    assert model.generate("the cat", max_new_tokens=40, seed=4) != whole
    likeliest = model.generate("the cat", max_new_tokens=9, temperature=0)
    assert likeliest == model.generate("the cat", max_new_tokens=9, top_k=1, seed=1)
    assert model.generate("the", max_new_tokens=0) == ""


def test_a_seed_leaves_other_random_numbers_alone():
    model, before = make_model(), torch.get_rng_state()
    model.generate("the", max_new_tokens=3, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_words_are_spaced():
    vocabulary = WordVocabulary.of(["a b c\n"])
    text = make_model(vocabulary).generate("a b", max_new_tokens=30, seed=0)
    assert len(vocabulary.encode("a b" + text)) == 32
    assert make_model(vocabulary).generate("nobody knows", max_new_tokens=3, seed=0)  # both are <unk>


def test_a_long_prompt_is_seen_from_its_end():
    model = make_model()
    assert model.generate("dog, " + "the cat sat on t", max_new_tokens=9, seed=0) == model.generate(
        "the cat sat on t", max_new_tokens=9, seed=0
    )


def test_prompts_that_say_nothing_or_something_unknown_are_refused():
    with pytest.raises(VocabularyError, match=r"The prompt '' has no tokens"):
        make_model().generate("")
    with pytest.raises(VocabularyError, match=r"'é', '\?'|'\?', 'é'"):
        make_model().generate("é?")
