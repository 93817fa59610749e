"""The loss over a whole text."""

import torch
from torch import Tensor
from torchmetrics import Metric


class TokenLoss(Metric):
    """The mean of losses over all tokens of all batches and processes, from sums in float64."""

    full_state_update = False
    nats: Tensor
    num_tokens: Tensor
    num_chars: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("nats", "num_tokens", "num_chars"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, losses: Tensor, chars_per_token: float) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Adds losses (N,) of tokens that stand for so many characters each, in the mean."""
        self.nats += losses.detach().double().sum()
        self.num_tokens += len(losses)
        self.num_chars += len(losses) * chars_per_token

    def compute(self) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns the mean loss and the characters per token, scalars."""
        return self.nats / self.num_tokens, self.num_chars / self.num_tokens
