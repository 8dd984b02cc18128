"""How well a format holds Gaussian data: what capacity laws know about it.

    GMSE = min over step s of E[(x - Q_s(x))^2],  x ~ N(0, 1)

The expectation is exact but for rounding: within the cell of one value the integral of (x - v)^2 times the density
is a difference of error functions. Panferov et al. 2025 (2506.01863) call log_{1/4} GMSE the effective bits of a
format.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.polynomial.legendre import leggauss

from .grid import Array, Format, Microscaled, Native, Uniform

#: Effective bits that laws read for an unquantised part: tanh of anything this large is exactly one.
LOSSLESS = 1e4
_GOLDEN = (math.sqrt(5) - 1) / 2
_NARROW = (
    1e-3  # cells for which the density is taken to be a parabola: differences of moments would be rounding
)
_FAR = 9.0  # standard deviations


def gaussian_error(values: Array) -> float:
    """Smallest mean squared error of rounding N(0, 1) to a scaled grid.

    Args:
        values: the values of the grid in rising order, in any unit, two at least.

    >>> round(gaussian_error(np.array([-1.0, 1.0])), 5)  # one bit: 1 - 2 / pi
    0.36338
    """
    return _error(values * best_scale(values))


@lru_cache(maxsize=64)
def gaussian_scale(fmt: Format) -> float:
    """The factor on a format's values that holds N(0, 1) best.

    Raises:
        ValueError: a format without values.
    """
    if isinstance(fmt, Native):
        raise ValueError(f"{fmt.name} has no list of values")
    return best_scale(_used(fmt))


def best_scale(values: Array) -> float:
    """The factor on a grid's values at which N(0, 1) is rounded with the least squared error."""
    peak = np.abs(values).max()
    grid = np.geomspace(1e-3, 1e5, 100)  # of the largest value, in standard deviations; wide floats reach far
    errors = [_error(values * (top / peak)) for top in grid]
    k = int(np.argmin(errors))
    a, b = grid[max(0, k - 1)], grid[min(len(grid) - 1, k + 1)]
    for _ in range(40):
        x1, x2 = b - _GOLDEN * (b - a), a + _GOLDEN * (b - a)
        a, b = (a, x2) if _error(values * (x1 / peak)) < _error(values * (x2 / peak)) else (x1, b)
    return float((a + b) / 2 / peak)


def _error(values: Array, cut: float = math.inf) -> float:
    """E[(x - nearest value)^2] for x ~ N(0, 1) given |x| < cut, from the moments of each cell."""
    from scipy.special import ndtr

    values = values[np.abs(values) < 2 * _FAR] if (np.abs(values) < _FAR).sum() > 1 else values
    edges = np.concatenate([[-cut], np.clip((values[1:] + values[:-1]) / 2, -cut, cut), [cut]])
    ends = np.clip(edges, -40.0, 40.0)
    density = np.exp(-0.5 * ends**2) / math.sqrt(2 * math.pi)
    low, high = ends[:-1], ends[1:]
    mass = np.where(low > 0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))
    first = density[:-1] - density[1:]
    second = mass - (high * density[1:] - low * density[:-1])
    exact = second - 2 * values * first + values**2 * mass
    cubes = ((high - values) ** 3 - (low - values) ** 3) / 3
    near = (density[:-1] + density[1:] + 4 * np.exp(-((low + high) ** 2) / 8) / math.sqrt(2 * math.pi)) / 6
    inside = math.erf(cut / math.sqrt(2)) if math.isfinite(cut) else 1.0
    return float(np.where(high - low < _NARROW, near * cubes, exact).sum() / inside)


@lru_cache(maxsize=64)
def relative_error(fmt: Format) -> float:
    """Mean squared error of a format on N(0, 1) at its best scale, or with its own scales where it has blocks.

    Integers are taken as symmetric, with the 2^bits - 1 levels that absmax scales reach; scales that cut off (`mse`,
    `gaussian`) use the lowest level too, for a little less error, .149 in place of .190 at two bits. Blocks of
    `Microscaled` have the scales that they would be given, a scale of the whole tensor being one.

    >>> from bitlaw import parse_format
    >>> [round(relative_error(parse_format(name)), 5) for name in ("midrise2", "int4", "e2m1", "mxfp4")]
    [0.11885, 0.01289, 0.01268, 0.01322]
    """
    if isinstance(fmt, Native):
        return 0.0
    return _block_error(fmt) if isinstance(fmt, Microscaled) else gaussian_error(_used(fmt))


def _used(fmt: Format) -> Array:
    assert not isinstance(fmt, Native)
    values = fmt.values()
    if isinstance(fmt, Uniform) and fmt.shifted:
        return values - math.ceil(fmt.high / 2)  # the zero point is an integer, and data are centred
    return values[1:] if isinstance(fmt, Uniform) and fmt.low == -fmt.high - 1 else values


def _block_error(fmt: Microscaled) -> float:
    """Integrate over the largest magnitude m of a block: it sets the scale, and the others lie below it."""
    from scipy.special import ndtr

    edges = 2.0 ** np.arange(-12, 4)  # scales jump at powers of two, or many times between them
    if fmt.scale != "e8m0":
        edges = np.unique(np.concatenate([edges[:1], fmt.peak * _midpoints(fmt.scale.values())]))
        edges = edges[(edges >= 2.0**-12) & (edges <= 8)]
    nodes, weights = leggauss(200 if fmt.scale == "e8m0" else 12)  # the error of m itself is a saw
    values, total, mass = fmt.values(), 0.0, 0.0
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        for node, weight in zip(nodes, weights, strict=True):
            m = low + (high - low) * (node + 1) / 2
            inside = 2 * float(ndtr(m)) - 1
            density = (
                2 * fmt.block * math.exp(-m * m / 2) / math.sqrt(2 * math.pi) * inside ** (fmt.block - 1)
            )
            share = density * weight * (high - low) / 2
            if share < 1e-14:
                continue
            scaled = values * block_scale(fmt, m)
            largest = float(np.abs(scaled - m).min())
            others = (fmt.block - 1) * _error(scaled, m)
            total, mass = total + share * (others + largest**2) / fmt.block, mass + share
    return float(total / mass)


def block_scale(fmt: Microscaled, largest: float) -> float:
    """The scale of a block whose largest magnitude is given, the scale of the tensor being one.

    A power of two that leaves the largest at or above the format's top exponent (OCP MX 1.0, section 6.3, so that it
    may be cut off), or the largest over the peak, rounded to the grid of scales.
    """
    if fmt.scale == "e8m0":
        return 2.0 ** (math.floor(math.log2(largest)) - fmt.top_exponent)
    values = fmt.scale.values()
    return float(values[np.argmin(np.abs(values - largest / fmt.peak))])


def _midpoints(values: Array) -> Array:
    return (values[1:] + values[:-1]) / 2


def effective_bits(fmt: Format) -> float:
    """log_{1/4} of a format's Gaussian error; `LOSSLESS` for native floats.

    >>> from bitlaw import parse_format
    >>> round(effective_bits(parse_format("int4")), 2)
    3.14
    """
    return LOSSLESS if isinstance(fmt, Native) else -math.log(relative_error(fmt), 4)
