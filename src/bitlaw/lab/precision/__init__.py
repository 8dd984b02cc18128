"""Tensors onto grids: rounding with straight-through gradients, and layers that do it."""

from .layers import LowPrecisionLinear, apply_scheme
from .quantizer import fake_quantize, quantize
from .stored import StoredTensor, StoredWeights

__all__ = [
    "LowPrecisionLinear",
    "StoredTensor",
    "StoredWeights",
    "apply_scheme",
    "fake_quantize",
    "quantize",
]
