"""Quantisation after training, and what it costs on the same held-out tokens."""

from .apply import METHODS, quantize_model
from .evaluate import PairedGap, paired_gap, window_losses

__all__ = ["METHODS", "PairedGap", "paired_gap", "quantize_model", "window_losses"]
