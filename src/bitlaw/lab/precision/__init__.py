"""Tensors onto grids: rounding with straight-through gradients, and layers that do it."""

from .layers import LowPrecisionLinear, apply_scheme, settle
from .quantizer import fake_quantize, quantize
from .static import static_scales
from .stored import StoredTensor, StoredWeights

__all__ = [
    "LowPrecisionLinear",
    "StoredTensor",
    "StoredWeights",
    "apply_scheme",
    "fake_quantize",
    "quantize",
    "settle",
    "static_scales",
]
