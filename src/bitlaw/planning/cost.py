"""What training costs: C = (6/16) N D P, which is 6 N D at 16 bits (Kumar et al. 2024, section 4.3).

Linear in bits is what a microbenchmark of matrix products suggests; real gains are smaller.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", float, NDArray[np.float64])


def train_flops(params: Number, tokens: Number, bits: Number) -> Number:
    """Training cost in 16-bit FLOPs.

    >>> train_flops(1e9, 2e10, 16.0)
    1.2e+20
    """
    return 6 / 16 * params * tokens * bits


def tokens_for(flops: float, params: Number, bits: Number) -> Number:
    """Tokens that a budget buys for a model of some size and bits."""
    return flops * 16 / 6 / params / bits
