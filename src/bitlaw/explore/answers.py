"""What is worked out in the background: a law on the chosen rows with its charts and planner, laws compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import polars as pl

from ..errors import BitlawError, ConfigError
from ..fitting import Comparison, Fit, all_for, compare
from ..fitting.examine import held
from ..fitting.result import Provenance
from ..fitting.rows import select
from ..fitting.tell import entry_cells, fit_lines, number
from ..laws import LAWS
from ..laws.javascript import javascript
from ..report.chart import Axis, Chart, Mark, Rule
from ..report.figures import charts
from ..report.figures.base import loss_label, points_of
from ..report.interactive import plotly
from ..report.panel import panel_data
from ..report.view import View
from ..runs import Runs
from .jobs import Report

REPEATED = ("predicted-against-measured",)  # the residuals show it, with runs that can be left out
FARTHEST = 12  # rows named beside the residuals
SAVED = "fit.json"


def encoded(value: Any) -> bytes:
    """JSON, as it is sent."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def digest(runs: Runs) -> str:
    """A name for rows that is the same where they are the same."""
    return Provenance.of(runs).rows_sha256


def mark(runs: Runs) -> str:
    """Such a name that holds for as long as this process lives, and is made much quicker."""
    return f"{len(runs)}-{runs.frame.hash_rows().sum()}"


def fitted(
    runs: Runs, law: str, interval: float, commands: Mapping[str, str], report: Report
) -> dict[str, bytes]:
    """Fit a law to rows, and make what the page shows of it.

    Args:
        runs: the chosen rows.
        law: its name in the catalogue.
        interval: level of the intervals.
        commands: that do the same on a terminal, by name.
        report: told how far it is.

    Returns:
        `fit`, `charts`, `residuals`, and, of laws that plans can be made with, `panel` and `law`.

    Raises:
        FitError: rows to which the law cannot be fitted.
    """
    report(0.05, f"fitting {law} to {len(runs)} rows")
    found = held(law, runs, interval=interval)
    report(0.8, "drawing")
    view = View.of(runs, found)
    parts = {
        "fit": encoded({**_fit(found), "commands": dict(commands), "mark": mark(runs)}),
        "charts": encoded([_figure(c) for c in charts(runs, found) if c.name not in REPEATED]),
        "residuals": encoded(residuals(view)),
    }
    report(0.95, "preparing the planner")
    try:
        panel = panel_data(found, command=["bitlaw", "plan", "--fit", SAVED])
        parts |= {"panel": encoded(panel), "law": f"export default {javascript(found.law)};\n".encode()}
    except ConfigError as error:
        parts["noplan"] = encoded({"reason": str(error)})
    return parts


def _fit(found: Fit) -> dict[str, Any]:
    data = {key: value for key, value in found.as_json().items() if key not in ("draws", "held_out")}
    return {
        **data,
        "table": [
            {
                "name": e.parameter.name,
                "value": number(e.value),
                "interval": "" if e.status == "fixed" else f"{number(e.low)} to {number(e.high)}",
                "unit": e.parameter.unit,
                "status": e.status,
                "meaning": e.parameter.meaning,
            }
            for e in found.estimates
        ],
        "said": [
            *([] if found.df else ["There are no intervals."]),
            *fit_lines(found),
        ],
        "equations": {name: str(e) for name, e in found.law.display().items()},
        "source": str(found.law.source),
    }


def _figure(chart: Chart) -> dict[str, Any]:
    return {"name": chart.name, "title": chart.title, "caption": chart.caption, **plotly(chart)}


def residuals(view: View) -> dict[str, Any]:
    """The residual of every row that was fitted, as a chart whose points know their rows, and those farthest off.

    A law of the gap alone predicts no loss, and has none of them.
    """
    frame = view.frame.with_columns(pl.Series("predicted", view.predicted(view.frame)))
    frame = frame.filter((pl.col("fitted") != "") & pl.col("predicted").is_finite())
    if view.fit.law.loss == 0 or not frame.height:
        return {"chart": None, "ids": [], "farthest": []}
    error = 100 * (frame["predicted"].to_numpy() / frame["measured"].to_numpy() - 1)
    after = frame["post_format"].is_not_null().to_numpy()
    marks: list[Mark] = [Rule(y=0.0)]
    ids: list[list[str]] = []
    for k, (mask, label) in enumerate(((~after, "trained"), (after, "quantised after training"))):
        if mask.any():
            some = frame.filter(pl.Series(mask))
            told = [f"predicted minus measured {value:+.2f} %" for value in error[mask]]
            marks.append(
                points_of(some, some["measured"].to_numpy(), error[mask], label, k, told, faint=True)
            )
            ids.append(some["id"].to_list())
    chart = Chart(
        "residuals",
        "Residuals of single runs",
        "Each point is a run, with the fit through it; click one, or use the table, to leave it out, or in again.",
        Axis(f"measured {loss_label(view)}"),
        Axis("predicted minus measured, %"),
        tuple(marks),
    )
    spread = float(np.median(np.abs(error))) / 0.6745 or 1.0
    far = np.argsort(-np.abs(error))[:FARTHEST]
    farthest = [
        {
            "id": frame["id"][int(k)],
            "error": round(float(error[k]), 3),
            "noise": round(float(error[k] / spread), 1),
        }
        for k in far
    ]
    return {"chart": _figure(chart), "ids": ids, "farthest": farthest}


def carried(runs: Runs, report: Report) -> dict[str, bytes]:
    """The laws of the catalogue that rows can carry, and why not the others."""
    report(0.1, f"finding which laws {len(runs)} rows can carry")
    laws, why = all_for(runs)
    names = [law.name for law in laws]
    for law in LAWS.values():
        if law.loss == 0:  # of the gap alone: nothing to compare losses by, but it can be fitted
            with suppress(BitlawError):
                select(law, runs)
                names.append(law.name)
    return {"laws": encoded({"laws": names, "left_out": {k: v for k, v in why.items() if k not in names}})}


def ranked(runs: Runs, gaps: bool, commands: Mapping[str, str], report: Report) -> dict[str, bytes]:
    """Rank the laws that rows can carry by their error on rows held out.

    Raises:
        FitError: no law, or nothing that can be held out.
    """
    found = compare(runs, what="gap" if gaps else "loss", on_law=report)
    return {"comparison": encoded({**_comparison(found), "commands": dict(commands), "mark": mark(runs)})}


def _comparison(found: Comparison) -> dict[str, Any]:
    return {
        "rankings": [
            {
                "split": r.split,
                "what": r.what,
                "rows": r.rows,
                "clusters": r.clusters,
                "level": r.level,
                "verdict": r.verdict,
                "laws": [list(entry_cells(e)) for e in r.entries],
                "baselines": [list(entry_cells(e)) for e in r.baselines],
            }
            for r in found.rankings
        ],
        "left_out": dict(found.left_out),
        "verdict": found.verdict,
        "exact": found.as_json(),
    }
