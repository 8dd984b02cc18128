"""What all figures share: how one is called, how many points a curve has, and how evidence is put into words."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Generic, ParamSpec

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from ...fitting import Fit
from ...fitting.tell import draws_text
from ...formats import UNQUANTIZED
from ...laws.terms import TARGETS
from ...runs.schema import COLUMN
from ...units import format_quantity, percent
from ..chart import Axis, Chart, Mark, Points
from ..draw import draw
from ..view import Array, View

P = ParamSpec("P")
CURVE = 48  # points of a curve
DRAWN = 150  # of the draws, where each costs an optimisation
FORMAT_COLUMNS = tuple(name for name in COLUMN if name.endswith("_format"))
ROOM = 0.6  # of the spread of losses before quantisation, above the largest of them


class Figure(Generic[P]):
    """A figure: `figure.chart(...)` works it out, and `figure(ax, ...)` draws it on `ax` and returns that.

    >>> from matplotlib.figure import Figure as Canvas
    >>> from bitlaw.report.chart import Axis, Points
    >>> dots = Figure(lambda y: Chart("dots", "Dots", "n = 2.", Axis("x"), Axis("y"), (Points([1, 2], y),)))
    >>> dots.chart([3, 4]).limits("y")
    (2.95, 4.05)
    >>> dots(Canvas().subplots(), [3, 4]).get_ylabel()
    'y'
    """

    def __init__(self, chart: Callable[P, Chart]) -> None:
        functools.update_wrapper(self, chart)
        self.chart = chart

    def __call__(self, ax: Axes, *args: P.args, **kwargs: P.kwargs) -> Axes:
        """Draw on a matplotlib `ax`; the rest as `chart` takes it."""
        return draw(ax, self.chart(*args, **kwargs))


def evidence(of: Fit | View) -> str:
    """How many rows, clusters and, where rows are at hand that say so, seeds are behind a fit."""
    fit = of.fit if isinstance(of, View) else of
    kinds = {"loss": "losses", "gap": "gaps"}
    counts = " and ".join(f"{n} {kinds[kind]}" for kind, n in fit.rows.items())
    seeds = of.frame["seed"].drop_nulls().n_unique() if isinstance(of, View) else 0
    said = f", {seeds} seed{'s' if seeds > 1 else ''}" if seeds else ""
    if isinstance(of, View) and not of.own:
        said = ", all of another table than this"
    return f"n = {counts} in {number(fit.clusters, 'independent cluster')}{said}"


def interval(fit: Fit) -> str:
    """The level, kind and method of intervals that are read off a fit's draws."""
    return f"{percent(fit.level)} confidence, {draws_text(fit)}" if fit.df else "no intervals"


def bits_name(bits: float) -> str:
    """Bits as people read them.

    >>> bits_name(4.0), bits_name(1e6)
    ('4 bits', '16-bit')
    """
    return "16-bit" if bits == UNQUANTIZED else f"{bits:g} bits"


def marks_of(view: View, rows: pl.DataFrame, x: str, label: str, place: int) -> list[Mark]:
    """Rows as points of what was measured; those held out from the fit that judges it are hollow."""
    held = pl.col("place").is_in(list(view.held))
    return [
        points_of(
            part,
            part[x].to_numpy(),
            part["measured"].to_numpy(),
            label,
            place,
            measured_as(view, part),
            hollow=hollow,
        )
        for part, hollow in ((rows.filter(~held), False), (rows.filter(held), True))
        if part.height
    ]


def points_of(
    rows: pl.DataFrame,
    x: Array,
    y: Array,
    label: str,
    number: int | None,
    told: Sequence[str] = (),
    **how: Any,
) -> Points:
    """Rows as points with their hover text and ids; `told` ends each text, and `how` is what `Points` takes."""
    return Points(
        x, y, label, number, **{"marker": number} | how, hover=hover(rows, told), ids=rows["id"].to_list()
    )


def measured_as(view: View, rows: pl.DataFrame) -> list[str]:
    """What was measured of rows, where the law predicts something else than a loss."""
    target = view.fit.law.target.replace("_", " ")
    return [] if target == "loss" else [f"{target} {value:.4g}" for value in rows["measured"]]


def ceiling(trained: pl.Series | Array) -> float:
    """How high a figure of losses after quantisation goes: those of two bits would leave no room for all others."""
    values = np.asarray(trained, dtype=float)
    return float(values.max() + ROOM * max(np.ptp(values), 0.1 * values.max()))


def of_all_methods(view: View, method: str | None) -> str:
    """A sentence where a figure shows one method of quantisation and its fit is of several; else empty."""
    mixed = view.own and view.quantized["method"].drop_nulls().n_unique() > 1
    return "The fit is of the rows of all methods. " if mixed and method is not None else ""


def otherwise(rows: pl.DataFrame) -> str:
    """A sentence about those of some rows that stand apart, and are not drawn; empty where there are none."""
    count = int(rows["apart"].sum())
    what = "treated otherwise (activations quantised after training, fine-tuned, averaged or the like)"
    return f"Not drawn: {number(count, 'row')} {what}. " if count else ""


def number(count: int, word: str) -> str:
    """A number of things in words.

    >>> number(1, "row"), number(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def above(count: int) -> str:
    """A sentence about marks that a figure has no room for; empty where there are none."""
    return f" {count} rows lie above the frame." if count else ""


def thinned(fit: Fit, most: int = DRAWN) -> Fit:
    """The fit with fewer draws, where each of them costs an optimisation: enough for what an eye can see."""
    return replace(fit, draws=fit.draws[:most])


def loss_label(view: View) -> str:
    """What the law predicts, with its unit."""
    target = view.fit.law.target
    if target != "loss":
        return f"{target.replace('_', ' ')}, {TARGETS[target][1]}"
    kind = view.frame["objective"].drop_nulls()
    name = f"{kind[0]} loss" if len(kind) and kind[0] != "cross-entropy" else "loss"
    return f"{name}, {loss_unit(view.frame)}"


def loss_unit(rows: pl.DataFrame) -> str:
    """The unit of losses and gaps: a fit takes rows of one.

    >>> from bitlaw import Runs
    >>> loss_unit(Runs.from_rows([{"params": 1e6, "tokens": 1e7, "loss": 3.0, "unit": "frames"}]).frame)
    'nats per frame'
    """
    plain = rows["objective"].fill_null("cross-entropy").eq("cross-entropy").all()
    framed = rows["unit"].eq("frames").any()
    return f"{'nats' if plain else 'units'} per {'frame' if framed else 'token'}"


def token_label(rows: pl.DataFrame) -> str:
    """What D counts."""
    return "training frames" if rows["unit"].eq("frames").any() else "training tokens"


def one_below_another(names: Sequence[str]) -> Axis:
    """A vertical axis of things with names, the first at the top."""
    places = tuple(float(k) for k in range(len(names)))
    return Axis("", ticks=places, names=tuple(names), low=-0.7, high=len(names) - 0.3, reverse=True)


def size_label(fit: Fit) -> str:
    """What N counts."""
    count = fit.count.replace("_", "-")
    return "parameters" + ("" if count in ("not stated", "as-given") else f" ({count})")


def hover(rows: pl.DataFrame, told: Sequence[str] = ()) -> tuple[str, ...]:
    """What tells a row: its id, size, tokens, formats, method, loss, gap, and a text of its own."""
    parts = [name for name in FORMAT_COLUMNS if rows[name].is_not_null().any()]
    out = []
    for row in rows.select("id", "params", "tokens", *parts, "method", "loss", "gap").iter_rows(named=True):
        low = (name for name in parts if row[name] not in (None, "bf16"))
        formats = ", ".join(f"{name.removesuffix('_format')} {row[name]}" for name in low)
        size = " ".join(
            f"{letter} {format_quantity(row[name])}"
            for letter, name in (("N", "params"), ("D", "tokens"))
            if row[name] is not None and np.isfinite(row[name])
        )
        by = f" by {row['method']}" if row["method"] else ""
        gap = "" if row["gap"] is None else f", gap {row['gap']:.4g}"
        out.append(f"{row['id']}\n{size}\n{formats or '16-bit'}{by}\nloss {row['loss']:.4f}{gap}")
    return tuple(f"{text}\n{own}" for text, own in zip(out, told, strict=True)) if told else tuple(out)


def of_method(rows: pl.DataFrame, method: str | None) -> pl.DataFrame:
    """Rows quantised by a method; all of them for None."""
    return rows if method is None else rows.filter(pl.col("method") == method)


def by_count(rows: pl.DataFrame, column: str) -> list[str]:
    """What a column holds, the most frequent first."""
    return (
        rows[column]
        .drop_nulls()
        .value_counts()
        .sort("count", column, descending=[True, False])[column]
        .to_list()
    )


def bars(rows: pl.DataFrame) -> Array:
    """Standard errors of gaps; zero where a row has none."""
    found: Array = rows["gap_se"].fill_null(0).to_numpy()
    return found


def slug(*words: str | None) -> str:
    """The end of a file's name.

    >>> slug("gptq", None, "constant, cooldown 0.2")
    '-gptq-constant-cooldown-0.2'
    """
    said = (re.sub(r"[^a-z0-9.]+", "-", word.lower()).strip("-") for word in words if word)
    return "".join(f"-{word}" for word in said if word)
