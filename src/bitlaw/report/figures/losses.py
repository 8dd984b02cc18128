"""The loss itself: slices and surfaces of the law, with the rows it was fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ...fitting import Fit
from ...fitting.minima import number_sizes
from ...formats import UNQUANTIZED
from ...laws.terms import TRAINED_PARTS
from ...runs import Runs
from ...units import format_quantity
from ..chart import Axis, Band, Chart, Contours, Line, Mark, NothingToDraw
from ..ticks import linear_ticks
from ..view import UNQUANTISED, Array, View
from .base import (
    CURVE,
    Figure,
    bits_name,
    evidence,
    interval,
    loss_label,
    marks_of,
    points_of,
    size_label,
    token_label,
)

SLICES = 6  # sizes that a figure of slices shows
SETTINGS = 8  # of precision that a figure shows
GRID = 40  # points of a surface along each axis
LEVELS = 12  # lines of equal loss, at most
MANY = 60  # rows, of which marks are small
SAME_TOKENS = 0.1  # share by which rows of one number of tokens may differ
MARGIN = 1.6  # factor by which a surface reaches beyond the rows


@Figure
def loss_surface(fit: Fit, runs: Runs | View) -> Chart:
    """Lines of equal loss over size and tokens, unquantised, and where the rows are.

    Args:
        fit: of a law of size and tokens.
        runs: the rows it was fitted to.

    Raises:
        NothingToDraw: a law without a size and tokens, or rows of one size or token count.
    """
    view = View.of(runs, fit)
    view.need("params", "tokens")
    rows = _unquantised(view)
    sizes, tokens = _reach(rows["params"]), _reach(rows["tokens"])
    grid_n, grid_d = np.meshgrid(sizes, tokens, indexing="ij")
    z = view.values(rows.row(0, named=True), params=grid_n, tokens=grid_d)
    marks: list[Mark] = [Contours(tokens, sizes, z, _levels(z), "loss")]
    marks += _places(view, rows, "tokens", "params")
    return Chart(
        "loss-surface",
        "Loss over parameters and tokens, unquantised",
        f"Lines: equal loss by the fitted law at the point estimates. Marks: rows. {evidence(view)}.",
        Axis(token_label(view.frame), "log", "prefix", low=tokens[0], high=tokens[-1]),
        Axis(size_label(fit), "log", "prefix", low=sizes[0], high=sizes[-1]),
        tuple(marks),
    )


@Figure
def isoloss(fit: Fit, runs: Runs | View, tokens: float | None = None) -> Chart:
    """Lines of equal loss over bits of the weights and size, at one number of tokens.

    Args:
        fit: of a law of bits of the weights.
        runs: the rows it was fitted to.
        tokens: training tokens; None for the middle of the rows.

    Raises:
        NothingToDraw: a law that does not read bits of the weights.
    """
    view = View.of(runs, fit)
    view.need("params", "tokens", "w_bits")
    rows = view.weights_only().filter((pl.col("w_bits") < UNQUANTIZED) & pl.col("tokens").is_not_null())
    if not rows.height:
        raise NothingToDraw("no row was trained with weights alone in low precision; add some")
    seen = rows["tokens"].unique().sort().to_numpy()
    at = float(seen[len(seen) // 2]) if tokens is None else tokens
    least = float(rows["w_bits"].to_numpy().min())
    bits = np.geomspace(max(min(2.0, least), least - 0.5), 16, GRID)
    sizes = _reach(view.trained["params"])
    grid_n, grid_b = np.meshgrid(sizes, bits, indexing="ij")
    row = rows.row(0, named=True)
    z = view.values(row, params=grid_n, tokens=np.full_like(grid_n, at), w_bits=grid_b)
    marks: list[Mark] = [Contours(bits, sizes, z, _levels(z), "loss")]
    marks += _places(view, rows.filter((pl.col("tokens") / at - 1).abs() < SAME_TOKENS), "w_bits", "params")
    return Chart(
        "isoloss",
        f"Loss over bits of the weights and parameters, at {format_quantity(at, 'tokens')}",
        f"Lines: equal loss by the fitted law at the point estimates. Marks: rows trained on as many tokens, "
        f"within {SAME_TOKENS:.0%}. "
        f"{evidence(view)}.",
        Axis("bits of the weights in training", "log", ticks=(2, 3, 4, 6, 8, 12, 16), low=bits[0], high=16.0),
        Axis(size_label(fit), "log", "prefix", low=sizes[0], high=sizes[-1]),
        tuple(marks),
    )


@Figure
def loss_slices(fit: Fit, runs: Runs | View) -> Chart:
    """Loss against training tokens, unquantised, one line per size; the fit runs through.

    Args:
        fit: of a law of size and tokens.
        runs: the rows it was fitted to; of more than six sizes, six that are spread over all are shown.

    Raises:
        NothingToDraw: a law without a size and tokens.
    """
    view = View.of(runs, fit)
    view.need("params", "tokens")
    rows = _unquantised(view)
    number = number_sizes(rows["params"].to_numpy())
    many = np.flatnonzero(np.bincount(number) > 1)
    shown = many if len(many) else np.unique(number)
    shown = shown[np.unique(np.linspace(0, len(shown) - 1, SLICES).round().astype(int))]
    grid = _reach(rows["tokens"], 1.0)
    marks: list[Mark] = []
    for k, size in enumerate(shown):
        some = rows.filter(pl.Series(number == size)).sort("tokens")
        label = format_quantity(float(np.exp(np.log(some["params"].to_numpy()).mean())))
        curve, low, high = view.curve(some.row(0, named=True), tokens=grid)
        marks += [Band(grid, low, high, label, k), Line(grid, curve, label, k)]
        marks += marks_of(view, some, "tokens", label, k)
    sizes = len(np.unique(number))
    few = "" if len(shown) == sizes else f" {len(shown)} of {sizes} sizes are shown."
    return Chart(
        "loss-slices",
        "Loss against tokens by size, unquantised",
        f"{_marks_text(view)}{few} {evidence(view)}.",
        Axis(token_label(view.frame), "log", "prefix"),
        Axis(loss_label(view)),
        tuple(marks),
        legend=size_label(fit),
    )


@Figure
def loss_against_tokens(fit: Fit, runs: Runs | View, params: float | None = None) -> Chart:
    """Loss against training tokens, one line per precision, at one size; the fit runs through.

    The precision is that of the weights alone where rows differ in it, and else that of all parts.

    Args:
        fit: of a law of tokens.
        runs: the rows it was fitted to.
        params: the size; None for the largest that was trained in low precision to several token counts.

    Raises:
        NothingToDraw: no rows of that size differ in precision.
    """
    view = View.of(runs, fit)
    view.need("tokens")
    known = pl.col("params").is_not_null() & pl.col("tokens").is_not_null()
    alone = view.weights_only().filter(known)
    parts = ("w",) if alone["w_bits"].n_unique() > 1 else tuple(TRAINED_PARTS)
    rows = alone if parts == ("w",) else view.trained.filter(known)
    low = rows.filter(pl.any_horizontal(pl.col(f"{part}_bits") < UNQUANTIZED for part in parts))
    if not low.height:
        raise NothingToDraw("no row was trained in low precision; add some")
    long = low.group_by("params").agg(pl.col("tokens").n_unique()).filter(pl.col("tokens") > 1)
    size = float((long if long.height else low)["params"].to_numpy().max()) if params is None else params
    columns = [f"{part}_{what}" for what in ("bits", "format") for part in parts]
    rows = rows.filter(pl.col("params") == size).with_columns(
        pl.when(pl.col(f"{part}_bits") < UNQUANTIZED).then(f"{part}_format") for part in parts
    )
    settings = rows.select(columns).unique().sort(columns)
    named = settings.select(columns[: len(parts)]).is_duplicated().any()  # formats of as many bits
    if settings.height < 2:
        raise NothingToDraw(
            f"rows of {format_quantity(size)} parameters do not differ in precision; add some"
        )
    grid = _reach(rows["tokens"], 1.0)
    marks: list[Mark] = []
    for k, setting in enumerate(settings[-SETTINGS:].iter_rows(named=True)):
        same = (pl.col(column).eq_missing(value) for column, value in setting.items())
        some = rows.filter(pl.all_horizontal(same)).sort("tokens")
        label = _setting_name(setting, parts, named)
        curve, least, most = view.curve(some.row(0, named=True), tokens=grid)
        marks += [Band(grid, least, most, label, k), Line(grid, curve, label, k, dash=k % 2 == 1)]
        marks += marks_of(view, some, "tokens", label, k)
    what = "bits of the weights" if len(parts) == 1 else "bits in training"
    few = (
        "" if settings.height <= SETTINGS else f" The {SETTINGS} of most bits of {settings.height} settings."
    )
    return Chart(
        "loss-against-tokens",
        f"Loss against tokens at {format_quantity(size, 'params')}, by {what}",
        f"{_marks_text(view)}{few} {evidence(view)}.",
        Axis(token_label(view.frame), "log", "prefix"),
        Axis(loss_label(view)),
        tuple(marks),
        legend="weights" if len(parts) == 1 else "bits",
    )


def _setting_name(setting: Mapping[str, Any], parts: Sequence[str], named: bool) -> str:
    """Bits of parts, like "w4 a8", of one like "4 bits", or formats by name; parts left out are unquantised."""
    low = {part: setting[f"{part}_{'format' if named else 'bits'}"] for part in parts}
    low = {part: told for part, told in low.items() if setting[f"{part}_bits"] < UNQUANTIZED}
    if len(parts) == 1 and low:
        return str(low[parts[0]]) if named else bits_name(low[parts[0]])
    return (
        " ".join(f"{part} {told}" if named else f"{part}{told:g}" for part, told in low.items()) or "16-bit"
    )


def _marks_text(view: View) -> str:
    fit, held = view.fit, ""
    if view.held and fit.held_out:
        held = f" Hollow: held out ({fit.held_out.split}), but not from this fit."
    return f"Marks: single runs.{held} Lines and bands: the fitted law, {interval(fit)}."


def _unquantised(view: View) -> pl.DataFrame:
    """Trained rows without low precision anywhere.

    Raises:
        NothingToDraw: there are none.
    """
    rows = view.trained.filter(pl.col("params").is_not_null() & pl.col("tokens").is_not_null())
    whole = rows.filter(UNQUANTISED)
    if not whole.height:
        raise NothingToDraw("no row is unquantised in all its parts; add some")
    return whole.sort("params", "tokens")


def _reach(values: pl.Series, margin: float = MARGIN) -> Array:
    """A grid over the values, and a factor beyond them.

    Raises:
        NothingToDraw: they are all one.
    """
    given = values.to_numpy()
    low, high = float(given.min()), float(given.max())
    if low == high:
        raise NothingToDraw(f"all rows have {format_quantity(low)} {values.name}; add others")
    return np.geomspace(low / margin, high * margin, GRID if margin > 1 else CURVE)


def _levels(z: Array) -> tuple[float, ...]:
    """Round losses between the lowest and a high one, of which a corner may have many."""
    low, high = np.nanquantile(z, [0.0, 0.97])
    levels = linear_ticks(float(low), float(high), LEVELS)
    if len(levels) < 2:
        raise NothingToDraw("the law's loss is the same everywhere here")
    return levels


def _places(view: View, rows: pl.DataFrame, x: str, y: str) -> list[Mark]:
    """Where rows lie on a surface; held-out ones hollow."""
    held = pl.col("place").is_in(list(view.held))
    return [
        points_of(
            part,
            part[x].to_numpy(),
            part[y].to_numpy(),
            label,
            1,
            marker=k,
            hollow=k == 1,
            faint=rows.height > MANY,
        )
        for k, (label, part) in enumerate(
            (("fitted" if view.own else "rows", rows.filter(~held)), ("held out", rows.filter(held)))
        )
        if part.height
    ]
