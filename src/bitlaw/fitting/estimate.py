"""The front door: `fit(law, runs)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ConfigError, nearest
from ..laws import Law, Published, get
from ..runs import Count, read_runs
from .diagnose import (
    at_bounds,
    barely_trained,
    floorless,
    influential,
    structure,
    suspicious,
    unidentified,
)
from .intervals import METHODS, Method, default_method, degrees, draw, profile
from .minimize import Aim, estimate_noise, minimize, plain_cost
from .objective import HUBER, Array, Block, Objective, Problem
from .result import Estimate, Fit, HeldOut, Provenance, score
from .rows import Rows, select
from .solve import Optimum, polish
from .split import Split
from .valley import valley

SPAN, SPAN_OF_FLOOR = 10, 4  # of an interval, from which a parameter, or the floor, is called not identified


def fit(
    law: Law | str,
    runs: Any,
    *,
    hold_out: Split | None = None,
    count: Count = "as_given",
    objective: Objective = "huber",
    delta: float | None = None,
    weights: ArrayLike | None = None,
    noise: Literal["uniform", "measured"] = "uniform",
    fix: Mapping[str, float] | None = None,
    borrow: Fit | Published | None = None,
    free: Sequence[str] = (),
    interval: float = 0.90,
    method: Method | None = None,
    draws: int = 400,
    starts: int | None = None,
    seed: int = 0,
) -> Fit:
    """Fit a law to runs.

    The estimates use all rows. With `hold_out`, the law is also fitted without the rows held out, and its
    error on them is reported beside the estimates.

    Args:
        law: a law, or the name of one.
        runs: whatever `read_runs` reads.
        hold_out: which rows to hold out, like `largest()`.
        count: how N is counted; `as_given` takes the `params` column.
        objective: Huber's loss, least absolute deviation or least squares of log residuals, or least
            squares of raw losses.
        delta: of Huber's loss on log residuals, like the 1e-3 of Hoffmann et al.; None means 1.345 times
            the noise estimated from the residuals.
        weights: how much each row of the table counts.
        noise: `measured` takes the noise of each loss to be in proportion to its `loss_se`.
        fix: parameters to hold at a value.
        borrow: a fit or published constants whose values are taken over for every parameter of the same
            name, so that one or two runs of a new family or format can be fitted; only those in `free`, and
            those that the lender does not have, are found.
        free: parameters that are not borrowed.
        interval: level of the intervals.
        method: how the intervals are made: `residual`, `wild` or `cluster` bootstrap, `student` or `profile`; None for
            the one whose coverage is right: `residual` where every row is its own cluster and residuals are as large
            everywhere, else `wild`.
        draws: of the parameters, behind the intervals; 0 for none.
        starts: points the solver is started from, after projecting out linear parameters; None for enough.
        seed: of starting points and draws.

    Returns:
        Estimates with intervals, what is not identified, and the held-out error.

    Raises:
        FitError: too few rows, or rows that cannot be compared.
        DataError: a table that cannot be read.
        ConfigError: an unknown law, parameter, objective or method, or an impossible level.

    >>> from bitlaw import Runs, fit
    >>> rows = [(n, d, 1.8 + 480 * n**-0.35 + 2100 * d**-0.37) for n in (1e7, 3e7, 9e7) for d in (2e8, 1e9, 5e9)]
    >>> runs = Runs.from_rows([{"params": n, "tokens": d, "loss": loss} for n, d, loss in rows])
    >>> round(fit("chinchilla", runs, draws=0).values["alpha"], 6)
    0.35
    """
    if not 0 < interval < 1:
        raise ConfigError(f"the interval's level must lie between 0 and 1, not {interval}; try 0.9")
    if draws < 0 or (draws == 0 and method is not None):
        raise ConfigError(
            f"draws must be 0 or more, and more than 0 for intervals by {method!r}, not {draws}; try draws=400"
        )
    if method is not None and method not in METHODS:
        raise ConfigError(f"there is no interval method {method!r}; {nearest(method, METHODS)}")
    if objective == "lad" and method in ("student", "profile"):
        raise ConfigError(
            f"the method {method!r} reads intervals off the curvature, of which least absolute deviation has none; "
            "use 'residual' or 'wild'"
        )
    law = get(law) if isinstance(law, str) else law
    table = read_runs(runs)
    rows = select(law, table, count, weights, noise == "measured")
    notes = list(rows.notes)
    fixed = dict(fix or {})
    if borrow is not None:
        lent = _lent(rows.law, borrow, free)
        notes.append(
            f"{', '.join(sorted(lent)) or 'nothing'} borrowed; the intervals take what is borrowed to be exact"
        )
        fixed = lent | fixed
    elif free:
        raise ConfigError("free names parameters that are not borrowed; give borrow=, or leave it out")
    aim = Aim(objective, delta, fixed, starts, spare=1)
    rng = np.random.default_rng(seed)
    problem, optimum = minimize(rows, aim, rng)
    held_out = None if hold_out is None else _held_out(rows, hold_out, replace(aim, spare=2), seed)

    u = optimum.u[0]
    theta = problem.decentre(problem.theta(u))
    scaled = replace(estimate_noise(problem, u[None]), delta=HUBER)
    sentences, weak = unidentified(scaled, u)
    bounds = at_bounds(problem, u)
    notes += sentences + influential(problem, u, table.ok()["id"].to_list()) + structure(scaled, u)
    notes += barely_trained(problem)
    total = len(problem.scales)
    if total - len(problem.free) < 2:
        notes.append(
            f"{total} rows for {len(problem.free)} parameters: hardly anything is left to tell whether the law holds"
        )
    if not optimum.converged[0]:
        notes.append("the solver stopped before it converged; treat the estimates with care")
    sample = theta[None]
    df = 0
    if method is None:
        method, why = default_method(scaled, u)
        notes += [why] if why and draws else []
    clusters = len(np.unique(problem.clusters))
    if draws and len(problem.free) and clusters < 2:
        notes.append(
            "all rows are of one trunk: nothing tells how another would differ, so there are no intervals"
        )
    elif draws and len(problem.free):
        near = valley(scaled, optimum, degrees(problem), rng)
        moved, df = draw(method, problem, optimum, draws, rng, near)
        sample = problem.decentre(problem.theta(moved))
    if df and df < 5:
        notes.append(
            f"{clusters} independent clusters for {len(problem.free)} parameters: "
            "the intervals are rough"
            + (", too narrow in some directions" if clusters <= len(problem.free) else "")
            + "; add runs with seeds of their own"
        )
    by_name = dict(zip(rows.law.names, theta.tolist(), strict=True))
    tail = (1 - interval) / 2
    ends = np.quantile(sample, [tail, 1 - tail], axis=0).T if df else np.stack([theta, theta], axis=1)
    lowest = (
        float(min(block.measured.min() for block in problem.blocks if block.kind == "loss"))
        if rows.loss
        else 0.0
    )
    notes += suspicious(
        rows.law, by_name, dict(zip(rows.law.names, map(tuple, ends.tolist()), strict=True)), lowest
    )
    weak |= floorless(rows.law, by_name, lowest)
    if df and method == "profile":
        ends[problem.free] = _profiled(problem, optimum, interval)
    estimates = _estimates(problem, theta, ends, weak, bounds, notes, bool(df))
    return Fit(
        law=rows.law,
        estimates=estimates,
        draws=sample,
        level=interval,
        method=method if df else "none",
        df=df,
        notes=tuple(notes),
        converged=bool(optimum.converged[0]),
        objective=objective,
        cost=plain_cost(problem, aim, optimum),
        noise={b.kind: s for b, s in zip(scaled.blocks, scaled.sigma, strict=True)},
        tails=_tails(scaled, u, interval),
        delta=aim.delta,
        rows={block.kind: len(block) for block in problem.blocks},
        clusters=clusters,
        count=rows.count,
        ranges=rows.ranges,
        held_out=held_out,
        provenance=Provenance.of(table),
    )


def _tails(problem: Problem, u: Array, level: float) -> dict[str, float]:
    """How many times the noise a normal spread has to be for so many of the residuals to lie within its interval."""
    residual = np.abs(problem.predictions(u[None])[0] - problem.targets)
    found = {}
    for block, part in problem.parts:
        reach = float(np.quantile(residual[part], level)) / NormalDist().inv_cdf(0.5 + level / 2)
        found[block.kind] = max(1.0, reach / np.sqrt(max(0.2, 1 - len(problem.free) / len(residual))))
    return found


def _profiled(problem: Problem, optimum: Optimum, level: float) -> Array:
    """Ends of the profile intervals of the free parameters, in the law's own units (f, 2)."""
    plain = problem.uncentred()
    u = plain.coordinates(problem.decentre(problem.theta(optimum.u)))
    ends = profile(plain, polish(plain, u), level)
    return plain.theta(ends.T)[:, plain.free].T


def _lent(law: Law, lender: Fit | Published, free: Sequence[str]) -> dict[str, float]:
    """Values of the lender for the law's parameters that are not to be found."""
    for name in free:
        if name not in law.names:
            raise ConfigError(
                f"{law.name} has no parameter {name!r} on these rows; {nearest(name, law.names)}"
            )
    values = lender.values
    return {name: float(values[name]) for name in law.names if name in values and name not in free}


def _held_out(rows: Rows, split: Split, aim: Aim, seed: int) -> HeldOut:
    """Fit without the rows held out, and predict them."""
    train, test = divide(rows, split)
    problem, optimum = minimize(train, aim, np.random.default_rng(seed))
    theta = problem.decentre(problem.theta(optimum.u[0]))
    return score(split.name, theta, train, test)


def divide(rows: Rows, split: Split) -> tuple[Rows, Rows]:
    """Split rows into those to fit and those held out."""
    used = np.concatenate([block.row for block in rows.blocks()])
    marked = np.zeros(used.max() + 1, dtype=bool)
    marked[used] = split.rule({name: fact[used] for name, fact in rows.facts.items()})

    def part(block: Block | None, held: bool) -> Block | None:
        if block is None:
            return None
        return block.take(marked[block.row] if held else ~marked[block.row])

    def side(held: bool) -> Rows:
        return replace(rows, loss=part(rows.loss, held), gap=part(rows.gap, held))

    return side(False), side(True)


def _estimates(
    problem: Problem,
    theta: Array,
    ends: Array,
    weak: set[str],
    bounds: Mapping[str, str],
    notes: list[str],
    drawn: bool,
) -> tuple[Estimate, ...]:
    """Put together value, interval and status of every parameter, and say what runs away."""
    free = set(problem.free.tolist())
    out = []
    for k, parameter in enumerate(problem.law.parameters):
        name, status = parameter.name, "ok"
        low, high = ends[k] if drawn else (np.nan, np.nan)
        if k not in free:
            status = "fixed"
        elif name in bounds:
            status = "at bound"
            notes.append(f"{name} ran to its {bounds[name]} bound: the rows do not hold it back")
        elif name in weak:
            status = "not identified"
        elif (
            drawn
            and parameter.positive
            and high > (SPAN_OF_FLOOR if name in problem.law.floors else SPAN) * low
        ):
            status = "not identified"
            factor = f"{high / low:.0f}" if high < 1e6 * low else f"{high / low:.0e}"
            notes.append(
                f"{name} by itself is not identified, its interval spans a factor of {factor}: its term is "
                "known in the middle of the data, and it trades off against the exponent elsewhere"
                if k in problem.law.compiled.total.linear
                else f"{name} is hardly identified: its interval spans a factor of {factor}"
            )
        elif (
            drawn
            and not parameter.scale_of  # whose bounds are in units of the middle of the rows
            and k not in problem.law.compiled.total.linear
            and (low <= parameter.low or high >= parameter.high)
        ):
            status = "not identified"
            side, bound = ("upper", parameter.high) if high >= parameter.high else ("lower", parameter.low)
            notes.append(
                f"{name} is hardly identified: its interval reaches the {side} bound of the search, {bound:g}, and "
                "may go beyond it"
            )
        elif drawn and not low <= theta[k] <= high:
            status = "not identified"
            notes.append(
                f"{name} lies outside the interval of its own draws: the rows leave more than one optimum, and which "
                "is found is chance"
            )
        if drawn and status != "ok" and not low <= theta[k] <= high:
            low = high = np.nan
        # Rows without noise say nothing of it.
        if status == "not identified" and high - low <= 1e-9 * abs(high):
            low = high = np.nan
        out.append(Estimate(parameter, float(theta[k]), float(low), float(high), status))
    return tuple(out)
