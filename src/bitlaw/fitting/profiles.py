"""How much worse a law fits where one of its constants is held elsewhere: what the rows know of each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import ConfigError, nearest
from .again import again
from .intervals import covariance, curvature, degrees
from .objective import Array, Problem, student_quantile
from .result import Fit
from .solve import Optimum, polish

STEP = 0.5  # standard errors from one point to the next
WIDENING = 1.3
BEYOND = 1.5  # of what the level asks for, at which a curve has been followed far enough
POINTS = 16  # on either side, at most


@dataclass(frozen=True)
class Profile:
    """One constant held at each of several values, all others fitted anew.

    Attributes:
        name: of the constant.
        values: where it was held, rising; the estimate is among them.
        rise: square root of twice the rise of the objective in units of its own noise, negative below the estimate:
            a straight line where the constant is normally distributed, flat where rows do not hold it.
        limit: the size of `rise` at the ends of the interval at the fit's level.
    """

    name: str
    values: Array
    rise: Array
    limit: float


def profiles(fit: Fit, runs: Any, names: Sequence[str] | None = None) -> list[Profile]:
    """Follow the objective from its optimum along each constant. A law of ten constants takes about a second.

    Args:
        fit: the fit.
        runs: the rows it was made from, whatever `read_runs` reads.
        names: constants; None for all that were fitted.

    Returns:
        A profile for each, but for those of which the rows tell nothing, or that they tell without any noise.

    Raises:
        DataError: other rows than those of the fit, or rows it weighted.
        ConfigError: a name of no constant that was fitted.

    >>> from bitlaw import Runs, fit
    >>> runs = Runs.from_rows({"params": n, "tokens": d, "loss": (2 + 400 / n**0.3 + 400 / d**0.3) * e}
    ...     for k, n in enumerate((1e6, 3e6, 1e7)) for d, e in ((1e7, 1.01), (1e8, 0.99), (1e9, 1.01 - 0.01 * k)))
    >>> [found] = profiles(fit("chinchilla", runs), runs, ["alpha"])
    >>> bool((np.diff(found.rise) >= 0).all())
    True
    """
    problem, optimum, _ = again(fit, runs)
    free = [fit.law.names[k] for k in problem.free]
    for name in names or ():
        if name not in free:
            raise ConfigError(f"{name!r} was not fitted; {nearest(name, free)}")
    u = optimum.u[0]
    values, slopes = problem.linearised(u[None])
    residual = values[0] - problem.targets
    spread = np.sqrt(np.diag(covariance(problem, slopes[0].T, residual)))
    alone = np.sqrt(np.maximum(np.diag(curvature(problem, slopes[0].T, residual)), 1e-300))
    limit = student_quantile(degrees(problem), 0.5 + fit.level / 2)
    out = []
    for name in names or free:
        place = free.index(name)
        if not spread[place] > 0:
            continue
        low, high = (
            _side(problem, optimum, place, sign * spread[place], BEYOND * limit, spread[place] / alone[place])
            for sign in (-1.0, 1.0)
        )
        points = np.array([*reversed(low), (u[place], 0.0), *high])
        held = np.tile(u, (len(points), 1))
        held[:, place] = points[:, 0]
        own = problem.theta(held)[:, problem.free[place]]
        out.append(Profile(name, own, points[:, 1], limit))
    return out


def _side(
    problem: Problem, optimum: Optimum, place: int, spread: float, far: float, unit: float
) -> list[tuple[float, float]]:
    """Places and rises on one side of the optimum, the nearest first."""
    start, best = optimum.u[0], float(optimum.cost[0])
    others = np.delete(np.arange(len(start)), place)
    bound = (problem.low if spread < 0 else problem.high)[place]
    point, step, out = start.copy(), STEP * spread, []
    for _ in range(POINTS):
        point[place] = min(point[place] + step, bound) if step > 0 else max(point[place] + step, bound)
        held = replace(problem, free=problem.free[others], base=problem.theta(point))
        found = polish(held, point[others][None])
        point[others] = found.u[0]
        rise = np.sqrt(max(0.0, 2 * (float(found.cost[0]) - best))) / unit
        out.append((float(point[place]), float(np.copysign(rise, spread))))
        if rise >= far or point[place] == bound:
            break
        step *= WIDENING
    return out
