"""Training: a schedule, one loop, checkpoints that survive anything."""

from .config import Branch, TrunkConfig
from .loop import End, Interrupted, train_trunk

__all__ = ["Branch", "End", "Interrupted", "TrunkConfig", "train_trunk"]
