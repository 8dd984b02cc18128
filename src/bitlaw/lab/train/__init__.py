"""Training: a schedule, one loop, checkpoints that survive anything."""

from .config import Branch, TrainingConfig, TrunkConfig
from .loop import End, Interrupted, train_trunk
from .noise import GradientNoise, gradient_noise
from .savings import Savings, savings

__all__ = [
    "Branch",
    "End",
    "GradientNoise",
    "Interrupted",
    "Savings",
    "TrainingConfig",
    "TrunkConfig",
    "gradient_noise",
    "savings",
    "train_trunk",
]
