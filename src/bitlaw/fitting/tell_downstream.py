"""What the loss says of an error, in words and tables."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from ..html import escape as shown
from ..html import items
from ..html import table as html_table
from ..units import percent
from .tell import estimate_cells, fit_lines, fit_text, intervals_of, ranking_cells, render

if TYPE_CHECKING:
    from .downstream import Downstream, Effect


def _points(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:+.2f}"


def _width(found: Downstream) -> str:
    points = 100 * found.margin
    return f"{points:g} point{'' if points == 1 else 's'}"


def downstream_verdict(found: Downstream) -> str:
    """Whether the loss is a sufficient statistic, a sentence for each kind of low precision."""
    said = []
    for e in (e for e in found.effects if e.name == ""):
        kind = {"both": "trained in low precision and quantised after it"}.get(e.kind, e.kind)
        interval = f"({percent(found.level)}: {_points(e.low)} to {_points(e.high)})"
        if not e.rows:
            why = ": no loss of such rows lies among those of unquantised ones"
        elif math.isnan(e.low):
            why = (
                ": intervals need two trunks of such rows, two of unquantised ones, and a curve without each"
            )
        elif e.verdict.startswith("errs"):
            why = f", by {100 * abs(e.mean):.2f} points {interval}"
        elif e.verdict == "sufficient":
            why = f": the error is within {_width(found)} of what the loss says {interval}"
        else:
            why = f": {_points(e.mean)} points {interval}"
        said.append(f"{kind[0].upper()}{kind[1:]}: {e.verdict}{why}.")
    return " ".join(said) or "No row is of low precision: nothing asks whether the loss is all that counts."


def effect_cells(found: Downstream) -> tuple[list[str], list[list[str]]]:
    """How far quantised rows lie off the curve: a header, and a row for each kind, format and method."""

    def cells(e: Effect) -> list[str]:
        interval = "-" if math.isnan(e.low) else f"{_points(e.low)} to {_points(e.high)}"
        name = e.name or f"all {e.kind}"
        counts = [str(n) for n in (e.rows, e.trunks, e.beyond)]
        return [
            name,
            *counts,
            "-" if math.isnan(e.gap) else f"{e.gap:+.3f}",
            _points(e.mean),
            interval,
            e.verdict,
        ]

    rows = []
    for kind in dict.fromkeys(e.kind for e in found.effects):
        rows += [cells(e) for e in found.effects if e.kind == kind]
    interval = f"{percent(found.level)} interval"
    return ["low precision", "rows", "trunks", "beyond", "gap", "off by", interval, "verdict"], rows


def _downstream_parts(found: Downstream) -> tuple[str, list[str], str]:
    """What stands above, between and below the tables."""
    held = ["Held out: none." if found.held_out is None else found.held_out.verdict]
    below = (
        f"Off by: mean of `{found.error}` less what the curve says at the same loss, in points of a hundred; beyond: "
        "rows left out, as no unquantised row has such a loss; gap: nats that quantising after training cost. "
        "Intervals: confidence, jackknife over trunks, Student's t; those of `all` hold at once, those of single "
        f"formats one at a time. Sufficient: within {_width(found)}."
    )
    return f"{found.error} from loss, on rows of which nothing is quantised", held, below


def downstream_text(found: Downstream) -> str:
    """Error from loss as text."""
    title, held, below = _downstream_parts(found)
    parts: list[Table | str] = [title, fit_text(replace(found.curve, notes=())), ""]
    if found.held_out is not None:
        ranking = Table(
            title=f"Held out: {found.held_out.split}, {found.held_out.rows} error"
            + ("" if found.held_out.rows == 1 else "s"),
            title_justify="left",
        )
        header, rows = ranking_cells(found.held_out)
        for name in header:
            ranking.add_column(name, justify="left" if name == "law" else "right")
        for row in rows:
            ranking.add_row(*row)
        parts += [ranking, intervals_of(found.held_out)]
    parts += [*held, ""]
    if found.effects:
        header, rows = effect_cells(found)
        table = Table(title="Is the loss all that the error depends on?", title_justify="left")
        for name in header:
            left = name in ("low precision", "verdict")
            table.add_column(
                name, justify="left" if left else "right", overflow="fold", no_wrap=name == "low precision"
            )
        for row in rows:
            table.add_row(*map(escape, row), style="bold" if row[0].startswith("all ") else "")
        parts += [table, below]
    return render(*parts, found.verdict, *(f"Note: {note}." for note in found.notes))


def downstream_html(found: Downstream) -> str:
    """Error from loss for a notebook."""
    title, held, below = _downstream_parts(found)
    parts = [html_table(*estimate_cells(found.curve), numbers={1}, caption=title)]
    parts += [f"<p>{shown(line)}</p>" for line in fit_lines(found.curve)]
    if found.held_out is not None:
        header, rows = ranking_cells(found.held_out)
        parts.append(html_table(header, rows, range(1, len(header)), f"Held out: {found.held_out.split}"))
        parts.append(f"<p>{shown(intervals_of(found.held_out))}</p>")
    parts += [f"<p>{shown(line)}</p>" for line in held]
    if found.effects:
        parts.append(
            html_table(*effect_cells(found), range(1, 7), "Is the loss all that the error depends on?")
        )
        parts.append(f"<p>{shown(below)}</p>")
    parts.append(f"<p>{shown(found.verdict)}</p>")
    return f"<div>{''.join(parts)}{items(found.notes)}</div>"
