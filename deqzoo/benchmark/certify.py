"""Certificates of convergence over many images."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from deqzoo.benchmark.inputs import input_spec, prepared
from deqzoo.benchmark.tally import percentile
from deqzoo.data import EvalBatches, ImageData
from deqzoo.errors import DeqzooError
from deqzoo.models.pcdeq import PcDEQ, certificate


@dataclass(frozen=True, kw_only=True)
class Certification:
    """What is proved of a model's equilibria for given images; lists have one value for each equilibrium.

    Attributes:
        data: the test set.
        num_images: of it that were looked at.
        rtol: relative accuracy of every component that the bounds are for.
        rate_max: the worst rate c of any image.
        rate_mean: over the images.
        steps_p95: bound on iterations from zero that holds for 95 % of the images; None for no bound.
        steps_max: bound that holds for all of them.
        min_weight: the smallest entry of all W.
    """

    data: str
    num_images: int
    rtol: float
    rate_max: list[float]
    rate_mean: list[float]
    steps_p95: list[int | None]
    steps_max: list[int | None]
    min_weight: float

    def as_dict(self) -> dict[str, Any]:
        """Returns the figures as plain values of JSON."""
        return asdict(self)


def has_certificate(net: nn.Module) -> bool:
    """Whether `certify` can say something about a network."""
    return isinstance(net, PcDEQ)


def certify(
    model: nn.Module, data: ImageData, *, rtol: float = 1e-4, max_images: int = 1000, progress: bool = False
) -> Certification:
    """Returns the certificate of a model's equilibria for the first test images of `data`.

    Args:
        model: with `.net`, as `deqzoo.load` returns it; runs on the CPU, in float64.
        data: whose test images are taken.
        rtol: relative accuracy that bounds on iterations are for.
        max_images: to look at.
        progress: whether to show a bar on a terminal's stderr.

    Raises:
        DeqzooError: if the model has no certificate.
    """
    net: Any = model.net
    if not has_certificate(net):
        raise DeqzooError(
            f"{type(net).__name__} has no certificate. Only pcDEQ models prove their convergence: deqzoo "
            "eval shows how often the equilibria of others are found."
        )
    spec = input_spec(net)
    images = data.image_set("test")
    images = images.select(torch.arange(min(max_images, len(images))))
    rates: list[Tensor] = []
    steps: list[Tensor] = []
    min_weight = math.inf
    with tqdm(total=len(images), desc="certifying", unit="image", disable=None if progress else True) as bar:
        for batch in EvalBatches(images, batch_size=100):
            proved = certificate(net, prepared(batch.images, spec), rtol=rtol)
            rates.append(proved.rate)
            steps.append(proved.max_steps)
            min_weight = min(min_weight, proved.min_weight)
            bar.update(len(batch.labels))
    rate, bound = torch.cat(rates).double(), torch.cat(steps).double()
    return Certification(
        data=data.spec.dataset,
        num_images=len(images),
        rtol=rtol,
        rate_max=rate.amax(0).tolist(),
        rate_mean=rate.mean(0).tolist(),
        steps_p95=[_whole(percentile(column, 0.95)) for column in bound.T],
        steps_max=[_whole(float(column.max())) for column in bound.T],
        min_weight=min_weight,
    )


def _whole(value: float) -> int | None:
    return int(value) if math.isfinite(value) else None
