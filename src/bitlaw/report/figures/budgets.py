"""What a budget buys: the best size, tokens and bits, choices of formats, and the size of a file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from ...errors import ConfigError, LawError
from ...fitting import Fit, OptimalPath
from ...fitting.minima import OK
from ...formats import UNQUANTIZED
from ...planning import Plan, frontier, plan
from ...planning.serve import artefact_bytes
from ...runs import Runs
from ...units import format_quantity, percent
from ..chart import Axis, Band, Bars, Chart, Line, Mark, NothingToDraw, Points, Rule
from ..style import STAR
from ..ticks import written
from ..view import View
from .base import (
    CURVE,
    Figure,
    above,
    bits_name,
    ceiling,
    evidence,
    interval,
    loss_unit,
    one_below_another,
    otherwise,
    points_of,
    size_label,
    thinned,
)

OPTIONS = 16  # choices of formats that are drawn
ROOM = 10.0  # times a budget that was asked for, to which figures of budgets reach
SHOWN = 8  # budgets whose parabolas are drawn


@Figure
def compute_optimal(fit: Fit, runs: Runs | View, budget: float | None = None) -> Chart:
    """Best parameters, tokens and bits against the budget, with intervals.

    Args:
        fit: of a law of size and tokens.
        runs: the rows it was fitted to; budgets reach from a tenth of the costliest to ten times it.
        budget: in 16-bit FLOPs, beyond which they reach, and which is marked.

    Raises:
        NothingToDraw: a law without a size and tokens.
    """
    view = View.of(runs, fit)
    largest = view.largest_cost()
    most = max(largest * 10, ROOM * (budget or 0.0))
    budgets = np.geomspace(largest / 10, most, max(5, round(2 * np.log10(most / largest)) + 3))
    try:
        best = frontier(thinned(fit), budgets.tolist(), fit.level)
    except (LawError, ConfigError) as error:  # a law of one's own may read what no budget tells
        raise NothingToDraw(str(error)) from error
    marks: list[Mark] = [Rule(x=largest, text="costliest run")]
    marks += [Rule(x=budget, text="budget asked for")] if budget else []
    for k, name in enumerate(("params", "tokens")):
        value, low, high = best[name].T
        marks += [
            Band(budgets, low, high, name, k),
            Line(budgets, value, name, k, marker=k),
        ]
    drawn = f", {len(thinned(fit).draws)} draws" if fit.df else ""
    second, title, cost = None, "Compute-optimal parameters and tokens", "6 N D"
    if fit.law.reads_bits:
        cost = "(6/16) N D P with all parts at P bits"
        value, low, high = best["bits"].T
        marks += [
            Band(budgets, low, high, "bits", 2, second=True),
            Line(budgets, value, "bits", 2, marker=2, dash=True, second=True),
        ]
        second, title = Axis("best bits", ticks=(0, 4, 8, 12, 16), low=0, high=16), f"{title}, and bits"
    return Chart(
        "compute-optimal",
        title,
        f"Under C = {cost}. Bands: {interval(fit)}{drawn}. {evidence(view)}.",
        Axis("budget, 16-bit FLOPs", "log", "power"),
        Axis("best parameters, tokens", "log", "prefix"),
        tuple(marks),
        second,
    )


@Figure
def loss_against_bits(fit: Fit, runs: Runs | View, budget: float | None = None) -> Chart:
    """The best loss a budget buys against bits: where the optimum is, and how flat.

    Args:
        fit: of a law of bits in training.
        runs: the rows it was fitted to.
        budget: in 16-bit FLOPs; None for the cost of the costliest row.

    Raises:
        NothingToDraw: a law without bits.
    """
    view = View.of(runs, fit)
    view.need("params", "tokens")
    if not fit.law.reads_bits:
        raise NothingToDraw(f"{fit.law.name} does not read bits; take a law like kumar")
    flops = view.largest_cost() if budget is None else budget
    try:
        answer = plan(replace(fit, df=0), budget=flops, interval=fit.level)
    except (LawError, ConfigError) as error:
        raise NothingToDraw(str(error)) from error
    options = sorted(answer.options, key=lambda o: o.bits)
    best = answer["bits"]
    bits = [o.bits for o in options]
    near = (Rule(x=(best.near_low, best.near_high)),) if np.isfinite(best.near_low) else ()
    return Chart(
        "loss-against-bits",
        f"What {format_quantity(flops, 'flops')} buys, by bits (shaded: near-optimal)",
        f"The best size and tokens at each number of bits, by the point estimates; the best of all is {best.value:.1f} "
        f"bits. Shaded: within {answer.tolerance:.0%} of the reducible loss. {evidence(view)}.",
        Axis("bits of all parts in training", ticks=tuple(bits)),
        Axis(f"best loss, {loss_unit(view.frame)}"),
        (
            *near,
            Rule(x=best.value, text="best"),
            Line(bits, [o.loss for o in options], marker=0),
        ),
    )


@Figure
def plan_options(answer: Plan, which: int = 0) -> Chart:
    """The loss that each choice of formats comes to at its best; near-optimal ones filled.

    Args:
        answer: a plan with choices of formats.
        which: its place among several plans, for the file's name.

    Raises:
        NothingToDraw: a plan without choices, or whose choices are not compared by loss.

    >>> chart = plan_options.chart(plan("kumar-2024", budget=1e21, bits=["int4", "int8"]))
    >>> chart.y.names
    ('int8', 'int4')
    """
    options = [o for o in answer.options if np.isfinite(o.loss)][:OPTIONS]
    if len(options) < 2 or answer.columns[2] != "loss" or np.isfinite(options[0].flops):
        raise NothingToDraw("the plan compares no formats by loss; ask for bits='any'")
    marks: list[Mark] = []
    for label, near, hollow in ((answer.columns[3], True, False), ("others", False, True)):
        places = [k for k, o in enumerate(options) if o.near_optimal == near]
        if places:
            chosen = [options[k] for k in places]
            loss = [o.loss for o in chosen]
            texts = [
                f"{o.formats}\nloss {o.loss:.4f}\nN {format_quantity(o.params)} D {format_quantity(o.tokens)}"
                + (f"\n{answer.columns[4]} {o.chance:.0%} of draws" if np.isfinite(o.chance) else "")
                for o in chosen
            ]
            marks.append(Bars(places, loss, loss, loss, label, int(hollow), int(hollow), texts, hollow))
    few = f" The best {len(options)} of {len(answer.options)}." if len(answer.options) > len(options) else ""
    return Chart(
        "plan-options" + (f"-{which + 1}" if which else ""),
        "Formats compared, each at its best size and tokens",
        f"{answer.question}. Law: {answer.law}; losses at the point estimates. Near-optimal: within "
        f"{answer.tolerance:.0%} of the reducible loss.{few}",
        Axis("loss, nats per token"),
        one_below_another([o.formats for o in options]),
        tuple(marks),
    )


@Figure
def isoflop_parabolas(path: OptimalPath) -> Chart:
    """Loss against size at each budget, with the parabola through it and its minimum.

    Args:
        path: what `bitlaw.isoflop` gives, by approach 2.

    Raises:
        NothingToDraw: a path of approach 1, which has no parabolas.
    """
    if not path.valleys:
        raise NothingToDraw("an envelope has no parabolas; take isoflop(runs, approach=2)")
    step = -(-len(path.valleys) // SHOWN)
    marks: list[Mark] = []
    for k, (valley, least) in enumerate(list(zip(path.valleys, path.minima, strict=True))[::step]):
        label = f"{written(valley.flops, 'power')}"
        x = valley.design[:, 1]
        grid = np.linspace(*valley.ends, CURVE)
        curve = np.stack([np.ones_like(grid), grid, grid**2], axis=1) @ valley.coef
        marks += [
            Line(np.exp(valley.middle + grid), curve, label, k, dash=k % 2 == 1),
            Points(np.exp(valley.middle + x), valley.loss, label, k, k),
        ]
        if least.flag == OK:
            marks.append(Points([least.params.value], [least.loss], "minimum", None, STAR))
    few = f" {len(path.valleys[::step])} of {len(path.valleys)} budgets are shown." if step > 1 else ""
    return Chart(
        "isoflop-parabolas",
        "Loss at equal compute against parameters (stars: minima)",
        f"Marks: rows, n = {path.rows}. Lines: parabolas in log N. N grows as C^{path.a.value:.3f} "
        f"({path.a.low:.3f} to {path.a.high:.3f}; {percent(path.level)} {path.kind}, {path.method}).{few}",
        Axis("parameters", "log", "prefix"),
        Axis("loss, nats per token"),
        tuple(marks),
        legend="FLOPs",
    )


@Figure
def loss_against_bytes(fit: Fit, runs: Runs | View) -> Chart:
    """Loss against the bytes of the stored weights, by their bits, and the rows that no other beats in both.

    Args:
        fit: of any law with a loss.
        runs: rows; bytes are N times bits of a weight, or `bpw` where the rows have it.

    Raises:
        NothingToDraw: rows of one number of bits.
    """
    view = View.of(runs, fit)
    view.need("params")
    sized = view.frame.filter(pl.col("params").is_not_null())
    rows = sized.filter(~pl.col("apart")).with_columns(
        pl.when(pl.col("post_bits") < UNQUANTIZED)
        .then("post_bits")
        .otherwise("w_bits")
        .clip(upper_bound=16.0)
        .alias("stored")
    )
    rows = rows.with_columns(
        pl.struct("params", pl.coalesce("bpw", "stored").alias("bits"))
        .map_elements(lambda row: artefact_bytes(row["params"], row["bits"]), pl.Float64)
        .alias("held")
    )
    kinds = rows["stored"].unique().sort()
    if len(kinds) < 2:
        raise NothingToDraw("all rows are stored in the same number of bits; add quantised ones")
    marks: list[Mark] = []
    for k, bits in enumerate(kinds):
        some = rows.filter(pl.col("stored") == bits)
        x, y = some["held"].to_numpy(), some["loss"].to_numpy()
        told = [format_quantity(value, "bytes") for value in x]
        marks.append(
            points_of(some, x, y, bits_name(UNQUANTIZED if bits == 16 else bits), k, told, hollow=True)
        )
    order = rows.sort("held", "loss")
    best = order["loss"].cum_min()
    front = order.filter((order["loss"] == best) & (best.shift(1).fill_null(np.inf) > best))
    top = ceiling(rows.filter(pl.col("stored") == 16)["loss"] if 16.0 in kinds else rows["loss"])
    over = above(rows.filter(pl.col("loss") > top).height)
    marks.append(Line(front["held"].to_numpy(), front["loss"].to_numpy(), "best of the rows", None))
    law = _law_front(view, rows)
    said = ""
    if law:
        said = " Dashed: the least loss of the fitted law over these bits, within the sizes of the rows, at their most "
        said += "tokens."
    scales = rows["bpw"].is_not_null().sum()
    counted = (
        f", scales included in {scales} rows that tell (bpw) and in no other"
        if scales
        else ", scales not counted"
    )
    return Chart(
        "loss-against-bytes",
        "Loss against bytes of the stored weights",
        f"Marks: rows, n = {rows.height}, by bits of a stored weight, quantised in training or after. Grey line: rows "
        f"that no other beats in bytes and loss.{over}{said} "
        f"{otherwise(sized)}Bytes: {size_label(fit)} times bits of a weight{counted}.",
        Axis("bytes of the weights", "log", "prefix"),
        Axis(f"loss, {loss_unit(rows)}", high=top),
        (*marks, *law),
        legend="bits",
    )


def _law_front(view: View, rows: pl.DataFrame) -> list[Mark]:
    """The least loss of the law at each number of bytes, over the bits that rows have in training or after it."""
    law, held = view.fit.law, rows["held"].to_numpy()
    timed = rows.filter(pl.col("tokens").is_not_null())
    if (
        not {"tokens"} <= set(law.columns)
        or not {"w_bits", "post_bits"} & set(law.columns)
        or timed.is_empty()
    ):
        return []
    sizes, grid = rows["params"].to_numpy(), np.geomspace(held.min(), held.max(), CURVE)
    plain = {i.column: np.full(CURVE, i.default) for i in law.inputs if i.default is not None}
    plain["tokens"] = np.full(CURVE, timed["tokens"].to_numpy().max())
    ways = [("w_bits", UNQUANTIZED)]
    for column in ("w_bits", "post_bits"):
        if column in law.columns:
            ways += [(column, bits) for bits in rows[column].unique().sort() if bits < UNQUANTIZED]
    found = []
    for column, bits in ways:
        size = 8 * grid / min(bits, 16.0)
        inside = (size >= sizes.min()) & (size <= sizes.max())
        at = plain | {"params": size, column: np.full(CURVE, bits)}
        found.append(np.where(inside, view.values(timed.row(0, named=True), **at), np.nan))
    known = np.isfinite(found).any(axis=0)
    if not known.any():
        return []
    least = np.minimum.accumulate(np.nanmin(np.array(found)[:, known], axis=0))
    return [Line(grid[known], least, "best by the law", 7, dash=True)]
