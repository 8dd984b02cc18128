"""What the rows cannot tell, in words."""

from __future__ import annotations

import numpy as np

from .objective import Array, Problem

#: A direction is called unidentified when moving along it by a factor of e (or by 1, for offsets) costs
#: less than one standard error.
WIDE = 1.0


def unidentified(problem: Problem, u: Array) -> tuple[list[str], set[str]]:
    """Return sentences about directions the rows do not identify, and the parameters that lie in them."""
    values, slopes = problem.linearised(u[None])
    residual = values[0] - problem.targets
    gram = (slopes[0] * (problem.weight * problem.irls(residual))) @ slopes[0].T
    value, vector = np.linalg.eigh(gram)
    names = [problem.law.parameters[k].name for k in problem.free]
    sentences, involved = [], set()
    for strength, direction in zip(value, vector.T, strict=True):
        if strength > 1 / WIDE**2:
            continue
        chosen = [n for n, x in zip(names, direction, strict=True) if abs(x) > 0.3]
        involved |= set(chosen)
        if len(chosen) == 1:
            sentences.append(
                f"{chosen[0]} is not identified: values more than a factor of e apart fit as well"
            )
        else:
            sentences.append(f"{', '.join(chosen)} are not identified separately, only in combination")
    return sentences, involved


def at_bounds(problem: Problem, u: Array) -> dict[str, str]:
    """Name the parameters that ended at a bound, and which."""
    out = {}
    for place, k in enumerate(problem.free):
        span = problem.high[place] - problem.low[place]
        for side, bound in (("lower", problem.low[place]), ("upper", problem.high[place])):
            if abs(u[place] - bound) < 1e-6 * span:
                out[problem.law.parameters[k].name] = side
    return out
