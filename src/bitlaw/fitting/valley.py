"""Directions that the rows say nothing about, and other points along them that fit as well as the optimum."""

from __future__ import annotations

import numpy as np

from .objective import Array, Problem, student_quantile
from .solve import Optimum, polish

#: A direction is called unidentified when moving along it by a factor of e (or by 1, for offsets) costs
#: less than one standard error.
WIDE = 1.0
ROUNDING = 1e-12  # of the best known direction, below which one is known by rounding errors alone
THROWN = 96  # points that are thrown into the valley
SLACK = 1e-6  # predicted relative decrease at which a thrown point has come to rest
FAINT = 1e-3  # of the loss: a linear term smaller than this is as good as none
WORSE = 0.95  # quantile of Student's t that says how much worse a point of the valley may fit


def flat(problem: Problem, u: Array) -> Array:
    """Directions (k, f) of the free coordinates along which the rows do not hold the fit back.

    Args:
        problem: in units of the noise.
        u: coordinates of the optimum (f,).
    """
    values, slopes = problem.linearised(u[None])
    residual = values[0] - problem.targets
    gram = (slopes[0] * (problem.weight * problem.irls(residual))) @ slopes[0].T
    strength, vectors = np.linalg.eigh(gram)
    directions: Array = vectors.T[strength <= max(1 / WIDE**2, ROUNDING * strength[-1])]
    return directions


def valley(problem: Problem, optimum: Optimum, df: int, rng: np.random.Generator) -> Array:
    """Points (k, f) from which refits may as well start: the optimum, and others that fit as well.

    The coordinates that lie in flat directions are thrown anywhere between their bounds, linear parameters down to
    where their term is as good as nothing; the others follow. A refit from the optimum alone would say that it knows
    what only its starting point said; and a linear parameter at zero, whose derivative there is nothing on a log
    scale, would never leave it.

    Args:
        problem: in units of the noise.
        optimum: a stack of one.
        df: degrees of freedom.
        rng: what throws.
    """
    u = optimum.u[:1]
    directions = flat(problem, u[0])
    weak = np.flatnonzero((np.abs(directions) > 0.3).any(axis=0))
    if not len(weak):
        return u
    low, high = problem.low.copy(), problem.high.copy()
    linear = np.isin(problem.free, problem.linear) & bool(problem.centre)
    typical = np.log(np.median(np.abs(problem.blocks[0].measured)))
    low[linear], high[linear] = typical + np.log(FAINT), typical
    thrown = np.repeat(u, THROWN, axis=0)
    thrown[:, weak] = rng.uniform(low[weak], high[weak], size=(THROWN, len(weak)))
    found = polish(problem, thrown, tolerance=SLACK)
    here = polish(problem, u)  # its objective need not be the one that was minimised
    limit = here.cost[0] + 0.5 * student_quantile(df, WORSE) ** 2
    return np.concatenate([u, found.u[found.cost <= limit]])
