"""Minima of many functions of a few variables at once, without derivatives."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FINE = 256  # rounds at most for an estimate
QUICK = 64  # rounds at most for draws
CLOSE = 1e-10  # steps, as shares of the box, at which a minimum is found: its value to rounding
GRID = {0: 1, 1: 33, 2: 17, 3: 9}  # points an axis of the first look
FAR = 4.0  # steps to the bottom of a parabola, at most
CHUNK = 2_000_000  # values a call, so that memory stays small


def minimise(
    function: Callable[[Array], Array],
    low: Array,
    high: Array,
    rounds: int = FINE,
    start: Array | None = None,
    reach: float = 1.0,
) -> tuple[Array, Array]:
    """Minimise functions of up to three variables in boxes, all at once.

    A grid finds the valley, unless it is known. Then, round by round, every function is read at the 3^d points one step
    around the best so far, and at the bottom of the parabola through them; where that finds nothing lower, the step is
    halved.

    Args:
        function: takes points (S, K, d), K for each function, and returns values (S, K); infinite where undefined.
        low: lower corners (S, d).
        high: upper corners (S, d).
        rounds: after the grid, at most.
        start: points in the valleys (S, d), in place of the grid.
        reach: first step from there, in steps of the grid.

    Returns:
        Where each minimum is (S, d), and its value (S,).

    >>> centre = np.array([[1.0, -2.0]])
    >>> at, value = minimise(lambda x: ((x - centre) ** 2).sum(-1), centre - 5, centre + 7)
    >>> at.round(6).tolist()
    [[1.0, -2.0]]
    """
    count, d = low.shape
    each = GRID[d]
    if start is None or d == 0:
        shares = np.array(list(product(np.linspace(0, 1, each), repeat=d))).reshape(each**d, d)
        best, value = _lowest(function, low[:, None] + (high - low)[:, None] * shares, count)
        reach = 1.0
    else:
        best, value = start, np.full(count, np.inf)
    step = reach * (high - low) / max(each - 1, 1)
    if d == 0:
        return best, value
    around = np.array(list(product((-1.0, 0.0, 1.0), repeat=d)))
    middle = len(around) // 2
    rows = np.arange(count)
    for _ in range(rounds):
        points = np.clip(best[:, None] + step[:, None] * around, low[:, None], high[:, None])
        values = function(points)
        bottom = np.clip(best + step * _bottom(values, d), low, high)
        points = np.concatenate([points, bottom[:, None]], axis=1)
        values = np.concatenate([values, function(bottom[:, None])], axis=1)
        k = np.argmin(values, axis=1)
        k = np.where(values[rows, k] < values[:, middle], k, middle)  # equal values do not move it
        moved = np.abs(points[rows, k] - best)
        best, value = points[rows, k], values[rows, k]
        # A step to a neighbour keeps its length, a step to the parabola's bottom takes the bottom's distance: longer
        # steps too, or a slanted valley, at first too narrow for them, would never be followed to its end.
        least, most = step / 8, np.where((k == middle)[:, None], step / 2, 2 * step)
        near = (k == middle) | (k == len(around))
        step = np.where(near[:, None], np.clip(2 * moved, least, most), step)
        if (step <= CLOSE * (high - low)).all():
            break
    return best, value


def _lowest(function: Callable[[Array], Array], points: Array, count: int) -> tuple[Array, Array]:
    """The best of many points of each function, read in pieces."""
    size = max(1, CHUNK // max(count, 1))
    parts = [points[:, k : k + size] for k in range(0, points.shape[1], size)]
    values = np.concatenate([function(part) for part in parts], axis=1)
    k = np.argmin(values, axis=1)
    rows = np.arange(count)
    return points[rows, k], values[rows, k]


def _bottom(values: Array, d: int) -> Array:
    """Where the parabola through the values (S, 3^d) has its bottom, in steps, four at most; zero where it has none."""
    weights = 3 ** np.arange(d)[::-1]

    def at(*moves: tuple[int, int]) -> Array:
        place = np.ones(d, dtype=int)
        for axis, move in moves:
            place[axis] += move
        return values[:, int(place @ weights)]

    slope = np.empty((len(values), d))
    bend = np.empty((len(values), d, d))
    with np.errstate(all="ignore"):  # points outside a law's domain are infinite; they are looked for below
        for i in range(d):
            slope[:, i] = (at((i, 1)) - at((i, -1))) / 2
            bend[:, i, i] = at((i, 1)) - 2 * at() + at((i, -1))
            for j in range(i):
                corners = (
                    at((i, 1), (j, 1)) - at((i, 1), (j, -1)) - at((i, -1), (j, 1)) + at((i, -1), (j, -1))
                )
                bend[:, i, j] = bend[:, j, i] = corners / 4
        known = np.asarray(np.isfinite(bend).all(axis=(1, 2)) & np.isfinite(slope).all(axis=1))
        bend = np.where(known[:, None, None], bend, np.eye(d))
        least = np.asarray(np.linalg.eigvalsh(bend), dtype=float)[:, 0]
        upward = np.asarray(least > 1e-12 * np.abs(bend).max(axis=(1, 2)))
        bend = np.where(upward[:, None, None], bend, np.eye(d))
        move = -np.linalg.solve(bend, slope[..., None])[..., 0]
        move *= np.minimum(1.0, FAR / np.abs(move).max(axis=1, keepdims=True))
    usable = known & upward & np.isfinite(move).all(axis=1)
    return np.where(usable[:, None], move, 0.0)
