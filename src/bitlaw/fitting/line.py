"""A power law through a few points, as a straight line in logarithms, and how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .objective import Array, student_quantile


@dataclass(frozen=True)
class Range:
    """A value and the ends of its interval; NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Line:
    """A straight line through log N over log C: height at the centre, slope, and how sure they are.

    `draws` (n, 2) of height and slope, where intervals come from a bootstrap; empty for Student's t.
    """

    centre: float
    height: float
    slope: float
    errors: tuple[float, float]
    df: int
    draws: Array

    @classmethod
    def through(cls, log_c: Array, log_n: Array, weight: Array) -> Line:
        """Fit by weighted least squares; NaN carries no weight."""
        there = np.isfinite(log_n)
        weight, log_n = np.where(there, weight, 0.0), np.where(there, log_n, 0.0)
        centre = float((weight * log_c).sum() / weight.sum())
        height, slope = straight(log_c - centre, log_n[None], weight[None])[0]
        off = np.where(weight > 0, log_n - height - slope * (log_c - centre), 0.0)
        df = int((weight > 0).sum()) - 2
        noise = (weight * off**2).sum() / df
        errors = noise / weight.sum(), noise / (weight * (log_c - centre) ** 2).sum()
        return cls(
            centre, float(height), float(slope), (errors[0] ** 0.5, errors[1] ** 0.5), df, np.empty((0, 2))
        )

    def of(self, combination: tuple[float, float], level: float) -> Range:
        """A combination of height and slope."""
        value = combination[0] * self.height + combination[1] * self.slope
        tail = (1 - level) / 2
        if len(self.draws):
            low, high = np.quantile(self.draws @ combination, [tail, 1 - tail])
            return Range(value, float(low), float(high))
        margin = student_quantile(self.df, 1 - tail) * math.hypot(*np.multiply(combination, self.errors))
        return Range(value, value - margin, value + margin)


def straight(x: Array, y: Array, weight: Array) -> Array:
    """Height at x = 0 and slope of weighted lines: x (k,), y and weight (n, k), to (n, 2)."""
    total = weight.sum(axis=1)
    mean_x, mean_y = (weight * x).sum(axis=1) / total, (weight * y).sum(axis=1) / total
    off = x - mean_x[:, None]
    slope = (weight * off * (y - mean_y[:, None])).sum(axis=1) / (weight * off**2).sum(axis=1)
    return np.stack([mean_y - slope * mean_x, slope], axis=1)
