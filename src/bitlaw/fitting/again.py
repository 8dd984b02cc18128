"""The problem that a fit solved, posed again from its rows, for questions that the fit itself does not answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import DataError
from ..runs import read_runs
from .centre import rescaled
from .minimize import Aim, estimate_noise, pose
from .objective import Problem
from .result import Fit
from .rows import select
from .solve import Optimum, polish

SAME = 1e-4  # of the noise, by which it may be another one than the fit's


def again(fit: Fit, runs: Any) -> tuple[Problem, Optimum, list[str]]:
    """Pose the problem of a fit again.

    Args:
        fit: the fit; where it minimised absolute deviations, Huber's loss takes their place.
        runs: the rows it was made from, whatever `read_runs` reads.

    Returns:
        The problem in the law's own units, its optimum (a stack of one), and the id of each of its rows.

    Raises:
        DataError: other rows, or rows that the fit weighted, which it does not remember.
    """
    table = read_runs(runs)
    if not fit.is_of(table):
        raise DataError("these are not the rows that the fit was made from; give those, or fit again")
    fixed = {e.parameter.name: e.value for e in fit.estimates if e.status == "fixed"}
    rows = replace(select(fit.law, table, fit.counting), law=fit.law)  # the same, but compiled already
    objective: Any = fit.objective
    problem = pose(rows, Aim(objective, fit.delta, fixed, spare=1))
    theta = rescaled(fit.law, fit.law.vector(fit.values), problem.centre, -1)
    u = problem.coordinates(theta)[None]
    scaled = estimate_noise(problem, u)
    noise = {block.kind: s for block, s in zip(scaled.blocks, scaled.sigma, strict=True)}
    if any(not np.isclose(noise.get(kind, np.nan), s, rtol=SAME) for kind, s in fit.noise.items()):
        raise DataError(
            "the fit weighted its rows, or took their measured noise, which it does not remember; fit without"
        )
    plain = (scaled if fit.delta is None else problem).uncentred()
    start = plain.coordinates(problem.decentre(problem.theta(u)))
    ids = table.ok()["id"].to_list()
    names = [ids[k] for block in plain.blocks for k in block.row]
    return plain, polish(plain, start), names
