"""The best of everything along a line of budgets, for figures: in training, at one size, and in serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import ConfigError, LawError
from ..fitting import Fit
from ..laws import Published
from .choice import chosen, tied
from .limits import Array, Limits
from .optimum import AMOUNTS, Best, Search
from .search import QUICK
from .source import Source

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
        ConfigError: a law that no budget can be planned with.

    >>> best = frontier("kumar-2024", [1e20, 1e22], params=1e9)
    >>> best["bits"][:, 0].round(2).tolist()
    [8.05, 13.61]
    """
    source = Source.of(law, interval)
    free = "bits" if source.reads_bits else ""
    choices = tied(source.law, [16.0]) if free else chosen(source.law, None, None)
    found = []
    for flops in budgets:
        search = Search(source, choices, Limits(flops=flops, params=params), free)
        found.append(search.best(source.theta, _first(source), QUICK))
    return _ends(found, source, interval)


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
        As `frontier`; tokens are NaN where more of them always help.

    Raises:
        LawError: a law without a gap by bits.
        ConfigError: a law that cannot be planned with.

    >>> best = serving_frontier("kumar-2024", [1e9, 1e10])
    >>> best["bits"][:, 0].round(2).tolist(), [f"{x:.3g}" for x in best["params"][:, 0]]
    ([5.82, 6.86], ['1.72e+08', '1.46e+09'])
    """
    source = Source.of(law, interval)
    if source.law.gap == 0 or "post_bits" not in source.law.columns:
        raise LawError(f"{source.law.name} has no gap by bits after training; take a law like kumar-unified")
    if not {"params", "tokens"} <= set(source.law.columns) or source.law.loss == 0:
        raise ConfigError(f"{source.law.name} has no loss by size and tokens; take a law like kumar-unified")
    choices, found = chosen(source.law, None, None), []
    for cost in budgets:
        search = Search(source, choices, Limits(token_flops=cost / 8), "post_bits")  # 2 N P / 16
        first = search.best(source.theta[:1], np.zeros(1, dtype=np.int64))
        best = first
        if source.drawn:
            start = np.repeat(first.place, len(source.theta) - 1, axis=0)
            drawn = search.best(source.theta[1:], _first(source)[1:], QUICK, start=start)
            best = Best(
                *(
                    np.concatenate(pair)
                    for pair in zip(vars(first).values(), vars(drawn).values(), strict=True)
                )
            )
        endless = np.log(best.tokens / best.params) > AMOUNTS / 2 - NEAR_END
        found.append(replace(best, tokens=np.where(endless, np.nan, best.tokens)))
    return _ends(found, source, interval)


def _first(source: Source) -> np.ndarray:
    """The only choice, for the estimate and each draw."""
    return np.zeros(len(source.theta), dtype=np.int64)


def _ends(found: Sequence[Best], source: Source, interval: float) -> dict[str, Array]:
    """Values at the estimate, and the ends of their intervals over draws (budgets, 3)."""
    tail = (1 - interval) / 2
    out: dict[str, list[list[float]]] = {name: [] for name in NAMES}
    for best in found:
        for name, rows in out.items():
            values = getattr(best, name)
            known = values[1:][np.isfinite(values[1:])]
            ends = np.quantile(known, [tail, 1 - tail]).tolist() if len(known) else [np.nan] * 2
            rows.append([float(values[0]), *ends])
    return {name: np.array(rows) for name, rows in out.items()}
