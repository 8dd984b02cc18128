"""Which rows are held out of a fit, to see how it extrapolates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import FitError
from ..formats import UNQUANTIZED

Facts = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Split:
    """A named rule that marks rows as held out.

    The rule sees `params`, `tokens` and `bits` of the rows, the last being the fewest that any part of a
    model was trained or quantised in.
    """

    name: str
    rule: Callable[[Facts], NDArray[np.bool_]]


def largest(sizes: int = 1) -> Split:
    """Hold out every row of the largest sizes: does the law hold for a model larger than it has seen?

    >>> largest().name
    'the largest size'
    """
    name = "the largest size" if sizes == 1 else f"the {sizes} largest sizes"
    return Split(name, lambda facts: _ends(facts["params"], sizes, "sizes"))


def longest(budgets: int = 1) -> Split:
    """Hold out every row of the largest token counts: does the law hold for longer training?

    >>> longest(2).name
    'the 2 largest token counts'
    """
    name = "the largest token count" if budgets == 1 else f"the {budgets} largest token counts"
    return Split(name, lambda facts: _ends(facts["tokens"], budgets, "token counts"))


def lowest_bits(widths: int = 1) -> Split:
    """Hold out every row of the lowest bits: does the law predict a format it has not seen?

    >>> lowest_bits().name
    'the lowest bits'
    """

    def rule(facts: Facts) -> NDArray[np.bool_]:
        bits = facts["bits"]
        if not (bits < UNQUANTIZED).any():
            raise FitError("cannot hold out the lowest bits: no row is of low precision")
        return _ends(-bits, widths, "bit widths")

    return Split("the lowest bits" if widths == 1 else f"the {widths} lowest bit widths", rule)


def cheapest(share: float) -> Split:
    """Fit the cheapest share of the rows by training compute, hold out the rest: would we have known?

    >>> cheapest(0.5).name
    'all but the cheapest 50% of the runs'
    """
    if not 0 < share < 1:
        raise FitError(f"the share of runs to fit must lie between 0 and 1, not {share}")

    def rule(facts: Facts) -> NDArray[np.bool_]:
        compute = facts["params"] * facts["tokens"]
        marked = compute > np.quantile(compute, share)
        if not marked.any():
            raise FitError(
                f"no run is costlier than the cheapest {share:.0%}; the rows share one compute budget"
            )
        return np.asarray(marked)

    return Split(f"all but the cheapest {share:.0%} of the runs", rule)


def _ends(values: NDArray[np.float64], count: int, what: str) -> NDArray[np.bool_]:
    """Mark the largest values."""
    if count < 1:
        raise FitError(f"hold out at least one of the {what}, not {count}")
    if not np.isfinite(values).all():
        raise FitError(f"cannot hold out {what}: some rows do not say theirs")
    distinct = np.unique(values)
    if len(distinct) <= count + 1:
        raise FitError(
            f"cannot hold out {count} of {len(distinct)} {what} and fit on the rest; "
            "hold nothing out, or add rows of more of them"
        )
    return np.asarray(values >= distinct[-count])
