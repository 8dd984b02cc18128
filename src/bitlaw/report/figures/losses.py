"""The loss itself: slices and surfaces of the law, with the rows it was fitted to."""

from __future__ import annotations

import numpy as np
import polars as pl

from ...fitting import Fit
from ...runs import Runs
from ...units import format_quantity
from ..chart import Axis, Band, Chart, Line, Mark, NothingToDraw, Points
from ..view import View
from .base import CURVE, Figure, bits_name, evidence, hover, interval, loss_label


@Figure
def loss_against_tokens(fit: Fit, runs: Runs | View, params: float | None = None) -> Chart:
    """Loss against training tokens, one line per weight precision, at one size; the fit runs through.

    Args:
        fit: of a law of tokens.
        runs: the rows it was fitted to.
        params: the size; None for the largest.

    Raises:
        NothingToDraw: no such rows.
    """
    view = View.of(runs, fit)
    view.need("tokens")
    rows = view.weights_only().filter(pl.col("params").is_not_null())
    if not rows.height:
        raise NothingToDraw("no row was trained with weights alone in low precision, or in none; add some")
    size = float(rows["params"].to_numpy().max()) if params is None else params
    rows = rows.filter(pl.col("params") == size)
    tokens = rows["tokens"].to_numpy()
    grid = np.geomspace(tokens.min(), tokens.max(), CURVE)
    marks: list[Mark] = []
    for k, bits in enumerate(rows["w_bits"].unique().sort()):
        some, label = rows.filter(pl.col("w_bits") == bits).sort("tokens"), bits_name(bits)
        curve, low, high = view.curve(some.row(0, named=True), tokens=grid)
        marks += [Band(grid, low, high, label, k), Line(grid, curve, label, k)]
        held = pl.col("place").is_in(list(view.held))
        for part, hollow in ((some.filter(~held), False), (some.filter(held), True)):
            if part.height:
                x, y = part["tokens"].to_numpy(), part["measured"].to_numpy()
                marks.append(Points(x, y, label, k, marker=k, hover=hover(part), hollow=hollow))
    held_out = f" Hollow: held out, {fit.held_out.split}." if fit.held_out else ""
    return Chart(
        "loss-against-tokens",
        f"Loss against tokens at {format_quantity(size, 'params')}, by bits of the weights",
        f"Marks: single runs.{held_out} Lines and bands: the fitted law, {interval(fit)}. {evidence(fit)}.",
        Axis("training tokens", "log", "prefix"),
        Axis(loss_label(view)),
        tuple(marks),
        legend="weights",
    )
