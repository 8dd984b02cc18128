"""One law of all gaps: predicted against measured, by bits of training, and where the errors lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from ...errors import DataError
from ...fitting import Fit
from ...fitting.objective import student_quantile
from ...fitting.rows import clusters
from ...formats import UNQUANTIZED
from ...laws.terms import TRAINED_PARTS
from ...runs import Runs
from ...units import format_quantity, percent
from ..chart import Axis, Band, Chart, Line, Mark, NothingToDraw, Points, Rule
from ..view import Array, View, but
from .base import (
    CURVE,
    Figure,
    bars,
    by_count,
    evidence,
    interval,
    loss_unit,
    of_all_methods,
    of_method,
    otherwise,
    points_of,
    slug,
)
from .gaps import schedules

LEAST = 1e-5  # nats: gaps below it are of no consequence, and are counted instead of drawn
CLEAR = 2.0  # standard errors from zero, beyond which a gap is clearly there
CATEGORIES = 12  # values of a column that stand beside each other; more of them lie on a scale
APART = 0.24  # of a category's place, between fits
SPREAD, BESIDE = 0.04, 0.05  # of it, over which single rows are strewn, and how far they are from the mean


def r2(measured: Array, predicted: Array) -> float:
    """Share of the variance that predictions explain; NaN where all is measured alike.

    >>> r2(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 2.0]))
    0.5
    """
    spread = np.sum((measured - measured.mean()) ** 2)
    alike = np.ptp(measured) <= 1e-9 * np.abs(measured).max()
    return np.nan if alike else float(1 - np.sum((measured - predicted) ** 2) / spread)


def fitted_gaps(view: View) -> pl.DataFrame:
    """Rows whose gap the law was, or could be, fitted to, with `expected`, what it predicts.

    Raises:
        NothingToDraw: there are none.
    """
    rows = view.frame.filter((pl.col("fitted") == "gap") & pl.col("gap").is_not_null())
    if view.fit.law.gap == 0 or not rows.height:
        raise NothingToDraw(
            "the law has no gap, or no row one; take a law like kumar-unified and rows with gaps"
        )
    return rows.with_columns(pl.Series("expected", view.predicted(rows, "gap")))


@Figure
def predicted_against_measured_gap(fit: Fit, runs: Runs | View) -> Chart:
    """Predicted against measured gap on logarithmic axes, one colour per bits after training.

    (Kumar et al. 2024, figure 7, right.) A logarithm shows no negative gap, and gaps near zero as noise; the caption
    counts what is not shown.

    Args:
        fit: of a law with a gap.
        runs: the rows it was fitted to.

    Raises:
        NothingToDraw: a law without a gap, or no row with one above a hundred-thousandth of a nat.
    """
    view = View.of(runs, fit)
    rows = fitted_gaps(view)
    negative = rows.filter(pl.col("gap") <= 0).height
    known = pl.col("expected").is_finite()
    outside = rows.filter((pl.col("gap") > 0) & ~known).height
    shown = rows.filter((pl.col("gap") >= LEAST) & known & (pl.col("expected") >= LEAST))
    tiny = rows.height - negative - outside - shown.height
    if shown.height < 2:
        raise NothingToDraw("no two gaps are above a hundred-thousandth of a nat; quantise to fewer bits")
    measured, predicted = shown["gap"].to_numpy(), shown["expected"].to_numpy()
    ends = [min(measured.min(), predicted.min()), max(measured.max(), predicted.max())]
    marks: list[Mark] = [Line(ends, ends, "as measured", None, dash=True)]
    low = pl.any_horizontal(pl.col(f"{part}_bits") < UNQUANTIZED for part in TRAINED_PARTS)
    for k, bits in enumerate(shown["post_bits"].unique().sort()):
        for part, hollow in ((shown.filter(~low), False), (shown.filter(low), True)):
            some = part.filter(pl.col("post_bits") == bits)
            if some.height:
                x, y = some["gap"].to_numpy(), some["expected"].to_numpy()
                label = f"{bits:g} bits"
                told = [f"predicted {value:.4g}" for value in y]
                marks.append(points_of(some, x, y, label, k, told, hollow=hollow, faint=True))
    left = [f"{negative} gaps are zero or less"] if negative else []
    left += [f"{tiny} are below {LEAST:g} nats, measured or predicted"] if tiny else []
    left += [f"the law says nothing of {outside}"] if outside else []
    said = f" Not shown: {', and '.join(left)}." if left else ""
    logs, plain = r2(np.log(measured), np.log(predicted)), r2(measured, predicted)
    rated = np.isfinite([logs, plain]).all()
    own = "the rows the law was fitted to" if view.own else "another table than the fit's"
    explained = f" R² of these gaps themselves: {plain:.3f}; of {own}." if rated else ""
    return Chart(
        "predicted-against-measured-gap",
        "Predicted against measured gap" + (f" (R² of logarithms {logs:.3f})" if rated else ""),
        f"Marks: single rows, n = {shown.height} gaps; hollow: of models trained in low precision.{said}{explained} "
        f"{evidence(view)}.",
        Axis(f"measured gap, {loss_unit(rows)}", "log"),
        Axis(f"predicted gap, {loss_unit(rows)}", "log"),
        tuple(marks),
        legend="after training",
    )


@Figure
def gap_against_training_bits(
    fit: Fit,
    runs: Runs | View,
    params: float | None = None,
    tokens: float | None = None,
    method: str | None = None,
) -> Chart:
    """Gap against the bits the weights were trained in, a line per bits after training, at one size and token count.

    (Kumar et al. 2024, figure 7, left, whose heat map this is in lines.) Two effects meet: weights trained in few bits
    are robust, and a smaller N_eff is overtrained the more.

    Args:
        fit: of any law; its gap is drawn where it has one of bits in training.
        runs: rows with gaps.
        params: the size; None for that of most such rows.
        tokens: training tokens; None for the most of that size that were trained in several bits.
        method: of quantisation; None for the one of most rows.

    Raises:
        NothingToDraw: no rows of one size, tokens and bits after training differ in the bits of training.
    """
    view = View.of(runs, fit)
    rows = view.quantized.filter(but("w") & pl.col("params").is_not_null() & pl.col("tokens").is_not_null())
    methods = by_count(rows.filter(pl.col("w_bits") < UNQUANTIZED), "method")
    method = method or (methods[0] if methods else None)
    rows = of_method(rows, method)
    cells = (
        rows.group_by("params", "tokens")
        .agg(pl.col("w_bits").n_unique(), pl.len())
        .filter(pl.col("w_bits") > 1)
    )
    for column, value in (("params", params), ("tokens", tokens)):
        if value is not None:
            cells = cells.filter((pl.col(column) / value - 1).abs() < 0.01)
    if not cells.height:
        raise NothingToDraw(
            "no models of one size and token count, trained in several bits, were quantised after it"
        )
    chosen = cells.sort("w_bits", "tokens", "params", descending=True).row(0, named=True)
    size, data = chosen["params"], chosen["tokens"]
    rows = rows.filter((pl.col("params") == size) & (pl.col("tokens") == data))
    rows = rows.with_columns(pl.col("w_bits").clip(upper_bound=16.0).alias("shown"))
    paired = rows["gap_se"].is_not_null().any()
    known = fit.law.gap != 0 and {"w_bits", "post_bits"} <= set(fit.law.columns)
    marks: list[Mark] = []
    drawn = False
    for k, bits in enumerate(rows["post_bits"].unique().sort()):
        some, label = rows.filter(pl.col("post_bits") == bits).sort("shown"), f"{bits:g} bits"
        if known:
            grid = np.linspace(max(bits, some["shown"].to_numpy().min() - 0.5) + 0.02, 16, CURVE)
            curve, low, high = view.curve(some.row(0, named=True), "gap", w_bits=grid)
            drawn = drawn or bool(np.isfinite(curve).any())
            if np.isfinite(curve).any():
                marks += [Band(grid, low, high, label, k), Line(grid, curve, label, k, dash=k % 2 == 1)]
        marks.append(
            points_of(
                some,
                some["shown"].to_numpy(),
                some["gap"].to_numpy(),
                label,
                k,
                error=bars(some) if paired else (),
            )
        )
    said = "Bars: one standard error of each paired gap. " if paired else ""
    said += (
        f"Lines and bands: the fitted law, {interval(fit)}. {of_all_methods(view, method)}" if drawn else ""
    )
    ways = rows.select(schedules(rows)).to_series().unique().sort()
    said += otherwise(of_method(view.lone, method))
    said += f"The rows mix schedules: {'; '.join(ways)}. " if len(ways) > 1 else ""
    by = f" by {method.upper()}" if method else ""
    smallest = float(np.abs(rows["gap"].to_numpy()).min())
    return Chart(
        "gap-against-training-bits",
        f"Gap{by} by bits of training: {format_quantity(size, 'params')} on {format_quantity(data, 'tokens')}",
        f"Marks: single rows, those trained unquantised at 16. {said}n = {rows.height} gaps. The vertical axis "
        "is linear near zero, so negative gaps show.",
        Axis("bits of the weights in training", ticks=(2, 3, 4, 6, 8, 10, 12, 16)),
        Axis(f"gap after quantisation, {loss_unit(rows)}", "symlog", linear_below=max(1e-3, smallest)),
        tuple(marks),
        legend="after training",
    )


@Figure
def gap_residuals(fits: Fit | Sequence[Fit], runs: Runs | View, by: str = "w_bits") -> Chart:
    """Predicted over measured gap, of one fit or of several beside each other, by any column.

    (Kumar et al. 2024, figure 21, for which give fits of `kumar-unified` and `kumar-unified-n`.) Gaps within two
    standard errors of zero are left out, as their ratio says nothing.

    Args:
        fits: of laws with a gap; several are compared on the rows that all of them read.
        runs: the rows they were fitted to; a table, where there are several.
        by: a column, like `post_bits`, `w_bits`, `params`, `tokens` or `method`.

    Raises:
        NothingToDraw: no gap is clearly above zero, or no row has the column.
        DataError: there is no such column.
    """
    several = [fits] if isinstance(fits, Fit) else list(fits)
    if not several or (len(several) > 1 and isinstance(runs, View)):
        raise DataError("give one fit, or several and the table of runs")
    tables = [_ratios(View.of(runs, fit), by) for fit in several]
    for other in tables[1:]:
        tables = [table.join(other.select("id"), on="id", how="semi") for table in tables]
    values = tables[0]["by"].drop_nulls().unique().sort().to_list()
    if not values:
        raise NothingToDraw(f"no row with a clear gap has {by}")
    listed = not isinstance(values[0], int | float) or len(values) <= CATEGORIES
    marks: list[Mark] = [Rule(y=1.0)]
    told = []
    level = several[0].level
    for k, (fit, rows) in enumerate(zip(several, tables, strict=True)):
        label = fit.law.name
        logs = np.log(rows["ratio"].to_numpy())
        told.append(f"{label}: {np.sqrt(np.mean(logs**2)):.3f}")
        strewn = SPREAD * np.sin(np.arange(rows.height) * 2.4)
        shift = APART * (k - (len(several) - 1) / 2)
        places = rows["by"].replace_strict(
            values, [float(j) for j in range(len(values))], return_dtype=pl.Float64
        )
        x = places.to_numpy() + shift - BESIDE + strewn if listed else rows["by"].to_numpy()
        ratios = rows["ratio"].to_numpy()
        told_each = [f"predicted / measured {ratio:.3f}" for ratio in ratios]
        marks.append(points_of(rows, x, ratios, label, k, told_each, faint=True))
        if listed:
            marks.append(_means(rows, values, shift + BESIDE, label, k, level))
    names, said = tuple(_name(value, by) for value in values), _words(by)
    x_axis = (
        Axis(said, ticks=tuple(map(float, range(len(values)))), names=names)
        if listed
        else Axis(said, "log", "prefix")
    )
    means = (
        f"large: geometric means with {percent(level)} confidence by Student's t over trunks, "
        "where there are two. "
        if listed
        else ""
    )
    return Chart(
        "gap-residuals" + slug(by.replace("_", "-")),
        f"Errors of predicted gaps by {said}",
        f"Small marks: single rows, n = {tables[0].height} gaps more than {CLEAR:g} standard errors above zero; {means}"
        f"Root mean square of the log ratio: {', '.join(told)}.",
        x_axis,
        Axis("predicted / measured gap", "log"),
        tuple(marks),
    )


def _ratios(view: View, by: str) -> pl.DataFrame:
    """Clear gaps that a law reads, with `ratio`, `cluster` and `by`."""
    rows = fitted_gaps(view)
    if by not in rows.columns:
        raise DataError(
            f"rows have no column {by!r}; take one like w_bits, post_bits, params, tokens or method"
        )
    frame = view.frame
    of = pl.Series("cluster", clusters(frame)[rows["place"].to_numpy()])
    clear = (
        (pl.col("gap") > CLEAR * pl.col("gap_se").fill_null(0))
        & (pl.col("gap") >= LEAST)
        & (pl.col("expected") > 0)
        & pl.col("expected").is_finite()
    )
    rows = rows.with_columns(of, (pl.col("expected") / pl.col("gap")).alias("ratio"), pl.col(by).alias("by"))
    rows = rows.filter(clear)
    if not rows.height:
        raise NothingToDraw("no gap is clearly above zero; quantise to fewer bits")
    return rows.filter(pl.col("by").is_not_null())


def _means(
    rows: pl.DataFrame, values: Sequence[object], shift: float, label: str, k: int, level: float
) -> Points:
    """The mean of log ratios at each value, each trunk counting once, and Student's interval of it."""
    x, y, down, up, texts = [], [], [], [], []
    for place, value in enumerate(values):
        some = rows.filter(pl.col("by") == value).with_columns(pl.col("ratio").log().alias("log"))
        means = some.group_by("cluster").agg(pl.col("log").mean())["log"].to_numpy()
        if not len(means):
            continue
        middle, half = float(means.mean()), np.nan  # of one trunk, nobody knows
        if len(means) > 1:
            half = (
                student_quantile(len(means) - 1, (1 + level) / 2)
                * float(means.std(ddof=1))
                / np.sqrt(len(means))
            )
        x.append(place + shift)
        y.append(np.exp(middle))
        down.append(np.exp(middle) - np.exp(middle - half))
        up.append(np.exp(middle + half) - np.exp(middle))
        texts.append(f"{label}\nmean {np.exp(middle):.3f} of {some.height} gaps in {len(means)} trunks")
    return Points(x, y, label, k, k, error=[down, up], hover=texts)


def _words(column: str) -> str:
    """A column as an axis is labelled."""
    part = column.removesuffix("_bits")
    if column == "post_bits":
        return "bits after training"
    return (
        f"bits of the {TRAINED_PARTS[part]} in training"
        if part in TRAINED_PARTS
        else column.replace("_", " ")
    )


def _name(value: object, by: str) -> str:
    if not isinstance(value, float):
        return str(value)
    return "16-bit" if value == UNQUANTIZED and by.endswith("_bits") else format_quantity(value)
