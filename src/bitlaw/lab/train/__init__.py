"""Training: a schedule, one loop, checkpoints that survive anything."""

from .config import Branch, TrainingConfig, TrunkConfig, derived_seed
from .distributed import World, joined, leave
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
    "World",
    "derived_seed",
    "gradient_noise",
    "joined",
    "leave",
    "savings",
    "train_trunk",
]
