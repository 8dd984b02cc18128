"""The solver: damped steps on the robust objective, for a whole stack of points at once.

The stack may be starting points against one set of measurements, or one starting point against many
resampled sets. First Gauss-Newton with reweighting, which forgives poor starts; where that is slow to
end, Newton with the exact curvature of the objective. It stops on the predicted decrease, relative to the
objective, and so does not care about units or the number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .objective import Array, Problem

TOLERANCE = 1e-13
ITERATIONS = 300
BEFORE_NEWTON = 4, 14  # rounds of Gauss-Newton: where most rows lie beyond delta, and elsewhere
KEEP = 6  # rounds for which the law's own curvature is used again
NUDGE = 1e-6  # of coordinates, for differences of exact gradients


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


def polish(
    problem: Problem,
    u: Array,
    targets: Array | None = None,
    weight: Array | None = None,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
) -> Optimum:
    """Minimise the objective from each point of a stack.

    Args:
        problem: the objective.
        u: starting coordinates (S, f).
        targets: measurements on the link scale, (n,) or one set for each point (S, n).
        weight: how much each row counts, (n,) or one set for each point (S, n).
        iterations: at most this many.
        tolerance: predicted decrease, as a share of the objective, at which to stop.
    """
    low, high = problem.low, problem.high
    rows = len(problem.scales)
    targets = np.broadcast_to(problem.targets if targets is None else targets, (len(u), rows))
    weight = np.broadcast_to(problem.weight if weight is None else weight, (len(u), rows))
    u = np.clip(u, low, high)
    values, slopes = problem.linearised(u)
    residual = values - targets
    cost = problem.cost(residual, weight)
    damping = np.full(len(u), 1e-3)
    converged = np.zeros(len(u), dtype=bool)
    curvature = np.zeros((len(u), u.shape[1], u.shape[1]))
    run = np.flatnonzero(np.isfinite(cost))
    for round_ in range(iterations):
        if not len(run):
            break
        slope, at, importance = slopes[run], residual[run], weight[run]
        pull = importance * problem.irls(at)
        gradient = _force(slope, pull * at)
        gram = _gram(slope, pull)
        since = round_ - BEFORE_NEWTON[int(problem.inlying(at).mean() > 0.5)]
        if since >= 0:
            if since % KEEP == 0:
                curvature[run] = _curvature(problem, u[run], pull * at, gradient)
            exact = _gram(slope, importance * problem.inlying(at)) + curvature[run]
            gram = np.where(_definite(exact)[:, None, None], exact, gram)
        full = damped_step(gram, gradient, np.full(len(run), 1e-13), u[run], low, high)
        decrease = -0.5 * np.einsum("sf,sf->s", full, gradient)
        converged[run] = np.abs(decrease) <= tolerance * np.maximum(cost[run], 1e-300)
        step = damped_step(gram, gradient, damping[run], u[run], low, high)
        trial = np.clip(u[run] + step, low, high)
        new_values, new_slopes = problem.linearised(trial)
        new_residual = new_values - targets[run]
        new_cost = problem.cost(new_residual, importance)
        better = new_cost < cost[run]
        won = run[better]
        u[won], cost[won], residual[won] = trial[better], new_cost[better], new_residual[better]
        slopes[won] = new_slopes[better]
        damping[run] = np.clip(np.where(better, damping[run] / 5, damping[run] * 8), 1e-13, 1e13)
        run = run[~converged[run] & (damping[run] < 1e13)]
    return Optimum(u, cost, converged)


def _force(slopes: Array, pull: Array) -> Array:
    """Derivatives of the objective (S, f)."""
    return (slopes @ pull[..., None])[..., 0]


def _gram(slopes: Array, weight: Array) -> Array:
    """The weighted products of a stack of derivatives (S, f, f)."""
    return (slopes * weight[..., None, :]) @ np.swapaxes(slopes, -1, -2)


def _curvature(problem: Problem, u: Array, pull: Array, gradient: Array) -> Array:
    """What the law's own curvature adds to the second derivatives of the objective (S, f, f).

    It is all that bends the objective in rows beyond delta; taken from exact gradients, one along each coordinate.
    """
    size, width = u.shape
    nudged = (u[:, None, :] + NUDGE * np.eye(width)).reshape(-1, width)
    there = _force(problem.linearised(nudged)[1].reshape(size, width * width, -1), pull)
    curvature = (there.reshape(size, width, width) - gradient[:, None, :]) / NUDGE
    return 0.5 * (curvature + np.swapaxes(curvature, -1, -2))


def _definite(matrices: Array) -> NDArray[np.bool_]:
    """Which of a stack are finite and positive definite (S,)."""
    finite = np.asarray(np.isfinite(matrices).all((-1, -2)))
    ends = np.linalg.eigvalsh(np.where(finite[:, None, None], matrices, 0.0))[:, [0, -1]]
    return np.asarray(finite & (ends[:, 0] > 1e-14 * ends[:, 1]))


def damped_step(gram: Array, gradient: Array, damping: Array, at: Array, low: Array, high: Array) -> Array:
    """Return -(gram + damping) ^-1 gradient for each of a stack, not pushing against a bound.

    The damping is one number times the identity, in units of the mean diagonal: scaling it by column
    (Marquardt) sends parameters in flat directions far away, from where they do not return.
    """
    stuck = ((at <= low) & (gradient > 0)) | ((at >= high) & (gradient < 0))
    free = ~stuck
    gram = gram * (free[:, :, None] & free[:, None, :])
    gradient = gradient * free
    mean = np.maximum(np.einsum("sqq->s", gram) / gram.shape[-1], 1e-300)
    eye = np.eye(gram.shape[-1])
    matrix = gram + (damping * mean)[:, None, None] * eye + stuck[:, :, None] * eye * mean[:, None, None]
    try:
        step: Array = np.linalg.solve(matrix, gradient[..., None])[..., 0]
    except np.linalg.LinAlgError:  # one singular matrix fails the stack: fall back to the pseudo-inverse
        step = np.einsum("sqr,sr->sq", np.linalg.pinv(matrix, hermitian=True), gradient)
    return -step
