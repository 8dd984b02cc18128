"""Quantisation after training, and what it costs on the same held-out tokens."""

from .evaluate import PairedGap, paired_gap, window_losses
from .rtn import quantize_rtn

__all__ = ["PairedGap", "paired_gap", "quantize_rtn", "window_losses"]
