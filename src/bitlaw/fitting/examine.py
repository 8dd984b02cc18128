"""A fit with everything that belongs beside it, for whoever has a table and wants the whole picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..errors import FitError
from ..laws import Law
from ..runs import Count
from .compare import Comparison, compare, without_precision
from .estimate import fit
from .result import Fit
from .split import largest


def examine(
    law: Law, runs: Any, *, count: Count = "as_given", interval: float = 0.90, draws: int = 400
) -> tuple[Fit, Comparison | None]:
    """Fit a law, hold out the largest size, and compare with the same law without precision.

    Where the rows are too few to hold any out, the fit comes alone, with a note that says why.

    Raises:
        FitError: rows to which the law cannot be fitted at all.
    """
    try:
        fitted = fit(law, runs, hold_out=largest(), count=count, interval=interval, draws=draws)
    except FitError as error:
        fitted = fit(law, runs, count=count, interval=interval, draws=draws)
        return replace(fitted, notes=(*fitted.notes, f"no rows were held out: {error}")), None
    rivals = [law, without_precision(law)] if law.spec.precision else [law]
    return fitted, compare(runs, rivals, count=count, interval=interval)
