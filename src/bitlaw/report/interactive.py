"""A chart as the figure of a page: plain data that plotly's JavaScript draws.

Plotly's Python half is not needed for it, which keeps the building of a page quick.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .chart import Axis, Band, Bars, Chart, Contours, Line, Mark, Numbers, Points, Rule
from .style import GREY, STAR, SYMBOLS, colour, marker
from .ticks import MOST, MOST_POWERS, log_ticks, placed, symlog_ticks, wrapped, written

TOLD = 5000  # points of a mark that carry texts; more of them would make a page of megabytes
SHORT = 16  # letters of a legend's title that find room before its entries


def plotly(chart: Chart) -> dict[str, Any]:
    """The figure of a chart, `{"data": [...], "layout": {...}}`, as JSON can hold it.

    Backgrounds are transparent, and no colour of text or grid is set, so that the page's own show. Title and caption
    are not in it: they are text of the page. Every text is escaped, but for the ids of rows, which points carry as
    `customdata`. Axes of scale `symlog` hold transformed values, with ticks that say the true ones. Where numbers
    stand on logarithmic axes is set too, by `tickvals`; a page that makes such an axis linear sets `tickmode` to
    `auto`.

    Args:
        chart: what is drawn.

    Returns:
        Traces of the types `scatter` and `contour`, and a layout.

    >>> from bitlaw.report.chart import Axis, Chart, Points
    >>> points = Points([1, 9], [3, 2], hover=["<a>", "b"])
    >>> figure = plotly(Chart("a", "Two runs", "n = 2.", Axis("tokens", "log"), Axis("loss"), (points,)))
    >>> figure["data"][0]["hovertext"], figure["layout"]["xaxis"]["type"]
    (['&lt;a&gt;', 'b'], 'log')
    """
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    traces: list[dict[str, Any]] = []
    for mark in chart.marks:
        if isinstance(mark, Rule):
            _rule(mark, chart, shapes, notes)
            continue
        axis = chart.second if chart.second and getattr(mark, "second", False) else chart.y
        for trace in _traces(mark, chart.x, axis):
            if axis is chart.second:
                trace["yaxis"] = "y2"
            traces.append(trace)
    shown = _legend(traces)
    layout: dict[str, Any] = {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 60, "r": 20, "t": 20, "b": 50},
        "hovermode": "closest",
        "showlegend": shown,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
        "xaxis": _axis(chart.x, chart.extent("x"), chart.limits("x")),
        "yaxis": _axis(chart.y, chart.extent("y"), chart.limits("y")),
        "shapes": shapes,
        "annotations": notes,
    }
    if chart.legend:
        layout["legend"]["title"] = {
            "text": _text(chart.legend),
            "side": "left" if len(chart.legend) <= SHORT else "top",
        }
    if chart.second:
        beside = {"overlaying": "y", "side": "right", "showgrid": False}
        layout["yaxis2"] = _axis(chart.second, chart.extent("second"), chart.limits("second")) | beside
    return {"data": traces, "layout": layout}


def _axis(axis: Axis, ends: tuple[float, float], limits: tuple[float, float]) -> dict[str, Any]:
    out: dict[str, Any] = {
        "title": {"text": _text(axis.label)},
        "type": "log" if axis.scale == "log" else "linear",
        "exponentformat": {"plain": "e", "prefix": "B", "power": "power"}[axis.form],
        "automargin": True,
        "zeroline": False,
        "tickmode": "auto",
    }
    ticks = axis.ticks
    if not ticks and axis.scale == "log":
        ticks = log_ticks(*ends, MOST_POWERS if axis.form == "power" else MOST)
    elif not ticks and axis.scale == "symlog":
        ticks = symlog_ticks(*ends, axis.linear_below)
    if ticks:
        out["tickmode"] = "array"
        out["tickvals"] = [_placed(x, axis) for x in ticks]
        out["ticktext"] = [
            _text(wrapped(name)) for name in axis.names or [written(x, axis.form) for x in ticks]
        ]
    low, high = (placed(x, axis.scale, axis.linear_below) for x in limits)  # ranges count in logarithms
    out["range"] = [_rounded(x) for x in ((high, low) if axis.reverse else (low, high))]
    return out


def _traces(mark: Mark, x: Axis, y: Axis) -> Iterable[dict[str, Any]]:
    shade = colour(getattr(mark, "colour", None))
    trace: dict[str, Any] = {"type": "scatter", "name": _text(getattr(mark, "label", ""))}
    if trace["name"]:
        trace["legendgroup"] = trace["name"]
    if isinstance(mark, Points):
        trace |= _place(mark.x, mark.y, x, y) | {"mode": "markers"}
        trace["marker"] = _marker(
            mark.marker, shade, mark.hollow, 13 if mark.marker == STAR else 5 if mark.faint else 8
        )
        trace["opacity"] = 0.6 if mark.faint else 0.9
        if len(mark.x) <= TOLD:
            trace |= _hover(mark.hover)
            if len(mark.ids):
                trace["customdata"] = list(mark.ids)
        if len(mark.error):
            down, up = mark.bars
            trace["error_y"] = _error(mark.y, up, down, y, shade)
    elif isinstance(mark, Line):
        trace |= _place(mark.x, mark.y, x, y)
        trace["mode"] = "lines" if mark.marker is None else "lines+markers"
        trace["line"] = {
            "color": shade,
            "width": 1.2 if mark.colour is None else 2,
            "dash": "dash" if mark.dash else "solid",
        }
        if mark.marker is not None:
            trace["marker"] = _marker(mark.marker, shade, False, 7)
    elif isinstance(mark, Band):
        there = np.concatenate([np.asarray(mark.x), np.asarray(mark.x)[::-1]])
        ends = np.concatenate([np.asarray(mark.high), np.asarray(mark.low)[::-1]])
        known = np.isfinite(ends)
        trace |= _place(there[known], ends[known], x, y) | {"mode": "lines", "hoverinfo": "skip"}
        trace |= {"fill": "toself", "fillcolor": _clear(shade, 0.16), "line": {"width": 0, "color": shade}}
    elif isinstance(mark, Bars):
        value = np.asarray(mark.value)
        trace |= _place(value, mark.y, x, y) | {"mode": "markers"} | _hover(mark.hover)
        trace["marker"] = _marker(mark.marker, shade, mark.hollow, 8)
        trace["error_x"] = _error(
            value, np.asarray(mark.high) - value, value - np.asarray(mark.low), x, shade
        )
    elif isinstance(mark, Contours):
        levels = [float(level) for level in mark.levels]
        trace |= {
            "type": "contour",
            "x": _numbers(mark.x),
            "y": _numbers(mark.y),
            "z": [_numbers(row) for row in mark.z],
            "autocontour": False,
            "contours": {
                "coloring": "lines",
                "start": levels[0],
                "end": levels[-1],
                "size": levels[1] - levels[0] if len(levels) > 1 else 1.0,
                "showlabels": True,
                "labelfont": {"size": 11, "color": shade},
            },
            "colorscale": [[0, shade], [1, shade]],
            "showscale": False,
            "line": {"width": 1.3},
        }
    yield trace


def _legend(traces: list[dict[str, Any]]) -> bool:
    """Give each label one entry, that of its first curve, or else of its first markers; whether there are any."""
    entries: dict[str, dict[str, Any]] = {}
    for trace in traces:
        trace["showlegend"] = False
        if label := trace.get("legendgroup"):
            rank = 0 if "fill" in trace else 1 if trace.get("mode") == "markers" else 2
            if label not in entries or rank > entries[label]["rank"]:
                entries[label] = {"rank": rank, "trace": trace}
    for entry in entries.values():
        entry["trace"]["showlegend"] = True
    return bool(entries)


def _place(xs: Numbers, ys: Numbers, x: Axis, y: Axis) -> dict[str, Any]:
    out: dict[str, Any] = {"x": _on(xs, x), "y": _on(ys, y)}
    if "symlog" in (x.scale, y.scale):  # what plotly would show on hover is where they stand
        out["hoverinfo"] = "text"
        out["hovertext"] = [f"{a:.4g}, {b:.4g}" for a, b in zip(xs, ys, strict=True)]
    return out


def _hover(texts: Sequence[str]) -> dict[str, Any]:
    if not len(texts):
        return {}
    return {"hoverinfo": "text", "hovertext": [_text(text) for text in texts]}


def _marker(number: int, shade: str, hollow: bool, size: int) -> dict[str, Any]:
    symbol = marker(number, SYMBOLS) + ("-open" if hollow else "")
    return {"symbol": symbol, "color": shade, "size": size}


def _error(values: Numbers, up: Numbers, down: Numbers, axis: Axis, shade: str) -> dict[str, Any]:
    """Lengths of error bars; on a symlog axis a bar is as long as its ends are far."""
    above, below = [], []
    for value, high, low in zip(values, up, down, strict=True):
        place = _placed(value, axis)
        above.append(_placed(value + high, axis) - place)
        below.append(place - _placed(value - low, axis))
    return {
        "type": "data",
        "symmetric": False,
        "array": _numbers(above),
        "arrayminus": _numbers(below),
        "color": shade,
        "thickness": 1.2,
        "width": 0,
    }


def _rule(mark: Rule, chart: Chart, shapes: list[dict[str, Any]], notes: list[dict[str, Any]]) -> None:
    for name, place, axis in (("x", mark.x, chart.x), ("y", mark.y, chart.y)):
        if place is None:
            continue
        low, high = place if isinstance(place, tuple) else (place, place)
        other = "y" if name == "x" else "x"
        shape: dict[str, Any] = {"layer": "below", f"{name}ref": name, f"{other}ref": f"{other} domain"}
        shape |= {
            f"{name}0": _placed(low, axis),
            f"{name}1": _placed(high, axis),
            f"{other}0": 0,
            f"{other}1": 1,
        }
        if isinstance(place, tuple):
            shape |= {"type": "rect", "fillcolor": _clear(GREY, 0.14), "line": {"width": 0}}
        else:
            shape |= {"type": "line", "line": {"color": GREY, "width": 1, "dash": "dot"}}
        shapes.append(shape)
        if mark.text:
            spot = high if name == "y" else low
            at = placed(spot, axis.scale, axis.linear_below)  # unlike shapes, annotations count in logarithms
            note: dict[str, Any] = {"text": _text(mark.text), "showarrow": False, "font": {"size": 11}}
            note |= {f"{name}ref": name, name: at, f"{other}ref": f"{other} domain"}
            if name == "x":
                note |= {"y": 1, "xanchor": "left", "yanchor": "top"}
            else:
                note |= {"x": 1, "xanchor": "right", "yanchor": "bottom"}
            notes.append(note)


def _placed(value: float, axis: Axis) -> float:
    """A number as plotly takes it: it knows logarithmic axes itself."""
    return placed(value, "symlog", axis.linear_below) if axis.scale == "symlog" else float(value)


def _on(values: Numbers, axis: Axis) -> list[float | None]:
    return _numbers([_placed(v, axis) for v in values] if axis.scale == "symlog" else values)


def _numbers(values: Iterable[float]) -> list[float | None]:
    return [_rounded(float(v)) for v in values]


def _rounded(value: float) -> float | None:
    """Six significant digits, more than a screen shows; JSON has no NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _clear(shade: str, opacity: float) -> str:
    red, green, blue = (int(shade[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def _text(text: str) -> str:
    """Text that plotly shows as it is: it reads some HTML, but does not know the entity of a quotation mark."""
    return html.escape(text, quote=False).replace("\n", "<br>")
