"""Laws on the same rows, ranked by their error on rows held out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import polars as pl

from ..errors import BitlawError, ConfigError, FitError
from ..laws import LAWS, Law, from_spec, get
from ..runs import Count, Runs, read_runs
from .baseline import Baseline, baselines
from .estimate import divide
from .minimize import Aim, minimize
from .objective import student_quantile
from .result import HeldOut, score, score_gaps
from .rows import Rows, select
from .split import Split, largest, longest, lowest_bits

What: TypeAlias = Literal["loss", "gap"]
NONE = 1e-9  # relative errors below this are none


@dataclass(frozen=True)
class Entry:
    """One law, or a baseline, in a ranking.

    Attributes:
        name: of the law.
        parameters: number that were fitted; None for a baseline.
        held_out: its errors on the rows held out.
        margin: half the interval of its mean absolute error, from the spread over clusters.
        behind: how much larger that error is than the best one's; None for the best.
        behind_low, behind_high: interval of the same, from paired differences by cluster, all of a ranking at once.
        bic: Bayesian information criterion of a Gaussian fit to all rows; None where it would not be proper.
        beaten: whether the best is clearly better, by differences of errors or, at half the risk, by their ratios:
            of few clusters, differences that all show the same may still vary too much for an interval.
    """

    name: str
    parameters: int | None
    held_out: HeldOut
    margin: float
    behind: float | None
    behind_low: float
    behind_high: float
    bic: float | None = None
    beaten: bool = False


@dataclass(frozen=True)
class Ranking:
    """Laws ranked by their error on one split, best first; baselines stand at the end."""

    what: What
    split: str
    rows: int
    clusters: int
    level: float
    entries: tuple[Entry, ...]
    baselines: tuple[Entry, ...]

    @property
    def verdict(self) -> str:
        """Who wins, that nobody can be said to, or that no law holds."""
        best, *rest = self.entries
        unbeaten = [b.name for b in self.baselines if not b.beaten]
        if unbeaten:
            as_good = any(b.behind is not None and b.behind <= 0 for b in self.baselines)
            start = "No law holds here" if as_good else "No law is shown to hold here"
            order = ", so the order of laws says nothing" if rest else ""
            return (
                f"{start}: at {self.level:.0%} {best.name} is not clearly better than a guess without a law "
                f"({unbeaten[0]}){order}."
            )
        if not rest:
            return f"{best.name} is clearly better than guesses without a law; no other law was fitted."
        ties = [e.name for e in rest if not e.behind_low > 0]
        if ties:
            named = ", ".join(ties[:5]) + (f" and {len(ties) - 5} more" if len(ties) > 5 else "")
            return f"No winner: {best.name} is ahead, but at {self.level:.0%} not clearly of {named}."
        return f"{best.name} predicts the held-out rows best, clearly so at {self.level:.0%}."


@dataclass(frozen=True)
class Comparison:
    """Laws ranked on one or more splits, and what was left out of each.

    `left_out` gives the reason for each law or split that the rows cannot carry.
    """

    rankings: tuple[Ranking, ...]
    left_out: Mapping[str, str]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries of the first ranking."""
        return self.rankings[0].entries

    @property
    def verdict(self) -> str:
        """The verdict of every ranking."""
        if len(self.rankings) == 1:
            return self.rankings[0].verdict
        return " ".join(f"Held out {ranking.split}: {ranking.verdict}" for ranking in self.rankings)

    def as_json(self) -> dict[str, Any]:
        """Plain data; NaN becomes None."""
        from .result import plain

        def entry(e: Entry) -> dict[str, Any]:
            return {
                "name": e.name,
                "parameters": e.parameters,
                "error": e.held_out.error,
                "error_margin": e.margin,
                "bias": e.held_out.bias,
                "outside": e.held_out.outside,
                "behind": e.behind,
                "behind_interval": [e.behind_low, e.behind_high],
                "bic": e.bic,
            }

        return plain(
            {
                "rankings": [
                    {
                        "what": r.what,
                        "split": r.split,
                        "rows": r.rows,
                        "clusters": r.clusters,
                        "interval": {
                            "level": r.level,
                            "method": "Student's t over clusters",
                            "kind": "confidence",
                        },
                        "verdict": r.verdict,
                        "laws": [entry(e) for e in r.entries],
                        "baselines": [entry(e) for e in r.baselines],
                    }
                    for r in self.rankings
                ],
                "left_out": dict(self.left_out),
            }
        )

    def __str__(self) -> str:
        from .tell import comparison_text

        return comparison_text(self)

    def _repr_html_(self) -> str:
        from .tell import comparison_html

        return comparison_html(self)


def without_precision(law: Law) -> Law:
    """Return the same law with neither precision terms nor gap."""
    spec = law.spec.as_json() | {"precision": {}, "gap": None}
    return from_spec(spec).named(f"{law.name} without precision", law.source)


def all_for(runs: Any, count: Count = "as_given", what: What = "loss") -> tuple[list[Law], dict[str, str]]:
    """Find the laws of the catalogue that a table can carry.

    Args:
        runs: whatever `read_runs` reads.
        count: how N is counted.
        what: what is to be predicted, `loss` or `gap`.

    Returns:
        The laws, and for every other law why not.
    """
    carried, why = _carried(_rows_of(read_runs(runs), what), count, what)
    return [LAWS[name] for name, _ in carried], why


def _carried(table: Runs, count: Count, what: What) -> tuple[list[tuple[str, Rows]], dict[str, str]]:
    """Laws of the catalogue with the rows that they read, and for every other law why it is not among them."""
    chosen: list[tuple[str, Rows]] = []
    why: dict[str, str] = {}
    seen: dict[Any, str] = {}
    for law in LAWS.values():
        if law.target != "loss":
            why[law.name] = f"it predicts {law.target}, not the loss"
            continue
        try:
            reduced = select(law, table, count)
            _block(reduced, what)
        except BitlawError as error:
            why[law.name] = str(error)
            continue
        spec = reduced.law.spec
        key = (spec.base, spec.precision, spec.gap, spec.ties)
        free = sum(p.fixed is None for p in reduced.law.parameters)
        if key in seen:
            why[law.name] = f"on these rows it is {seen[key]}"
        elif sum(len(b) for b in reduced.blocks()) < free + 2:
            why[law.name] = f"too few rows for its {free} parameters"
        else:
            seen[key] = law.name
            chosen.append((law.name, reduced))
    return chosen, why


def compare(
    runs: Any,
    laws: Sequence[Law | str] | None = None,
    *,
    what: What = "loss",
    hold_out: Split | Sequence[Split] | None = None,
    count: Count = "as_given",
    interval: float = 0.90,
    criteria: bool = False,
    seed: int = 0,
    on_law: Callable[[float, str], None] = lambda share, name: None,
) -> Comparison:
    """Fit laws to the same rows and rank them by their error on rows held out.

    Every law sees the same rows, whatever of their columns it reads. Where losses are compared, rows
    quantised after training do not enter: a law without a gap could not predict them.

    Args:
        runs: whatever `read_runs` reads.
        laws: laws, or names of laws; None for all that the rows can carry.
        what: compare predictions of the `loss` after training, or of the `gap` of quantisation.
        hold_out: one split or several; None for the largest size, and where `laws` is None too, for the
            largest token count and the lowest bits beside it.
        count: how N is counted.
        interval: level of the intervals of differences, for all laws of a ranking at once.
        criteria: also fit every law to all rows by least squares of log losses, and give BIC.
        seed: of starting points.
        on_law: told of each fit that begins: the share of all that is done, and the law.

    Raises:
        FitError: no laws, or a law that cannot be fitted to the rows.
        ConfigError: an impossible level.

    >>> from bitlaw import Runs, compare
    >>> cells = [(n, d) for n in (1e7, 3e7, 9e7, 3e8) for d in (2e8, 1e9, 5e9)]
    >>> rows = [{"params": n, "tokens": d, "loss": 1.8 + 480 * n**-0.35 + 2100 * d**-0.37} for n, d in cells]
    >>> runs = Runs.from_rows(rows)
    >>> compare(runs, ["chinchilla", "kaplan"]).entries[0].name
    'chinchilla'
    """
    if not 0 < interval < 1:
        raise ConfigError(f"the intervals' level must lie between 0 and 1, not {interval}; try 0.9")
    table = _rows_of(read_runs(runs), what)
    left_out: dict[str, str] = {}
    if laws is None:
        selected, left_out = _carried(table, count, what)
        splits: Sequence[Split] = (largest(), longest(), lowest_bits())
    else:
        chosen = [get(each) if isinstance(each, str) else each for each in laws]
        selected = [(law.name, select(law, table, count)) for law in chosen]
        splits = (largest(),)
    if hold_out is not None:
        splits = (hold_out,) if isinstance(hold_out, Split) else tuple(hold_out)
    if not selected:
        raise FitError(
            "there is nothing to compare; name at least one law"
            if laws is not None
            else "the rows can carry no law of the catalogue: " + "; ".join(set(left_out.values()))
        )
    rankings = []
    for k, split in enumerate(splits):

        def begun(share: float, name: str, k: int = k) -> None:
            on_law((k + share) / len(splits), name)

        try:
            rankings.append(_rank(selected, split, what, interval, criteria, seed, left_out, begun))
        except FitError as error:
            if len(splits) == 1:
                raise
            left_out[split.name] = str(error)
    if not rankings:
        raise FitError("no split can be held out: " + "; ".join(left_out[s.name] for s in splits))
    return Comparison(tuple(rankings), left_out)


def _rows_of(table: Runs, what: What) -> Runs:
    """The rows that are compared."""
    return table.filter(pl.col("post_format").is_null()) if what == "loss" else table


def _block(rows: Rows, what: What) -> None:
    if (rows.loss if what == "loss" else rows.gap) is None:
        raise FitError(f"it predicts no {what} of these rows")


def _rank(
    laws: Sequence[tuple[str, Rows]],
    split: Split,
    what: What,
    interval: float,
    criteria: bool,
    seed: int,
    left_out: dict[str, str],
    begun: Callable[[float, str], None],
) -> Ranking:
    """Fit every law without the rows held out, and score it on them."""
    scored: list[tuple[str, int | None, HeldOut, float | None]] = []
    guesses: list[Baseline] = []
    for place, (name, rows) in enumerate(laws):
        begun(place / len(laws), name)
        try:
            _block(rows, what)
            train, test = divide(rows, split)
            problem, optimum = minimize(train, Aim(), np.random.default_rng(seed))
        except FitError as error:
            if len(laws) == 1:
                raise
            left_out[f"{name}, held out {split.name}"] = str(error)
            continue
        theta = problem.decentre(problem.theta(optimum.u[0]))
        held = (score if what == "loss" else score_gaps)(split.name, theta, train, test)
        scored.append((name, len(problem.free), held, _bic(rows, seed) if criteria else None))
        guesses = guesses or baselines(train, test, what, split.name)
    if not scored:
        raise FitError("no law can be fitted: " + "; ".join(left_out.values()))
    scored.sort(key=lambda item: (item[2].outside, item[2].error))
    best = scored[0][2]
    level = 1 - (1 - interval) / max(1, len(scored) - 1)

    def entry(name: str, parameters: int | None, held: HeldOut, bic: float | None) -> Entry:
        margin = _mean(np.abs(held.errors), np.array(held.cluster), interval)[1]
        if held is best:
            return Entry(name, parameters, held, margin, None, math.nan, math.nan, bic)
        behind, half = _difference(held, best, level)
        if behind == math.inf:  # it says nothing of any row that the best one predicts
            return Entry(name, parameters, held, margin, behind, math.inf, math.inf, bic, beaten=True)
        beaten = behind - half > 0 or _ratio(held, best, (1 + level) / 2) > 0
        return Entry(name, parameters, held, margin, behind, behind - half, behind + half, bic, beaten)

    return Ranking(
        what=what,
        split=split.name,
        rows=best.rows,
        clusters=len(set(best.cluster)),
        level=interval,
        entries=tuple(entry(*item) for item in scored),
        baselines=tuple(
            replace(e, beaten=e.behind_low > 0 or _ratio(e.held_out, best, (1 + interval) / 2) > 0)
            for e in (entry(b.name, None, b.held_out, None) for b in guesses)
        ),
    )


def _bic(rows: Rows, seed: int) -> float | None:
    """N log(rss / n) + p log n of a Gaussian fit; None where rows of one cluster make it improper."""
    total = len(rows.loss) if rows.loss is not None else 0
    if rows.gap is not None or rows.loss is None or len(np.unique(rows.loss.cluster)) < total:
        return None
    problem, optimum = minimize(rows, Aim("log-squares"), np.random.default_rng(seed))
    residual = (problem.predictions(optimum.u[0]) - problem.targets) * problem.scales
    return float(total * np.log((residual**2).mean()) + len(problem.free) * np.log(total))


def _difference(held: HeldOut, best: HeldOut, level: float) -> tuple[float, float]:
    """How much larger one mean absolute error is than another, and half its interval."""
    ours = dict(zip(best.index, np.abs(best.errors), strict=True))
    both = [k for k, row in enumerate(held.index) if row in ours]
    if not both:
        return math.inf, math.nan
    difference = np.array([abs(held.errors[k]) - ours[held.index[k]] for k in both])
    return _mean(difference, np.array([held.cluster[k] for k in both]), level)


def _ratio(held: HeldOut, best: HeldOut, level: float) -> float:
    """The lower end of the interval of log(error / error of the best), from the mean errors of clusters."""
    common = sorted(set(held.index) & set(best.index))
    sides = [dict(zip(h.index, np.abs(h.errors), strict=True)) for h in (held, best)]
    member = dict(zip(best.index, best.cluster, strict=True))
    cluster = np.unique([member[k] for k in common], return_inverse=True)[1]
    rows = np.bincount(cluster)
    sizes = [np.bincount(cluster, weights=[side[k] for k in common]) / rows for side in sides]
    if len(rows) < 2:
        return -math.inf
    ratio = np.log(np.maximum(sizes[0], NONE)) - np.log(np.maximum(sizes[1], NONE))
    mean, half = _mean(ratio, np.arange(len(rows)), level)
    return mean - half


def _mean(values: np.ndarray, cluster: np.ndarray, level: float) -> tuple[float, float]:
    """Mean of values and half its Student interval, from the sums of clusters."""
    names, member = np.unique(cluster, return_inverse=True)
    if not len(names):
        return math.inf, math.nan
    shares = np.bincount(member, weights=values) * len(names) / len(values)
    if len(names) < 2:
        return float(shares.mean()), math.nan
    t = student_quantile(len(names) - 1, 0.5 + level / 2)
    return float(shares.mean()), float(t * shares.std(ddof=1) / np.sqrt(len(names)))
