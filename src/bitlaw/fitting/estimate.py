"""The front door: `fit(law, runs)`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import ConfigError, FitError
from ..laws import Law, get
from ..runs import Count, read_runs
from .diagnose import at_bounds, unidentified
from .intervals import bootstrap
from .objective import HUBER, Array, Block, Problem, centre_of, middles
from .result import Estimate, Fit, HeldOut, Provenance, score
from .rows import Rows, select
from .seed import seeds
from .solve import Optimum, polish
from .split import Split

STARTS = 8
SIGMA_ROUNDS = 4


def fit(
    law: Law | str,
    runs: Any,
    *,
    hold_out: Split | None = None,
    count: Count = "as_given",
    huber: float | None = None,
    fix: Mapping[str, float] | None = None,
    interval: float = 0.90,
    draws: int = 400,
    starts: int = STARTS,
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
        huber: delta of Huber's loss on log residuals, like the 1e-3 of Hoffmann et al.; None means 1.345
            times the noise estimated from the residuals.
        fix: parameters to hold at a value.
        interval: level of the intervals.
        draws: bootstrap refits behind the intervals; 0 for none.
        starts: points the solver is started from, after projecting out linear parameters.
        seed: of starting points and bootstrap.

    Returns:
        Estimates with intervals, what is not identified, and the held-out error.

    Raises:
        FitError: too few rows, or rows that cannot be compared.
        DataError: a table that cannot be read.
        ConfigError: an unknown law or parameter, or an impossible level.
    """
    if not 0 < interval < 1:
        raise ConfigError(f"the interval's level must lie between 0 and 1, not {interval}; try 0.9")
    if draws < 0 or starts < 1:
        raise ConfigError(f"draws must be 0 or more and starts 1 or more, not {draws} and {starts}")
    if huber is not None and not huber > 0:
        raise ConfigError(f"huber must be positive, not {huber}; try 1e-3")
    law = get(law) if isinstance(law, str) else law
    table = read_runs(runs)
    rows = select(law, table, count)
    rng = np.random.default_rng(seed)
    problem, optimum = solve(rows, huber, fix or {}, starts, rng)
    held_out = None
    if hold_out is not None:
        held_out = _held_out(rows, hold_out, huber, fix or {}, starts, seed)

    u = optimum.u[0]
    theta = problem.decentre(problem.theta(u))
    notes = list(rows.notes)
    sentences, weak = unidentified(estimate_noise(problem, u[None]), u)
    bounds = at_bounds(problem, u)
    notes += sentences
    if not optimum.converged[0]:
        notes.append("the solver stopped before it converged; treat the estimates with care")
    sample = theta[None]
    df = 0
    if draws:
        moved, df = bootstrap(problem, optimum, draws, rng)
        sample = problem.decentre(problem.theta(moved))
    if draws and df < 5:
        notes.append(
            f"{len(np.unique(problem.clusters()))} independent clusters for {len(problem.free)} parameters: "
            "the intervals are rough; add runs with seeds of their own"
        )
    estimates = _estimates(problem, theta, sample, interval, weak, bounds, notes, bool(draws))
    return Fit(
        law=rows.law,
        estimates=estimates,
        draws=sample,
        level=interval,
        df=df,
        notes=tuple(notes),
        converged=bool(optimum.converged[0]),
        objective=float(optimum.cost[0]),
        noise={b.kind: s for b, s in zip(problem.blocks, problem.sigma, strict=True) if huber is None},
        delta=problem.delta,
        rows={block.kind: len(block) for block in problem.blocks},
        clusters=len(np.unique(problem.clusters())),
        count=rows.count,
        ranges=rows.ranges,
        held_out=held_out,
        provenance=Provenance.of(table),
    )


def solve(
    rows: Rows, huber: float | None, fix: Mapping[str, float], starts: int, rng: np.random.Generator
) -> tuple[Problem, Optimum]:
    """Find the optimum of a law on rows; returns the problem as it was last posed, and the best point."""
    problem = pose(rows, huber, fix)
    points = seeds(problem, starts, rng)
    if huber is None:
        problem = estimate_noise(problem, points[:1])
    best = polish(problem, points).best()
    for _ in range(SIGMA_ROUNDS if huber is None else 0):
        problem = estimate_noise(problem, best.u)
        best = polish(problem, best.u)
    if not np.isfinite(best.cost[0]):
        raise FitError(
            "no starting point gives a finite loss on these rows; are sizes and tokens in plain units, "
            "and bits above two?"
        )
    return problem, best


def pose(rows: Rows, huber: float | None, fix: Mapping[str, float]) -> Problem:
    """Set up the objective, with a first guess of the noise.

    Raises:
        FitError: fewer rows than parameters + 2.
        ConfigError: a parameter to be fixed that the law does not have.
    """
    law = rows.law
    fixed = {p.name: p.fixed for p in law.parameters if p.fixed is not None} | dict(fix)
    values = {p.name: 1.0 if p.positive else 0.0 for p in law.parameters} | fixed
    base = law.vector(values)
    free = np.array([k for k, name in enumerate(law.names) if name not in fixed], dtype=np.int64)
    blocks = rows.blocks()
    total = sum(len(block) for block in blocks)
    if total < len(free) + 2:
        raise FitError(
            f"{total} rows cannot determine the {len(free)} parameters of {law.name}; "
            f"it needs at least {len(free) + 2}, or fix some with fix={{...}}"
        )
    middle = middles(rows.loss)
    centre = centre_of(law, middle)
    for name, value in fix.items():
        parameter = law.parameters[law.names.index(name)]
        if not parameter.low <= value <= parameter.high:
            raise ConfigError(
                f"{name} cannot be fixed at {value:g}; it lies between {parameter.low:g} and {parameter.high:g}"
            )
    if set(fix) & {law.names[k] for k in law.compiled.total.linear} - {"E"}:
        centre = {}  # a linear parameter fixed by the user keeps its own unit; E has the same in both
    units = [middle[p.scale_of] if p.scale_of and centre else 1.0 for p in law.parameters]
    base = base / np.array(units)
    centred = tuple(
        replace(block, data={n: c / centre.get(n, 1.0) for n, c in block.data.items()}) for block in blocks
    )
    sigma = tuple(1.0 if huber is not None else {"loss": 0.01, "gap": 0.2}[block.kind] for block in blocks)
    return Problem(law, centred, free, base, sigma, huber or HUBER, centre, middle)


def estimate_noise(problem: Problem, u: Array) -> Problem:
    """Return the problem with the noise of each block taken from its residuals at a point (1, f), and delta from it.

    1.4826 times the median absolute residual, corrected for the parameters spent; residuals beyond three
    times the estimate cannot move it.
    """
    residual = problem.predictions(u)[0] - problem.targets()
    spent = len(problem.free) / len(residual)
    sigmas, at = [], 0
    for block in problem.blocks:
        part = residual[at : at + len(block)]
        at += len(block)
        spread = 1.4826 * float(np.median(np.abs(part))) / np.sqrt(max(0.2, 1 - spent))
        sigmas.append(max(spread, 1e-9))
    return replace(problem, sigma=tuple(sigmas), delta=HUBER)


def _held_out(
    rows: Rows, split: Split, huber: float | None, fix: Mapping[str, float], starts: int, seed: int
) -> HeldOut:
    """Fit without the rows held out, and predict them."""
    train, test = divide(rows, split)
    problem, optimum = solve(train, huber, fix, starts, np.random.default_rng(seed))
    theta = problem.decentre(problem.theta(optimum.u[0]))
    return score(split.name, rows.law, theta, test)


def divide(rows: Rows, split: Split) -> tuple[Rows, Rows]:
    """Split rows into those to fit and those held out."""

    def part(block: Block | None, held: bool) -> Block | None:
        if block is None:
            return None
        marked = split.rule(block.data["params"], block.data["tokens"])
        return block.take(marked if held else ~marked)

    def side(held: bool) -> Rows:
        loss = part(rows.loss, held)
        assert loss is not None
        return replace(rows, loss=loss, gap=part(rows.gap, held))

    return side(False), side(True)


def _estimates(
    problem: Problem,
    theta: Array,
    sample: Array,
    level: float,
    weak: set[str],
    bounds: Mapping[str, str],
    notes: list[str],
    drawn: bool,
) -> tuple[Estimate, ...]:
    """Put together value, interval and status of every parameter, and say what runs away."""
    tail = (1 - level) / 2
    free = set(problem.free.tolist())
    out = []
    for k, parameter in enumerate(problem.law.parameters):
        name, status = parameter.name, "ok"
        low, high = np.quantile(sample[:, k], [tail, 1 - tail]) if drawn else (np.nan, np.nan)
        if k not in free:
            status = "fixed"
        elif name in bounds:
            status = "at bound"
            notes.append(f"{name} ran to its {bounds[name]} bound: the rows do not hold it back")
        elif name in weak:
            status = "not identified"
        elif drawn and parameter.positive and high > 10 * low:
            status = "not identified"
            notes.append(
                f"{name} by itself is not identified, its interval spans a factor of {high / low:.0f}: its term is "
                "known in the middle of the data, and it trades off against the exponent elsewhere"
                if k in problem.law.compiled.total.linear
                else f"{name} is hardly identified: its interval spans a factor of {high / low:.0f}"
            )
        out.append(Estimate(parameter, float(theta[k]), float(low), float(high), status))
    return tuple(out)
