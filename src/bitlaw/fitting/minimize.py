"""From rows to the lowest point of the objective: the problem posed, seeds, polish, and the noise estimated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import ConfigError, FitError, nearest
from .centre import centre_of, middles
from .objective import HUBER, OBJECTIVES, Array, Objective, Problem, robust_spread
from .rows import Rows
from .seed import seeds
from .solve import Optimum, polish

SIGMA_ROUNDS = 4
FEW, MANY = 3, 8  # starting points of laws with at most two nonlinear parameters, and of others
FIRST_GUESS = {"loss": 0.01, "gap": 0.2}  # of the noise, on the scale of residuals
QUIETEST = 3e-3  # of the noisiest block's noise: that of no other is taken to be less
LAD_STEPS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)  # Huber's delta on the way to zero, in units of noise


@dataclass(frozen=True)
class Aim:
    """What is to be minimised, and from how many points.

    Attributes:
        objective: `huber`, `lad` (least absolute deviation) and `log-squares` are of log residuals;
            `squares` is of raw losses.
        delta: Huber's delta on the scale of residuals; None for 1.345 times the noise estimated from them.
        fix: parameters that are held at a value.
        starts: number of starting points; None for as many as the law needs.
        spare: how many more rows than parameters there must be.
    """

    objective: Objective = "huber"
    delta: float | None = None
    fix: Mapping[str, float] = field(default_factory=dict)
    starts: int | None = None
    spare: int = 2

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ConfigError(
                f"there is no objective {self.objective!r}; {nearest(self.objective, OBJECTIVES)}"
            )
        if self.delta is not None and (self.objective != "huber" or not self.delta > 0):
            raise ConfigError(
                f"delta must be positive and goes with objective 'huber', not {self.delta} with "
                f"{self.objective!r}; try delta=1e-3"
            )
        if self.starts is not None and self.starts < 1:
            raise ConfigError(f"starts must be 1 or more, not {self.starts}")

    @property
    def estimates_noise(self) -> bool:
        """Whether residuals are measured in units of a noise that they themselves tell."""
        return self.delta is None


def minimize(rows: Rows, aim: Aim, rng: np.random.Generator) -> tuple[Problem, Optimum]:
    """Find the optimum of a law on rows; returns the problem as it was last posed, and the best point.

    Raises:
        FitError: fewer rows than parameters + spare, or a law that is finite nowhere on them.
        ConfigError: a parameter to be fixed that the law does not have, or a value out of its bounds.
    """
    problem = pose(rows, aim)
    if not len(problem.free):
        raise FitError("every parameter is fixed or borrowed; free at least one")
    few = len(problem.free) - len(problem.linear) <= 2
    points = seeds(problem, aim.starts or (FEW if few else MANY), rng)
    if aim.estimates_noise:
        problem = estimate_noise(problem, points[:1])
    best = polish(problem, points).best()
    if not np.isfinite(best.cost[0]):
        raise FitError(
            "no starting point gives a finite loss on these rows; are sizes and tokens in plain units, "
            "and bits above two?"
        )
    if aim.objective == "lad":
        return towards_lad(problem, best)
    for _ in range(SIGMA_ROUNDS if aim.estimates_noise else 0):
        problem = estimate_noise(problem, best.u)
        best = polish(problem, best.u)
    return problem, best


def pose(rows: Rows, aim: Aim) -> Problem:
    """Set up the objective, with a first guess of the noise.

    Raises:
        FitError: fewer rows than parameters + spare.
        ConfigError: a parameter to be fixed that the law does not have, or a value out of its bounds.
    """
    law, fix = rows.law, aim.fix
    fixed = {p.name: p.fixed for p in law.parameters if p.fixed is not None} | dict(fix)
    values = {p.name: 1.0 if p.positive else 0.0 for p in law.parameters} | fixed
    base = law.vector(values)
    free = np.array([k for k, name in enumerate(law.names) if name not in fixed], dtype=np.int64)
    blocks = rows.blocks()
    total = sum(len(block) for block in blocks)
    if total < len(free) + aim.spare:
        raise FitError(
            f"{total} rows cannot determine the {len(free)} parameters of {law.name}; "
            f"it needs at least {len(free) + aim.spare}, or hold some constants, like --fix E=1.69, fix={{'E': 1.69}}"
        )
    middle = middles(blocks[0].data)
    centre = centre_of(law, middle)
    for name, value in fix.items():
        parameter = law.parameters[law.names.index(name)]
        if not parameter.low <= value <= parameter.high:
            raise ConfigError(
                f"{name} cannot be fixed at {value:g}; it lies between {parameter.low:g} and {parameter.high:g}"
            )
    if set(fix) & {law.names[k] for k in law.compiled.total.linear} - {"E"}:
        centre = {}  # a linear parameter fixed by the user keeps its own unit; E has the same in both
    units = [middle[p.scale_of] if p.scale_of and centre else 1.0 for p in law.parameters]
    base = base / np.array(units)
    raw = aim.objective == "squares"
    centred = tuple(
        replace(block, data={n: c / centre.get(n, 1.0) for n, c in block.data.items()}, raw=raw)
        for block in blocks
    )
    sigma = tuple(FIRST_GUESS[block.kind] if aim.estimates_noise else 1.0 for block in blocks)
    delta = aim.delta or (HUBER if aim.objective in ("huber", "lad") else np.inf)
    return Problem(law, centred, free, base, sigma, delta, centre, middle)


def estimate_noise(problem: Problem, u: Array) -> Problem:
    """Return the problem with the noise of each block taken from its residuals at a point (1, f).

    1.4826 times the median absolute residual, corrected for the parameters spent; residuals beyond three
    times the estimate cannot move it. For least squares, their root mean square. None is less than
    `QUIETEST` of another.
    """
    residual = (problem.predictions(u)[0] - problem.targets) * problem.scales
    spent = len(problem.free) / len(residual)
    sigmas = []
    for block, part in problem.parts:
        own = residual[part] / block.spread
        middle = (
            float(np.sqrt(np.average(own**2, weights=block.weight)))
            if problem.delta == np.inf
            else robust_spread(own, block.weight)
        )
        sigmas.append(max(middle / np.sqrt(max(0.2, 1 - spent)), 1e-12))
    # Beside rows without any noise, the others would be lost in the rounding of the objective.
    return replace(problem, sigma=tuple(max(sigma, QUIETEST * max(sigmas)) for sigma in sigmas))


def towards_lad(problem: Problem, best: Optimum) -> tuple[Problem, Optimum]:
    """Follow Huber's optimum as delta goes to zero; the cost becomes delta times the sum of |r|."""
    problem = estimate_noise(problem, best.u)
    for delta in LAD_STEPS:
        problem = replace(problem, delta=delta)
        best = polish(problem, best.u)
    return problem, best


def plain_cost(problem: Problem, aim: Aim, optimum: Optimum) -> float:
    """The objective as people write it: Huber's sum in units of the noise, or the sum of |r| or r^2."""
    if aim.objective == "huber":
        return float(optimum.cost[0])
    residual = (problem.predictions(optimum.u[0]) - problem.targets) * problem.scales
    power = np.abs(residual) if aim.objective == "lad" else residual**2
    return float((problem.weight * power).sum())
