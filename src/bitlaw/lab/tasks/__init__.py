"""Tasks beside the loss: choices that a language model is judged on, and clicks, where embedding tables are all."""

from .auc import auc
from .behaviour import behaviour, tagged, tagged_corpus
from .clicks import Clicks, read_avazu, read_criteo, read_table, synthetic
from .clickthrough import Score, Training, compare, paired, summarise, train
from .cloze import Cloze
from .harness import Harness, language_model
from .knowledge import Question, World, knowledge
from .likelihood import Judge, Judged
from .tables import Method

__all__ = [
    "Clicks",
    "Cloze",
    "Harness",
    "Judge",
    "Judged",
    "Method",
    "Question",
    "Score",
    "Training",
    "World",
    "auc",
    "behaviour",
    "compare",
    "knowledge",
    "language_model",
    "paired",
    "read_avazu",
    "read_criteo",
    "read_table",
    "summarise",
    "synthetic",
    "tagged",
    "tagged_corpus",
    "train",
]
