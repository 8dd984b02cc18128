"""Learning-rate schedules: the rate of a step as a share of the peak."""

from __future__ import annotations

import math


def constant(step: int, warmup: int) -> float:
    """Rise linearly over the warm-up, then stay at the peak."""
    return min(1.0, (step + 1) / (warmup + 1))


def cooldown(step: int, start: int, end: int) -> float:
    """Fall from 1 at `start` towards 0 at `end` as 1 - sqrt(progress) (Hagele et al. 2024, 2405.18392)."""
    return 1.0 - math.sqrt((step - start) / (end - start))


def cosine(step: int, end: int, warmup: int, floor: float = 0.1) -> float:
    """Rise over the warm-up, then fall along half a cosine to `floor` at the end (Hoffmann et al. 2022)."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, end - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
