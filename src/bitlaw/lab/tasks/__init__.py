"""Tasks beside the loss: choices that a language model is judged on, and clicks, where embedding tables are all."""

from .auc import auc
from .clicks import Clicks, read_avazu, read_criteo, read_table, synthetic
from .clickthrough import Score, Training, compare, paired, summarise, train
from .cloze import Cloze
from .harness import Harness, language_model
from .likelihood import Judge, Judged
from .tables import Method

__all__ = [
    "Clicks",
    "Cloze",
    "Harness",
    "Judge",
    "Judged",
    "Method",
    "Score",
    "Training",
    "auc",
    "compare",
    "language_model",
    "paired",
    "read_avazu",
    "read_criteo",
    "read_table",
    "summarise",
    "synthetic",
    "train",
]
