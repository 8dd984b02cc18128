"""The cheapest way to a loss: the budget whose best model just reaches it.

The best loss falls with the budget nearly as a power, so that the budget is a root of a nearly straight line in
logarithms: secants find it in a handful of searches, kept inside a bracket. Whatever the limits, choices and served
tokens, the model is then the one that this budget would choose.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import LawError
from .limits import Array
from .optimum import FINE, QUICK, Search

LEAST, MOST = np.log(1e3), np.log(1e45)  # budgets considered, FLOPs
ROUNDS = 60  # at most; a power law needs four or five
CLOSE = 1e-9  # of the logarithm of the budget


def budget_for(search: Search, loss: float) -> Array:
    """FLOPs of 16 bits, for training and serving, that the best model of a loss takes.

    Args:
        search: what is asked, without a budget.
        loss: nats a token.

    Returns:
        At the estimate and in every draw (S,); NaN where the loss is never reached.

    Raises:
        LawError: the loss is not reached at the estimate.
    """
    theta = search.source.theta
    point = _root(search, theta[:1], loss, FINE)
    if not np.isfinite(point[0]):
        floor = float(search.source.floor(theta[:1])[0])
        raise LawError(
            f"no budget reaches a loss of {loss:g} within these limits: the law's own floor is {floor:.4g}; ask for a "
            "higher loss, or raise a limit"
        )
    return np.concatenate([point, _root(search, theta[1:], loss, QUICK)]) if search.source.drawn else point


def _root(search: Search, theta: Array, loss: float, rounds: int) -> Array:
    floor = search.source.floor(theta)

    def height(x: Array) -> Array:
        """How far above the loss asked for the best model of a budget is, in logarithms of what is reducible."""
        found = _lowest(search, theta, np.exp(x), rounds)
        with np.errstate(all="ignore"):
            return np.where(np.isfinite(found), np.log((found - floor) / (loss - floor)), np.inf)

    low, high = np.full(len(theta), LEAST), np.full(len(theta), MOST)
    able = (loss > floor) & (height(high) <= 0)
    x = np.full(len(theta), np.log(1e20))
    y = height(x)
    before, was = x + 1.0, height(x + 1.0)
    for _ in range(ROUNDS):
        low, high = np.where(y > 0, np.maximum(low, x), low), np.where(y <= 0, np.minimum(high, x), high)
        with np.errstate(all="ignore"):
            secant = x - y * (x - before) / (y - was)
        inside = np.isfinite(secant) & (secant > low) & (secant < high)
        new = np.where(inside, secant, (low + high) / 2)
        if (np.abs(new - x)[able] < CLOSE).all():
            x = new
            break
        before, was, x = x, y, new
        y = height(x)
    return np.where(able, np.exp(x), np.nan)


def _lowest(search: Search, theta: Array, flops: Array, rounds: int) -> Array:
    """The best loss over all choices for each vector of constants and its budget."""
    count, choices = len(theta), len(search.choices)
    funded = replace(search, limits=replace(search.limits, flops=np.tile(flops, choices)))
    pairs = np.repeat(np.arange(choices), count)
    losses = funded.best(np.tile(theta, (choices, 1)), pairs, rounds).loss
    lowest: Array = losses.reshape(choices, count).min(axis=0)
    return lowest
