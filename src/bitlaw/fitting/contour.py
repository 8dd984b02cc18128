"""Steps and tokens that lead to one loss, batch by batch: the hyperbola, and the critical batch where it bends.

The laws of `laws.trajectory` hold whole curves; here one level of loss stands alone, so that no form of the loss
in steps or size is assumed, and the hyperbola itself can be checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..errors import ConfigError, FitError
from ..runs import read_runs
from ..runs.table import TRAINED
from .line import Range
from .objective import Array

Places: TypeAlias = NDArray[np.int64]
FORMATS = ("w_format", "a_format", "kv_format", "emb_format", "head_format", "grad_format", "grad_w_format")


@dataclass(frozen=True)
class Contour:
    """What it takes to reach one loss.

    Attributes:
        loss: the level.
        steps: S_min, with batches far above the critical one.
        tokens: E_min, with batches far below it.
        batch: B_crit = E_min / S_min, tokens a step.
        batches: the batches, tokens a step, rising (b,).
        residual: mean over the trunks of each batch of S_min / S + E_min / E - 1 (b,).
        trunks: how many reached the loss.
        missed: how many did not, or were below it at their first row, and so are not in the fit.
        draws: of S_min and E_min (n, 2); the k-th is of the same trunks at every level that all of them reach.
    """

    loss: float
    steps: Range
    tokens: Range
    batch: Range
    batches: Array
    residual: Array
    trunks: int
    missed: int
    draws: Array


def contours(
    runs: Any, losses: Sequence[float], *, interval: float = 0.90, draws: int = 2000, seed: int = 0
) -> tuple[Contour, ...]:
    """Fit the steps and tokens that lead to each loss over batches, and find its critical batch.

        S_min / S + E_min / E = 1,   the same as (S / S_min - 1)(E / E_min - 1) = 1,   B_crit = E_min / S_min

    by least squares of its left side less 1, which is linear in S_min and E_min. S is read off each trunk between the
    rows on either side of the loss, along the straight line in log S. Intervals are percentiles of a bootstrap over
    trunks, n - 1 drawn from the n of each batch so that the variance is right (Rao & Wu 1988); they know how seeds
    scatter and nothing of a hyperbola that does not hold, which `residual` shows.

    Args:
        runs: rows along trunks of one size in one format, at several batches, each at a constant learning rate that is
            right for its batch, averages of weights aside; two or more seeds a batch, or there are no intervals.
        losses: levels, nats per token.
        interval: level of the intervals.
        draws: of the bootstrap.
        seed: of the draws.

    Raises:
        FitError: rows of several sizes or formats, of cosines or ends of cooldowns, or fewer than three batches that
            reach a loss.
        ConfigError: an impossible level.

    Source: McCandlish et al. 2018 (1812.06162), eq. 2.11; Kaplan et al. 2020 (2001.08361), section 5.1.

    >>> from bitlaw import Runs
    >>> rows = [
    ...     {"trunk": f"{b}", "params": 1e4, "steps": (s := k * (20 + 20_000 // b)), "tokens": s * b, "loss": 4 - k}
    ...     for b in (250, 1000, 4000) for k in (1, 2)
    ... ]
    >>> round(contours(Runs.from_rows(rows), [2.0])[0].batch.value)
    1000
    """
    if not 0 < interval < 1:
        raise ConfigError(f"the interval's level must lie between 0 and 1, not {interval}; try 0.9")
    table = read_runs(runs)
    frame = table.frame.with_columns(table.quantity("batch_tokens").alias("batch"))
    frame = frame.filter(pl.col("loss").is_not_null() & TRAINED)
    if (frame["schedule"] == "cosine").any():
        raise FitError(
            "runs of the cosine schedule do not lie on one curve; use rows of trunks, cooldown = 0"
        )
    frame = frame.filter(pl.col("average").is_null())
    frame = frame.select("trunk", "params", "batch", "steps", "loss", "cooldown", *FORMATS)
    for name in ("params", *FORMATS):
        if frame[name].n_unique() > 1:
            raise FitError(f"a contour is of one size in one format, but {name} has several values; keep one")
    if (frame["cooldown"].fill_null(0) > 0).any():
        raise FitError("ends of cooldowns do not lie on one curve; use rows of trunks, cooldown = 0")
    if frame.select("trunk", "batch", "steps").null_count().sum_horizontal().item():
        raise FitError("a contour needs trunk, steps and batch (or tokens) of every row")
    trunks = (
        frame.sort("steps").group_by("trunk", "batch", maintain_order=True).agg("steps", "loss").sort("batch")
    )
    batch = trunks["batch"].to_numpy()
    curves = [(np.array(row["steps"], float), np.array(row["loss"], float)) for row in trunks.to_dicts()]
    tail = (1 - interval) / 2
    found = []
    for level in losses:
        S = np.array([_steps_to(level, *curve) for curve in curves])
        there = np.isfinite(S)
        sizes, place, count = np.unique(batch[there], return_inverse=True, return_counts=True)
        if len(sizes) < 3:
            raise FitError(f"{len(sizes)} batches reach a loss of {level:g}; a contour needs three or more")
        x = np.stack([1 / S[there], 1 / (S * batch)[there]], axis=1)
        best = _solve(x, np.ones((1, len(x))))[0]
        drawn = np.empty((0, 2))
        if draws and count.min() > 1:
            drawn = _solve(x, _resample(place, count, draws, np.random.default_rng(seed)))
        rows = np.concatenate([best[None], drawn])
        all_three = np.column_stack([rows, rows[:, 1] / rows[:, 0]])
        ends = np.quantile(all_three[1:], [tail, 1 - tail], axis=0) if len(drawn) else np.full((2, 3), np.nan)
        ranges = [Range(float(v), float(a), float(b)) for v, a, b in zip(all_three[0], *ends, strict=True)]
        off = np.bincount(place, x @ best - 1) / count
        missed = int((~there).sum())
        S_min, E_min, critical = ranges
        found.append(Contour(float(level), S_min, E_min, critical, sizes, off, len(x), missed, drawn))
    return tuple(found)


def _steps_to(level: float, steps: Array, loss: Array) -> float:
    """The step at which a curve first comes down to a level; NaN where it never does, or begins below it."""
    below = loss <= level
    k = int(below.argmax())
    if not below[k] or k == 0:
        return float("nan")
    share = (loss[k - 1] - level) / (loss[k - 1] - loss[k])
    return float(np.exp(np.log(steps[k - 1]) + share * np.log(steps[k] / steps[k - 1])))


def _solve(x: Array, weight: Array) -> Array:
    """Least squares of x c = 1 for rows of weights: x (k, 2), weight (n, k), to (n, 2)."""
    return np.linalg.solve(np.einsum("nk,ki,kj->nij", weight, x, x), (weight @ x)[..., None])[..., 0]


def _resample(place: Places, count: Places, draws: int, rng: np.random.Generator) -> Array:
    """How often each trunk is drawn, n - 1 of the n of its batch, scaled to n in all (draws, k)."""
    weight = np.empty((draws, len(place)))
    for group, n in enumerate(count):
        weight[:, place == group] = rng.multinomial(n - 1, np.full(n, 1 / n), size=draws) * (n / (n - 1))
    return weight
