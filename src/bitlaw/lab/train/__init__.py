"""Training: a schedule, one loop, checkpoints that survive anything."""

from .adapters import peft
from .config import Branch, TrainingConfig, TrunkConfig, derived_seed
from .distributed import World, joined, leave
from .loop import End, Interrupted, train_trunk
from .noise import GradientNoise, gradient_noise
from .savings import Savings, savings
from .tuning import TuningConfig, tune, tuning_config

__all__ = [
    "Branch",
    "End",
    "GradientNoise",
    "Interrupted",
    "Savings",
    "TrainingConfig",
    "TrunkConfig",
    "TuningConfig",
    "World",
    "derived_seed",
    "gradient_noise",
    "joined",
    "leave",
    "peft",
    "savings",
    "train_trunk",
    "tune",
    "tuning_config",
]
