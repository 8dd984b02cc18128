"""How well a grid holds Gaussian data: what capacity laws know about a format.

    GMSE = min over scale s of E[(x - Q_s(x))^2],  x ~ N(0, 1)

The expectation is exact: between two neighbouring decision points the integral of (x - v)^2 times the
density is a difference of error functions. Panferov et al. 2025 (2506.01863) call log_{1/4} GMSE the
effective bits of a format.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .format import Format, Integer

#: Effective bits that laws read for an unquantised part: tanh of anything this large is exactly one.
LOSSLESS = 1e4


def gaussian_error(levels: NDArray[np.float64]) -> float:
    """Smallest mean squared error of rounding N(0, 1) to a scaled grid.

    Args:
        levels: the values of the grid, in any unit, two at least.

    >>> round(gaussian_error(np.array([-1.0, 1.0])), 5)  # one bit: 1 - 2 / pi
    0.36338
    """
    levels = np.unique(levels)
    low, high = 1e-3, 8.0  # of the largest level, in standard deviations
    grid = np.geomspace(low, high, 200)
    errors = [_error(levels * (peak / np.abs(levels).max())) for peak in grid]
    k = int(np.argmin(errors))
    a, b = grid[max(0, k - 1)], grid[min(len(grid) - 1, k + 1)]
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(60):
        x1, x2 = b - golden * (b - a), a + golden * (b - a)
        first, second = (_error(levels * (x / np.abs(levels).max())) for x in (x1, x2))
        a, b = (a, x2) if first < second else (x1, b)
    return _error(levels * ((a + b) / 2 / np.abs(levels).max()))


def _error(values: NDArray[np.float64]) -> float:
    """E[(x - nearest value)^2] for x ~ N(0, 1), from the moments of each cell."""
    edges = np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]])
    density = np.where(np.isfinite(edges), np.exp(-0.5 * np.where(np.isfinite(edges), edges, 0) ** 2), 0.0)
    density /= math.sqrt(2 * math.pi)
    below = np.array([0.5 * math.erfc(-e / math.sqrt(2)) for e in edges])
    mass = np.diff(below)
    first = -np.diff(density)
    weighted = np.where(np.isfinite(edges), edges, 0.0) * density
    second = mass - np.diff(weighted)
    return float((second - 2 * values * first + values**2 * mass).sum())


@lru_cache(maxsize=64)
def effective_bits(fmt: Format) -> float:
    """log_{1/4} of a format's Gaussian error; `LOSSLESS` for native floats.

    Integers are taken as trained here, symmetric with 2^bits - 1 levels.

    >>> round(effective_bits(Integer(4)), 2)
    3.14
    """
    if not isinstance(fmt, Integer):
        return LOSSLESS
    if fmt.bits > 10:  # beyond this the sum of many tiny differences is rounding noise: 1 bit a bit
        return effective_bits(Integer(10)) + (fmt.bits - 10) * _SLOPE
    return -math.log(gaussian_error(fmt.levels()[1:]), 4)


_SLOPE = 0.95  # effective bits a further bit buys, from 8 to 10 bits
