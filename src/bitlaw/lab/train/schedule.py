"""Learning-rate schedules: the rate of a step as a share of the peak."""

from __future__ import annotations

import math
from collections.abc import Callable

from .config import Branch, TrunkConfig

#: From 1 where the cooldown begins, x = 0, towards 0 at its end, x = 1 (Hagele et al. 2024, 2405.18392, and its code).
SHAPES: dict[str, Callable[[float], float]] = {
    "1-sqrt": lambda x: 1.0 - math.sqrt(x),
    "linear": lambda x: 1.0 - x,
    "cosine": lambda x: 0.5 * (1 + math.cos(math.pi * x)),
    "mirror-cosine": lambda x: 2 * (1 - x) - 0.5 * (1 + math.cos(math.pi * x)),
    "square": lambda x: 1.0 - x * x,
}


def constant(step: int, warmup: int) -> float:
    """Rise linearly over the warm-up, then stay at the peak."""
    return min(1.0, (step + 1) / (warmup + 1))


def cooldown(step: int, start: int, end: int, shape: str = "1-sqrt", floor: float = 0.0) -> float:
    """Fall from 1 at `start` towards a floor at `end`.

        floor + (1 - floor) f(x),   x = (step - start) / (end - start);   exponential: floor^x

    The last step is `end - 1`, so the floor itself is not reached.

    >>> [cooldown(step, 0, 4, "linear", floor=0.5) for step in (0, 2)]
    [1.0, 0.75]
    """
    x = (step - start) / (end - start)
    return floor**x if shape == "exponential" else floor + (1 - floor) * SHAPES[shape](x)


def cosine(step: int, end: int, warmup: int, floor: float = 0.1) -> float:
    """Rise over the warm-up, then fall along half a cosine to `floor` at the end (Hoffmann et al. 2022)."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, end - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def rate(step: int, config: TrunkConfig, branch: Branch) -> float:
    """The share of the peak at a step of the way to the end of a branch, trunk included.

    A cooldown that begins within the warm-up does not jump to the peak.
    """
    start, end, warmup = config.branch_step(branch), config.steps(branch.tokens), config.warmup_steps
    if config.schedule == "cosine":
        return cosine(step, end, warmup, config.lowest)
    falling = cooldown(step, start, end, config.cooldown_shape, config.lowest) if step >= start else 1.0
    return constant(step, warmup) * falling
