"""Where numbers stand on an axis and how they are written: the same in files and on the page."""

from __future__ import annotations

import math
import textwrap
from typing import Literal, TypeAlias

from ..units import format_quantity

Scale: TypeAlias = Literal["linear", "log", "symlog"]
Form: TypeAlias = Literal["plain", "prefix", "power"]
MOST = 7  # numbers on an axis
NARROW = 3.0  # factor within which a logarithmic axis has evenly spaced numbers
MOST_POWERS = 5  # of numbers like 2×10¹⁹, which are long
WIDTH = 22  # letters of a category's line
LINEAR = 0.5  # decades that the linear part of a symlog axis takes on either side of zero
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def written(value: float, form: Form = "plain") -> str:
    """Write a number of an axis.

    >>> written(2e7, "prefix"), written(3e21, "power"), written(1e-12), written(0.05)
    ('20M', '3×10²¹', '10⁻¹²', '0.05')
    """
    if form == "prefix" and 1e-3 <= abs(value) < 1e15:
        return format_quantity(value)
    form = "power" if form == "prefix" and value >= 1 else form
    if value > 0 and (form == "power" or (form == "plain" and not 1e-4 < value < 1e5)):
        exponent = math.floor(math.log10(value) + 1e-9)
        lead = f"{value / 10.0**exponent:.3g}"
        return ("" if lead == "1" else f"{lead}×") + f"10{str(exponent).translate(_RAISED)}"
    return f"{value:.6g}"


def wrapped(name: str) -> str:
    r"""The name of a category on lines of its own; one without end is cut.

    >>> wrapped("the loss of the run with most compute")
    'the loss of the run\nwith most compute'
    """
    return "\n".join(textwrap.wrap(name, WIDTH, max_lines=2, placeholder="…"))


def log_ticks(low: float, high: float, most: int = MOST) -> tuple[float, ...]:
    """Round numbers for a logarithmic axis: as many as there is room for.

    >>> log_ticks(8e6, 3e8)
    (10000000.0, 20000000.0, 50000000.0, 100000000.0, 200000000.0)
    >>> log_ticks(1, 1e30, 4)
    (1.0, 10000000000.0, 1e+20, 1e+30)
    """
    if high < NARROW * low:  # decades say little here
        return linear_ticks(low, high, most)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ways: list[tuple[tuple[float, ...], int]] = [((1, 1.5, 2, 3, 4, 5, 6, 8), 1), ((1, 2, 5), 1), ((1, 3), 1)]
    ways += [((1,), step) for step in (1, 2, 3, 5, 10, 20, 50)]
    for leads, step in ways:
        start = -(-first // step) * step
        places = (float(f"{lead}e{e}") for e in range(start - step, last + 1, step) for lead in leads)
        inside = tuple(x for x in places if low * (1 - 1e-9) <= x <= high * (1 + 1e-9))
        if len(inside) <= most:
            return inside if len(inside) > 1 else linear_ticks(low, high)
    return low, high


def linear_ticks(low: float, high: float, most: int = MOST) -> tuple[float, ...]:
    """Round numbers, evenly spaced.

    >>> linear_ticks(3.02, 3.31, 4)
    (3.1, 3.2, 3.3)
    """
    width = (high - low) / max(1, most - 1)
    if not width > 0:
        return (low,)
    scale = 10.0 ** math.floor(math.log10(width))
    step = next(m * scale for m in (1, 2, 2.5, 5, 10) if m * scale >= width * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(float(f"{k * step:.12g}") for k in range(first, last + 1))


def symlog_ticks(low: float, high: float, linear_below: float) -> tuple[float, ...]:
    """Zero and powers of ten on either side of it, from the first at or above `linear_below`.

    >>> symlog_ticks(-0.004, 0.3, 1e-3)
    (-0.001, 0.0, 0.001, 0.01, 0.1)
    """
    first = math.ceil(math.log10(linear_below) - 1e-9)
    last = math.floor(math.log10(max(abs(low), abs(high), linear_below)) + 1e-9)
    step = -(-(last - first + 1) // 4)
    sizes = [float(f"1e{e}") for e in range(first, last + 1, max(1, step))]
    places = (*(-x for x in reversed(sizes)), 0.0, *sizes)
    return tuple(x for x in places if low <= x <= high)


def placed(value: float, scale: Scale, linear_below: float = 1.0) -> float:
    """Where a value stands on an axis of a scale, in decades where it is logarithmic.

    >>> placed(100, "log"), placed(0.0005, "symlog", 0.001), placed(-0.01, "symlog", 0.001)
    (2.0, 0.25, -1.5)
    """
    if scale == "linear":
        return float(value)
    if scale == "log":
        return math.log10(value)
    size = abs(value) / linear_below
    return math.copysign(LINEAR * size if size < 1 else LINEAR + math.log10(size), value)


def unplaced(place: float, scale: Scale, linear_below: float = 1.0) -> float:
    """The value that stands at a place.

    >>> unplaced(2.0, "log"), round(unplaced(placed(0.02, "symlog", 0.001), "symlog", 0.001), 9)
    (100.0, 0.02)
    """
    if scale == "linear":
        return place
    if scale == "log":
        return float(10.0**place)
    size = abs(place)
    return math.copysign(linear_below * (size / LINEAR if size < LINEAR else 10 ** (size - LINEAR)), place)
