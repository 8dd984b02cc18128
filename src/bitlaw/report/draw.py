"""A chart on a matplotlib `ax`, for papers."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from .chart import Axis, Band, Bars, Chart, Contours, Line, Mark, Points, Rule
from .style import GREY, STAR, colour, marker
from .ticks import LINEAR, MOST, MOST_POWERS, log_ticks, symlog_ticks, wrapped, written

Side: TypeAlias = Literal["x", "y", "second"]
INSIDE = 4  # entries of a legend that find room among the marks; more of them stand beside


def draw(ax: Axes, chart: Chart) -> Axes:
    """Draw a chart.

    Args:
        ax: where; it should be empty.
        chart: what.

    Returns:
        The same `ax`.

    >>> from matplotlib.figure import Figure
    >>> from bitlaw.report.chart import Axis, Chart, Points
    >>> chart = Chart("a", "Two runs", "n = 2.", Axis("tokens", "log"), Axis("loss"), (Points([1, 9], [3, 2]),))
    >>> draw(Figure().subplots(), chart).get_xlabel()
    'tokens'
    """
    twin = ax.twinx() if chart.second else ax
    sides: list[tuple[Axes, Side, Axis]] = [(ax, "x", chart.x), (ax, "y", chart.y)]
    if chart.second:
        sides.append((twin, "second", chart.second))
    for place, which, axis in sides:
        _scale(place, which, axis)
    for mark in chart.marks:
        _mark(twin if getattr(mark, "second", False) else ax, mark)
    for place, which, axis in sides:
        _finish(place, which, axis, chart)
    if chart.second:
        twin.spines["right"].set_visible(True)
        twin.grid(False)
    ax.set_title(_plain(chart.title))
    _legend(ax, twin, chart)
    return ax


def _scale(ax: Axes, which: Side, axis: Axis) -> None:
    set_ = ax.set_xscale if which == "x" else ax.set_yscale
    if axis.scale == "symlog":
        # Theirs is in units of 1 - 1 / base.
        set_("symlog", linthresh=axis.linear_below, linscale=LINEAR * 0.9)
    else:
        set_(axis.scale)


def _finish(ax: Axes, which: Side, axis: Axis, chart: Chart) -> None:
    side = ax.xaxis if which == "x" else ax.yaxis
    ends = chart.extent(which)
    low, high = chart.limits(which)
    ticks = axis.ticks
    if not ticks and axis.scale == "log":
        ticks = log_ticks(*ends, MOST_POWERS if axis.form == "power" else MOST)
    elif not ticks and axis.scale == "symlog":
        ticks = symlog_ticks(*ends, axis.linear_below)
    if ticks:
        names = axis.names or tuple(written(x, axis.form) for x in ticks)
        side.set_ticks(ticks, [_plain(wrapped(name)) for name in names])
        side.set_minor_locator(NullLocator())
    elif axis.form != "plain":
        side.set_major_formatter(lambda value, _: written(value, axis.form))
    (ax.set_xlim if which == "x" else ax.set_ylim)((high, low) if axis.reverse else (low, high))
    (ax.set_xlabel if which == "x" else ax.set_ylabel)(_plain(axis.label))


def _mark(ax: Axes, mark: Mark) -> None:
    if isinstance(mark, Points):
        shade = colour(mark.colour)
        ax.errorbar(
            mark.x,
            mark.y,
            mark.bars if len(mark.error) else None,
            fmt=marker(mark.marker),
            color=shade,
            mfc="none" if mark.hollow else shade,
            mew=1.0 if mark.hollow else 0.0,
            markersize=9.0 if mark.marker == STAR else 3.5 if mark.faint else 5.0,
            alpha=0.45 if mark.faint else 0.9,
            elinewidth=0.9,
            zorder=4 if mark.marker == STAR else 2,
            label=_plain(mark.label) or None,
        )
    elif isinstance(mark, Line):
        ax.plot(
            mark.x,
            mark.y,
            "--" if mark.dash else "-",
            color=colour(mark.colour),
            marker=None if mark.marker is None else marker(mark.marker),
            lw=1.0 if mark.colour is None else 1.6,
            label=_plain(mark.label) or None,
        )
    elif isinstance(mark, Band):
        label = _plain(mark.label) or None
        ax.fill_between(mark.x, mark.low, mark.high, color=colour(mark.colour), alpha=0.15, lw=0, label=label)
    elif isinstance(mark, Bars):
        value, shade = np.asarray(mark.value), colour(mark.colour)
        ends = np.stack([value - np.asarray(mark.low), np.asarray(mark.high) - value])
        ax.errorbar(
            value,
            mark.y,
            xerr=np.nan_to_num(np.maximum(ends, 0)),
            fmt=marker(mark.marker),
            color=shade,
            mfc="none" if mark.hollow else shade,
            elinewidth=1.2,
            label=_plain(mark.label) or None,
        )
    elif isinstance(mark, Contours):
        lines = ax.contour(mark.x, mark.y, mark.z, mark.levels, colors=colour(mark.colour), linewidths=1.0)
        ax.clabel(lines, fmt="%g", fontsize=7.5)
    else:
        _rule(ax, mark)


def _rule(ax: Axes, mark: Rule) -> None:
    small: dict[str, Any] = {"color": GREY, "fontsize": 8}
    if isinstance(mark.x, tuple):
        ax.axvspan(*mark.x, color=GREY, alpha=0.12, lw=0)
    elif mark.x is not None:
        ax.axvline(mark.x, color=GREY, lw=0.8, ls=":")
    if isinstance(mark.y, tuple):
        ax.axhspan(*mark.y, color=GREY, alpha=0.12, lw=0)
    elif mark.y is not None:
        ax.axhline(mark.y, color=GREY, lw=0.8, ls=":")
    if mark.text and mark.x is not None:
        place = mark.x[0] if isinstance(mark.x, tuple) else mark.x
        ax.annotate(
            _plain(mark.text),
            (place, 0.98),
            (3, 0),
            xycoords=ax.get_xaxis_transform(),
            textcoords="offset points",
            va="top",
            **small,
        )
    elif mark.text and mark.y is not None:
        place = mark.y[1] if isinstance(mark.y, tuple) else mark.y
        ax.annotate(
            _plain(mark.text),
            (1, place),
            (0, 2),
            xycoords=ax.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            **small,
        )


def _legend(ax: Axes, twin: Axes, chart: Chart) -> None:
    """One legend for both vertical axes; marks that share a label share an entry, of its lines and markers."""
    entries: dict[str, list[Any]] = {}
    for place in dict.fromkeys((ax, twin)):
        for handle, label in zip(*place.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, []).append(
                handle[0] if isinstance(handle, ErrorbarContainer) else handle
            )
    if not entries:
        return
    for label, handles in entries.items():
        lines = [handle for handle in handles if isinstance(handle, Line2D)]
        styles = {(line.get_linestyle(), line.get_marker()): line for line in reversed(lines)}
        curves = [line for (dash, _), line in styles.items() if dash != "None"]
        markers = [line for (dash, _), line in styles.items() if dash == "None"]
        entries[label] = (curves[:1] + markers[:1]) or handles[:1]
    crowded = len(entries) > INSIDE or chart.second or any(isinstance(m, Contours) for m in chart.marks)
    beside = {"loc": "center left", "bbox_to_anchor": (1.14 if chart.second else 1.0, 0.5)}
    ax.legend(
        [tuple(handles) for handles in entries.values()],
        list(entries),
        title=_plain(chart.legend) or None,
        handler_map={tuple: HandlerTuple(ndivide=1)},
        **(beside if crowded else {"loc": "best"}),
    )


def _plain(text: str) -> str:
    """Text that matplotlib shows as it is; a dollar would begin a formula."""
    return text.replace("$", r"\$")
