"""What networks prove of their equilibria, in one form for all of them."""

import abc
import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from deqzoo.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What is proved of the L equilibria of a network, for given weights and B images.

    Attributes:
        rate: (B, L) c: a step of the iteration leaves an error of at most c times what it was; 1 where that is not
            known to be less.
        max_steps: (B, L) steps after which the error is at most `rtol` of what it was; infinite for no bound.
        rtol: relative accuracy.
        unique: whether each equilibrium exists and is the only one.
        estimated: whether rates and figures are estimates: what follows from them is then likely, not proved.
        at_least: figures of the weights that are lower bounds, by what they are.
        at_most: upper bounds, likewise.

    """

    rate: Tensor
    max_steps: Tensor
    rtol: float
    unique: bool
    estimated: bool = False
    at_least: Mapping[str, float] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)


class Certified(Classifier):
    """A classifier that proves something of its equilibria from the weights that are loaded.

    Attributes:
        per_image: whether certificates differ between images.

    """

    per_image: ClassVar[bool] = False

    @torch.no_grad()
    def certificate(self, x: Tensor, *, rtol: float = 1e-4) -> Certificate:
        """Returns the certificate for images (B, C, H, W), computed anew, in float64; B = 1 if it is that of all.

        The network stays as it is.

        Raises:
            ValueError: if rtol is not in (0, 1).

        """
        if not 0 < rtol < 1:
            raise ValueError(f"Got rtol={rtol}. A relative accuracy lies in (0, 1), such as 1e-4.")
        return copy.deepcopy(self).double().eval()._proved(x.double(), rtol)

    @abc.abstractmethod
    def _proved(self, x: Tensor, rtol: float) -> Certificate:
        """Does what `certificate` does; called on a copy in float64, without a graph."""


def for_all_images(rate: float, rtol: float, **figures: Any) -> Certificate:
    """Returns a certificate of one equilibrium that contracts at a rate whatever the image is."""
    steps = math.inf if rate >= 1 else 1.0 if rate == 0 else max(1.0, math.ceil(math.log(rtol) / math.log(rate)))
    return Certificate(
        rate=torch.tensor([[rate]], dtype=torch.float64),
        max_steps=torch.tensor([[steps]], dtype=torch.float64),
        rtol=rtol,
        **figures,
    )
