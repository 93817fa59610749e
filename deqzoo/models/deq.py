"""Deep equilibrium models as they began (Bai, Kolter & Koltun 2019, arXiv 1909.01377): one layer without end.

The layer z ← σ(W z + U x + b) sees the image x anew each time, with the same weights. What it tends to, z* = σ(W z* +
U x + b), is the feature. This is the file to read first.
"""

from typing import Any, ClassVar, Literal, TypeAlias, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deqzoo.adjoints import Adjoint, Implicit
from deqzoo.models.certified import Certificate, Certified, for_all_images
from deqzoo.models.classifier import check_size
from deqzoo.models.convolutions import conv, conv_norm, conv_norm_relu
from deqzoo.models.paper import Paper
from deqzoo.models.registry import Runtime, register
from deqzoo.nn import Cell, ImplicitModule, spectral_normed, weight_normed
from deqzoo.nn.torus import symbol, torus_length
from deqzoo.solvers import Anderson, FixedPointSolver

PAPER = Paper(
    key="bai2019deep",
    title="Deep Equilibrium Models",
    authors="Bai, Shaojie and Kolter, J. Zico and Koltun, Vladlen",
    venue="Advances in Neural Information Processing Systems",
    year=2019,
    arxiv="1909.01377",
)

Stability: TypeAlias = Literal["spectral", "weight", "none"]
"""How W is kept in check: ‖W‖₂ < 1, a gain per row that training can see, or not at all."""

_TAPS = 3


class DEQCell(Cell):
    """z ↦ tanh(W z + x), where x = U · image + b is computed once, before the solve.

    With stability="spectral" the map contracts: ‖W‖₂ ≤ 0.95 and |tanh′| ≤ 1. There is then one equilibrium, and every
    solver finds it.

    Args:
        width: length of z, or its channels.
        dense: whether W is a matrix, or else a 3×3 convolution that keeps the size.
        stability: how W is kept in check.

    """

    def __init__(self, width: int, *, dense: bool = False, stability: Stability = "spectral") -> None:
        super().__init__()
        weights = nn.Linear(width, width, bias=False)
        if not dense:
            weights = nn.Conv2d(width, width, _TAPS, padding=_TAPS // 2, bias=False)
        match stability:
            case "spectral":
                # A convolution's norm is at most that of the matrix of its filters times the taps along a side.
                self.weights = spectral_normed(weights, 0.95 if dense else 0.95 / _TAPS)
            case "weight":
                self.weights = weight_normed(weights)
            case "none":
                self.weights = weights
            case _:
                raise ValueError(
                    f"stability={stability!r} is unknown. W is kept in check by its norm, by gains or not at all: "
                    'choose "spectral", "weight" or "none".'
                )

    def norm(self, like: Tensor) -> float:
        """Returns ‖W‖₂ for vectors like `like`; for maps like it, an upper bound."""
        weight = self.weights.weight
        assert isinstance(weight, Tensor)
        if weight.ndim == 2:
            return float(torch.linalg.matrix_norm(weight, ord=2))
        on_torus = symbol(weight, *(torus_length(side, _TAPS // 2) for side in like.shape[2:]))
        return float(torch.linalg.matrix_norm(on_torus, ord=2).max())

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.weights(z) + x)

    def initial_state(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class DEQ(Certified):
    """Images -> U x + b -> equilibrium -> linear head.

    Maps are made of images by a convolution that halves them and a norm, and are averaged over a few cells for the
    head. Vectors are made of all pixels by a matrix.

    Args:
        width: length of z, or its channels.
        image_size: height and width of its images in pixels.
        stem: channels between the images and U; not for vectors.
        dense: an equilibrium of vectors instead of maps.
        stability: how W is kept in check.
        in_chans: channels of its images.
        num_classes: logits to give.
        solver: how the equilibrium is found: any will do.
        adjoint: how gradients pass it.

    """

    layers: ClassVar[dict[str, str]] = {"stem": r"^inject", "equilibrium": r"^(?:equilibrium|norm)"}

    def __init__(
        self,
        width: int,
        *,
        image_size: int,
        stem: int = 32,
        cells: int = 3,
        dense: bool = False,
        stability: Stability = "spectral",
        in_chans: int = 3,
        num_classes: int = 10,
        solver: FixedPointSolver = Anderson(rtol=1e-4, max_steps=100),
        adjoint: Adjoint = Implicit(solver=Anderson(rtol=1e-4, max_steps=100)),
    ) -> None:
        super().__init__(in_chans=in_chans, num_classes=num_classes, num_features=width if dense else width * cells**2)
        self.image_size, self.cells, self.dense, self.stability = image_size, cells, dense, stability
        if dense:
            self.inject = nn.Sequential(
                nn.Flatten(), nn.Linear(in_chans * image_size**2, width, bias=False), nn.BatchNorm1d(width)
            )
        else:
            self.inject = nn.Sequential(
                *conv_norm_relu(conv(in_chans, stem, 3, stride=2)), *conv_norm(conv(stem, width, 3))
            )
        self.equilibrium = ImplicitModule(
            DEQCell(width, dense=dense, stability=stability), solver=solver, adjoint=adjoint
        )
        self.norm = nn.BatchNorm1d(width) if dense else nn.BatchNorm2d(width)

    @property
    def guarantee(self) -> str | None:
        if self.stability != "spectral":
            return None
        return (
            "Its equilibrium exists, is unique, and is reached by plain iteration from everywhere, whatever the "
            "weights and the image, as ‖W‖₂ < 1 by parametrisation: each step leaves at most c = ‖W‖₂ times the "
            "distance to its limit. The backward iteration converges at the same rate. Solvers that accelerate it, as "
            "Anderson does, have no such bound."
        )

    def _proved(self, x: Tensor, rtol: float) -> Certificate:
        check_size(x, self.image_size)
        cell = self.equilibrium.cell
        assert isinstance(cell, DEQCell)
        norm = cell.norm(self.inject(x[:1]))
        return for_all_images(min(1.0, norm), rtol, unique=norm < 1, at_most={"‖W‖₂": norm})

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        return [] if self.dense else [{"num_chs": self.norm.num_features, "reduction": 2, "module": "norm"}]

    def forward_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        check_size(x, self.image_size)
        return (self.norm(self.equilibrium(self.inject(x))),)

    def pool(self, features: Tensor) -> Tensor:
        return features if self.dense else F.adaptive_avg_pool2d(features, self.cells).flatten(1)


@register(task="image-classification", dataset="mnist", recipe="deq-mnist", paper=PAPER)
def deq_mnist(**runtime: Unpack[Runtime]) -> DEQ:
    """One convolutional equilibrium of 48 channels, behind a stem that halves the image."""
    return DEQ(48, image_size=28, **{"in_chans": 1, **runtime})


@register(task="image-classification", dataset="mnist", paper=PAPER)
def deq_mnist_dense(**runtime: Unpack[Runtime]) -> DEQ:
    """One dense equilibrium of 100 components: the smallest model that shows how all of them work."""
    return DEQ(100, image_size=28, dense=True, **{"in_chans": 1, **runtime})
