"""Laws on the same rows, ranked by their error on rows held out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ..errors import FitError
from ..laws import Law, from_spec, get
from ..runs import Count, read_runs
from .estimate import divide
from .minimize import Aim, minimize
from .result import HeldOut, score
from .rows import select
from .split import Split, largest


@dataclass(frozen=True)
class Entry:
    """One law in a comparison.

    `behind` is how much larger its mean absolute relative error is than the best law's, with an interval
    from the paired differences by cluster; None for the best.
    """

    name: str
    parameters: int
    held_out: HeldOut
    behind: float | None
    behind_low: float
    behind_high: float


@dataclass(frozen=True)
class Comparison:
    """Laws ranked by held-out error, best first."""

    split: str
    rows: int
    clusters: int
    level: float
    entries: tuple[Entry, ...]

    @property
    def verdict(self) -> str:
        """Who wins, or that nobody can be said to."""
        best, *rest = self.entries
        ties = [e.name for e in rest if not e.behind_low > 0]
        if not rest:
            return f"Only {best.name} was fitted."
        if ties:
            return (
                f"No winner: {best.name} is ahead, but at {self.level:.0%} not clearly of {', '.join(ties)}."
            )
        return f"{best.name} predicts the held-out rows best, clearly so at {self.level:.0%}."

    def __str__(self) -> str:
        from .tell import comparison_text

        return comparison_text(self)


def without_precision(law: Law) -> Law:
    """Return the same law with neither precision terms nor gap."""
    spec = law.spec.as_json() | {"precision": {}, "gap": None}
    return from_spec(spec).named(f"{law.name} without precision", law.source)


def compare(
    runs: Any,
    laws: Sequence[Law | str],
    *,
    hold_out: Split | None = None,
    count: Count = "as_given",
    interval: float = 0.90,
    seed: int = 0,
) -> Comparison:
    """Fit laws to the same rows and rank them by their error on rows held out.

    Every law sees the same losses of trained models, whatever of their columns it reads. Rows quantised
    after training do not enter: a law without a gap could not predict them.

    Args:
        runs: whatever `read_runs` reads.
        laws: laws, or names of laws.
        hold_out: the split; the largest size if None.
        count: how N is counted.
        interval: level of the intervals of differences.
        seed: of starting points.

    Raises:
        FitError: no laws, or a law that cannot be fitted to the rows.
    """
    if not laws:
        raise FitError("there is nothing to compare; name at least one law")
    split = hold_out or largest()
    table = read_runs(runs).filter(pl.col("post_format").is_null())
    scored = []
    for each in laws:
        law = get(each) if isinstance(each, str) else each
        rows = select(law, table, count)
        train, test = divide(rows, split)
        problem, optimum = minimize(train, Aim(), np.random.default_rng(seed))
        theta = problem.decentre(problem.theta(optimum.u[0]))
        scored.append((law.name, len(problem.free), score(split.name, rows.law, theta, test)))
    scored.sort(key=lambda item: (item[2].outside, item[2].error))
    best = scored[0][2]
    entries = []
    for place, (name, parameters, held) in enumerate(scored):
        behind, margin = (None, np.nan) if place == 0 else _difference(held, best, interval)
        low, high = (np.nan, np.nan) if behind is None else (behind - margin, behind + margin)
        entries.append(Entry(name, parameters, held, behind, low, high))
    clusters = len(set(best.cluster))
    return Comparison(split.name, best.rows, clusters, interval, tuple(entries))


def _difference(held: HeldOut, best: HeldOut, interval: float) -> tuple[float, float]:
    """How much larger one law's mean absolute error is, and half its interval, from sums by cluster."""
    from scipy.special import stdtrit

    ours = dict(zip(best.index, np.abs(best.errors), strict=True))
    both = [k for k, row in enumerate(held.index) if row in ours]
    if not both:
        return math.inf, math.nan
    difference = np.array([abs(held.errors[k]) - ours[held.index[k]] for k in both])
    cluster = np.array([held.cluster[k] for k in both])
    names = np.unique(cluster)
    shares = np.array([difference[cluster == c].sum() for c in names]) * len(names) / len(difference)
    if len(names) < 2:
        return float(shares.mean()), math.nan
    t = stdtrit(len(names) - 1, 0.5 + interval / 2)
    return float(shares.mean()), float(t * shares.std(ddof=1) / np.sqrt(len(names)))
