"""Quantisation after training, and what it costs on the same held-out tokens."""

from .apply import METHODS, quantize_model
from .evaluate import logits, token_losses
from .means import clustered_mean
from .parts import quantize_parts
from .scores import Exam, Scores
from .settings import Outcome, Reference, Setting, try_settings

__all__ = [
    "METHODS",
    "Exam",
    "Outcome",
    "Reference",
    "Scores",
    "Setting",
    "clustered_mean",
    "logits",
    "quantize_model",
    "quantize_parts",
    "token_losses",
    "try_settings",
]
