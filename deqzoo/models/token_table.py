"""Tokens on their way in and out of a language model: vectors of tokens, and scores of the tokens that may follow."""

import abc
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SHRINK = 4
"""How much narrower the vectors of each rarer cluster of tokens are."""


class TokenTable(nn.Module, abc.ABC):
    """One table of vectors, by which tokens are read and by which their successors are scored."""

    @abc.abstractmethod
    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) tokens -> (B, T, width) vectors."""

    @abc.abstractmethod
    def scores(self, features: Tensor) -> Tensor:
        """(..., width) features -> (..., vocab_size) logits, or log-probabilities, which are logits too; float32."""

    def losses(self, features: Tensor, targets: Tensor) -> Tensor:
        """(B, T, width) features, (B, T) targets -> (B, T) −log p(target) in nats, float32."""
        return F.cross_entropy(self.scores(features).flatten(0, 1), targets.flatten(), reduction="none").view_as(
            targets
        )


class TiedTable(TokenTable):
    """A vector for each token, all equally wide (Press & Wolf 2017, "Using the output embedding to improve language
    models").

    Args:
        vocab_size: tokens.
        width: of their vectors.

    """

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(nn.Linear(width, vocab_size).weight.detach(), std=0.02))

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.weight)

    def scores(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight).float()


class AdaptiveTable(TokenTable):
    """Narrower vectors for rarer tokens, which are scored only where their cluster is likely or asked for.

    After Grave et al. 2017, "Efficient softmax approximation for GPUs", and Baevski & Auli 2019, "Adaptive input
    representations for neural language modeling". Tokens count from the most frequent one. The input takes the
    vectors of the output; what widens them to `width` is its own.

    Args:
        vocab_size: tokens.
        width: of the vectors of the most frequent tokens.
        cutoffs: the first token of each cluster of rarer ones.

    """

    def __init__(self, vocab_size: int, width: int, cutoffs: Sequence[int]) -> None:
        super().__init__()
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(width, vocab_size, list(cutoffs), div_value=_SHRINK)
        self.widen = nn.ModuleList(
            nn.Linear(width // _SHRINK**i, width, bias=False) for i in range(1, len(cutoffs) + 1)
        )
        self._bounds = [0, *cutoffs, vocab_size]

    def _vectors(self, cluster: int) -> Tensor:
        if cluster == 0:
            return self.softmax.head.weight[: self._bounds[1]]
        return self.softmax.tail[cluster - 1].get_parameter("1.weight")

    def forward(self, tokens: Tensor) -> Tensor:
        x = F.embedding(tokens.clamp(max=self._bounds[1] - 1), self._vectors(0))
        for cluster, widen in enumerate(self.widen, start=1):
            first, last = self._bounds[cluster], self._bounds[cluster + 1] - 1
            here = ((tokens >= first) & (tokens <= last)).nonzero(as_tuple=True)
            x = x.index_put(here, widen(F.embedding(tokens[here] - first, self._vectors(cluster))).to(x.dtype))
        return x

    def scores(self, features: Tensor) -> Tensor:
        with _one_dtype(features):
            scores = self.softmax.log_prob(self._as_weights(features.flatten(0, -2)))
        return scores.float().unflatten(0, features.shape[:-1])

    def losses(self, features: Tensor, targets: Tensor) -> Tensor:
        with _one_dtype(features):
            found = self.softmax(self._as_weights(features.flatten(0, 1)), targets.flatten())
        return -found.output.float().view_as(targets)

    def _as_weights(self, features: Tensor) -> Tensor:
        return features if features.is_cuda else features.to(self.softmax.head.weight.dtype)


def _one_dtype(features: Tensor) -> AbstractContextManager[object]:
    """Without autocast on a CPU, which leaves torch's adaptive softmax with two dtypes that it does not join."""
    return nullcontext() if features.is_cuda else torch.autocast(features.device.type, enabled=False)


def token_table(vocab_size: int, width: int, cutoffs: Sequence[int]) -> TokenTable:
    """Returns the table for a vocabulary: adaptive if it reaches beyond any of the cutoffs."""
    cutoffs = [cutoff for cutoff in cutoffs if cutoff < vocab_size]
    return AdaptiveTable(vocab_size, width, cutoffs) if cutoffs else TiedTable(vocab_size, width)
