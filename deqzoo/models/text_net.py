"""What every language model of the zoo can do."""

import abc
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from deqzoo.errors import StructureError
from deqzoo.models.generation import Sampler, TextState, continuation
from deqzoo.models.token_table import token_table
from deqzoo.models.transformer_parts import Masks, Memory
from deqzoo.nn import VariationalDropout


class TextNet(nn.Module, abc.ABC):
    """Tokens -> vectors -> hidden sequence -> norm -> scores of the next tokens, by the vectors of the tokens.

    Args:
        vocab_size: tokens there are.
        width: of their vectors and of the hidden sequence.
        context: the longest sequence.
        blocks: whose branches get dropout masks.
        dropout: probability to drop a feature of the vectors, of a branch or of the output, in all positions of a text.
        cutoffs: the first token of each cluster of rarer tokens; see `AdaptiveTable`. Empty for a single table.

    Attributes:
        pretrained_cfg: a description of the tokens; filled in for named models.

    """

    def __init__(
        self,
        *,
        vocab_size: int,
        width: int,
        context: int,
        blocks: int,
        dropout: float = 0.0,
        cutoffs: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        if vocab_size < 2:
            raise ValueError(
                f"Got vocab_size={vocab_size}. There is nothing to predict below two tokens: use 2 or more."
            )
        self.vocab_size, self.context = vocab_size, context
        self.pretrained_cfg: dict[str, object] = {}
        self.table = token_table(vocab_size, width, cutoffs)
        self.norm_in = nn.LayerNorm(width, bias=False)
        self.norm_out = nn.LayerNorm(width, bias=False)
        self.dropout = VariationalDropout(dropout, shared=(1,))
        self._num_blocks = blocks

    @abc.abstractmethod
    def hidden(self, x: Tensor, memory: Memory | None, masks: Masks) -> Tensor:
        """Returns the hidden sequence (B, T, width) for vectors x (B, T, width).

        Args:
            x: of the tokens, as `embed` makes them.
            memory: of the positions before, None for none.
            masks: of dropout, empty for ones.

        """

    @abc.abstractmethod
    def recall(self, h: Tensor, x: Tensor, memory: Memory | None, masks: Masks) -> Memory | None:
        """Returns the memory for the segment that follows the one of which the hidden sequence is h, None for none."""

    @abc.abstractmethod
    def begin(self, tokens: Tensor, *, warm: bool) -> TextState:
        """Returns what `generate` keeps of a text (B, T)."""

    def forward(self, tokens: Tensor, memory: Memory | None = None) -> Tensor:
        """(B, T) tokens -> (B, T, vocab_size) scores of the token after each, float32; see `TokenTable.scores`.

        Args:
            tokens: int64, of which there are no more than the context.
            memory: of the positions before, as `score` returns it.

        Raises:
            StructureError: for anything else.

        """
        check_tokens(tokens, self.vocab_size, context=self.context)
        x, masks = self._dropped(self.embed(tokens))
        return self.table.scores(self._features(self.hidden(x, memory, masks)))

    def score(self, tokens: Tensor, targets: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory | None]:
        """Returns how surprising the targets are, and the memory for the segment that follows.

        Args:
            tokens: (B, T) int64, of which there are no more than the context.
            targets: (B, T) the token after each.
            memory: of the positions before, as this method returned it for the segment before.

        Returns:
            (B, T) −log p(target) in nats, float32; and the memory, None for a network without one.

        Raises:
            StructureError: for tokens or targets that do not fit.

        """
        check_tokens(tokens, self.vocab_size, context=self.context)
        check_tokens(targets, self.vocab_size)
        if targets.shape != tokens.shape:
            raise StructureError(
                f"Found targets of shape {tuple(targets.shape)} for tokens of shape {tuple(tokens.shape)}. Each token "
                "has one target, the token after it: give tokens[:, :-1] and tokens[:, 1:], say."
            )
        x, masks = self._dropped(self.embed(tokens))
        h = self.hidden(x, memory, masks)
        losses = self.table.losses(self._features(h), targets)
        with torch.no_grad():
            return losses, self.recall(h.detach(), x, memory, masks)

    def embed(self, tokens: Tensor) -> Tensor:
        """(B, T) tokens -> (B, T, width) vectors, without dropout."""
        return self.norm_in(self.table(tokens))

    def read(self, h: Tensor) -> Tensor:
        """(B, ..., width) hidden -> (B, ..., vocab_size) scores of the next token, without dropout, float32."""
        return self.table.scores(self.norm_out(h))

    def generate(
        self,
        tokens: Tensor,
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
        warm: bool = True,
    ) -> Iterator[Tensor]:
        """Yields the tokens (B,) that follow a prompt, one by one, without dropout; see `Sampler`.

        Args:
            tokens: (B, T) int64 the prompt, of one token at least and no more than the context.
            max_new_tokens: how many to yield. Beyond the context the window moves on; see `window_length`.
            temperature: divides the logits; at 0 the likeliest token is taken.
            top_k: choose among so many of the likeliest tokens; None for all.
            top_p: choose among the likeliest tokens that together have this probability; None for all.
            generator: of the random numbers, on the device of the network.
            warm: start each solve, if there is any, from the equilibrium of the position before.

        Raises:
            StructureError: for a prompt that does not fit.

        """
        if max_new_tokens < 0:
            raise ValueError(f"Got max_new_tokens={max_new_tokens}. Text cannot shrink: ask for 0 tokens or more.")
        check_tokens(tokens, self.vocab_size, context=self.context)
        sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
        return continuation(self.begin, tokens, max_new_tokens, sampler, warm=warm)

    def _dropped(self, x: Tensor) -> tuple[Tensor, Masks]:
        """Returns the vectors after dropout, and masks for both branches of each block."""
        if not self.training or self.dropout.p == 0:
            return x, ()
        masks = tuple((self.dropout.draw(x), self.dropout.draw(x)) for _ in range(self._num_blocks))
        return x * self.dropout.draw(x), masks

    def _features(self, h: Tensor) -> Tensor:
        features = self.norm_out(h)
        # Not by the mask of ones that eval mode draws: it costs a product as large as the features.
        return features * self.dropout.draw(features) if self.training and self.dropout.p else features


def check_tokens(tokens: Tensor, vocab_size: int, *, context: int | None = None) -> None:
    """Checks that `tokens` are a batch of texts (B, T), within vocabulary and context.

    Raises:
        StructureError: naming the first rule that they break.

    """
    if tokens.dtype != torch.int64:
        raise StructureError(
            f"Found tokens of dtype {tokens.dtype}. Tokens are numbers of entries of a vocabulary, in int64: encode "
            "the text, or convert with `.long()`."
        )
    if tokens.ndim != 2:
        raise StructureError(
            f"Found tokens of shape {tuple(tokens.shape)}. A language model takes batches of texts (B, T): add a batch "
            "dimension with `tokens[None]`."
        )
    length = tokens.shape[1]
    if length == 0:
        raise StructureError(
            "Found a text without tokens. There is nothing to continue or to score: begin with one token at least, a "
            "line break say."
        )
    if context is not None and length > context:
        raise StructureError(
            f"Found a text of {length} tokens. This network's context is {context}: keep the last ones with "
            f"`tokens[:, -{context}:]`, or score the text in segments."
        )
    if tokens.numel():
        low, high = (int(bound) for bound in torch.stack(tokens.aminmax()).tolist())
        if low < 0 or high >= vocab_size:
            raise StructureError(
                f"Found token {low if low < 0 else high} in a text for a vocabulary of {vocab_size}. Tokens count "
                f"from 0 to {vocab_size - 1}: encode the text with the vocabulary of these weights."
            )
