"""What low precision costs: effective parameters in training, gaps after it, and when more tokens hurt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import sympy as sp

from ...fitting import Fit
from ...formats import UNQUANTIZED
from ...laws.law import Law, N
from ...laws.terms import PARTS, TRAINED_PARTS
from ...runs import Runs
from ...units import format_quantity
from ..chart import Axis, Band, Chart, Line, Mark, NothingToDraw, Points, Rule
from ..style import STAR, SYMBOLS, marker
from ..view import UNQUANTISED, Array, View, but
from .base import (
    CURVE,
    Figure,
    ceiling,
    evidence,
    hover,
    interval,
    loss_unit,
    marks_of,
    token_label,
)

BEYOND = 30.0  # times the most tokens of the rows, as far as curves after quantisation go
MARKED = 8  # sizes that have markers of their own
MOST = 1.6  # effective / actual parameters that are shown
FEW = 4  # recipes that are named
#: How rows were quantised after training, but for the format: "channel gptq".
RECIPE = pl.concat_str(
    pl.col("post_recipe").str.replace(r"^\S+ ?", ""), "method", separator=" ", ignore_nulls=True
).replace("", None)
MOST_BITS = 6  # beyond which a gap is not seen beside the loss


@Figure
def effective_parameters(fit: Fit, runs: Runs | View) -> Chart:
    """Share of parameters that count, against bits, for each part; dots are single runs.

    A run's dot compares it with the fitted 16-bit loss at its own size and tokens (Kumar et al. 2024,
    equation 30): f = [ (L - L_16) / A + N^-alpha ]^(-1/alpha) / N.

    Args:
        fit: of a law with effective parameters.
        runs: the rows it was fitted to.

    Raises:
        NothingToDraw: the law has no such factor, or no row a part of low precision alone.
    """
    law, view = fit.law, View.of(runs, fit)
    if not _by_size_alone(law):
        raise NothingToDraw(f"{law.name} has no effective parameters by bits; take a law like kumar")
    values, beyond = fit.values, 0
    marks: list[Mark] = [Rule(y=1.0)]
    for k, part in enumerate(part for part in PARTS if f"{part}_bits" in law.columns):
        rows = view.trained.filter(but(part) & (pl.col(f"{part}_bits") < UNQUANTIZED))
        if not rows.height:
            continue
        bits, sizes = rows[f"{part}_bits"].to_numpy(), rows["params"].to_numpy()
        full = view.predicted(rows.with_columns(pl.lit(UNQUANTIZED).alias(f"{part}_bits")))
        excess = (rows["measured"].to_numpy() - full) / values["A"]
        with np.errstate(invalid="ignore"):
            dots = (excess + sizes ** -values["alpha"]) ** (-1 / values["alpha"]) / sizes
        beyond += int((~(dots <= MOST)).sum())
        grid = np.linspace(max(1.5, bits.min() - 0.5), 16, 4 * CURVE)
        curve, low, high = _factor(view, part, grid)
        marks += [
            Band(grid, low, high, PARTS[part], k),
            Line(grid, curve, PARTS[part], k, dash=k == 1),
            Points(
                bits + 0.06 * (k - 1),
                dots,
                PARTS[part],
                k,
                marker=k,
                hover=hover(rows),
                ids=rows["id"].to_list(),
                faint=True,
            ),
        ]
    if len(marks) == 1:
        raise NothingToDraw("no row has one part of low precision alone; train some, or add them")
    return Chart(
        "effective-parameters",
        "Effective parameters by part",
        f"Dots: single runs against the fitted 16-bit loss, parts set a little apart.{_unseen(beyond)} "
        f"Lines and bands: the fitted law, {interval(fit)}. {evidence(view)}.",
        Axis("bits in training", ticks=(2, 3, 4, 6, 8, 12, 16)),
        Axis("effective / actual parameters", low=0, high=MOST),
        tuple(marks),
        legend="part",
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


def _by_size_alone(law: Law) -> bool:
    """Whether bits in training change N alone, in A / N_eff^alpha: then a run's loss tells its effective parameters."""
    term = sp.Symbol("A") * law.n_eff ** -sp.Symbol("alpha")
    bits = {i.symbol for i in law.inputs if i.column in [f"{part}_bits" for part in TRAINED_PARTS]}
    others = law.loss - term
    return (
        bool((law.n_eff / N).free_symbols & bits)
        and not (law.n_eff / N).has(N)
        and not others.free_symbols & (bits | {N})
    )


def _unseen(count: int) -> str:
    """A sentence about dots that the figure cannot hold; empty where there are none."""
    return f" {count} runs lie above the frame, or below any loss that a size comes to." if count else ""


def _factor(view: View, part: str, bits: Array) -> tuple[Array, Array, Array]:
    """The factor of a part, and its interval."""
    law = view.fit.law
    theta = np.concatenate([law.vector(view.fit.values)[None], view.fit.draws])
    curves = law.compiled.n_eff(theta, law.arrange({"params": 1.0, "tokens": 1.0, f"{part}_bits": bits}))
    low = high = np.full(len(bits), np.nan)
    if view.fit.df:
        low, high = view.ends(curves[1:])
    return curves[0], low, high


@Figure
def gap_against_ratio(fit: Fit, runs: Runs | View) -> Chart:
    """Gap after training against tokens per parameter, one colour per bits; bars are standard errors.

    Models that were trained in low precision are hollow.

    Args:
        fit: of any law; its gap is drawn where it has one.
        runs: rows with gaps.

    Raises:
        NothingToDraw: no row has a gap.
    """
    view = View.of(runs, fit)
    rows = view.quantized.filter(pl.col("params").is_not_null() & pl.col("tokens").is_not_null())
    if not rows.height:
        raise NothingToDraw("no row was quantised after training; add rows with a gap")
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
                Points(
                    (part["tokens"] / part["params"]).to_numpy(),
                    part["gap"].to_numpy(),
                    label,
                    k,
                    marker=j,
                    error=part["gap_se"].fill_null(0).to_numpy() if paired else (),
                    hover=hover(part),
                    ids=part["id"].to_list(),
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
    if len(recipes) > 1:
        said += f"The gaps mix {len(recipes)} recipes: {', '.join(recipes[:FEW])}{', ...' * (len(recipes) > FEW)}. "
    return Chart(
        "gap-against-tokens-per-parameter",
        "What quantising the weights after training costs (one marker per size)",
        f"{said}n = {rows.height} gaps; {named}. The vertical axis is linear near zero, so negative gaps show.",
        Axis(f"{token_label(rows)} per parameter", "log"),
        Axis(f"gap after quantisation, {loss_unit(rows)}", "symlog", linear_below=max(1e-3, smallest)),
        tuple(marks),
        legend="after training",
    )


@Figure
def u_curves(fit: Fit, runs: Runs | View, params: float | None = None) -> Chart:
    """Loss after quantisation against training tokens, by bits, and the tokens beyond which more of them hurt.

    Args:
        fit: of a law with a gap.
        runs: the rows it was fitted to.
        params: the size; None for the largest that was quantised.

    Raises:
        NothingToDraw: a law without a gap by bits, or no row quantised after training.
    """
    view = View.of(runs, fit)
    view.need("params", "tokens", "post_bits")
    rows = view.quantized.filter(
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
    left = f" {' and '.join(worse)}: above the frame." if worse else ""
    return Chart(
        "u-curves",
        f"Loss after quantising {format_quantity(size, 'params')}, by bits (stars: more tokens hurt from here)",
        "Marks: single runs. Lines and bands: the fitted law, dashed beyond the rows' tokens, "
        f"{interval(fit)}.{left} {evidence(view)}.",
        Axis(token_label(rows), "log", "prefix"),
        Axis(f"loss after quantisation, {loss_unit(rows)}", high=top),
        tuple(marks),
        legend="after training",
    )
