"""Sums over a test set, in float64 and on the device until they are read."""

import math
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import binary_calibration_error

from deqzoo.nn import Observed
from deqzoo.solution import Status

_NUM_BINS = 15


class Tally:
    """Gathers what the batches of a test set give.

    Args:
        num_classes: logits of the model.
    """

    def __init__(self, *, num_classes: int) -> None:
        self.num_classes = num_classes
        self.num_images = 0
        self._correct: list[Tensor] = []
        self._loss: list[Tensor] = []
        self._confidence: list[Tensor] = []
        self._solves = SolveTally()

    def add(self, logits: Tensor, labels: Tensor, seen: Observed) -> None:
        """Adds a batch: logits (B, K), labels (B,) and the solves that gave the logits."""
        logits = logits.double()
        self.num_images += len(labels)
        # A NaN among the logits makes argmax arbitrary: such an image counts as wrong.
        finite = logits.isfinite().all(1)
        self._correct.append((logits.argmax(1) == labels) & finite)
        self._loss.append(F.cross_entropy(logits, labels, reduction="none"))
        self._confidence.append(logits.softmax(1).amax(1))
        self._solves.add(seen)

    def figures(self) -> dict[str, Any]:
        """Returns the fields of an `Evaluation` that are sums over images."""
        correct, confidence = torch.cat(self._correct), torch.cat(self._confidence)
        num_correct = int(correct.sum())
        low, high = wilson_interval(num_correct, self.num_images)
        return {
            "num_images": self.num_images,
            "accuracy": 100 * num_correct / self.num_images,
            "accuracy_low": 100 * low,
            "accuracy_high": 100 * high,
            "loss": number(torch.cat(self._loss).mean()),
            "calibration_error": _calibration_error(confidence, correct),
            **self._solves.figures(),
        }


class SolveTally:
    """Gathers what the solves of a test set cost and how they ended."""

    def __init__(self) -> None:
        self._steps: list[Tensor] = []
        self._status: list[Tensor] = []
        self._residual: list[Tensor] = []
        self._converged: list[Tensor] = []

    @property
    def num_solved(self) -> int:
        """Samples that were solved for, 0 for those of networks without equilibria."""
        return sum(map(len, self._steps))

    def add(self, seen: Observed) -> None:
        """Adds the solves of a batch, if there are any."""
        if not seen.solutions:
            return
        self._steps.append(seen.num_steps)
        self._status.append(seen.status)
        self._residual.append(seen.residual)
        if seen.judged.solutions:
            self._converged.append(seen.judged.converged)

    def figures(self) -> dict[str, Any]:
        """Returns the fields of an evaluation that are about solves; `converged` is None where none is judged."""
        if not self._steps:
            nothing = dict.fromkeys(("converged", "evals_mean", "evals_p95", "evals_max", "residual_max"))
            return nothing | {"num_max_steps": 0, "num_stalled": 0, "num_nonfinite": 0}
        steps, status = torch.cat(self._steps).double(), torch.cat(self._status)
        counts = torch.bincount(status, minlength=len(Status)).tolist()
        return {
            "converged": int(torch.cat(self._converged).sum()) / len(steps) if self._converged else None,
            "num_max_steps": counts[Status.MAX_STEPS],
            "num_stalled": counts[Status.STALLED],
            "num_nonfinite": counts[Status.NONFINITE],
            "evals_mean": float(steps.mean()),
            "evals_p95": percentile(steps, 0.95),
            "evals_max": int(steps.max()),
            "residual_max": number(torch.cat(self._residual).max()),
        }


def percentile(values: Tensor, q: float) -> float:
    """Returns the smallest of `values` (N,) that at least the share q of them does not exceed."""
    ordered = values.sort().values
    return float(ordered[max(math.ceil(q * len(ordered)) - 1, 0)])


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the ends of Wilson's score interval for a probability. E. B. Wilson, JASA 22 (1927), 209."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / trials
    centre = p + z**2 / (2 * trials)
    half = z * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return max((centre - half) / scale, 0.0), min((centre + half) / scale, 1.0)


def _calibration_error(confidence: Tensor, correct: Tensor) -> float | None:
    """Returns the expected calibration error of confidences (N,), None if one of them is not finite."""
    if not bool(confidence.isfinite().all()):
        return None
    return float(binary_calibration_error(confidence, correct.long(), n_bins=_NUM_BINS))


def number(value: Tensor | float) -> float | None:
    """Returns a value that is finite, None for others."""
    found = float(value)
    return found if math.isfinite(found) else None
