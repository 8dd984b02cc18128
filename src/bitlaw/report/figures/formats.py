"""Formats beside each other: effective parameters by family and granularity, and whether parts multiply."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from ...fitting import Fit
from ...fitting.objective import student_quantile
from ...fitting.rows import clusters
from ...formats import UNQUANTIZED, layout, parse_format
from ...formats.catalogue import KUMAR_FLOATS
from ...formats.grid import Float, Microscaled, Uniform
from ...laws.terms import PARTS
from ...runs import Runs
from ...units import percent
from ..chart import Axis, Band, Chart, Line, Mark, NothingToDraw, Points, Rule
from ..view import View, but
from .base import CURVE, Figure, evidence, interval, points_of
from .precision import MOST, by_size_alone, law_factor, measured_factors, unseen

APART = 0.05  # bits, between families
SHARED = {"w": "channel", "a": "tensor", "kv": "tensor"}  # what shares a scale where a name does not say
SETTINGS = 12  # of parts together, that are named


@Figure
def effective_parameters_by_format(fit: Fit, runs: Runs | View) -> Chart:
    """Share of parameters that count, by family of the weights' format, against bits; means over runs.

    (Kumar et al. 2024, appendix N, figures 15 to 17, by equation 30.) Bits are those of a number, its sign included and
    scales not; a format that belongs to two families stands in both.

    Args:
        fit: of a law with effective parameters.
        runs: rows trained in several kinds of formats, weights alone, or blocks in weights and activations alike.

    Raises:
        NothingToDraw: the law has no such factor, or rows have one family.
    """
    view = _checked(fit, runs)
    alone = view.trained.filter(but("w") & (pl.col("w_bits") < UNQUANTIZED))
    both = pl.all_horizontal(pl.col(f"{part}_bits") == UNQUANTIZED for part in ("kv", "emb", "grad"))
    blocks = view.trained.filter(
        both & (pl.col("w_format") == pl.col("a_format")) & (pl.col("w_bits") < UNQUANTIZED)
    )
    found = _families(alone, "w")
    found += [(f"{name}, activations too", rows) for name, rows in _families(blocks, "w") if name == "blocks"]
    return _compared(
        view,
        found,
        ("w",),
        "effective-parameters-by-format",
        "Effective parameters by format of the weights",
        "Weights share a scale a channel, unless it is told otherwise; blocks have scales of their own.",
    )


@Figure
def effective_parameters_by_granularity(fit: Fit, runs: Runs | View) -> Chart:
    """Share of parameters that count for integers, by what shares a scale, for weights and activations.

    (Kumar et al. 2024, appendix I, figure 13: is it the scale a tensor that makes activations sensitive?)

    Args:
        fit: of a law with effective parameters.
        runs: rows of integers, one part alone, of several granularities.

    Raises:
        NothingToDraw: the law has no such factor, or each part has one granularity.
    """
    view = _checked(fit, runs)
    found, several = [], False
    for part in ("w", "a", "kv"):
        rows = view.trained.filter(but(part) & pl.col(f"{part}_format").str.contains(r"^int\d+$"))
        shared = pl.col(f"{part}_granularity").fill_null(SHARED[part])
        kinds = rows.select(shared.unique().sort()).to_series().to_list()
        several = several or len(kinds) > 1
        found += [(f"{PARTS[part]}, a {kind}", rows.filter(shared == kind)) for kind in kinds]
    if not several:
        raise NothingToDraw(
            "no part has integers of two granularities; train some with a scale a token or a tensor"
        )
    return _compared(
        view,
        found,
        tuple(part for part in ("w", "a", "kv") if any(name.startswith(PARTS[part]) for name, _ in found)),
        "effective-parameters-by-granularity",
        "Effective parameters by what shares a scale, integers",
        "One part in low precision at a time.",
    )


@Figure
def parts_multiply(fit: Fit, runs: Runs | View) -> Chart:
    """Effective parameters of several parts in low precision, measured against the product of each part's own.

    (Kumar et al. 2024, figure 5 and finding 2.) Both sides are measured: factors of equation 30, of runs with one part
    in low precision, of the same size, tokens and format. On the diagonal parts multiply.

    Args:
        fit: of a law with effective parameters, whose 16-bit loss, A and alpha are taken.
        runs: rows of several parts, and of each of them alone.

    Raises:
        NothingToDraw: the law has no such factor, or there are no such rows.
    """
    view = _checked(fit, runs)
    rows = view.trained.with_columns(pl.Series("factor", measured_factors(view, view.trained)))
    low = [(pl.col(f"{part}_bits") < UNQUANTIZED) for part in PARTS]
    others = pl.all_horizontal(pl.col(f"{part}_bits") == UNQUANTIZED for part in ("emb", "grad"))
    mixed = rows.filter(others & (pl.sum_horizontal(x.cast(pl.Int64) for x in low) > 1))
    product = pl.lit(1.0)
    for part in PARTS:
        own = [f"{part}_format", f"{part}_granularity", "params", "tokens"]
        alone = rows.filter(
            but(part) & (pl.col(f"{part}_bits") < UNQUANTIZED) & pl.col("factor").is_not_nan()
        )
        means = alone.group_by(own).agg(pl.col("factor").mean().alias(f"{part}_alone"))
        mixed = mixed.join(means, on=own, how="left", nulls_equal=True)
        whole = pl.col(f"{part}_bits") == UNQUANTIZED
        product = product * pl.when(whole).then(1.0).otherwise(pl.col(f"{part}_alone"))
    mixed = mixed.with_columns(product.alias("product"))
    known = mixed.filter(
        pl.col("product").is_not_null() & pl.col("factor").is_not_nan() & (pl.col("product") > 0)
    )
    if not known.height:
        raise NothingToDraw(
            "no run of several parts in low precision has runs of each part alone, of its size and tokens; train them"
        )
    names = [
        pl.when(pl.col(f"{part}_bits") < UNQUANTIZED).then(
            pl.format(part + "{}", pl.col(f"{part}_bits").round(2))
        )
        for part in PARTS
    ]
    known = known.with_columns(
        pl.concat_str(names, separator=" ", ignore_nulls=True)
        .str.replace_all(".0", "", literal=True)
        .alias("setting")
    )
    settings = known.group_by("setting").agg(pl.col("product").mean()).sort("product")["setting"].to_list()
    ends = [0.0, float(max(known["product"].to_numpy().max(), known["factor"].to_numpy().max()))]
    marks: list[Mark] = [Line(ends, ends, "parts multiply", None, dash=True)]
    for k, setting in enumerate(settings):
        some = known.filter(pl.col("setting") == setting)
        x, y = some["product"].to_numpy(), some["factor"].to_numpy()
        label = setting if k < SETTINGS else "others"
        told = [
            f"effective / actual {value:.3f}, product {other:.3f}" for value, other in zip(y, x, strict=True)
        ]
        marks.append(points_of(some, x, y, label, k, told, hollow=k >= 8))
    logs = known.with_columns((pl.col("factor") / pl.col("product")).log().alias("log"))
    # Runs of one size are compared with the same trunks of single parts, whose noise they then share.
    middles = logs.group_by("params").agg(pl.col("log").mean())["log"].to_numpy()
    said = f"Measured over product: {np.exp(middles.mean()):.3f} in the geometric mean"
    said += " of one size, which tells no interval" if len(middles) == 1 else ""
    if len(middles) > 1:
        half = (
            student_quantile(len(middles) - 1, (1 + fit.level) / 2)
            * middles.std(ddof=1)
            / np.sqrt(len(middles))
        )
        first, last = np.exp([middles.mean() - half, middles.mean() + half])
        said += f", {percent(fit.level)} confidence {first:.3f} to {last:.3f} by Student's t over {len(middles)} sizes"
    left = mixed.height - known.height
    lost = f" {left} runs have no runs of each part alone, or no loss that a size comes to." if left else ""
    return Chart(
        "parts-multiply",
        "Effective parameters of several parts, against the product of each alone",
        f"Marks: single runs, n = {known.height}. {said}.{lost} {evidence(view)}.",
        Axis("product of the effective / actual parameters of each part", low=0.0),
        Axis("effective / actual parameters of all together", low=0.0),
        tuple(marks),
        legend="bits",
    )


def _checked(fit: Fit, runs: Runs | View) -> View:
    if not by_size_alone(fit.law):
        raise NothingToDraw(f"{fit.law.name} has no effective parameters by bits; take a law like kumar")
    return View.of(runs, fit)


def _families(rows: pl.DataFrame, part: str) -> list[tuple[str, pl.DataFrame]]:
    """Rows by family of a part's format, and by granularity where it is not the usual one."""
    names = {name: parse_format(name) for name in rows[f"{part}_format"].drop_nulls().unique()}
    shared = pl.col(f"{part}_granularity").fill_null(SHARED[part])
    tests: list[tuple[str, Callable[[str], bool]]] = [
        ("integers", lambda name: name.startswith("int")),
        ("the paper's floats", lambda name: name in KUMAR_FLOATS.values()),
        ("ExM3", lambda name: isinstance(names[name], Float) and layout(names[name])[1] == 3),
        ("E3Mx", lambda name: isinstance(names[name], Float) and layout(names[name])[0] == 3),
        ("blocks", lambda name: isinstance(names[name], Microscaled)),
    ]
    found, taken = [], set()
    for label, test in tests:
        inside = [name for name in names if test(name)]
        taken |= set(inside)
        found.append((label, inside))
    found.append(
        ("other floats", [n for n, fmt in names.items() if isinstance(fmt, Float) and n not in taken])
    )
    found.append(
        ("other grids", [n for n, fmt in names.items() if isinstance(fmt, Uniform) and n not in taken])
    )
    out = []
    for label, inside in found:
        some = rows.filter(pl.col(f"{part}_format").is_in(inside))
        for kind in some.select(shared.unique().sort()).to_series():
            named = label if label == "blocks" or kind == SHARED[part] else f"{label}, a {kind}"
            out.append((named, some if label == "blocks" else some.filter(shared == kind)))
            if label == "blocks":
                break
    return out


def _compared(
    view: View,
    found: Sequence[tuple[str, pl.DataFrame]],
    parts: Sequence[str],
    name: str,
    title: str,
    said: str,
) -> Chart:
    """Means over the runs of each format, a line through each family, and the law of some parts beside them."""
    if len(found) < 2:
        raise NothingToDraw(
            "rows have one family of formats; train some in floats, blocks, or another granularity"
        )
    marks: list[Mark] = [Rule(y=1.0)]
    beyond, runs, highest, fewest = set[str](), set[str](), 1.0, 2.0
    for k, (label, rows) in enumerate(found):
        part = next((p for p in parts if label.startswith(PARTS[p])), parts[0])
        rows = rows.with_columns(
            pl.Series("factor", measured_factors(view, rows)),
            pl.Series("cluster", clusters(view.frame)[rows["place"].to_numpy()]),
        )
        beyond |= set(rows.filter(~(pl.col("factor") <= MOST))["id"])
        runs |= set(rows["id"])
        kind = [f"{part}_bits", f"{part}_format"]
        each = rows.filter(pl.col("factor").is_not_nan() & (pl.col("factor") <= MOST))
        each = each.group_by(*kind, "cluster").agg(pl.col("factor").mean(), pl.len().alias("runs"))
        each = each.group_by(kind).agg(
            pl.col("factor").mean(),
            (pl.col("factor").std() / pl.len().sqrt()).alias("se"),
            pl.col("runs").sum(),
            pl.len().alias("trunks"),
        )
        each = each.sort(kind)
        if not each.height:
            continue
        x = each[f"{part}_bits"].to_numpy() + APART * (k - len(found) / 2)
        y, error = each["factor"].to_numpy(), each["se"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        fewest = min(fewest, each[f"{part}_bits"].to_numpy().min())
        highest = max(highest, float((y + np.nan_to_num(error)).max()))
        texts = [
            f"{row[f'{part}_format']}\n{label}\n"
            f"{row['factor']:.3f}, mean of {row['runs']} runs, trunks: {row['trunks']}"
            for row in each.iter_rows(named=True)
        ]
        marks += [
            Line(x, y, label, k, dash=k % 2 == 1),
            Points(x, y, label, k, k, error=error, hover=texts, hollow=k >= 4),
        ]
    for part in parts:
        if f"{part}_bits" not in view.fit.law.columns:
            continue
        grid = np.linspace(fewest, 16.0, 2 * CURVE)
        curve, low, high = law_factor(view, part, grid)
        text = f"fitted law, {PARTS[part]}" if len(parts) > 1 else "fitted law"
        marks[1:1] = [Band(grid, low, high, "", None), Line(grid, curve, text, None)]
    lost = unseen(len(beyond)) + (" The means are without them, and low by that." if beyond else "")
    return Chart(
        name,
        title,
        f"Marks: means over a format's trunks, n = {len(runs)} runs, against the fitted 16-bit loss; bars: one "
        f"standard error over trunks, where there are two. {said}{lost} Grey: the law, by bits alone, "
        f"{interval(view.fit)}. {evidence(view)}.",
        Axis("bits of a number, sign included", ticks=(2, 3, 4, 5, 6, 8, 12, 16)),
        Axis("effective / actual parameters", low=0, high=min(MOST, max(1.1, 1.1 * highest))),
        tuple(marks),
        legend="family",
    )
