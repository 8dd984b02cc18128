"""What quantising after training costs: gaps against tokens, by method and schedule, and when more tokens hurt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from ...fitting import Fit
from ...fitting.rows import clusters
from ...formats import UNQUANTIZED
from ...runs import Runs
from ...units import format_quantity
from ..chart import Axis, Band, Chart, Line, Mark, NothingToDraw, Points
from ..style import STAR, SYMBOLS, marker
from ..ticks import Scale
from ..view import UNQUANTISED, View
from .base import (
    CURVE,
    Figure,
    bars,
    by_count,
    ceiling,
    evidence,
    interval,
    loss_unit,
    marks_of,
    number,
    of_all_methods,
    of_method,
    otherwise,
    points_of,
    slug,
    token_label,
)

BEYOND = 30.0  # times the most tokens of the rows, as far as curves after quantisation go
MARKED = 8  # sizes that have markers of their own
FEW = 4  # recipes that are named
#: How rows were quantised after training, but for the format: "channel gptq".
RECIPE = pl.concat_str(
    pl.col("post_recipe").str.replace(r"^\S+ ?", ""), "method", separator=" ", ignore_nulls=True
).replace("", None)
MOST_BITS = 6  # beyond which a gap is not seen beside the loss
SMALL = 1e-3  # nats: where a gap is below it, the axis is linear near zero
LEAST_BITS = 3  # of those that schedules are compared at, where rows have as many


@Figure
def gap_against_ratio(
    fit: Fit, runs: Runs | View, method: str | None = None, schedule: str | None = None
) -> Chart:
    """Gap after training against tokens per parameter, one colour per bits; bars are standard errors.

    Models that were trained in low precision are hollow.

    Args:
        fit: of any law; its gap is drawn where it has one.
        runs: rows with gaps.
        method: of quantisation, like "gptq"; None for all of them together.
        schedule: of training, as `schedules` names it, like "cosine"; None for all of them together.

    Raises:
        NothingToDraw: no row has a gap.
    """
    view = View.of(runs, fit)
    rows = of_method(by_way(view), method).filter(
        pl.col("params").is_not_null() & pl.col("tokens").is_not_null()
    )
    if schedule is not None:
        rows = rows.filter(pl.col("way") == schedule)
    if not rows.height:
        why = (
            otherwise(of_method(view.lone, method))
            or "no row was quantised after training; add rows with a gap"
        )
        raise NothingToDraw(why.strip())
    sizes = rows["params"].unique().sort().to_list()
    paired = rows["gap_se"].is_not_null().any()
    recipes = rows.select(RECIPE).to_series().drop_nulls().unique().sort().to_list()
    marks: list[Mark] = []
    known = fit.law.gap != 0 and "post_bits" in fit.law.columns
    for k, bits in enumerate(rows["post_bits"].unique().sort()):
        label = f"{bits:g} bits"
        for j, size in enumerate(sizes):
            some = rows.filter((pl.col("post_bits") == bits) & (pl.col("params") == size)).sort("tokens")
            if not some.height:
                continue
            plain = some.filter(UNQUANTISED)
            if known and plain.height > 1 and plain["tokens"].n_unique() > 1:
                tokens = np.geomspace(plain["tokens"].to_numpy()[0], plain["tokens"].to_numpy()[-1], 20)
                curve, low, high = view.curve(plain.row(0, named=True), "gap", tokens=tokens)
                marks += [
                    Band(tokens / size, low, high, label, k),
                    Line(tokens / size, curve, label, k, dash=k % 2 == 1),
                ]
            marks += [
                points_of(
                    part,
                    (part["tokens"] / part["params"]).to_numpy(),
                    part["gap"].to_numpy(),
                    label,
                    k,
                    marker=j,
                    error=bars(part) if paired else (),
                    hollow=hollow,
                )
                for part, hollow in ((plain, False), (some.filter(~UNQUANTISED), True))
                if part.height
            ]
    named = ", ".join(
        f"{marker(j, SYMBOLS)} {format_quantity(size)}" for j, size in enumerate(sizes[:MARKED])
    )
    smallest = float(np.abs(rows["gap"].to_numpy()).min())
    hollow_ones = rows.filter(~UNQUANTISED).height
    said = "Bars: one standard error of each paired gap, where rows have one. " if paired else ""
    said += f"Hollow: {hollow_ones} gaps of models trained in low precision. " if hollow_ones else ""
    said += (
        f"Lines and bands: the fitted law on models trained unquantised, {interval(fit)}. " if known else ""
    )
    if schedule is not None:
        said += f"Trained with the schedule {schedule}. "
    said += of_all_methods(view, method) if known else ""
    said += otherwise(of_method(view.lone, method))
    if len(recipes) > 1:
        said += f"The gaps mix {len(recipes)} recipes: {', '.join(recipes[:FEW])}{', ...' * (len(recipes) > FEW)}. "
    title = "What quantising the weights after training costs (one marker per size)"
    if method:
        title = f"Gap after quantising the weights by {method.upper()} (one marker per size)"
    return Chart(
        "gap-against-tokens-per-parameter" + slug(method, schedule),
        title,
        f"{said}n = {rows.height} gaps; {named}. The vertical axis is linear near zero, so negative gaps show.",
        Axis(f"{token_label(rows)} per parameter", "log"),
        Axis(f"gap after quantisation, {loss_unit(rows)}", "symlog", linear_below=max(1e-3, smallest)),
        tuple(marks),
        legend="after training",
    )


@Figure
def gap_by_schedule(
    fit: Fit, runs: Runs | View, method: str | None = None, bits: float | None = None
) -> Chart:
    """Gap after training of unquantised models against tokens per parameter, one colour per schedule of training.

    The growth of a gap with tokens is confounded with the decay of the learning rate (Kumar et al. 2024, figure 12;
    Catalan-Tatjer et al. 2025, 2510.06213), so a fit of one schedule says nothing of another.

    Args:
        fit: of any law.
        runs: rows with gaps, of two schedules at least.
        method: of quantisation; None for the one of most rows that has several schedules.
        bits: after training; None for three, or the fewest above that all schedules have.

    Raises:
        NothingToDraw: rows of one schedule.
    """
    view = View.of(runs, fit)
    rows = by_way(view).filter(UNQUANTISED & pl.col("params").is_not_null() & pl.col("tokens").is_not_null())
    several = set(rows.filter(pl.col("way").n_unique().over("method") > 1)["method"])
    method = method or next((name for name in by_count(view.quantized, "method") if name in several), None)
    rows = of_method(rows, method)
    if rows["way"].n_unique() < 2:
        raise NothingToDraw("models of one schedule were quantised; train some with another")
    shared = rows.group_by("post_bits").agg(pl.col("way").n_unique(), pl.len())
    shared = shared.with_columns(few=pl.col("post_bits") < LEAST_BITS)
    best = shared.sort("way", "few", "post_bits", descending=[True, False, False])
    at = float(best["post_bits"][0]) if bits is None else bits
    rows = rows.filter(pl.col("post_bits") == at)
    sizes = rows["params"].unique().sort().to_list()
    marks: list[Mark] = []
    for k, way in enumerate(rows["way"].unique().sort()):
        for j, size in enumerate(sizes):
            some = rows.filter((pl.col("way") == way) & (pl.col("params") == size)).sort("tokens")
            if not some.height:
                continue
            mean = some.group_by("tokens", maintain_order=True).agg(pl.col("gap").mean())
            marks += [
                Line((mean["tokens"] / size).to_numpy(), mean["gap"].to_numpy(), way, k, dash=k % 2 == 1),
                points_of(
                    some,
                    (some["tokens"] / size).to_numpy(),
                    some["gap"].to_numpy(),
                    way,
                    k,
                    marker=j,
                    error=bars(some),
                ),
            ]
    if len({mark.label for mark in marks if isinstance(mark, Points)}) < 2:
        raise NothingToDraw(f"rows of {at:g} bits after training have one schedule; add others")
    named = ", ".join(
        f"{marker(j, SYMBOLS)} {format_quantity(size)}" for j, size in enumerate(sizes[:MARKED])
    )
    by = f" by {method.upper()}" if method else ""
    independent = len(np.unique(clusters(view.frame)[rows["place"].to_numpy()]))
    scale: Scale = "log" if float(rows["gap"].to_numpy().min()) > SMALL else "symlog"
    return Chart(
        "gap-by-schedule" + slug(method, None if bits is None else f"{bits:g} bits"),
        f"Gap at {at:g} bits{by}, by schedule of training (one marker per size)",
        f"Marks: single rows of models trained unquantised, bars one standard error of a paired gap where rows have "
        f"one; lines: means over rows of one size, tokens and schedule. {otherwise(of_method(view.lone, method))}"
        f"n = {rows.height} gaps in {number(independent, 'independent cluster')}; {named}.",
        Axis(f"{token_label(rows)} per parameter", "log"),
        Axis(f"gap after quantisation, {loss_unit(rows)}", scale),
        tuple(marks),
        legend="schedule",
    )


def by_way(view: View) -> pl.DataFrame:
    """Rows quantised after training with `way`, how they were trained; of all rows at once, as names hang on them."""
    return view.quantized.with_columns(schedules(view.quantized).alias("way"))


def schedules(rows: pl.DataFrame) -> pl.Series:
    """How rows were trained, "cosine" or "constant, cooldown 0.2"; with the peak rate where schedules had several.

    Rates are told in units of 1 / width, by which ladders scale them, where the width is known.

    >>> from bitlaw import Runs
    >>> rows = [{"params": 1e6, "loss": 3.0, "schedule": "cosine"},
    ...         {"params": 1e6, "loss": 3.0, "schedule": "constant", "cooldown": 0.2}]
    >>> schedules(Runs.from_rows(rows).frame).to_list()
    ['cosine', 'constant, cooldown 0.2']
    """
    col = pl.col
    cooled = pl.when(col("cooldown") > 0).then(pl.format(", cooldown {}", "cooldown")).otherwise(pl.lit(""))
    way = (col("schedule").fill_null("schedule not told") + cooled).alias("way")
    scaled = pl.format("rate {} / width", (col("learning_rate") * col("width")).round_sig_figs(2))
    plain = pl.format("rate {}", col("learning_rate").round_sig_figs(2))
    told = rows.select(way, pl.coalesce(scaled, plain, pl.lit("rate not told")).alias("rate"))
    several = told.group_by("way").agg(col("rate").n_unique()).filter(col("rate") > 1)["way"].to_list()
    peak = pl.format("{}, {}", "way", "rate")
    return told.select(
        pl.when(col("way").is_in(several)).then(peak).otherwise("way").alias("way")
    ).to_series()


@Figure
def u_curves(fit: Fit, runs: Runs | View, params: float | None = None, method: str | None = None) -> Chart:
    """Loss after quantisation against training tokens, by bits, and the tokens beyond which more of them hurt.

    Args:
        fit: of a law with a gap.
        runs: the rows it was fitted to.
        params: the size; None for the largest that was quantised.
        method: of quantisation, like "gptq"; None for all of them together.

    Raises:
        NothingToDraw: a law without a gap by bits, or no row quantised after training.
    """
    view = View.of(runs, fit)
    view.need("params", "tokens", "post_bits")
    rows = of_method(view.quantized, method).filter(
        UNQUANTISED & pl.col("tokens").is_not_null() & pl.col("params").is_not_null()
    )
    if not rows.height:
        raise NothingToDraw("no row that was trained unquantised was quantised after training; add some")
    size = float(rows["params"].to_numpy().max()) if params is None else params
    rows = rows.filter(pl.col("params") == size)
    if not rows.height:
        raise NothingToDraw(f"no row of {format_quantity(size, 'params')} was quantised after training")
    seen = rows["tokens"].to_numpy()
    grid = np.geomspace(seen.min(), BEYOND * seen.max(), 2 * CURVE)
    inside = grid <= seen.max() * 1.0001
    trained = view.trained.filter(UNQUANTISED & (pl.col("params") == size)).sort("tokens")
    top = ceiling((trained if trained.height else rows)["measured"])
    marks: list[Mark] = []
    shown = [b for b in rows["post_bits"].unique().sort() if b <= MOST_BITS]
    worse = []
    for k, bits in enumerate([*shown, UNQUANTIZED]):
        some = rows.filter(pl.col("post_bits") == bits) if bits < UNQUANTIZED else trained
        label = f"{bits:g} bits" if bits < UNQUANTIZED else "as trained"
        row = (some if some.height else rows).row(0, named=True)
        curve, low, high = view.curve(row, tokens=grid, post_bits=np.full(len(grid), bits))
        least = int(np.argmin(np.where(np.isfinite(curve), curve, np.inf)))
        if not curve[least] < top:
            worse.append(label)
            continue
        marks += [
            Band(grid, low, np.minimum(high, top), label, k),
            Line(grid[inside], curve[inside], label, k),
            Line(grid[~inside], curve[~inside], label, k, dash=True),
        ]
        marks += marks_of(view, some, "tokens", label, k)
        if 0 < least < len(grid) - 1:
            tokens, loss = _lowest(view, row, bits, grid[least - 1], grid[least + 1])
            text = f"{label}\ncritical tokens {format_quantity(tokens)}\nloss {loss:.4f}"
            marks.append(Points([tokens], [loss], "critical tokens", k, STAR, hover=[text]))
    what = f"{method.upper()} of" if method else "quantising"
    left = f" {' and '.join(worse)}: above the frame." if worse else ""
    mixed = of_all_methods(view, method) + otherwise(of_method(view.lone, method))
    several = " of all methods" if method is None and rows["method"].n_unique() > 1 else ""
    return Chart(
        "u-curves" + slug(method),
        f"Loss after {what} {format_quantity(size, 'params')}, by bits (stars: more tokens hurt from here)",
        f"Marks: single runs{several}. Lines and bands: the fitted law, dashed beyond the rows' tokens, "
        f"{interval(fit)}.{left} {mixed}{evidence(view)}.",
        Axis(token_label(rows), "log", "prefix"),
        Axis(f"loss after quantisation, {loss_unit(rows)}", high=top),
        tuple(marks),
        legend="after training",
    )


def _lowest(view: View, row: Mapping[str, Any], bits: float, low: float, high: float) -> tuple[float, float]:
    """The tokens of least loss between two, to six digits, and that loss."""
    while True:
        grid = np.geomspace(low, high, CURVE)
        loss = view.values(row, tokens=grid, post_bits=np.full(CURVE, bits))
        k = int(np.clip(np.nanargmin(loss), 1, CURVE - 2))
        if high < (1 + 1e-6) * low:
            return float(grid[k]), float(loss[k])
        low, high = float(grid[k - 1]), float(grid[k + 1])
