"""Which rows are held out of a fit, to see how it extrapolates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import FitError


@dataclass(frozen=True)
class Split:
    """A named rule that marks rows as held out, given their sizes and tokens."""

    name: str
    rule: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]


def largest(sizes: int = 1) -> Split:
    """Hold out every row of the largest sizes: does the law hold for a model larger than it has seen?

    >>> largest().name
    'the largest size'
    """
    if sizes < 1:
        raise FitError(f"hold out at least one size, not {sizes}")

    def rule(params: NDArray[np.float64], tokens: NDArray[np.float64]) -> NDArray[np.bool_]:
        distinct = np.unique(params)
        if len(distinct) <= sizes + 1:
            raise FitError(
                f"cannot hold out {sizes} of {len(distinct)} sizes and fit on the rest; "
                "use hold_out=None, or rows of more sizes"
            )
        return np.asarray(params >= distinct[-sizes])

    return Split("the largest size" if sizes == 1 else f"the {sizes} largest sizes", rule)
