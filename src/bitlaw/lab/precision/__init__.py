"""Tensors onto grids: rounding with straight-through gradients, and layers that do it."""

from .layers import apply_scheme
from .quantizer import fake_quantize, quantize

__all__ = ["apply_scheme", "fake_quantize", "quantize"]
