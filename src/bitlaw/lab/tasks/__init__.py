"""Tasks beside language modelling: click-through prediction, where embedding tables are all of the model."""

from .auc import auc
from .clicks import Clicks, read_avazu, read_criteo, read_table, synthetic
from .clickthrough import Score, Training, compare, paired, summarise, train
from .tables import Method

__all__ = [
    "Clicks",
    "Method",
    "Score",
    "Training",
    "auc",
    "compare",
    "paired",
    "read_avazu",
    "read_criteo",
    "read_table",
    "summarise",
    "synthetic",
    "train",
]
