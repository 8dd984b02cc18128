"""Draws of the parameters that could as well have been estimated: a wild cluster bootstrap.

Each cluster's residuals, inflated for leverage (I - H_gg)^-1 as in the cluster jackknife (CR3), keep or
flip their sign together, and the law is refitted to the result. Each draw's residuals are also stretched
by sqrt(df / chi2_df), so that quantiles are Student's with df = clusters - parameters, not the normal's;
stretching residuals rather than estimates keeps every draw a fit, bounds and all.
The design stays as it is: no size can vanish from a resample. Curvature alone is not used: under Huber's
loss it covers far less than it says.
"""

from __future__ import annotations

import numpy as np

from .objective import Array, Problem
from .solve import Optimum, polish

MOST_NUMBERS = 20_000_000  # in the Jacobians of one stack of refits: 160 MB

#: The six points of Webb (2013): few clusters have few sign patterns, these have more.
WEBB = np.array([-np.sqrt(1.5), -1.0, -np.sqrt(0.5), np.sqrt(0.5), 1.0, np.sqrt(1.5)])


def bootstrap(problem: Problem, optimum: Optimum, draws: int, rng: np.random.Generator) -> tuple[Array, int]:
    """Return coordinates of draws (draws, f) around a single optimum, and the degrees of freedom."""
    u = optimum.u[:1]
    values, slopes = problem.linearised(u)
    scales, clusters = problem.scales(), problem.clusters()
    residual = (values[0] - problem.targets()) / scales
    groups = np.unique(clusters)
    df = max(1, len(groups) - len(problem.free))
    inflated = _inflate(residual, slopes[0] / scales[:, None], problem.weights(residual), clusters)
    signs = rng.choice(WEBB, size=(draws, len(groups)))
    flips = signs[:, np.searchsorted(groups, clusters)]
    stretch = np.sqrt(df / rng.chisquare(df, size=(draws, 1)))
    targets = values[0] + stretch * flips * inflated * scales
    size = max(1, MOST_NUMBERS // slopes.size)
    parts = [targets[k : k + size] for k in range(0, draws, size)]
    return np.concatenate([polish(problem, np.repeat(u, len(part), axis=0), part).u for part in parts]), df


def _inflate(residual: Array, jacobian: Array, weight: Array, clusters: np.ndarray) -> Array:
    """Multiply each cluster's residuals by (I - H_gg)^-1; eigenvalues are kept away from zero."""
    gram = np.einsum("nf,n,ng->fg", jacobian, weight, jacobian)
    inverse = np.linalg.pinv(gram, rcond=1e-12, hermitian=True)
    out = np.empty_like(residual)
    for group in np.unique(clusters):
        rows = np.flatnonzero(clusters == group)
        part = jacobian[rows] * np.sqrt(weight[rows])[:, None]
        value, vector = np.linalg.eigh(np.eye(len(rows)) - part @ inverse @ part.T)
        factor = vector @ np.diag(1 / np.clip(value, 0.25, None)) @ vector.T
        root = np.sqrt(weight[rows])
        out[rows] = factor @ (root * residual[rows]) / root
    return out
