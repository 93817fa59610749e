"""Certificates of convergence, over many images."""

import math
from dataclasses import asdict, dataclass
from typing import Any, TypeGuard

import torch
from torch import nn
from tqdm import tqdm

from deqzoo.benchmark.inputs import input_spec, prepared
from deqzoo.benchmark.tally import percentile
from deqzoo.data import EvalBatches, ImageData
from deqzoo.errors import DeqzooError
from deqzoo.models.certified import Certified
from deqzoo.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True)
class Certification:
    """What is proved of a model's equilibria; lists have one value for each equilibrium.

    Attributes:
        guarantee: in words, what is certain whatever the weights; None for nothing.
        unique: whether every equilibrium exists and is the only one, with the weights that are loaded.
        estimated: whether rates and figures are estimates, and no bounds.
        data: the test set; None where the certificate is the same for all images.
        num_images: of it that were looked at; None likewise.
        rtol: relative accuracy that the bounds are for.
        rate_max: the worst rate c of any image.
        rate_mean: over the images.
        steps_p95: bound on iterations that holds for 95 % of the images; None for no bound.
        steps_max: bound that holds for all of them.
        at_least: figures of the weights that are lower bounds, by what they are.
        at_most: upper bounds, likewise.
    """

    guarantee: str | None
    unique: bool
    estimated: bool
    data: str | None
    num_images: int | None
    rtol: float
    rate_max: list[float]
    rate_mean: list[float]
    steps_p95: list[int | None]
    steps_max: list[int | None]
    at_least: dict[str, float]
    at_most: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Returns the figures as plain values of JSON."""
        return asdict(self)


def has_certificate(net: nn.Module) -> TypeGuard[Certified]:
    """Whether `certify` can say something about a network."""
    return isinstance(net, Certified)


def guarantee(net: nn.Module) -> str | None:
    """Returns what is certain of a network's solves whatever the weights and the images, None for nothing."""
    return net.guarantee if isinstance(net, Classifier) else None


def certify(
    model: nn.Module, data: ImageData, *, rtol: float = 1e-4, max_images: int = 1000, progress: bool = False
) -> Certification:
    """Returns the certificate of a model's equilibria, for the first test images of `data` where these matter.

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
            f"{type(net).__name__} has no certificate. Convergence is proved where an architecture makes it certain, "
            "as those of pcDEQ, monDEQ and DEQ do: deqzoo eval shows how often the equilibria of others are found."
        )
    spec = input_spec(net)
    images = data.image_set("test")
    images = images.select(torch.arange(min(max_images if net.per_image else 1, len(images))))
    proofs = []
    with tqdm(total=len(images), desc="certifying", unit="image", disable=None if progress else True) as bar:
        for batch in EvalBatches(images, batch_size=100):
            proofs.append(net.certificate(prepared(batch.images, spec), rtol=rtol))
            bar.update(len(batch.labels))
    rate = torch.cat([proof.rate for proof in proofs]).double()
    bound = torch.cat([proof.max_steps for proof in proofs]).double()
    first = proofs[0]  # of the weights alone, which are the same for all images
    return Certification(
        guarantee=net.guarantee,
        unique=first.unique,
        estimated=first.estimated,
        data=data.spec.dataset if net.per_image else None,
        num_images=len(images) if net.per_image else None,
        rtol=rtol,
        rate_max=rate.amax(0).tolist(),
        rate_mean=rate.mean(0).tolist(),
        steps_p95=[_whole(percentile(column, 0.95)) for column in bound.T],
        steps_max=[_whole(float(column.max())) for column in bound.T],
        at_least=dict(first.at_least),
        at_most=dict(first.at_most),
    )


def _whole(value: float) -> int | None:
    return int(value) if math.isfinite(value) else None
