"""What networks are trained for: Lightning modules, and the parts of a run that go with them."""

from deqzoo.tasks.image_classifier import ImageClassifier
from deqzoo.tasks.image_transform import ImageTransform
from deqzoo.tasks.param_groups import weight_decay_groups
from deqzoo.tasks.random_state import RandomState
from deqzoo.tasks.schedules import Schedule, WarmupCosine
from deqzoo.tasks.training_solver import TrainingSolver
from deqzoo.tasks.warmup_ema import WarmupEMA

__all__ = [
    "ImageClassifier",
    "ImageTransform",
    "RandomState",
    "Schedule",
    "TrainingSolver",
    "WarmupCosine",
    "WarmupEMA",
    "weight_decay_groups",
]
