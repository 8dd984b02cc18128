"""What bits trade for: parameters at equal cost, tokens at one size, and both where serving is what costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from ...errors import ConfigError, LawError
from ...fitting import Fit
from ...formats import UNQUANTIZED
from ...laws.terms import TRAINED_PARTS
from ...planning import frontier, serving_frontier
from ...runs import Runs
from ...units import format_quantity
from ..chart import Axis, Band, Chart, Line, Mark, NothingToDraw, Rule
from ..view import Array, View
from .base import (
    CURVE,
    Figure,
    bits_name,
    evidence,
    interval,
    loss_label,
    marks_of,
    size_label,
    thinned,
    token_label,
)

ALIKE = 0.03  # share by which N x bits, and tokens, of a group may differ
WIDTHS = 3  # of a group, at least
GROUPS = 4  # that are drawn
PURE = (16.0, 32.0)  # bits that an unquantised row may count as: it was trained in either, or both
BUDGETS = 6
FEW = 60  # of the draws, for each of several sizes, or where size, tokens and bits are all free


@Figure
def equal_parameters_times_bits(fit: Fit, runs: Runs | View) -> Chart:
    """Loss against bits where the weights' bytes, parameters times bits, are equal, and tokens too.

    (Kumar et al. 2024, figures 1 and 6.) Groups of runs of low-bit weights whose N P and D agree within three per cent,
    with three bit widths or more; every part that is in low precision has the same bits, so that a token's cost is
    equal too where activations are among them. Integers and floats count as their bits. A run in no low precision
    counts as 16 bits, and as 32 where that is its place in a group.

    Args:
        fit: of any law of size; its prediction along equal N P is drawn where it reads the bits of these parts.
        runs: the rows.

    Raises:
        NothingToDraw: there is no such group.
    """
    view = View.of(runs, fit)
    view.need("params")
    groups = _groups(view.trained)
    if not groups:
        raise NothingToDraw(
            "no three bit widths have equal parameters times bits and tokens; train such a group"
        )
    marks: list[Mark] = []
    said: list[str] = []
    ticks: dict[float, set[str]] = {}
    for k, (low, rows) in enumerate(groups):
        held = float(np.exp(rows.select((pl.col("params") * pl.col("width")).log().mean()).item()))
        tokens = float(rows["tokens"].to_numpy().mean())
        size = f"{format_quantity(held / 8, 'bytes')} of weights"
        label = f"{size}, {format_quantity(tokens, 'tokens')}; {', '.join(low)}"
        parts = [part for part in low if f"{part}_bits" in fit.law.columns]
        if parts:
            ends = rows["width"].to_numpy()
            grid = np.geomspace(ends.min() / 1.15, ends.max() * 1.1, CURVE)
            swap = {f"{part}_bits": grid for part in parts} | {"params": held / grid}
            curve, least, most = view.curve(rows.row(0, named=True), "total", **swap)
            marks += [Band(grid, least, most, label, k), Line(grid, curve, label, k)]
        marks += marks_of(view, rows, "width", label, k)
        best = rows.sort("measured").row(0, named=True)
        said.append(
            f"{_name(best, low)} with {format_quantity(best['params'], 'params')} has the lowest loss measured"
            + (f" of {label}" if len(groups) > 1 else "")
            + f", {best['measured']:.4f}"
        )
        for row in rows.iter_rows(named=True):
            ticks.setdefault(row["width"], set()).add(_name(row, low))
    shown = sorted(ticks)
    names = tuple(f"{bits:g}: {', '.join(sorted(ticks[bits]))}" for bits in shown)
    line = (
        f" Lines and bands: the fitted law at these bits, {interval(fit)}."
        if any(isinstance(mark, Line) for mark in marks)
        else ""
    )
    return Chart(
        "equal-parameters-times-bits",
        "Loss at equal parameters times bits",
        f"Marks: single runs, n = {sum(rows.height for _, rows in groups)}. {'; '.join(said)}.{line} "
        f"{evidence(view)}.",
        Axis("bits in training", "log", ticks=tuple(shown), names=names),
        Axis(loss_label(view)),
        tuple(marks),
    )


def _groups(rows: pl.DataFrame) -> list[tuple[tuple[str, ...], pl.DataFrame]]:
    """Groups of most widths and most tokens, each with the parts that are in low precision in it."""
    rows = rows.filter(pl.col("params").is_not_null() & pl.col("tokens").is_not_null())
    kinds: dict[tuple[str, ...], list[int]] = {}
    widths = rows.select(f"{part}_bits" for part in TRAINED_PARTS).to_numpy()
    for place, bits in enumerate(widths):
        low = tuple(part for part, own in zip(TRAINED_PARTS, bits, strict=True) if own < UNQUANTIZED)
        if not low or ("w" in low and len({own for own in bits if own < UNQUANTIZED}) == 1):
            kinds.setdefault(low, []).append(place)
    pure, found = kinds.pop((), []), []
    for low, places in kinds.items():
        one = rows[places].with_columns(pl.col(f"{low[0]}_bits").alias("width"))
        every = pl.concat([one, *(rows[pure].with_columns(pl.lit(width).alias("width")) for width in PURE)])
        width, tokens = every["width"].to_numpy(), every["tokens"].to_numpy()
        held, left = every["params"].to_numpy() * width, np.ones(every.height, dtype=bool)
        own = np.stack([held, tokens], axis=1)[: one.height]
        anchors = np.unique(own, axis=0, return_index=True)[1]  # runs alike gather the same group
        for anchor in anchors[np.argsort(-tokens[anchors], kind="stable")]:
            alike = (
                (np.abs(held / held[anchor] - 1) < ALIKE)
                & (np.abs(tokens / tokens[anchor] - 1) < ALIKE)
                & left
            )
            if len(np.unique(width[alike])) >= WIDTHS:
                found.append((low, every.filter(pl.Series(alike)).sort("width")))
                left &= ~alike
    found.sort(key=lambda pair: (-pair[1]["width"].n_unique(), -float(pair[1]["tokens"].to_numpy().max())))
    return found[:GROUPS]


def _name(row: dict[str, object], low: Sequence[str]) -> str:
    """The format of a row's parts, or that it has none."""
    bits = row[f"{low[0]}_bits"]
    return (
        str(row[f"{low[0]}_format"])
        if bits != UNQUANTIZED
        else bits_name(UNQUANTIZED)
        if row["width"] == 16
        else "32-bit"
    )


@Figure
def best_bits_against_tokens(fit: Fit, runs: Runs | View, sizes: Sequence[float] | None = None) -> Chart:
    """The bits that are compute-optimal where the size is given, and tokens and bits trade, against the budget.

    (Kumar et al. 2024, figure 6, right.) With C = (6/16) N D P and N fixed, the best P grows with the logarithm of C:
    the longer a size is trained, the more a bit is worth. The budget stands as the tokens it buys in 16 bits.

    Args:
        fit: of a law of bits in training.
        runs: the rows; they give the sizes, and how many tokens are likely.
        sizes: in place of the smallest, the middle and the largest of the rows.

    Raises:
        NothingToDraw: a law without size, tokens or bits.
    """
    view = View.of(runs, fit)
    view.need("params", "tokens")
    if not fit.law.reads_bits:
        raise NothingToDraw(f"{fit.law.name} does not read bits; take a law like kumar")
    rows = view.trained.filter(pl.col("params").is_not_null() & pl.col("tokens").is_not_null())
    if not rows.height:
        raise NothingToDraw("no row has a size, tokens and a loss of its own")
    seen = np.unique(rows["params"].to_numpy())
    chosen = seen[np.unique([0, len(seen) // 2, -1 % len(seen)])] if sizes is None else np.array(sizes)
    least, most = float(rows["tokens"].to_numpy().min()), float(rows["tokens"].to_numpy().max())
    tokens = np.geomspace(least, 30 * most, BUDGETS)
    few = thinned(fit, FEW)
    marks: list[Mark] = [Rule(x=most, text="most tokens of the rows")]
    for k, size in enumerate(chosen):
        try:
            best = frontier(few, (6 * size * tokens).tolist(), fit.level, params=float(size))
        except (LawError, ConfigError) as error:
            raise NothingToDraw(str(error)) from error
        value, low, high = best["bits"].T
        label = format_quantity(float(size))
        marks += [Band(tokens, low, high, label, k), Line(tokens, value, label, k, marker=k)]
    drawn = f", {len(few.draws)} draws" if fit.df else ""
    return Chart(
        "best-bits-against-tokens",
        "Compute-optimal bits of one size, by how long it is trained",
        f"Under C = (6/16) N D P with N given and all parts at P bits, 2 to 16. Bands: {interval(fit)}{drawn}. "
        f"{evidence(view)}.",
        Axis(f"{token_label(view.frame)} that the budget buys in 16 bits", "log", "prefix"),
        Axis("best bits in training", ticks=(2, 4, 6, 8, 10, 12, 14, 16), low=2, high=16.3),
        tuple(marks),
        legend=size_label(fit),
    )


@Figure
def serving_optimal(fit: Fit, runs: Runs | View) -> Chart:
    """Best parameters, tokens and bits after training against what serving costs, where training costs nothing.

    (Kumar et al. 2024, figure 9: C = N P_post.) Tokens are those beyond which more would raise the loss after
    quantisation; far from the rows, where a gap that grows with them is the law's word alone.

    Args:
        fit: of a law with a gap by bits.
        runs: the rows; budgets reach from the smallest in two bits to ten times the largest in 16.

    Raises:
        NothingToDraw: a law without size, tokens or a gap by bits.
    """
    view = View.of(runs, fit)
    view.need("params", "tokens", "post_bits")
    sizes = view.frame.filter(~pl.col("apart"))["params"].drop_nulls().to_numpy()
    if not len(sizes) or fit.law.gap == 0:
        raise NothingToDraw(f"{fit.law.name} has no gap by bits, or rows no size")
    budgets = np.geomspace(2 * sizes.min(), 160 * sizes.max(), BUDGETS)
    few = thinned(fit, FEW)
    try:
        best = serving_frontier(few, budgets.tolist(), fit.level)
    except (LawError, ConfigError) as error:
        raise NothingToDraw(str(error)) from error
    if not np.isfinite(best["bits"][:, 0]).any():
        raise NothingToDraw(f"{few.law.name} gives no loss after quantisation at any of these budgets")
    marks: list[Mark] = []
    for k, name in enumerate(("params", "tokens")):
        value, low, high = best[name].T
        if np.isfinite(value).any():
            marks += [Band(budgets, low, high, name, k), Line(budgets, value, name, k, marker=k)]
    value, low, high = best["bits"].T
    marks += [
        Band(budgets, low, high, "bits", 2, second=True),
        Line(budgets, value, "bits", 2, marker=2, dash=True, second=True),
    ]
    endless = int((np.isfinite(best["params"][:, 0]) & ~np.isfinite(best["tokens"][:, 0])).sum())
    said = f" At {endless} of {BUDGETS} budgets more tokens always help." if endless else ""
    drawn = f", {len(few.draws)} draws" if fit.df else ""
    beyond = _beyond(best["tokens"][:, 0], view)
    return Chart(
        "serving-optimal",
        "Serving-optimal parameters, tokens and bits",
        f"The least loss after quantisation under C = N P_post, with training for free.{said}{beyond} "
        f"Bands: {interval(fit)}{drawn}. {evidence(view)}.",
        Axis("bits of all weights, N P", "log", "prefix"),
        Axis("best parameters, tokens", "log", "prefix"),
        tuple(marks),
        Axis("best bits after training", ticks=(0, 2, 4, 6, 8, 10, 12, 16), low=0, high=16),
    )


def _beyond(tokens: Array, view: View) -> str:
    """A sentence about how far the best tokens lie beyond the rows."""
    most = float(np.nanmax(view.frame.filter(~pl.col("apart"))["tokens"].to_numpy()))
    known = tokens[np.isfinite(tokens)]
    if not len(known) or known.min() <= most:
        return ""
    return f" The best tokens are {known.min() / most:,.3g} to {known.max() / most:,.3g} times the most of the rows."
