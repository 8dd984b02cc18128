"""Rules: answers in one line that others found, not laws that are fitted."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import LawError
from .checks import positive

#: The one constant of `qat_fraction`; its mean absolute error in the share is .091.
QAT_CONSTANT = 6.7297


def qat_fraction(params: ArrayLike, tokens: ArrayLike, bits: ArrayLike) -> NDArray[np.float64]:
    """Share of the training tokens that is best spent training with quantised weights.

        f* = exp(-a / ln S),    S = D / (N P / 8),    a = 6.7297

    S is tokens per byte of the quantised model. The share grows with it: a tenth for small budgets, half
    for large ones. It is the authors' own fit of one constant, without intervals; their law of the loss
    itself has constants that we could not read, and is not here.

    Args:
        params: model size, all parameters.
        tokens: all training tokens, before and while quantised.
        bits: bits of the weights while quantised.

    Returns:
        A share between 0 and 1.

    Raises:
        LawError: no more than one token per byte, where the rule says nothing.
        ConfigError: numbers that are not positive.

    Source: Dremov et al. 2025, Compute-Optimal Quantization-Aware Training (2509.22935), as quoted by a
    secondary source. 757 runs of 86M to 2.2B parameters, 2.3B to 1.4T tokens, weights of 1, 2, 4 and 6 bits.

    >>> qat_fraction(params=1e9, tokens=1e11, bits=4).round(2).tolist()
    0.28
    """
    size, data, width = positive(params=params, tokens=tokens, bits=bits)
    per_byte = data / (size * width / 8)
    if not (per_byte > 1).all():
        raise LawError(
            f"the rule speaks of more than one token per byte of the quantised model, not "
            f"{float(np.min(per_byte)):.3g}; train on more tokens, or ask about fewer bits"
        )
    share: NDArray[np.float64] = np.exp(-QAT_CONSTANT / np.log(per_byte))
    return share
