"""Minima of many one-dimensional functions at once, without derivatives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_GOLDEN = (np.sqrt(5) - 1) / 2


def minimise(
    function: Callable[[Array], Array], low: Array, high: Array, grid: int = 33, iterations: int = 40
) -> tuple[Array, Array]:
    """Minimise functions of one variable, all at once: a grid finds the valley, golden sections its floor.

    Args:
        function: takes points (S,) and returns values (S,); infinite where undefined.
        low: lower ends (S,).
        high: upper ends (S,).
        grid: points of the first look.
        iterations: golden-section steps; each shortens the bracket by 0.62.

    Returns:
        Where each minimum is (S,), and its value (S,).
    """
    shares = np.linspace(0, 1, grid)
    points = low + (high - low) * shares[:, None]
    values = np.stack([function(p) for p in points])
    k = np.argmin(values, axis=0)
    step = (high - low) / (grid - 1)
    a = np.maximum(low, low + step * (k - 1))
    b = np.minimum(high, low + step * (k + 1))
    x1, x2 = b - _GOLDEN * (b - a), a + _GOLDEN * (b - a)
    f1, f2 = function(x1), function(x2)
    for _ in range(iterations):
        left = f1 <= f2
        a, b = np.where(left, a, x1), np.where(left, x2, b)
        new = np.where(left, b - _GOLDEN * (b - a), a + _GOLDEN * (b - a))
        f_new = function(new)
        x1, x2 = np.where(left, new, x2), np.where(left, x1, new)
        f1, f2 = np.where(left, f_new, f2), np.where(left, f1, f_new)
    candidates = np.stack([x1, x2, low, high])
    heights = np.stack([f1, f2, function(low), function(high)])
    best = np.argmin(heights, axis=0)
    rows = np.arange(len(best))
    return candidates[best, rows], heights[best, rows]
