"""How good a law is on the rows: errors, rows that pull, and constants that the rows do not tell apart."""

from __future__ import annotations

import numpy as np
import polars as pl

from ...fitting import Fit
from ...runs import Runs
from ..chart import Axis, Chart, Mark, Points, Rule
from ..view import View
from .base import Figure, evidence, hover, loss_label


@Figure
def predicted_against_measured(fit: Fit, runs: Runs | View) -> Chart:
    """Signed error of the prediction against the measured loss; held-out rows come from a fit without them.

    Args:
        fit: the fit.
        runs: the rows it was fitted to.

    Raises:
        NothingToDraw: a law without a loss.
    """
    view = View.of(runs, fit)
    view.need()
    rows = view.trained.filter(pl.Series(np.isfinite(view.predicted(view.trained))))
    measured = rows["measured"].to_numpy()
    error = 100 * (view.predicted(rows) / measured - 1)
    marks: list[Mark] = [Rule(y=0.0), Points(measured, error, "fitted", hover=hover(rows), faint=True)]
    held = ""
    if view.held:
        out = view.frame[list(view.held)]
        errors = 100 * np.array(list(view.held.values()))
        marks.append(
            Points(out["measured"].to_numpy(), errors, "held out", 1, 1, hover=hover(out), hollow=True)
        )
        held = (
            f" Open squares: held out ({fit.held_out.split}), predicted by a fit without them."
            if fit.held_out
            else ""
        )
    return Chart(
        "predicted-against-measured",
        "Predicted against measured",
        f"Dots: rows the law was fitted to.{held} {evidence(fit)}.",
        Axis(f"measured {loss_label(view)}"),
        Axis("predicted minus measured, %"),
        tuple(marks),
    )
