"""Training: a schedule, one loop, checkpoints that survive anything."""

from .config import TrunkConfig
from .loop import End, Interrupted, train_trunk

__all__ = ["End", "Interrupted", "TrunkConfig", "train_trunk"]
