"""What was trained: curves and their branches, how a sweep gets on, and how far a model's confidence can be trusted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ...laws.terms import TRAINED_PARTS
from ...runs import Runs
from ...runs.table import TRAINED
from ...units import format_quantity
from ..chart import Axis, Chart, Line, Mark, NothingToDraw, Points, Rule
from ..view import Array
from .base import Figure, above, ceiling, loss_unit, points_of, token_label

if TYPE_CHECKING:
    from ...calibration.metrics import Bin

TRUNKS = 8  # that are drawn
NORMAL = 1.6449  # standard errors of a 90 % interval
#: Formats in training, all in one.
SETTING = pl.concat_str(
    (pl.col(f"{part}_format").fill_null("bf16") for part in TRAINED_PARTS), separator=" "
).alias("setting")
STATUS_ORDER = ("ok", "diverged", "failed")


@Figure
def learning_curves(runs: Runs) -> Chart:
    """Loss along each trunk, and what leaves it: ends that were quantised, hollow, above the end they are from.

    Args:
        runs: rows that name their trunk; a trunk is shown where it has losses at two token counts or more.

    Raises:
        NothingToDraw: no such trunk.
    """
    rows = runs.filter(pl.col("loss").is_not_null() & pl.col("trunk").is_not_null()).frame
    rows = rows.filter(pl.col("tokens").is_not_null())
    trained = rows.filter(TRAINED).with_columns(SETTING)
    spans = trained.group_by("trunk").agg(
        pl.col("tokens").n_unique().alias("ends"), pl.col("params").first(), pl.col("w_format").first()
    )
    trunks = spans.filter(pl.col("ends") > 1).sort("params", "w_format", "trunk")
    if not trunks.height:
        raise NothingToDraw("no trunk has losses at two token counts; train one with several budgets")
    step = -(-trunks.height // TRUNKS)
    trained = trained.filter(pl.col("trunk").is_in(trunks["trunk"][::step].to_list()))
    letters = _letters(trunks["trunk"][::step].to_list())
    marks: list[Mark] = []
    branches, curves = 0, ""
    for k, trunk in enumerate(trunks[::step].iter_rows(named=True)):
        own = trained.filter(pl.col("trunk") == trunk["trunk"]).sort("tokens")
        size = "" if trunk["params"] is None else format_quantity(trunk["params"])
        label = f"{size} {trunk['w_format'] or 'bf16'} {trunk['trunk'][:letters]}".strip()
        if own["curve"].drop_nulls().len():
            x, y = curve_of(own.drop_nulls("curve")["curve"][-1])
            seen = x >= own["tokens"].to_numpy()[0] / 2
            if seen.any():
                marks.append(Line(x[seen], y[seen], "", k))
                curves = " Lines without marks: the loss in training."
        for _, line in own.group_by("setting", maintain_order=True):
            marks.append(
                Line(line["tokens"].to_numpy(), line["loss"].to_numpy(), label, k, k, dash=k % 2 == 1)
            )
        after = rows.filter(pl.col("post_format").is_not_null() & (pl.col("trunk") == trunk["trunk"]))
        branches += after.height
        if after.height:
            x, y = after["tokens"].to_numpy(), after["loss"].to_numpy()
            label_after = "quantised after training"
            marks.append(points_of(after, x, y, label_after, None, marker=4, hollow=True, faint=True))
    top = ceiling(trained["loss"])
    over = rows.filter((pl.col("loss") > top) & pl.col("trunk").is_in(trained["trunk"].to_list())).height
    few = f" {len(trunks[::step])} of {trunks.height} trunks are shown." if step > 1 else ""
    return Chart(
        "learning-curves",
        "Loss along each trunk, and its branches",
        f"Marks: ends of a trunk, n = {trained.height} in {trained['trunk'].n_unique()} trunks; hollow: {branches} "
        f"ends quantised after training.{curves}{above(over)}{few}",
        Axis(token_label(rows), "log", "prefix"),
        Axis(f"loss, {loss_unit(rows)}", high=top),
        tuple(marks),
        legend="trunk",
    )


def curve_of(text: str) -> tuple[Array, Array]:
    """Tokens and training losses of a row's `curve`; empty where it is not one.

    >>> curve_of("[[1024, 5.5], [2048, 5.1]]")
    (array([1024., 2048.]), array([5.5, 5.1]))
    """
    try:
        pairs = np.array(json.loads(text), dtype=float).reshape(-1, 2)
    except (ValueError, TypeError, OverflowError, RecursionError):
        pairs = np.empty((0, 2))
    return pairs[:, 0], pairs[:, 1]


def _letters(names: Sequence[str]) -> int:
    """How many letters tell names apart, six at least."""
    return next(
        n for n in range(6, max(map(len, names)) + 7) if len({name[:n] for name in names}) == len(names)
    )


@Figure
def sweep_progress(runs: Runs, planned: int | None = None) -> Chart:
    """Cells finished since a sweep began, by status; rows quantised after training belong to the cell they are from.

    Args:
        runs: rows with `started` and `seconds`.
        planned: cells of the whole sweep, drawn as a line.

    Raises:
        NothingToDraw: no row says when it was made.
    """
    cells = runs.frame.filter(TRAINED)
    frame = cells.filter(pl.col("started").is_not_null())
    began = [_time(text) for text in frame["started"]]
    keep = [time is not None for time in began]
    frame = frame.filter(pl.Series("keep", keep, dtype=pl.Boolean))
    if not frame.height:
        raise NothingToDraw("no row says when it was made (column started); rows of a sweep do")
    start = np.array([time for time in began if time is not None])
    ended = start + frame["seconds"].fill_null(0.0).to_numpy()
    hours = (ended - start.min()) / 3600
    status = frame["status"].fill_null("ok").to_numpy()
    names = sorted(
        set(status), key=lambda s: (STATUS_ORDER.index(s) if s in STATUS_ORDER else len(STATUS_ORDER), s)
    )
    marks: list[Mark] = []
    if planned is not None:
        marks.append(Rule(y=float(planned), text=f"{planned:,} planned"))
    last = float(hours.max())
    for k, name in enumerate(names):
        at = np.sort(hours[status == name])
        x = np.concatenate([[0.0], np.repeat(at, 2), [last]])
        y = np.concatenate([[0.0], np.repeat(np.arange(len(at) + 1), 2)[1:-1], [len(at)]])
        marks.append(Line(x, y, f"{name} ({len(at):,})", k, dash=k % 2 == 1))
    return Chart(
        "sweep-progress",
        "Cells finished since the sweep began",
        f"n = {frame.height} cells that say when they were made, of {cells.height}; a cell is finished where its "
        "training ended. Hours of the clock, breaks included.",
        Axis("hours since the first cell began", low=0.0),
        Axis("cells finished", low=0.0),
        tuple(marks),
        legend="status",
    )


def _time(text: str) -> float | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


@Figure
def reliability_diagram(models: dict[str, Sequence[Bin]]) -> Chart:
    """How often predictions of each confidence are right, of one model or several; on the grey line if calibrated.

    Args:
        models: what `calibration.reliability` gives, by name.

    Raises:
        NothingToDraw: no bin has a sample.

    >>> from bitlaw.calibration import reliability
    >>> chart = reliability_diagram.chart({"mine": reliability([[4.0, 0.0]] * 4, [0, 0, 0, 1])})
    >>> [mark.label for mark in chart.marks]
    ['calibrated', 'mine (ECE 0.232)', 'mine (ECE 0.232)']
    """
    marks: list[Mark] = [Line([0.0, 1.0], [0.0, 1.0], "calibrated", None, dash=True)]
    counts = []
    for k, (name, bins) in enumerate(models.items()):
        filled = [b for b in bins if b.count]
        if not filled:
            continue
        n = np.array([b.count for b in filled], dtype=float)
        p = np.array([b.accuracy for b in filled])
        x = [b.confidence for b in filled]
        half = NORMAL * np.sqrt((p * (1 - p) + NORMAL**2 / (4 * n)) / n) / (1 + NORMAL**2 / n)
        middle = (p + NORMAL**2 / (2 * n)) / (1 + NORMAL**2 / n)
        error = np.maximum(0, [p - middle + half, middle + half - p])
        texts = [
            f"{name}\n{b.count:,} samples\nsure {b.confidence:.3f}, right {b.accuracy:.3f}" for b in filled
        ]
        ece = float((n * np.abs(p - np.array(x))).sum() / n.sum())
        label = f"{name} (ECE {ece:.3f})"
        marks += [
            Line(x, p, label, k, dash=k % 2 == 1),
            Points(x, p, label, k, k, error=error, hover=texts),
        ]
        counts.append(f"{int(n.sum()):,}")
    if not counts:
        raise NothingToDraw("no bin has a sample; give the bins of calibration.reliability")
    return Chart(
        "reliability-diagram",
        "Accuracy against confidence",
        f"n = {' and '.join(counts)} samples. Bars: 90% confidence of each bin's accuracy by Wilson's interval, "
        "samples taken as independent.",
        Axis("confidence: the largest probability", low=0.0, high=1.0),
        Axis("share that is right", low=0.0, high=1.0),
        tuple(marks),
    )
