"""The cheapest way to a loss: the budget whose best model just reaches it.

The best loss falls with the budget nearly as a power, so that the budget is a root of a nearly straight line in
logarithms: secants find it in a handful of searches, kept inside a bracket. Whatever the limits, choices and served
tokens, the model is then the one that this budget would choose.
"""

from __future__ import annotations

import numpy as np

from ..errors import LawError
from .limits import Array
from .optimum import LAST, Best, Index, Search
from .search import FINE, QUICK

LEAST, MOST = np.log(1e3), np.log(1e45)  # budgets considered, FLOPs
ROUNDS = 60  # at most; a power law needs four or five
CLOSE = 1e-9  # of the logarithm of the budget
SETTLED = 1e-10  # of the logarithm of what is reducible: beyond it, secants are of noise
REACHED = 1e-6  # of the logarithm of what is reducible
STEEP = 6.0  # a first guess of how much budget, in logarithms, a loss takes
NEARBY = 0.1  # of a step of the grid: how far the best model moves from one budget to the next


def budget_for(search: Search, loss: float) -> Array:
    """FLOPs of 16 bits, for training and serving, that the best model of a loss takes.

    Args:
        search: what is asked, without a budget.
        loss: nats per token.

    Returns:
        At the estimate and in every draw (S,); NaN where the loss is never reached.

    Raises:
        LawError: the loss is not reached at the estimate.
    """
    theta, choices = search.source.theta, np.arange(len(search.choices))
    point = _root(search, theta[:1], loss, choices[:, None], np.log(1e20), FINE)
    if not np.isfinite(point[0]):
        lowest = float(search.with_budget(float(np.exp(MOST))).each().loss.min())
        if not np.isfinite(lowest):
            raise LawError(search.why_not())
        if lowest < loss:
            raise LawError(
                f"every model within these limits goes below a loss of {loss:g}; ask for a lower loss, or lower a limit"
            )
        raise LawError(
            f"no budget reaches a loss of {loss:g} within these limits, which end at {lowest:.4g}; ask for a higher "
            "loss, or raise a limit"
        )
    if not search.source.drawn:
        return point
    best = search.with_budget(float(point[0])).each().loss
    able = np.repeat(choices[np.argsort(best)[:LAST], None], len(theta) - 1, axis=1)
    return np.concatenate([point, _root(search, theta[1:], loss, able, float(np.log(point[0])), QUICK)])


def cheapest_of_each(search: Search, loss: float) -> tuple[Best, Array]:
    """The cheapest way to a loss of every choice by itself, at the estimate, and its FLOPs (K,); NaN without one.

    Args:
        search: what was asked, with the budget of the best choice.
        loss: nats per token.
    """
    which = np.arange(len(search.choices))
    theta = np.repeat(search.source.theta[:1], len(which), axis=0)
    assert search.limits.flops is not None
    near = float(np.log(np.ravel(search.limits.flops)[0]))
    flops = _root(search, theta, loss, which[None], near, FINE)
    return search.with_budget(np.where(np.isfinite(flops), flops, 1.0)).best(theta, which), flops


def _root(search: Search, theta: Array, loss: float, able: Index, near: float, rounds: int) -> Array:
    """The budget of each vector of constants (S, p) with the best of its choices (A, S), from a logarithm near it."""
    floor, count = search.source.floor(theta), len(theta)
    many, pairs = np.tile(theta, (len(able), 1)), able.ravel()
    start: Array | None = None

    def height(x: Array) -> Array:
        """How far above the loss asked for the best model of a budget is, in logarithms of what is reducible."""
        nonlocal start
        funded = search.with_budget(np.tile(np.exp(x), len(able)))
        reach, effort = (1.0, rounds) if start is None else (NEARBY, rounds // 2)
        found = funded.best(many, pairs, effort, start=start, reach=reach)
        lowest = found.loss.reshape(len(able), count).min(axis=0)
        if not np.isfinite(lowest).all():  # what was best before, this budget cannot pay
            found = funded.best(many, pairs, rounds)
            lowest = found.loss.reshape(len(able), count).min(axis=0)
        start = found.place
        with np.errstate(all="ignore"):
            return np.where(
                np.isfinite(lowest) & (loss > floor), np.log((lowest - floor) / (loss - floor)), np.inf
            )

    low, high = np.full(count, LEAST), np.full(count, MOST)
    before = np.full(count, near)
    was = height(before)
    x = np.clip(before + was * STEEP, LEAST, MOST)
    y = height(x)
    for _ in range(ROUNDS):
        low = np.maximum(np.where(was > 0, np.maximum(low, before), low), np.where(y > 0, x, low))
        high = np.minimum(np.where(was <= 0, np.minimum(high, before), high), np.where(y <= 0, x, high))
        with np.errstate(all="ignore"):
            secant = x - y * (x - before) / (y - was)
        new = np.where((secant > low) & (secant < high), secant, (low + high) / 2)
        new = np.where(np.abs(y) < SETTLED, x, new)
        if (np.abs(new - x)[loss > floor] < CLOSE).all():
            break
        before, was, x = x, y, new
        y = height(x)
    return np.where((loss > floor) & (np.abs(y) < REACHED), np.exp(x), np.nan)
