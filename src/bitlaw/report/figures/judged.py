"""How good a law is on the rows: errors on rows held out, residuals, and rows that pull."""

from __future__ import annotations

import numpy as np
import polars as pl

from ...errors import DataError
from ...fitting import Comparison, Fit, influence
from ...fitting.objective import HUBER
from ...runs import Runs
from ...units import percent
from ..chart import Axis, Bars, Chart, Line, Mark, NothingToDraw, Points, Rule
from ..view import Array, View
from .base import Figure, evidence, loss_label, measured_as, number, one_below_another, points_of

DECIDES = 1.0  # Cook's distance from which a row decides a fit


@Figure
def law_ranking(comparison: Comparison, which: int = 0) -> Chart:
    """Mean error of each law on the rows held out, best first, with intervals; guesses without a law hollow.

    Args:
        comparison: laws ranked.
        which: the ranking, where there are several splits.

    Raises:
        NothingToDraw: no law has an error.
    """
    ranking = comparison.rankings[which]
    entries = [e for e in (*ranking.entries, *ranking.baselines) if np.isfinite(e.held_out.error)]
    if not entries:
        raise NothingToDraw("no law predicts the held-out rows; see why in the comparison")
    marks: list[Mark] = [Rule(x=100 * entries[0].held_out.error)]
    laws = len([e for e in ranking.entries if e in entries])
    for label, part, hollow in (
        ("laws", entries[:laws], False),
        ("guesses without a law", entries[laws:], True),
    ):
        start = laws if hollow else 0
        value = 100 * np.array([e.held_out.error for e in part])
        margin = 100 * np.nan_to_num(np.array([e.margin for e in part]))
        if part:
            low = np.maximum(value - margin, value / 10)
            texts = [
                f"{e.name}\n{v:.3g} %" + (f" ± {m:.2g}" if np.isfinite(e.margin) else "")
                for e, v, m in zip(part, value, margin, strict=True)
            ]
            places = np.arange(start, start + len(part), dtype=float)
            marks.append(
                Bars(places, value, low, value + margin, label, int(hollow), int(hollow), texts, hollow)
            )
    bars = f"bars: {percent(ranking.level)} confidence by Student's t over clusters"
    if any(e.margin >= e.held_out.error for e in entries):
        bars += ", cut at a tenth of the error where they reach zero"
    if not any(np.isfinite(e.margin) for e in entries):
        bars = "too few clusters for intervals"
    what = "losses" if ranking.what == "loss" else "gaps"
    suffix = "" if which == 0 else f"-{which + 1}"
    return Chart(
        f"law-ranking{suffix}",
        f"Error on rows held out: {ranking.split}",
        f"Mean absolute error of {ranking.rows} {what} in {number(ranking.clusters, 'cluster')}; {bars}. "
        f"Whether two laws differ is judged by paired differences: "
        f"{ranking.verdict}",
        Axis(f"mean absolute error, % of the {ranking.what}", "log"),
        one_below_another([e.name for e in entries]),
        tuple(marks),
    )


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
    rows = view.frame.filter(pl.col("fitted") == "loss")
    measured = rows["measured"].to_numpy()
    error = 100 * (view.predicted(rows) / measured - 1)

    def told(rows: pl.DataFrame, errors: Array) -> list[str]:
        what = measured_as(view, rows) or [""] * rows.height
        return [
            f"{own}\npredicted minus measured {value:+.2f} %".strip()
            for own, value in zip(what, errors, strict=True)
        ]

    marks: list[Mark] = [
        Rule(y=0.0),
        points_of(rows, measured, error, "fitted" if view.own else "rows", 0, told(rows, error), faint=True),
    ]
    held = ""
    if view.held and fit.held_out:
        out = view.frame[list(fit.held_out.index)]
        errors = 100 * np.array(fit.held_out.errors)
        x = out["measured"].to_numpy()
        marks.append(points_of(out, x, errors, "held out", 1, told(out, errors), hollow=True))
        held = f" Open squares: held out ({fit.held_out.split}), predicted by a fit without them."
    return Chart(
        "predicted-against-measured",
        "Predicted against measured",
        f"Dots: {'the rows the law was fitted to' if view.own else 'rows of another table'}.{held} {evidence(view)}.",
        Axis(f"measured {loss_label(view)}"),
        Axis("predicted minus measured, %"),
        tuple(marks),
    )


@Figure
def residuals_and_influence(fit: Fit, runs: Runs) -> Chart:
    """Residual of each row in units of the noise against its leverage; beyond the grey lines a row decides the fit.

    Args:
        fit: the fit.
        runs: the rows it was fitted to.

    Raises:
        NothingToDraw: these are not the rows of the fit.
    """
    try:
        found = influence(fit, runs)
    except DataError as error:
        raise NothingToDraw(str(error)) from error
    kinds = np.array(found.kind)
    marks: list[Mark] = [Rule(y=0.0)]
    for k, kind in enumerate(dict.fromkeys(found.kind)):
        chosen = np.flatnonzero(kinds == kind)
        texts = [
            f"{found.ids[j]}\nresidual {found.residual[j]:+.2f}\nCook's distance {found.distance[j]:.2g}"
            for j in chosen
        ]
        label = "losses" if kind == "loss" else "gaps"
        marks.append(
            Points(
                found.leverage[chosen],
                found.residual[chosen],
                label,
                k,
                k,
                hover=texts,
                ids=[found.ids[j] for j in chosen],
                faint=True,
            )
        )
    width = sum(e.status != "fixed" for e in fit.estimates)
    grid = np.geomspace(max(found.leverage.min(), 1e-4), 0.99, 60)
    reach = 1.1 * float(np.abs(found.residual).max())
    bound = _deciding(fit, grid, width)
    for sign in (1, -1):
        inside = bound <= reach
        if inside.any():
            marks.append(Line(grid[inside], sign * bound[inside], "Cook's distance 1", None, dash=True))
    worst = int(np.argmax(found.distance))
    return Chart(
        "residuals-and-influence",
        "Residuals, and how much each row pulls the fit",
        f"Predicted minus measured in units of the noise ({_noise(fit)}). The largest Cook's distance is "
        f"{found.distance[worst]:.2g}. {evidence(fit)}.",
        Axis("leverage: share of a row's error that the fit follows", "log"),
        Axis("residual, units of the noise", low=-reach, high=reach),
        tuple(marks),
    )


def _deciding(fit: Fit, leverage: Array, width: int) -> Array:
    """The residual, in units of the noise, at which Cook's distance is 1; beyond Huber's delta it grows slower."""
    plain: Array = np.sqrt(DECIDES * width / leverage) * (1 - leverage)
    if fit.objective in ("squares", "log-squares"):
        return plain
    delta = HUBER if fit.delta is None else fit.delta / max(fit.noise.values())
    return np.where(plain > delta, plain**2 / delta, plain)


def _noise(fit: Fit) -> str:
    unit = "nats per token" if fit.objective == "squares" else "relative"
    return ", ".join(f"{value:.3g} {unit} on {kind} rows" for kind, value in fit.noise.items())
