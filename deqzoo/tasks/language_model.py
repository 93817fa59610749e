"""Language modelling."""

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.optimizer import ParamsT

from deqzoo.data import TextBatch, TextData
from deqzoo.errors import VocabularyError
from deqzoo.models.vocabulary import Vocabulary, vocabulary_from
from deqzoo.nn import observe_equilibria
from deqzoo.tasks.base import Task
from deqzoo.tasks.schedules import Schedule
from deqzoo.tasks.solver_report import forward_figures
from deqzoo.tasks.token_loss import TokenLoss

Remembered: TypeAlias = Any
"""What a network knows of the segment before: a structure of detached tensors, or None."""


class LanguageModel(Task):
    """Trains and evaluates a network by the negative log-likelihood of each next token.

    Called on tokens it returns what the network does; `generate` goes on with a text. Every scored token has the same
    weight, whatever batch it is in.

    In training it logs, as train/…, loss (nats per token) and learning rate (lr), and of the solves the evaluations
    per sequence (evals_mean), the share of sequences with all solves converged, and the worst residual
    (residual_max); the same of the backward solves as train/backward_…. In evaluation, as val/… or test/…: loss,
    bits per character of the text as it is written (bits_per_char), perplexity under the level of the tokens, which
    it cannot be compared across (char_perplexity, word_perplexity, bpe_perplexity), and the solves. Loss and
    perplexity come from sums in float64 over all tokens.

    Args:
        net: tokens (B, T) -> logits (B, T, vocab_size), with `score` for the loss, `generate`, `vocab_size`, `context`
            and `pretrained_cfg`, as `deqzoo.create_model` makes it.
        optimizer: makes the optimizer from parameter groups, those of `weight_decay_groups`.
        schedule: of the learning rate, stepped with the optimizer; None keeps it constant.
    """

    best = ("val/loss", "min")

    def __init__(
        self,
        net: nn.Module,
        *,
        optimizer: Callable[[ParamsT], Optimizer] = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(net, optimizer=optimizer, schedule=schedule)
        self.val_loss = TokenLoss()
        self.test_loss = TokenLoss()
        self._memory: dict[str, Remembered] = {}

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens that the network reads, from its `pretrained_cfg`.

        Raises:
            VocabularyError: if there is none, or one of another size than the network's.
        """
        net: Any = self.net
        plain = net.pretrained_cfg.get("vocabulary")
        if plain is None:
            raise VocabularyError(
                f"This {type(net).__name__} has no vocabulary: it knows its tokens by number alone. It gets one from "
                "the data that it is trained on, or `model.vocabulary = …` sets it."
            )
        return vocabulary_from(plain)

    @vocabulary.setter
    def vocabulary(self, vocabulary: Vocabulary) -> None:
        net: Any = self.net
        if len(vocabulary) != net.vocab_size:
            raise VocabularyError(
                f"The vocabulary has {len(vocabulary):,} tokens and the network {net.vocab_size:,}. Each token has a "
                "place of its own in the weights: make the network with deqzoo.create_model(name, "
                f"vocab_size={len(vocabulary)}), or take the vocabulary that belongs to the weights."
            )
        net.pretrained_cfg["vocabulary"] = vocabulary.as_dict()

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 -> (B, T, vocab_size) logits of the tokens that follow each."""
        return self.net(tokens)

    def generate(self, prompt: str, **options: Any) -> str:
        """Returns a text that follows `prompt`, without it. Takes what `stream` takes."""
        return "".join(self.stream(prompt, **options))

    def stream(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 200,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Yields a text that follows `prompt`, piece by piece as its tokens are found.

        Of a text longer than the context, the network sees the end. Words that it does not know are <unk> to it;
        characters that it does not know are an error.

        Args:
            prompt: to go on with.
            max_new_tokens: to add.
            temperature: divides the logits; 0 takes the likeliest token.
            top_k: choose among so many of the likeliest tokens; None for all.
            top_p: choose among the likeliest tokens that together have this probability; None for all.
            seed: of the choices; None draws from torch's own generator.

        Raises:
            VocabularyError: if the prompt is empty, or has characters that no token stands for.
            ValueError: for options out of range.
        """
        vocabulary = self.vocabulary
        ids = vocabulary.encode(prompt)
        if not ids:
            raise VocabularyError(
                f"The prompt {prompt!r} has no tokens. A language model goes on with a text: give it at least one "
                "character, or word, to begin with."
            )
        generator = None if seed is None else torch.Generator(self.device).manual_seed(seed)
        net: Any = self.net
        tokens = net.generate(
            torch.tensor([ids[-net.context :]], device=self.device),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            generator=generator,
        )
        # Decoded with the prompt, because what stands between two words belongs to neither.
        told = vocabulary.decode(ids)
        for token in tokens:
            ids.append(int(token))
            text = vocabulary.decode(ids)
            if not text.endswith("\ufffd"):  # the first bytes of a character
                yield text[len(told) :]
                told = text

    # What Lightning calls.

    def setup(self, stage: str) -> None:
        """Takes the vocabulary of the data, if the network has none.

        Raises:
            VocabularyError: if the data's is not that of the network, or of another size.
        """
        super().setup(stage)
        # Lightning sets the attribute from outside of the class, where type checkers do not see it.
        data: Any = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(data, TextData):
            net: Any = self.net
            if net.pretrained_cfg.get("vocabulary") is None:
                self.vocabulary = data.vocabulary
            self._check_same(data.vocabulary, "the data")

    def on_train_start(self) -> None:
        """Takes what a checkpoint remembers to where the network is."""
        super().on_train_start()
        memory = self._memory.get("train")
        if memory is not None:
            self._memory["train"] = tuple(part.to(self.device) for part in memory)

    def training_step(self, batch: TextBatch, batch_idx: int) -> Tensor:
        """Returns the mean loss of the scored tokens of a batch."""
        with observe_equilibria(self.net) as seen:
            losses = self._losses(batch, "train")
        loss = losses.mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(losses))
        return self.watch(loss, seen, index=batch_idx)

    def validation_step(self, batch: TextBatch, batch_idx: int) -> None:
        """Adds a batch to the validation loss."""
        self._evaluate(batch, self.val_loss, "val")

    def test_step(self, batch: TextBatch, batch_idx: int) -> None:
        """Adds a batch to the test loss."""
        self._evaluate(batch, self.test_loss, "test")

    def on_validation_epoch_end(self) -> None:
        """Logs the loss over the whole text."""
        self._log_loss(self.val_loss, "val")

    def on_test_epoch_end(self) -> None:
        """Logs the loss over the whole text."""
        self._log_loss(self.test_loss, "test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what the network remembers of the text that it is reading, too."""
        super().on_save_checkpoint(checkpoint)
        if self._memory.get("train") is not None and self.trainer.world_size == 1:
            checkpoint["memory"] = self._memory["train"]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the vocabulary of the weights.

        Raises:
            VocabularyError: if the data has another one.
        """
        self._memory["train"] = checkpoint.get("memory")
        plain = checkpoint.get("vocabulary")
        if plain is None:
            return
        net: Any = self.net
        if net.pretrained_cfg.get("vocabulary") is not None:
            self._check_same(vocabulary_from(plain), "the checkpoint")
        self.vocabulary = vocabulary_from(plain)

    def _check_same(self, other: Vocabulary, whose: str) -> None:
        difference = self.vocabulary.difference(other)
        if difference:
            raise VocabularyError(
                f"The vocabulary of the network is not that of {whose}: {difference}. Weights know their tokens by "
                "number: give the data the vocabulary of the model (vocabulary=model.vocabulary), or train anew."
            )

    def _losses(self, batch: TextBatch, stage: str) -> Tensor:
        """Returns the negative log-likelihoods (N,) of the scored targets, in nats."""
        net: Any = self.net
        memory = self._memory.get(stage) if batch.goes_on else None
        losses, self._memory[stage] = net.score(batch.tokens, batch.targets, memory)
        return losses[batch.scored]

    def _evaluate(self, batch: TextBatch, metric: TokenLoss, stage: str) -> None:
        with observe_equilibria(self.net) as seen:
            losses = self._losses(batch, stage)
        metric.update(losses, batch.chars_per_token)
        self.log_figures(f"{stage}/", forward_figures(seen), batch_size=len(batch.tokens))

    def _log_loss(self, metric: TokenLoss, stage: str) -> None:
        net: Any = self.net
        loss, chars_per_token = metric.compute()
        metric.reset()
        vocabulary = net.pretrained_cfg.get("vocabulary")
        level = "token" if vocabulary is None else vocabulary["level"]
        # Lightning keeps logged values in float32, which is enough for a mean.
        self.log(f"{stage}/loss", loss, prog_bar=True)
        self.log(f"{stage}/{level}_perplexity", loss.exp())
        self.log(f"{stage}/bits_per_char", loss / (math.log(2) * chars_per_token))
