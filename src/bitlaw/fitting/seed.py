"""Where to start: project the linear parameters out, and search only the others.

For any values of the nonlinear parameters the best linear ones (E, A, B, C_T) are a small non-negative
least-squares problem (variable projection, Golub & Pereyra 1973). Many points are scored that way; the
best are then improved by damped Gauss-Newton on the projected problem with Kaufman's Jacobian. Here the
residuals are the losses' relative errors, quadratic throughout; robustness comes after.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .objective import Array, Problem
from .solve import damped_step

CANDIDATES = 72  # for each nonlinear parameter
ITERATIONS = 40
ENOUGH = 1e-6  # predicted relative decrease at which a seed is good enough to be polished
PIVOTS, PATIENCE = 100, 3  # rounds of non-negative least squares, and those that may fail to gain
MOST_NUMBERS = 20_000_000  # in the bases of one stack of candidates: 160 MB


def seeds(problem: Problem, count: int, rng: np.random.Generator) -> Array:
    """Return coordinates (count, f) of starting points, best first."""
    space = _Projected(problem)
    points = _draw(problem, space.nonlinear, rng)
    size = max(1, MOST_NUMBERS // (len(space.measured) * (len(space.linear) + 1)))
    cost = np.concatenate([space.solve(points[k : k + size])[0] for k in range(0, len(points), size)])
    best = points[np.argsort(cost, kind="stable")[:count]]
    best, cost, linear = _improve(space, best)
    order = np.argsort(cost, kind="stable")
    return space.join(best[order], space.bounded(best[order], linear[order]))


def _draw(problem: Problem, nonlinear: NDArray[np.int64], rng: np.random.Generator) -> Array:
    """Draw points in the ranges that the law's parameters declare, on their own scales."""
    count = CANDIDATES * max(1, len(nonlinear))
    columns = []
    for place in nonlinear:
        parameter = problem.law.parameters[problem.free[place]]
        low, high = (end * problem.unit(parameter) for end in parameter.start)
        if parameter.positive:
            columns.append(rng.uniform(np.log(low), np.log(high), count))
        else:
            columns.append(rng.uniform(low, high, count) / problem.reach[place])
    return np.stack(columns, axis=-1) if columns else np.empty((1, 0))


class _Projected:
    """The problem with its linear parameters solved for."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        chosen = np.isin(problem.free, problem.linear)
        self.linear, self.nonlinear = np.flatnonzero(chosen), np.flatnonzero(~chosen)
        weights, measured = [], []
        for block, sigma in zip(problem.blocks, problem.sigma, strict=True):
            weights.append(np.sqrt(block.weight) * block.link_slope(block.measured) / (sigma * block.spread))
            measured.append(block.measured)
        self.weight, self.measured = np.concatenate(weights), np.concatenate(measured)

    def join(self, points: Array, linear: Array) -> Array:
        """Coordinates of all free parameters from nonlinear coordinates and linear values."""
        u = np.empty((len(points), len(self.problem.free)))
        u[:, self.nonlinear] = points
        low, high = self.problem.low[self.linear], self.problem.high[self.linear]
        u[:, self.linear] = np.clip(np.log(np.maximum(linear, np.exp(low))), low, high)
        return u

    def basis(self, points: Array) -> tuple[Array, Array]:
        """Weighted remainder to be explained (S, n) and weighted basis (S, n, K)."""
        problem = self.problem
        u = np.zeros((len(points), len(problem.free)))
        u[:, self.nonlinear] = points
        theta = problem.theta(u)
        chosen = problem.free[self.linear].tolist()
        rests, bases = [], []
        for block in problem.blocks:
            function = problem.function(block)
            rest, basis = function.basis(theta, block.data)
            out = np.zeros((*rest.shape, len(self.linear)))
            rest = rest.copy()
            for column, k in enumerate(function.linear):
                if k in chosen:
                    out[..., chosen.index(k)] = basis[..., column]
                else:  # fixed, or searched for, as it may be negative
                    rest += theta[:, k, None] * basis[..., column]
            rests.append(rest)
            bases.append(out)
        rest, basis = np.concatenate(rests, axis=1), np.concatenate(bases, axis=1)
        return (self.measured - rest) * self.weight, basis * self.weight[:, None]

    def solve(self, points: Array) -> tuple[Array, Array, Array]:
        """Return cost (S,), the best non-negative linear values (S, K), and residuals (S, n)."""
        y, basis = self.basis(points)
        valid = np.asarray(np.isfinite(y).all(-1) & np.isfinite(basis).reshape(len(y), -1).all(-1))
        y, basis = np.where(valid[:, None], y, 0.0), np.where(valid[:, None, None], basis, 0.0)
        linear = _nonnegative(basis, y)
        residual = np.einsum("snk,sk->sn", basis, linear) - y
        cost = np.where(valid, 0.5 * (residual**2).sum(-1), np.inf)
        return cost, linear, residual

    def bounded(self, points: Array, linear: Array) -> Array:
        """Linear values (S, K) with those above their bounds held there, and the others solved for anew.

        Cutting one off alone could leave a sum of opposite signs far from anything measured.
        """
        high = np.exp(self.problem.high[self.linear])
        over = linear > high
        if not over.any():
            return linear
        y, basis = self.basis(points)
        held = np.where(over, high, 0.0)
        y = y - np.einsum("snk,sk->sn", basis, held)
        return np.where(over, held, _nonnegative(np.where(over[:, None], 0.0, basis), y))

    def jacobian(self, points: Array, linear: Array) -> Array:
        """Kaufman's Jacobian (S, n, q): derivatives by the nonlinear coordinates, projected off the basis."""
        problem = self.problem
        u = self.join(points, linear)
        theta = problem.theta(u)
        chain = problem.chain(theta)[..., None, :]
        slopes = [
            problem.function(b).jacobian(theta, b.data)[1][..., problem.free] * chain for b in problem.blocks
        ]
        jacobian = np.nan_to_num(np.concatenate(slopes, axis=1) * self.weight[:, None])
        basis, full = jacobian[..., self.linear], jacobian[..., self.nonlinear]
        gram = np.einsum("snk,snl->skl", basis, basis)
        scale = np.sqrt(np.maximum(np.einsum("skk->sk", gram), 1e-300))
        gram = gram / (scale[:, :, None] * scale[:, None, :]) + 1e-12 * np.eye(len(self.linear))
        cross = np.einsum("snk,snq->skq", basis, full) / scale[:, :, None]
        explained: Array = np.einsum("snk,skq->snq", basis / scale[:, None, :], np.linalg.solve(gram, cross))
        return full - explained


def _improve(space: _Projected, points: Array) -> tuple[Array, Array, Array]:
    """Damped Gauss-Newton on the projected problem, all points at once, inside their box."""
    problem = space.problem
    low, high = problem.low[space.nonlinear], problem.high[space.nonlinear]
    points = np.clip(points, low, high)
    cost, linear, residual = space.solve(points)
    damping = np.full(len(points), 1e-2)
    run = np.arange(len(points) if points.shape[1] else 0)
    for _ in range(ITERATIONS if len(run) else 0):
        at, here = points[run], residual[run]
        jacobian = space.jacobian(at, linear[run])
        gradient = np.einsum("snq,sn->sq", jacobian, np.nan_to_num(here))
        gram = np.swapaxes(jacobian, -1, -2) @ jacobian
        step = damped_step(gram, gradient, damping[run], at, low, high)
        trial = np.clip(at + step, low, high)
        new_cost, new_linear, new_residual = space.solve(trial)
        better = new_cost < cost[run]
        gain = np.where(better, cost[run] - new_cost, np.inf)
        won = run[better]
        points[won], linear[won], residual[won] = trial[better], new_linear[better], new_residual[better]
        cost[won] = new_cost[better]
        damping[run] = np.clip(np.where(better, damping[run] / 4, damping[run] * 6), 1e-12, 1e12)
        run = run[(gain > ENOUGH * cost[run]) & (damping[run] < 1e12)]
        if not len(run):
            break
    return points, cost, linear


def _nonnegative(basis: Array, y: Array) -> Array:
    """Non-negative least squares for a stack, by block principal pivoting (Kim & Park 2011).

    Columns of the wrong sign leave or enter all at once as long as that makes them fewer, and else one at a time,
    which ends (Murty 1974).
    """
    gram = np.einsum("snk,snl->skl", basis, basis)
    cross = np.einsum("snk,sn->sk", basis, y)
    scale = np.sqrt(np.maximum(np.einsum("skk->sk", gram), 1e-300))
    gram = gram / (scale[:, :, None] * scale[:, None, :])
    cross = cross / scale
    count, width = cross.shape
    eye = np.eye(width)
    values = np.zeros((count, width))
    inside = np.ones((count, width), dtype=bool)  # columns that are not held at zero
    least, patience = np.full(count, width + 1), np.zeros(count, dtype=int)
    run = np.arange(count)
    for _ in range(PIVOTS if width else 0):
        here, g, c = inside[run], gram[run], cross[run]
        matrix = np.where(here[:, :, None] & here[:, None, :], g, eye) + 1e-14 * eye
        x = np.linalg.solve(matrix, np.where(here, c, 0.0)[..., None])[..., 0]
        pull = c - (g @ x[..., None])[..., 0]
        values[run] = np.maximum(x, 0.0)
        wrong = np.where(here, x < 0, pull > 1e-12 * np.abs(c).max(-1, keepdims=True))
        number = wrong.sum(-1)
        fewer = number < least[run]
        patience[run] = np.where(fewer, PATIENCE, patience[run] - 1)
        least[run] = np.minimum(number, least[run])
        last = np.arange(width) == width - 1 - np.argmax(wrong[:, ::-1], axis=-1)[:, None]
        inside[run] = here ^ np.where((patience[run] < 0)[:, None], wrong & last, wrong)
        run = run[number > 0]
        if not len(run):
            break
    solution: Array = values / scale
    return solution
