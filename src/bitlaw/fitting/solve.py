"""The solver: damped steps on the robust objective, for a whole stack of points at once.

The stack may be starting points against one set of measurements, or one starting point against many
resampled sets. First Gauss-Newton with reweighting, which forgives poor starts; where that is slow to
end, Newton with the exact curvature of the objective. It stops on the predicted decrease, relative to the
objective, and so does not care about units or the number of rows.

A trial also tells how the law bends along its step, and what second-order step would allow for that (Transtrum &
Sethna 2012). A long step that this would change by much is not trusted even where it goes down, for it is how
parameters run away; a step that goes up is bent and tried again, which is how narrow, curved valleys are followed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from .objective import Array, Problem

TOLERANCE = 1e-13
ITERATIONS = 300
BEFORE_NEWTON = 4, 14  # rounds of Gauss-Newton: where most rows lie beyond delta, and elsewhere
KEEP = 6  # rounds for which the law's own curvature is used again
NUDGE = 1e-6  # of coordinates, for differences of exact gradients
LEAST, MOST = 1e-13, 1e13  # damping
LONG = 1.0  # a step, in coordinates: a factor of e, or as much as a parameter is at the start
BENT = 0.2  # of a step, as much as it may bend; 0.05 to 0.3 do as well (docs/decisions/009)
ROUNDING = 1e-12  # of the objective, by which the last step may seem to go up
EXACT = 2 * float(np.finfo(float).eps)  # residuals of this share of what is measured are none


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


@dataclass
class _Points:
    """Some points of the stack: where they are, what they are measured by, and what was found there."""

    place: NDArray[np.int64]
    u: Array
    targets: Array
    weight: Array
    residual: Array
    slopes: Array
    cost: Array

    @classmethod
    def at(
        cls, problem: Problem, place: NDArray[np.int64], u: Array, targets: Array, weight: Array
    ) -> _Points:
        """Look at points of the stack."""
        u = np.clip(u, problem.low, problem.high)
        residual, slopes = problem.linearised(u)
        residual -= targets
        return cls(place, u, targets, weight, residual, slopes, problem.cost(residual, weight))

    def take(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> _Points:
        """Some of them."""
        return _Points(*(getattr(self, f.name)[keep] for f in fields(self)))

    def put(self, where: NDArray[np.bool_] | NDArray[np.int64], other: _Points) -> None:
        """Move some of them to where others are."""
        for name in ("u", "residual", "slopes", "cost"):
            getattr(self, name)[where] = getattr(other, name)

    def moved(self, problem: Problem, step: Array) -> _Points:
        """Look one step further, inside the bounds."""
        return _Points.at(problem, self.place, self.u + step, self.targets, self.weight)

    def unforeseen(self, there: _Points) -> Array:
        """Of the residuals at other points, what derivatives did not predict (S, n)."""
        predicted = self.residual + ((there.u - self.u)[:, None] @ self.slopes)[:, 0]
        return there.residual - predicted


def polish(
    problem: Problem,
    u: Array,
    targets: Array | None = None,
    weight: Array | None = None,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
    bends: Array | None = None,
) -> Optimum:
    """Minimise the objective from each point of a stack.

    Args:
        problem: the objective.
        u: starting coordinates (S, f).
        targets: measurements on the link scale, (n,) or one set for each point (S, n).
        weight: how much each row counts, (n,) or one set for each point (S, n).
        iterations: at most this many.
        tolerance: predicted decrease, as a share of the objective, at which to stop.
        bends: second derivatives of the predictions (f, f, n) near all of the stack, if they are known already.
    """
    low, high = problem.low, problem.high
    rows = len(problem.scales)
    targets = np.broadcast_to(problem.targets if targets is None else targets, (len(u), rows))
    weight = np.broadcast_to(problem.weight if weight is None else weight, (len(u), rows))
    exact = problem.cost(EXACT * targets, weight)
    points = _Points.at(problem, np.arange(len(u)), u, targets, weight)
    best = Optimum(points.u.copy(), points.cost.copy(), np.zeros(len(u), dtype=bool))
    damping = np.full(len(u), 1e-3)
    curvature = np.zeros((len(u), u.shape[1], u.shape[1]))
    points = points.take(np.isfinite(points.cost))
    for round_ in range(iterations):
        if not len(points.u):
            break
        run = points.place
        pull = points.weight * problem.irls(points.residual)
        gradient = _force(points.slopes, pull * points.residual)
        inlying = problem.inlying(points.residual)
        since = round_ - BEFORE_NEWTON[int(inlying.mean() > 0.5)]
        if since < 0:
            gram = _gram(points.slopes, pull)
        else:
            if bends is not None:
                curvature[run] = np.tensordot(pull * points.residual, bends, axes=(1, 2))
            elif since % KEEP == 0:
                curvature[run] = _curvature(problem, points.u, pull * points.residual, gradient)
            gram = _gram(points.slopes, points.weight * inlying) + curvature[run]
            poor = ~_definite(gram)
            if poor.any():
                gram[poor] = _gram(points.slopes[poor], pull[poor])
        both = np.stack((np.full(len(run), LEAST), damping[run]))
        full, step = damped_step(gram, gradient, both, points.u, low, high)
        decrease = -0.5 * np.einsum("sf,sf->s", full, gradient)
        near = np.abs(decrease) <= np.maximum(tolerance * points.cost, exact[run])
        step = np.where(near[:, None], full, step)  # the last step is a whole one
        trial = points.moved(problem, step)
        better = trial.cost < points.cost
        ask = np.flatnonzero(((_length(step) > LONG) | ~better) & np.isfinite(trial.cost) & ~near)
        if len(ask):
            old = points.take(ask)
            missed = _force(old.slopes, pull[ask] * old.unforeseen(trial.take(ask)))
            bent = damped_step(gram[ask], gradient[ask] + missed, damping[run[ask]], old.u, low, high)
            gentle = _length(bent - step[ask]) <= BENT * _length(step[ask])
            again = gentle & ~better[ask]
            better[ask] &= gentle
            if again.any():
                new = old.take(again).moved(problem, bent[again])
                trial.put(ask[again], new)
                better[ask[again]] = new.cost < old.cost[again]
        better |= near & (trial.cost <= (1 + ROUNDING) * points.cost)
        if better.all():
            points = trial
        else:
            points.put(better, trial.take(better))
        best.u[run], best.cost[run], best.converged[run] = points.u, points.cost, near
        damping[run] = np.clip(np.where(better, damping[run] / 5, damping[run] * 8), LEAST, MOST)
        keep = ~near & (damping[run] < MOST)
        if not keep.all():
            points = points.take(keep)
    return best


def bends_at(problem: Problem, u: Array) -> Array:
    """Second derivatives of the predictions by the coordinates (f, f, n) at one point (f,)."""
    here, there = problem.linearised(u)[1], problem.linearised(u + NUDGE * np.eye(len(u)))[1]
    bends: Array = (there - here) / NUDGE
    return 0.5 * (bends + np.swapaxes(bends, 0, 1))


def _length(step: Array) -> Array:
    """The largest change of a coordinate (S,)."""
    longest: Array = np.abs(step).max(-1, initial=0.0)
    return longest


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
    """Return -(gram + damping) ^-1 gradient for each of a stack (S, f), not pushing against a bound.

    With several dampings (k, S) come several steps (k, S, f).
    The damping is one number times the identity, in units of the mean diagonal: scaling it by column
    (Marquardt) sends parameters in flat directions far away, from where they do not return.
    """
    stuck = ((at <= low) & (gradient > 0)) | ((at >= high) & (gradient < 0))
    free = ~stuck
    gram = gram * (free[:, :, None] & free[:, None, :])
    gradient = gradient * free
    mean = np.maximum(np.einsum("sqq->s", gram) / max(1, gram.shape[-1]), 1e-300)
    eye = np.eye(gram.shape[-1])
    matrix = gram + (damping * mean)[..., None, None] * eye + stuck[:, :, None] * eye * mean[:, None, None]
    try:
        step: Array = np.linalg.solve(matrix, gradient[..., None])[..., 0]
    except np.linalg.LinAlgError:  # one singular matrix fails the stack: fall back to the pseudo-inverse
        step = np.einsum("...qr,...r->...q", np.linalg.pinv(matrix, hermitian=True), gradient)
    return -step
