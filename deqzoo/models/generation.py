"""Text from language models, token by token: equilibria that are known stay known, each new one is solved alone."""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from deqzoo.errors import StructureError
from deqzoo.models.transformer_parts import KeysValues

if TYPE_CHECKING:
    from deqzoo.models.deq_transformer import DEQTransformer
    from deqzoo.models.text_net import TextNet


def window_length(length: int, context: int) -> int:
    """Returns how many of the last tokens of a text are seen when the next one is chosen.

    All of them while they fit into the context. One token more, and the window starts anew with the last half: its
    equilibria depended on what has been left behind and are solved again.
    """
    half = max(1, context // 2)
    return length if length <= context else half + (length - context - 1) % (context - half + 1)


class TextState(Protocol):
    """What is known of a text that grows."""

    @property
    def logits(self) -> Tensor:
        """(B, vocab_size) for the token that follows, float32."""
        ...

    def append(self, token: Tensor) -> None:
        """Adds a token (B,) to the text."""
        ...


class Anew:
    """A text of which nothing is kept but its tokens: every token costs what its whole window costs.

    Args:
        net: the language model.
        tokens: (B, T) the text so far.

    """

    def __init__(self, net: "TextNet", tokens: Tensor) -> None:
        self._net, self._tokens, self._length = net, tokens, tokens.shape[1]
        self._look()

    @property
    def logits(self) -> Tensor:
        """(B, vocab_size) for the token that follows, float32."""
        return self._net.read(self._h[:, -1])

    def append(self, token: Tensor) -> None:
        """Adds a token (B,) to the text."""
        self._length = window_length(self._length + 1, self._net.context)
        self._tokens = torch.cat((self._tokens, token[:, None]), dim=1)[:, -self._length :]
        self._look()

    def _look(self) -> None:
        self._h = self._net.hidden(self._net.embed(self._tokens), None, ())


class Decoder:
    """A text whose equilibria, keys and values are known position by position.

    As attention is causal, the equilibrium of a position does not change when tokens are appended: the new position's
    is solved alone, given the keys and values of those before it.

    Args:
        net: the language model.
        tokens: (B, T) the text so far.
        warm: start the solve of each new position from the equilibrium of the one before, instead of zero.

    """

    def __init__(self, net: "DEQTransformer", tokens: Tensor, *, warm: bool = True) -> None:
        self._net, self._tokens, self._warm = net, tokens, warm
        self._solve_window()

    @property
    def logits(self) -> Tensor:
        """(B, vocab_size) for the token that follows, float32."""
        return self._net.read(self._z[:, -1])

    def append(self, token: Tensor) -> None:
        """Adds a token (B,) to the text."""
        context = self._net.context
        length = self._length + 1
        # Nothing that has left the window will be seen again.
        self._tokens = torch.cat((self._tokens, token[:, None]), dim=1)[:, -context:]
        if length > context:
            self._length = window_length(length, context)
            self._tokens = self._tokens[:, -self._length :]
            self._solve_window()
            return
        x = self._net.embed(token[:, None])
        self._z = self._solved(x, self._past, self._z[:, -1:] if self._warm else None)
        new = self._net.cell.keys_values(self._z, x, self._past)
        self._past = tuple(_joined(old, more) for old, more in zip(self._past, new, strict=True))
        self._length = length

    def _solve_window(self) -> None:
        self._length = self._tokens.shape[1]
        x = self._net.embed(self._tokens)
        self._z = self._solved(x, (), None)
        self._past: tuple[KeysValues, ...] = self._net.cell.keys_values(self._z, x, ())

    def _solved(self, x: Tensor, past: tuple[KeysValues, ...], start: Tensor | None) -> Tensor:
        z = self._net.equilibrium(x, past, (), z0=start)
        assert isinstance(z, Tensor)
        return z


def _joined(old: KeysValues, new: KeysValues) -> KeysValues:
    return torch.cat((old[0], new[0]), dim=2), torch.cat((old[1], new[1]), dim=2)


@torch.no_grad()
def continuation(
    begin: Callable[..., TextState], tokens: Tensor, max_new_tokens: int, sampler: "Sampler", *, warm: bool
) -> Iterator[Tensor]:
    """Yields the tokens (B,) that `sampler` chooses after a text (B, T), one by one."""
    text = begin(tokens, warm=warm)
    for i in range(max_new_tokens):
        token = sampler(text.logits)
        yield token
        if i + 1 < max_new_tokens:
            text.append(token)


class Sampler:
    """Chooses tokens by their logits.

    Args:
        temperature: divides the logits; at 0 the likeliest token is taken.
        top_k: choose among so many of the likeliest tokens; None for all.
        top_p: choose among the likeliest tokens that together have this probability; None for all.
        generator: of the random numbers, on the device of the logits.

    """

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if not 0 <= temperature < math.inf:
            raise ValueError(
                f"Got temperature={temperature}. It is finite and not negative: 1.0 samples as the model predicts, "
                "0 takes the likeliest token."
            )
        if top_k is not None and top_k < 1:
            raise ValueError(f"Got top_k={top_k}. At least one token remains to choose from: use top_k=1 or more.")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"Got top_p={top_p}. A probability lies in (0, 1]: use top_p=0.9, say.")
        self._temperature, self._top_k, self._top_p, self._generator = temperature, top_k, top_p, generator

    def __call__(self, logits: Tensor) -> Tensor:
        """(B, vocab_size) logits -> (B,) tokens."""
        # Tokens that are ruled out have −∞, which is fine as long as others have not.
        if not logits.amax(dim=1).isfinite().all():
            raise StructureError(
                "Found logits that are NaN or infinite. A token cannot be drawn from them: look at the weights, and at "
                "whether the solve is finite."
            )
        if self._temperature == 0:
            return logits.argmax(dim=1)
        # Shifted first, so that a tiny temperature does not overflow.
        logits = (logits - logits.amax(dim=1, keepdim=True)) / self._temperature
        ranked, order = logits.sort(dim=1, descending=True, stable=True)
        if self._top_k is not None:
            ranked[:, self._top_k :] = -torch.inf
        probabilities = ranked.softmax(dim=1)
        if self._top_p is not None:
            # The token with which p is reached still counts.
            before = probabilities.cumsum(dim=1) - probabilities
            probabilities = probabilities.masked_fill(before >= self._top_p, 0)
        rank = torch.multinomial(probabilities, 1, generator=self._generator)
        return order.gather(1, rank)[:, 0]
