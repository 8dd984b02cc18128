"""Errors on tasks: what the loss says of them, before and after quantisation."""

from __future__ import annotations

import numpy as np
import polars as pl

from ...fitting import Downstream
from ...fitting.downstream import AFTER, BOTH, PLAIN, TRAINED
from ..chart import Axis, Band, Chart, Line, Mark, Points, Rule
from .base import CURVE, Figure, interval

KINDS = (TRAINED, AFTER, BOTH)


@Figure
def error_against_loss(found: Downstream) -> Chart:
    """Error against loss: unquantised rows with the curve and the line through them, and quantised rows beside.

    Rows that were held out when laws were judged are hollow. The curve is drawn as far as there are rows, but
    judged only where unquantised ones are: between the grey lines.

    Args:
        found: what `bitlaw.downstream` returns.
    """
    rows = found.points
    plain = rows.filter(pl.col("kind") == PLAIN)
    losses, own = rows["loss"].to_numpy(), plain["loss"].to_numpy()
    x = np.linspace(losses.min(), losses.max(), CURVE)
    marks: list[Mark] = []
    if found.curve.df:
        marks.append(Band(x, *found.curve.band(loss=x), "", 0))
    marks += [
        Line(x, found.curve.predict(loss=x), "curve", 0),
        Line(x, found.line.predict(loss=x), "straight line", None, dash=True),
    ]
    marks += [Rule(x=float(end)) for end in (own.min(), own.max())]
    for place, kind in enumerate(KINDS, start=1):
        part = rows.filter(pl.col("kind") == kind)
        if part.height:
            marks.append(_points(part, kind, place, faint=True))
    for hollow, part in ((False, plain.filter(~pl.col("held"))), (True, plain.filter("held"))):
        if part.height:
            label = f"{PLAIN}, held out: {found.held_out.split}" if hollow and found.held_out else PLAIN
            marks.append(_points(part, label, 0, hollow=hollow))
    top = min(1.0, 1.08 * float(np.max(rows["error"].to_numpy())))
    counts = ", ".join(f"{n} {kind}" for kind in (PLAIN, *KINDS) if (n := int((rows["kind"] == kind).sum())))
    band = f" Band: of the curve, {interval(found.curve)}." if found.curve.df else ""
    return Chart(
        f"{found.error.replace('_', '-')}-against-loss",
        "What the loss says of the error, before and after quantisation",
        f"n = {counts}, in {found.curve.clusters} independent clusters of unquantised rows.{band} {found.verdict}",
        Axis("loss, nats per token"),
        Axis(f"{found.error.replace('_', ' ')}, share", low=0.0, high=top),
        tuple(marks),
    )


def _points(part: pl.DataFrame, label: str, number: int, hollow: bool = False, faint: bool = False) -> Points:
    texts = [
        f"{row['id']}\n{row['name'] or PLAIN}\nloss {row['loss']:.4f}\nerror {row['error']:.4f}"
        for row in part.iter_rows(named=True)
    ]
    x, y = part["loss"].to_numpy(), part["error"].to_numpy()
    ids = part["id"].to_list()
    return Points(x, y, label, number, number, hover=texts, ids=ids, hollow=hollow, faint=faint)
