"""Tensors onto grids: rounding with straight-through gradients, and layers that do it."""

from .layers import apply_scheme
from .quantizer import fake_quantize, quantize
from .stored import StoredTensor, StoredWeights

__all__ = ["StoredTensor", "StoredWeights", "apply_scheme", "fake_quantize", "quantize"]
