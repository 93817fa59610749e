"""Every error and warning a user of deqzoo can meet.

A message has three parts: what was found, the rule it breaks, and what to do next.
"""

from collections.abc import Iterable


class DeqzooError(Exception):
    """Base class: `except DeqzooError` catches everything that deqzoo raises on purpose."""


class StructureError(DeqzooError, ValueError):
    """A shape, nesting, dtype or device that the computation cannot work with."""


class SolverError(DeqzooError, RuntimeError):
    """A solve that failed and was asked to raise, or a solver used where it cannot work."""


class AdjointError(DeqzooError, RuntimeError):
    """A gradient that was asked for in a way its adjoint cannot give correctly."""


class UnknownModelError(DeqzooError, LookupError):
    """A model name that the zoo does not know."""


class WeightsError(DeqzooError, RuntimeError):
    """Weights that are corrupt, truncated, changed since they were published, or of another model."""


class DamagedWeightsError(WeightsError):
    """A file of weights whose bytes are not those that were published."""


class CheckpointError(DeqzooError, RuntimeError):
    """A checkpoint of a run that could not be written."""


class PublishError(DeqzooError, RuntimeError):
    """A model that is not as it was measured, or that the Hub does not take."""


class DataError(DeqzooError, RuntimeError):
    """Data that is missing, empty or unreadable."""


class VocabularyError(DeqzooError, ValueError):
    """Text that a vocabulary cannot express, or a vocabulary that is damaged or belongs to something else."""


class UnconvergedWarning(UserWarning):
    """Some samples of a batch did not reach the tolerance of their solve."""


class DivergedError(DeqzooError, ArithmeticError):
    """Training whose loss became NaN or infinite."""


def listed(names: Iterable[str], most: int) -> str:
    """Returns the first `most` names for a message, and how many there are beyond: "a, b and 3 more"."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "none"
