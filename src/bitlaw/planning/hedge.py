"""What to train where the constants are uncertain: the choice that is expected to lose least over their draws.

The optimum at the estimate is that of one vector of constants. Where the rows leave exponents open, every draw has its
own, far from the others, and losing little in most of them is another choice. So each is read in every draw, against
the best that this draw could have had:

    regret(x) = mean over draws of log[(L(x) - E) / (L* - E)]

A mean of losses would be ruled by the draws of the flattest exponents, in which there is most to lose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np

from .answer import Hedge
from .limits import Array
from .optimum import Best, Search
from .search import QUICK
from .source import Source

MOST = math.log(2.0)  # of one draw, also where it says that there is no such model
FEW = 6  # choices that are compared


@dataclass(frozen=True)
class _Regret(Source):
    """A law whose loss is the mean regret over its draws, whatever constants it is asked about."""

    least: Array = field(default_factory=lambda: np.empty(0))  # reducible loss of the optimum of every draw

    def loss(self, theta: Array, columns: Mapping[str, Array]) -> Array:
        """Mean regret at points (S, K)."""
        draws, least = self.theta[1:], self.least[:, None]
        known = np.isfinite(least[:, 0]) & (least[:, 0] > 0)
        shape = np.broadcast_shapes(*(column.shape for column in columns.values()))
        out = []
        for row in zip(*(np.broadcast_to(column, shape) for column in columns.values()), strict=True):
            points = {name: values[None] for name, values in zip(columns, row, strict=True)}
            excess = super().loss(draws[known], points) - self.floor(draws[known])[:, None]
            out.append(np.minimum(np.log(excess / least[known]), MOST).mean(axis=0))
        return np.array(out)


def hedged(search: Search, each: Best, drawn: Best) -> Hedge | None:
    """The choice of formats, size and tokens of the least mean regret.

    Args:
        search: the choices, of whole numbers of bits where these were free.
        each: the best of each at the estimate.
        drawn: the best of all in every draw.

    Returns:
        It; None where draws have budgets of their own, or nothing is free.
    """
    source, limits = search.source, search.limits
    least = drawn.loss - source.floor(source.theta[1:])
    if (
        (limits.flops is not None and np.ndim(limits.flops))
        or not search.axes
        or not (np.isfinite(least) & (least > 0)).any()
    ):
        return None
    regret = _Regret(**{f.name: getattr(source, f.name) for f in fields(source)}, least=least)
    able = np.flatnonzero(np.isfinite(each.loss))
    able = able[np.argsort(each.loss[able])[:FEW]]
    theta = np.repeat(source.theta[:1], len(able), axis=0)
    found = replace(search, source=regret).best(theta, able, QUICK, start=each.place[able])
    k = int(np.argmin(found.loss))
    choice = search.choices[int(able[k])]
    best = each.at(np.array([np.argmin(each.loss)]))
    place = search.read(best.choice, best.bits[:, None], best.params[:, None], best.tokens[:, None])
    return Hedge(
        formats=choice.name,
        bits=choice.bits,
        params=float(found.params[k]),
        tokens=float(found.tokens[k]),
        regret=math.expm1(float(found.loss[k])),
        at_best=math.expm1(float(regret.loss(theta, place)[0, 0])),
    )
