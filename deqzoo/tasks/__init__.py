"""What networks are trained for: Lightning modules, and the parts of a run that go with them."""

from deqzoo.tasks.coarse_images import CoarseImages
from deqzoo.tasks.divergence import DivergenceGuard
from deqzoo.tasks.fast_path import FastPath
from deqzoo.tasks.global_batch import GlobalBatch
from deqzoo.tasks.image_classifier import ImageClassifier
from deqzoo.tasks.image_transform import ImageTransform
from deqzoo.tasks.language_model import LanguageModel
from deqzoo.tasks.param_groups import weight_decay_groups
from deqzoo.tasks.penalties import GrowthPenalty, JacobianPenalty
from deqzoo.tasks.random_state import RandomState
from deqzoo.tasks.run_cost import RunCost
from deqzoo.tasks.safe_checkpoints import SafeCheckpointIO
from deqzoo.tasks.schedules import Schedule, WarmupCosine
from deqzoo.tasks.sharded import Sharded
from deqzoo.tasks.training_solver import TrainingSolver
from deqzoo.tasks.warmup_ema import WarmupEMA

__all__ = [
    "CoarseImages",
    "DivergenceGuard",
    "FastPath",
    "GlobalBatch",
    "GrowthPenalty",
    "ImageClassifier",
    "ImageTransform",
    "JacobianPenalty",
    "LanguageModel",
    "RandomState",
    "RunCost",
    "SafeCheckpointIO",
    "Schedule",
    "Sharded",
    "TrainingSolver",
    "WarmupCosine",
    "WarmupEMA",
    "weight_decay_groups",
]
