"""A fit with everything that belongs beside it, for whoever has a table and wants the whole picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import FitError
from ..laws import Law, get
from ..runs import Count
from .compare import compare, without_precision
from .estimate import fit
from .ranking import Comparison
from .result import Fit
from .split import largest


def examine(
    law: Law | str, runs: Any, *, count: Count = "as_given", interval: float = 0.90, **how: Any
) -> tuple[Fit, Comparison | None]:
    """Fit a law, hold out the largest size, and compare with the same law without precision.

    Where the rows are too few to hold any out, the fit comes alone, with a note that says why. Comparisons fit
    everything by the default objective; a fit that does not is not compared.

    Args:
        law: a law, or the name of one.
        runs: whatever `read_runs` reads.
        count: how N is counted.
        interval: level of the intervals.
        **how: the rest of what `fit` takes.

    Raises:
        FitError: rows to which the law cannot be fitted at all.
    """
    law = get(law) if isinstance(law, str) else law
    fitted = held(law, runs, count=count, interval=interval, **how)
    given = {k for k, v in how.items() if v is not None and np.size(v)} - {"method", "draws", "seed"}
    usual = how.get("objective", "huber") == "huber" and not given - {"objective"}
    if fitted.held_out is None or law.target != "loss" or not usual:
        return fitted, None
    rivals = [law, without_precision(law)] if law.spec.precision and law.loss != 0 else [law]
    what: Any = "loss" if law.loss != 0 else "gap"
    try:
        return fitted, compare(runs, rivals, what=what, count=count, interval=interval)
    except FitError as error:
        return replace(fitted, notes=(*fitted.notes, f"no laws were compared: {error}")), None


def held(law: Law | str, runs: Any, **how: Any) -> Fit:
    """Fit a law, and predict the largest size by a fit without it; rows too few for that are said to be.

    Args:
        law: a law, or the name of one.
        runs: whatever `read_runs` reads.
        **how: the rest of what `fit` takes.

    Raises:
        FitError: rows to which the law cannot be fitted at all.
    """
    try:
        return fit(law, runs, hold_out=largest(), **how)
    except FitError as error:
        fitted = fit(law, runs, **how)
        return replace(fitted, notes=(*fitted.notes, f"no rows were held out: {error}"))
