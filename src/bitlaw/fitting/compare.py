"""Laws on the same rows, ranked by their error on rows held out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from ..errors import BitlawError, ConfigError, FitError
from ..laws import LAWS, Law, get, reduced
from ..runs import Count, Runs, read_runs
from .baseline import Baseline, baselines
from .estimate import divide
from .minimize import Aim, minimize
from .objective import student_quantile
from .ranking import Comparison, Entry, Ranking, What
from .result import HeldOut, score, score_gaps
from .rows import Rows, select
from .split import Split, largest, longest, lowest_bits

SAME = 1e-6  # relative errors that differ by less are of one law in two forms
NONE = 1e-9  # relative errors below this are none


def without_precision(law: Law) -> Law:
    """Return the same law with neither precision terms nor gap."""
    return reduced(law, (), gap=False).named(f"{law.name} without precision", law.source)


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
        if what == "loss" and law.loss == 0:
            why[law.name] = "it predicts the gap alone; gaps are compared by --gaps, what='gap'"
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
            else f"the rows can carry no law of the catalogue; {_least(left_out, what)}"
        )
    rankings = []
    for k, split in enumerate(splits):

        def begun(share: float, name: str, k: int = k) -> None:
            on_law((k + share) / len(splits), name)

        try:
            rankings.append(
                _rank(selected, split, what, interval, criteria, seed, left_out, begun, laws is None)
            )
        except FitError as error:
            if len(splits) == 1:
                raise
            left_out[split.name] = str(error)
    if not rankings:
        raise FitError("no split can be held out: " + "; ".join(left_out[s.name] for s in splits))
    return Comparison(tuple(rankings), left_out)


def _least(left_out: Mapping[str, str], what: What) -> str:
    """Why one of the simplest laws is not among them; what the others ask for is more."""
    name = "chinchilla" if what == "loss" else "gap-kumar"
    return f"of {name}: {left_out[name]}"


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
    merge: bool,
) -> Ranking:
    """Fit every law without the rows held out, and score it on them; those that `merge` into one are ranked once."""
    scored: list[tuple[str, int | None, HeldOut, float | None]] = []
    guesses: list[Baseline] = []
    failed: dict[str, list[str]] = {}  # laws by the reason
    for place, (name, rows) in enumerate(laws):
        begun(place / len(laws), name)
        try:
            _block(rows, what)
            train, test = divide(rows, split)
            problem, optimum = minimize(train, Aim(), np.random.default_rng(seed))
        except FitError as error:
            if len(laws) == 1:
                raise
            failed.setdefault(str(error), []).append(name)
            continue
        theta = problem.decentre(problem.theta(optimum.u[0]))
        held = (score if what == "loss" else score_gaps)(split.name, theta, train, test)
        twin = next((other for other, _, known, _ in scored if merge and same(held, known)), None)
        if twin is not None:
            left_out[f"{name}, held out {split.name}"] = f"it predicts the same as {twin}"
            continue
        scored.append((name, len(problem.free), held, _bic(rows, seed) if criteria else None))
        guesses = guesses or baselines(train, test, what, split.name)
    if not scored:
        raise FitError("no law can be fitted: " + "; ".join(failed))
    left_out |= {f"{', '.join(names)}, held out {split.name}": why for why, names in failed.items()}
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


def same(one: HeldOut, other: HeldOut) -> bool:
    """Whether two laws predict every row alike, and some."""
    return (
        bool(one.index)
        and one.index == other.index
        and np.allclose(one.errors, other.errors, rtol=0, atol=SAME)
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
