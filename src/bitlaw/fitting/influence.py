"""How far each row lies from the law, and how much it pulls the law to itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .again import again
from .intervals import curvature
from .minimize import estimate_noise
from .objective import Array
from .result import Fit


@dataclass(frozen=True)
class Influence:
    """Residuals and leverages of the rows of a fit (n,).

    Attributes:
        ids: of the rows.
        kind: `loss` or `gap`, of each.
        residual: predicted minus measured, in units of the noise.
        leverage: share of a row's own error that the fit follows, between 0 and 1.
        distance: Cook's: how far all predictions move when the row is left out, in units of their own uncertainty;
            one or more is a row that decides the fit.
    """

    ids: tuple[str, ...]
    kind: tuple[str, ...]
    residual: Array
    leverage: Array
    distance: Array


def influence(fit: Fit, runs: Any) -> Influence:
    """Find residual, leverage and Cook's distance of every row of a fit.

    Args:
        fit: the fit.
        runs: the rows it was made from, whatever `read_runs` reads.

    Raises:
        DataError: other rows than those of the fit, or rows it weighted.

    Source: Cook 1977, Technometrics 19:15, with the weights that Huber's loss gives the rows.

    >>> from bitlaw import Runs, fit
    >>> runs = Runs.from_rows({"params": n, "tokens": d, "loss": (2 + 400 / n**0.3 + 400 / d**0.3) * e}
    ...     for k, n in enumerate((1e6, 3e6, 1e7)) for d, e in ((1e7, 1.01), (1e8, 0.99), (1e9, 1.01 - 0.01 * k)))
    >>> found = influence(fit("chinchilla", runs), runs)
    >>> round(float(found.leverage.sum()), 3)  # as many as there are constants
    5.0
    """
    problem, optimum, names = again(fit, runs)
    values, slopes = problem.linearised(optimum.u)
    residual = values[0] - problem.targets
    jacobian = slopes[0].T
    pull = problem.weight * problem.irls(residual)
    bread = curvature(problem, jacobian, residual, pull)
    leverage = pull * np.einsum("nf,fg,ng->n", jacobian, bread, jacobian)
    inside = np.clip(1 - leverage, 1e-3, None)
    residual = residual * problem.scales / estimate_noise(problem, optimum.u).scales
    distance = pull * residual**2 * leverage / inside**2 / max(1, jacobian.shape[1])
    kinds = tuple(block.kind for block in problem.blocks for _ in range(len(block)))
    return Influence(tuple(names), kinds, residual, leverage, distance)
