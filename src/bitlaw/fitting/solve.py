"""The solver: damped Gauss-Newton on the robust objective, for a whole stack of points at once.

The stack may be starting points against one set of measurements, or one starting point against many
resampled sets. It stops on the predicted decrease, relative to the objective, and so does not care about
units or the number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .objective import Array, Problem
from .seed import damped_step

TOLERANCE = 1e-11
ITERATIONS = 300


@dataclass(frozen=True)
class Optimum:
    """Where the solver stopped, for each of a stack.

    Attributes:
        u: coordinates (S, f).
        cost: objective (S,).
        converged: whether the predicted relative decrease fell below the tolerance (S,).
    """

    u: Array
    cost: Array
    converged: NDArray[np.bool_]

    def best(self) -> Optimum:
        """The lowest of the stack, as a stack of one."""
        k = int(np.argmin(self.cost))
        return Optimum(self.u[k : k + 1], self.cost[k : k + 1], self.converged[k : k + 1])


def polish(problem: Problem, u: Array, targets: Array | None = None) -> Optimum:
    """Minimise the objective from each point of a stack.

    Args:
        problem: the objective.
        u: starting coordinates (S, f).
        targets: measurements on the link scale, (n,) or one set for each point (S, n).
    """
    low, high = problem.low, problem.high
    scales = problem.scales()
    targets = problem.targets() if targets is None else targets
    targets = np.broadcast_to(targets, (len(u), targets.shape[-1]))
    u = np.clip(u, low, high)
    values, slopes = problem.linearised(u)
    residual = (values - targets) / scales
    cost = problem.cost(residual)
    damping = np.full(len(u), 1e-3)
    converged = np.zeros(len(u), dtype=bool)
    active = np.isfinite(cost)
    for _ in range(ITERATIONS):
        run = np.flatnonzero(active)
        if not len(run):
            break
        jacobian = slopes[run] / scales[:, None]
        weight = problem.weights(residual[run])
        gradient = np.einsum("snf,sn->sf", jacobian, weight * residual[run])
        gram = np.einsum("snf,sn,sng->sfg", jacobian, weight, jacobian, optimize=True)
        full = damped_step(gram, gradient, np.full(len(run), 1e-13), u[run], low, high)
        decrease = -0.5 * np.einsum("sf,sf->s", full, gradient)
        converged[run] = decrease <= TOLERANCE * np.maximum(cost[run], 1e-300)
        step = damped_step(gram, gradient, damping[run], u[run], low, high)
        trial = np.clip(u[run] + step, low, high)
        new_values, new_slopes = problem.linearised(trial)
        new_residual = (new_values - targets[run]) / scales
        new_cost = problem.cost(new_residual)
        better = new_cost < cost[run]
        won = run[better]
        u[won], cost[won], residual[won] = trial[better], new_cost[better], new_residual[better]
        slopes[won] = new_slopes[better]
        damping[run] = np.clip(np.where(better, damping[run] / 5, damping[run] * 8), 1e-13, 1e13)
        active[run] = ~converged[run] & (damping[run] < 1e13)
    return Optimum(u, cost, converged)
