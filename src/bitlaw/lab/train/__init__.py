"""Training: a schedule, one loop, checkpoints that survive anything."""

from .config import Branch, TrainingConfig, TrunkConfig
from .distributed import World, joined, leave
from .loop import End, Interrupted, train_trunk
from .savings import Savings, savings

__all__ = [
    "Branch",
    "End",
    "Interrupted",
    "Savings",
    "TrainingConfig",
    "TrunkConfig",
    "World",
    "joined",
    "leave",
    "savings",
    "train_trunk",
]
