"""Draws of the parameters that could as well have been estimated, from which every interval is read.

`wild`: wild cluster bootstrap. Each cluster's residuals, inflated for leverage by (I - H_gg)^-1/2 (CR2, Bell &
McCaffrey 2002), keep or flip their sign together, and the law is refitted. The design stays as it is: no size
can vanish from a resample.
`cluster`: whole clusters are drawn anew, with replacement within each size.
`residual`: inflated residuals are drawn anew over all rows of a kind: it takes the noise to be the same everywhere.
`student`: no refits, and so nothing of valleys that bend: multivariate Student around the estimate, with the covariance
of an M-estimator (Huber 1981, section 7.6) where every row is its own cluster, else the cluster sandwich (CR2).

`profile`: draws as by default, but each parameter's interval is where the objective, minimised over all others, rises
by as much as Student's t allows; it follows bends and bounds that a symmetric interval cannot.

The default is `residual` where every row is its own cluster, unless there are many whose residuals are plainly larger
in some places than in others, and `wild` elsewhere: those whose coverage came out right (docs/coverage.md).

Under a robust loss the curvature alone is never used: it covers far less than it says. Draws of `wild` and `residual`
are stretched by sqrt(df / chi2_df), df = clusters - parameters, so that quantiles are Student's; residuals
are stretched rather than estimates, so that every draw is a fit, bounds and all.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

import numpy as np

from .objective import Array, Problem, student_quantile
from .solve import EXACT, Optimum, bends_at, polish

Method: TypeAlias = Literal["residual", "wild", "cluster", "student", "profile"]
METHODS: tuple[str, ...] = get_args(Method)
NEAR = 1e-9  # predicted relative decrease at which a refit stops: below a thousandth of a standard error
TIE = 0.2  # of a row's mean share of the objective
TOGETHER = 12  # rounds of a stack, after which the few refits of all stacks that still move go on as one
MANY, UNEVEN = 50, 0.01  # rows, and chance, from and below which an uneven spread decides the method
MOST_NUMBERS = 150_000  # in the derivatives of one stack of refits: what a core keeps close

#: The six points of Webb (2013): few clusters have few sign patterns, these have more.
WEBB = np.array([-np.sqrt(1.5), -1.0, -np.sqrt(0.5), np.sqrt(0.5), 1.0, np.sqrt(1.5)])


def default_method(problem: Problem, u: Array) -> tuple[Method, str]:
    """The method whose coverage came out right for rows like these (docs/coverage.md), and what has to be said of it.

    Args:
        problem: the objective, in units of the noise.
        u: its optimum (f,).
    """
    if len(np.unique(problem.clusters)) < len(problem.clusters):
        return "wild", ""
    chance = evenness(problem, u)
    if max(map(len, problem.blocks)) < MANY or chance > UNEVEN:
        return "residual", ""
    return "wild", (
        f"residuals are larger for some sizes and tokens than for others (by chance in {chance:.0e} of tables), so "
        "intervals are by the wild bootstrap, which keeps each where it is"
    )


def evenness(problem: Problem, u: Array) -> float:
    """The chance that residuals without any pattern would spread as unevenly over sizes and tokens as these.

    A score test of |residual| against the logarithms of both, in the largest block (Koenker 1981, Glejser 1969).
    """
    block, part = max(problem.parts, key=lambda pair: len(pair[0]))
    spread = np.abs(problem.predictions(u[None])[0] - problem.targets)[part]
    logs = [np.log(block.data[c]) for c in ("params", "tokens") if c in block.data]
    columns = np.stack([np.ones(len(spread)), *(x for x in logs if np.ptp(x) > 0)], axis=1)
    left = spread - columns @ np.linalg.lstsq(columns, spread, rcond=None)[0]
    total = float(((spread - spread.mean()) ** 2).sum())
    if total <= 0 or columns.shape[1] == 1:
        return 1.0
    score = len(spread) * (1 - float((left**2).sum()) / total)
    return math.exp(-score / 2) if columns.shape[1] == 3 else math.erfc(math.sqrt(max(score, 0.0) / 2))


def degrees(problem: Problem) -> int:
    """Degrees of freedom: clusters less free parameters, at least one."""
    return max(1, len(np.unique(problem.clusters)) - len(problem.free))


def draw(
    method: Method,
    problem: Problem,
    optimum: Optimum,
    draws: int,
    rng: np.random.Generator,
    starts: Array | None = None,
) -> tuple[Array, int]:
    """Return coordinates of draws (draws, f) around a single optimum, and the degrees of freedom.

    Args:
        method: how.
        problem: the objective.
        optimum: a stack of one.
        draws: how many.
        rng: what draws.
        starts: points that fit as well, where the rows leave some direction open (`valley`); the optimum is the first.
    """
    u = optimum.u[:1]
    starts = u if starts is None else starts
    values, slopes = problem.linearised(u)
    values, jacobian = values[0], slopes[0].T
    residual = values - problem.targets
    groups, member = np.unique(problem.clusters, return_inverse=True)
    df = degrees(problem)
    if method == "profile":
        method = default_method(problem, u[0])[0]
    if method == "student":
        centres = starts[rng.integers(len(starts), size=draws)]
        return _student(problem, centres, covariance(problem, jacobian, residual), df, rng), df
    if method == "cluster":
        weight = problem.weight * _resampled(problem, groups, member, draws, rng)
        return refits(problem, starts, np.broadcast_to(problem.targets, weight.shape), weight, rng), df
    stretch = np.sqrt(df / rng.chisquare(df, size=(draws, 1)))
    if method == "wild":
        inflated = _inflate(residual, jacobian, problem.weight * problem.irls(residual), member)
        noise = rng.choice(WEBB, size=(draws, len(groups)))[:, member] * inflated
    else:
        single = np.arange(len(residual))
        inflated = _inflate(residual, jacobian, problem.weight * problem.irls(residual), single)
        noise = np.empty((draws, len(residual)))
        for block, part in problem.parts:
            noise[:, part] = rng.choice(inflated[part], size=(draws, len(block)))
    targets = values + stretch * noise
    return refits(problem, starts, targets, np.broadcast_to(problem.weight, targets.shape), rng), df


def refits(problem: Problem, starts: Array, targets: Array, weight: Array, rng: np.random.Generator) -> Array:
    """Refit from the optimum and, where there are other points that fit as well, from one of them too.

    The lower one is kept; where they hardly differ (`TIE`), it is the other one, which is as good.
    """

    def refit(u: Array, bends: Array | None = None) -> tuple[Array, Array]:
        size = max(1, MOST_NUMBERS // targets.shape[1] // u.shape[1])
        parts = [slice(k, k + size) for k in range(0, len(targets), size)]
        found = [polish(problem, u[p], targets[p], weight[p], TOGETHER, NEAR, bends) for p in parts]
        where, cost = np.concatenate([f.u for f in found]), np.concatenate([f.cost for f in found])
        late = np.flatnonzero(~np.concatenate([f.converged for f in found]))
        if len(late):
            last = polish(problem, where[late], targets[late], weight[late], tolerance=NEAR)
            where[late], cost[late] = last.u, last.cost
        return where, cost

    u, cost = refit(np.repeat(starts[:1], len(targets), axis=0), bends_at(problem, starts[0]))
    if len(starts) > 1:
        other, other_cost = refit(starts[rng.integers(1, len(starts), size=len(targets))])
        mean_share = np.maximum(cost, problem.cost(EXACT * targets, weight)) / targets.shape[1]
        as_good = other_cost <= cost + TIE * mean_share
        u[as_good] = other[as_good]
    return u


def _student(problem: Problem, u: Array, covariance: Array, df: int, rng: np.random.Generator) -> Array:
    """Multivariate Student draws around points (draws, f), kept inside the bounds."""
    value, vector = np.linalg.eigh(covariance)
    normal = rng.standard_normal(u.shape) * np.sqrt(np.maximum(value, 0.0))
    stretch = np.sqrt(df / rng.chisquare(df, size=(len(u), 1)))
    moved: Array = np.clip(u + stretch * normal @ vector.T, problem.low, problem.high)
    return moved


def covariance(problem: Problem, jacobian: Array, residual: Array) -> Array:
    """Covariance of the coordinates (f, f) from derivatives (n, f) and residuals (n,) in units of the noise.

    Where every row is its own cluster, that of an M-estimator under one noise; else the cluster sandwich.
    """
    member = np.unique(problem.clusters, return_inverse=True)[1]
    if member.max() + 1 == len(residual) and (problem.weight == 1).all():
        score, inside = problem.irls(residual) * residual, problem.inlying(residual).mean()
        rows, width = jacobian.shape
        correction = 1 + width / rows * (1 - inside) / max(inside, 0.1)
        spread = (score**2).sum() / max(1, rows - width) * (correction / max(inside, 0.1)) ** 2
        single: Array = spread * _inverse(jacobian, np.ones(rows))
        return single
    pull = problem.weight * problem.irls(residual)
    inverse = _inverse(jacobian, pull)
    inflated = _inflate(residual, jacobian, pull, member)
    sums = np.zeros((member.max() + 1, jacobian.shape[1]))
    np.add.at(sums, member, jacobian * (pull * inflated)[:, None])
    sandwich: Array = inverse @ sums.T @ sums @ inverse
    return sandwich


def curvature(problem: Problem, jacobian: Array, residual: Array, pull: Array | None = None) -> Array:
    """The inverse of the objective's curvature (f, f), with the weights of Huber's second derivative or others (n,)."""
    return _inverse(jacobian, problem.weight * problem.inlying(residual) if pull is None else pull)


def _inverse(jacobian: Array, weight: Array) -> Array:
    """(J' W J)^-1 (f, f) from derivatives (n, f), but not by way of J' W J, whose condition is the square of J's."""
    half = np.linalg.pinv(np.sqrt(weight)[:, None] * jacobian, rcond=1e-6)
    inverse: Array = half @ half.T
    return inverse


def profile(problem: Problem, optimum: Optimum, level: float) -> Array:
    """Ends of the profile interval of every free coordinate (f, 2).

    The rise of the objective is measured in units of the covariance above, so that robust losses and clusters are
    allowed for: T^2 = 2 (rise) v / s^2, with v what the curvature alone gives for the variance.
    """
    u = optimum.u[0]
    values, slopes = problem.linearised(u[None])
    residual = values[0] - problem.targets
    spread = np.sqrt(np.diag(covariance(problem, slopes[0].T, residual)))
    alone = np.sqrt(np.maximum(np.diag(curvature(problem, slopes[0].T, residual)), 1e-300))
    limit = student_quantile(degrees(problem), 0.5 + level / 2)
    ends = np.empty((len(u), 2))
    for place in range(len(u)):
        for side, sign in enumerate((-1.0, 1.0)):
            bound = (problem.low, problem.high)[side][place]
            ends[place, side] = _end(
                problem, optimum, place, sign * spread[place], bound, limit * spread[place] / alone[place]
            )
    return ends


def _end(problem: Problem, optimum: Optimum, place: int, step: float, bound: float, limit: float) -> float:
    """Where the root of twice the rise of the objective reaches a limit, going from the optimum by steps."""
    best, start = float(optimum.cost[0]), optimum.u[0]
    others = np.delete(np.arange(len(start)), place)
    at = start[others]

    def rise(x: float) -> float:
        nonlocal at
        point = start.copy()
        point[place] = x
        held = replace(problem, free=problem.free[others], base=problem.theta(point))
        found = polish(held, at[None])
        at = found.u[0]
        return float(np.sqrt(max(0.0, 2 * (float(found.cost[0]) - best))))

    near, near_rise = float(start[place]), 0.0
    far = near
    while True:
        far = float(np.clip(far + step, min(bound, near), max(bound, near)))
        far_rise = rise(far)
        if far_rise >= limit:
            break
        if far == bound:
            return bound
        near, near_rise, step = far, far_rise, 1.6 * step
    for _ in range(8):  # the root is nearly straight in x, so false position is quick
        share = float(np.clip((limit - near_rise) / (far_rise - near_rise), 0.05, 0.95))
        x = near + share * (far - near)
        y = rise(x)
        if abs(y - limit) < 1e-3 * limit:
            return x
        if y < limit:
            near, near_rise = x, y
        else:
            far, far_rise = x, y
    return near + (limit - near_rise) / (far_rise - near_rise) * (far - near)


def _resampled(
    problem: Problem, groups: np.ndarray, member: np.ndarray, draws: int, rng: np.random.Generator
) -> Array:
    """How often each row is drawn (draws, n), clusters being drawn within each size."""
    size = np.concatenate([block.data.get("params", np.ones(len(block))) for block in problem.blocks])
    first = np.unique(member, return_index=True)[1]
    stratum = np.unique(size[first], return_inverse=True)[1]
    alone = np.bincount(stratum)[stratum] < 2
    stratum[alone] = stratum.max() + 1  # sizes with one cluster are drawn together
    stratum = np.unique(stratum, return_inverse=True)[1]
    counts = np.zeros((draws, len(groups)))
    for s in range(stratum.max() + 1):
        inside = np.flatnonzero(stratum == s)
        counts[:, inside] = rng.multinomial(len(inside), np.full(len(inside), 1 / len(inside)), size=draws)
    return counts[:, member]


def _inflate(residual: Array, jacobian: Array, weight: Array, member: np.ndarray) -> Array:
    """Multiply each cluster's residuals by (I - H_gg)^-1/2; eigenvalues are kept away from zero."""
    inverse = _inverse(jacobian, weight)
    scaled = jacobian * np.sqrt(weight)[:, None]
    if member.max() + 1 == len(residual):  # every row by itself
        leverage = np.einsum("nf,fg,ng->n", scaled, inverse, scaled)
        single: Array = residual / np.sqrt(np.clip(1 - leverage, 0.1, None))
        return single
    out = np.empty_like(residual)
    order = np.argsort(member, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(member[order])) + 1):
        part = scaled[rows]
        value, vector = np.linalg.eigh(np.eye(len(rows)) - part @ inverse @ part.T)
        factor = (vector / np.sqrt(np.clip(value, 0.1, None))) @ vector.T
        pull = np.sqrt(weight[rows])
        out[rows] = factor @ (pull * residual[rows]) / pull
    return out
