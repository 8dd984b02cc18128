"""The best of everything along a line of budgets, for figures: in training, at one size, and in serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, LawError
from ..fitting import Fit
from ..laws import Published
from .choice import chosen, tied
from .limits import Array, Limits
from .optimum import AMOUNTS, Best, Search
from .search import FINE
from .source import Source, plannable

ROUNDS = 8  # of the search: five digits at least, more than a figure shows
NAMES = ("bits", "params", "tokens", "loss")
NEAR_END = 1.0  # e-folds from the most tokens that are searched, within which an optimum is none


def frontier(
    law: Fit | Published | str,
    budgets: Sequence[float],
    interval: float = 0.90,
    params: float | None = None,
) -> dict[str, Array]:
    """The best params, tokens, bits and loss for each of many budgets, for figures.

        min A N_eff^-alpha + B D^-beta + E    where C = (6/16) N D P

    With the size given, bits and tokens are what is left to trade (Kumar et al. 2024, appendix E.2.2): the best bits
    then grow with the logarithm of the budget.

    Args:
        law: a fit, published constants, or their name.
        budgets: in 16-bit FLOPs.
        interval: level of the intervals.
        params: the size, where it is given.

    Returns:
        For each name an array (budgets, 3): the best value, and its interval's ends (NaN without draws).

    Raises:
        ConfigError: a law that no budget can be planned with, or budgets that are none.

    >>> best = frontier("kumar-2024", [1e20, 1e22], params=1e9)
    >>> best["bits"][:, 0].round(2).tolist()
    [8.05, 13.61]
    """
    source = Source.of(law, interval)
    plannable(source.law)
    _positive(budgets)
    free = "bits" if source.reads_bits else ""
    choices = tied(source.law, [16.0]) if free else chosen(source.law, None, None)
    each = np.repeat(np.asarray(budgets, dtype=float), len(source.theta))
    search = Search(source, choices, Limits(flops=each, params=params), free)
    theta = np.tile(source.theta, (len(budgets), 1))
    return _ends(search.best(theta, _first(len(each)), ROUNDS), len(budgets), source, interval)


def serving_frontier(
    law: Fit | Published | str, budgets: Sequence[float], interval: float = 0.90
) -> dict[str, Array]:
    """The best params, tokens and bits after training for what a served token costs, training for free.

        min A N^-alpha + B D^-beta + E + gap(N, D, P_post)    where C = N P_post

    (Kumar et al. 2024, equation 29 and figure 9.) Tokens are finite, as the gap grows with them. Training is
    unquantised.

    Args:
        law: a fit, published constants, or their name; with a gap by bits.
        budgets: bits of all weights, N P_post.
        interval: level of the intervals.

    Returns:
        As `frontier`; tokens, or an end of their interval, are NaN where more of them always help.

    Raises:
        LawError: a law without a gap by bits.
        ConfigError: a law that cannot be planned with, or budgets that are none.

    >>> best = serving_frontier("kumar-2024", [1e9, 1e10])
    >>> best["bits"][:, 0].round(2).tolist(), [f"{x:.3g}" for x in best["params"][:, 0]]
    ([5.82, 6.86], ['1.72e+08', '1.46e+09'])
    """
    source = Source.of(law, interval)
    post = {i.symbol for i in source.law.inputs if i.column == "post_bits"}
    if not source.law.gap.free_symbols & post:
        raise LawError(f"{source.law.name} has no gap by bits after training; take a law like kumar-unified")
    if not {"params", "tokens"} <= set(source.law.columns) or source.law.loss == 0:
        raise ConfigError(f"{source.law.name} has no loss by size and tokens; take a law like kumar-unified")
    _positive(budgets)
    choices = chosen(source.law, None, None)
    costs = np.asarray(budgets, dtype=float) / 8  # a token takes 2 N P / 16 FLOPs of 16 bits
    start = np.empty((0, 0))
    # Draws begin where the estimates end.
    for theta, rounds in ((source.theta[:1], FINE), (source.theta, ROUNDS)):
        each = np.repeat(costs, len(theta))
        search = Search(source, choices, Limits(token_flops=each), "post_bits")
        begin = np.repeat(start, len(theta), axis=0) if start.size else None
        best = search.best(np.tile(theta, (len(costs), 1)), _first(len(each)), rounds, start=begin)
        start = best.place
    endless = np.log(best.tokens / best.params) > AMOUNTS / 2 - NEAR_END
    best = replace(best, tokens=np.where(endless, np.inf, best.tokens))
    return _ends(best, len(costs), source, interval)


def _positive(budgets: Sequence[float]) -> None:
    given = np.asarray(budgets, dtype=float)
    if not given.size or not (np.isfinite(given) & (given > 0)).all():
        raise ConfigError(f"budgets are positive numbers, not {list(budgets)}; try [1e20, 1e21]")


def _first(count: int) -> NDArray[np.int64]:
    """The only choice, many times."""
    return np.zeros(count, dtype=np.int64)


def _ends(best: Best, budgets: int, source: Source, interval: float) -> dict[str, Array]:
    """Values at the estimate, and the ends of their intervals over draws (budgets, 3)."""
    tail = (1 - interval) / 2
    out = {}
    for name in NAMES:
        values = getattr(best, name).reshape(budgets, -1)
        ends = np.full((budgets, 2), np.nan)
        if source.drawn:
            known = np.flatnonzero(~np.isnan(values[:, 1:]).all(axis=1))
            with np.errstate(invalid="ignore"):  # between two draws that have no end, NaN
                for at in known:  # of a few budgets
                    ends[at] = np.nanquantile(values[at, 1:], [tail, 1 - tail])
        found = np.column_stack([values[:, 0], ends])
        out[name] = np.where(np.isfinite(found), found, np.nan)
    return out
