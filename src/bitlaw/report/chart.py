"""A figure as a value: what is drawn, on which axes, with which caption, before anything draws it.

One description, two printers: `draw.draw` puts a chart on a matplotlib `ax` for papers, `interactive.plotly`
turns it into the figure of a page. So a figure is worked out once, and file and page cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .ticks import Form, Scale, placed, unplaced

Numbers: TypeAlias = Sequence[float] | NDArray[np.float64]


ROOM = 0.05  # of the range of an axis, left free at either end


class NothingToDraw(DataError):
    """The rows, or the law, have nothing that this figure shows; the message says what is missing."""


@dataclass(frozen=True)
class Axis:
    """An axis: its label with unit, its scale, and where numbers stand, if not by themselves.

    Attributes:
        label: what is on it, unit included.
        scale: `symlog` is linear within `linear_below` of zero and logarithmic beyond.
        form: how numbers are written: `plain` 0.05, `prefix` 20M, `power` 10²¹.
        ticks: places of the numbers; empty means chosen from the marks.
        names: texts in place of the numbers at `ticks`, for axes of categories.
        low, high: limits; None means chosen from the marks.
        linear_below: of a `symlog` scale.
        reverse: whether it runs downwards or to the left.
    """

    label: str
    scale: Scale = "linear"
    form: Form = "plain"
    ticks: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    linear_below: float = 1e-3
    reverse: bool = False


@dataclass(frozen=True)
class Points:
    """Measured things: a marker each, with an error bar where `error` is given, and a text on hover.

    `error` is as long up as down, (n,), or how far down and how far up, (2, n).
    `ids` are the rows behind them, for pages where one can be chosen.
    """

    x: Numbers
    y: Numbers
    label: str = ""
    colour: int | None = 0
    marker: int = 0
    error: Numbers | Sequence[Numbers] = ()
    hover: Sequence[str] = ()
    ids: Sequence[str] = ()
    hollow: bool = False
    faint: bool = False
    second: bool = False

    @property
    def bars(self) -> NDArray[np.float64]:
        """How far down and how far up the error bars go (2, n)."""
        return np.broadcast_to(np.asarray(self.error, dtype=float), (2, len(self.x)))


@dataclass(frozen=True)
class Line:
    """A curve; `colour` None is grey; `second` puts it on the second vertical axis."""

    x: Numbers
    y: Numbers
    label: str = ""
    colour: int | None = 0
    marker: int | None = None
    dash: bool = False
    second: bool = False


@dataclass(frozen=True)
class Band:
    """An interval along x."""

    x: Numbers
    low: Numbers
    high: Numbers
    label: str = ""
    colour: int | None = 0
    second: bool = False


@dataclass(frozen=True)
class Bars:
    """Horizontal intervals, one a place on the vertical axis, with a marker at the value."""

    y: Numbers
    value: Numbers
    low: Numbers
    high: Numbers
    label: str = ""
    colour: int | None = 0
    marker: int = 0
    hover: Sequence[str] = ()
    hollow: bool = False


@dataclass(frozen=True)
class Contours:
    """Lines of equal z over a grid: z[i][j] stands at x[j], y[i]; NaN where nothing is known.

    Attributes:
        x, y, z: the grid.
        levels: evenly spaced, rising.
        label: of the legend.
    """

    x: Numbers
    y: Numbers
    z: NDArray[np.float64]
    levels: Numbers
    label: str = ""
    colour: int | None = 0


@dataclass(frozen=True)
class Rule:
    """A grey reference line at one x or one y, or a grey span between two, with a short text."""

    x: float | tuple[float, float] | None = None
    y: float | tuple[float, float] | None = None
    text: str = ""


Mark: TypeAlias = Points | Line | Band | Bars | Contours | Rule


@dataclass(frozen=True)
class Chart:
    """A figure.

    Attributes:
        name: of its files, like "effective-parameters".
        title: what it shows.
        caption: the evidence: n, seeds, level and method of the intervals.
        x, y: the axes.
        marks: what is drawn, the lowest first.
        second: a second vertical axis, for marks that say so.
        legend: title of the legend.
    """

    name: str
    title: str
    caption: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    second: Axis | None = None
    legend: str = ""

    def extent(self, which: Literal["x", "y", "second"]) -> tuple[float, float]:
        """The lowest and highest number on an axis: its limits where they are set, and else of its marks."""
        axis = {"x": self.x, "y": self.y, "second": self.second or self.y}[which]
        found = [np.asarray(part, dtype=float).ravel() for part in self._on(which)]
        values = np.concatenate([np.empty(0), *found])
        values = values[np.isfinite(values) & ((values > 0) | (axis.scale != "log"))]
        low, high = (float(values.min()), float(values.max())) if len(values) else (1.0, 10.0)
        return (low if axis.low is None else axis.low), (high if axis.high is None else axis.high)

    def limits(self, which: Literal["x", "y", "second"]) -> tuple[float, float]:
        """Where an axis begins and ends: a little beyond its marks, where no limit is set."""
        axis = {"x": self.x, "y": self.y, "second": self.second or self.y}[which]
        ends = [placed(x, axis.scale, axis.linear_below) for x in self.extent(which)]
        room = ROOM * (ends[1] - ends[0]) or 0.5
        low, high = (unplaced(x, axis.scale, axis.linear_below) for x in (ends[0] - room, ends[1] + room))
        return (low if axis.low is None else axis.low), (high if axis.high is None else axis.high)

    def _on(self, which: str) -> Iterator[Numbers]:
        for mark in self.marks:
            if isinstance(mark, Rule):
                place = mark.x if which == "x" else mark.y if which == "y" else None
                yield () if place is None else np.ravel(place)
            elif isinstance(mark, Bars):
                yield from (mark.low, mark.value, mark.high) if which == "x" else (mark.y,)
            elif which == "x":
                yield mark.x
            elif isinstance(mark, Contours):
                yield mark.y
            elif mark.second == (which == "second"):
                if isinstance(mark, Band):
                    yield from (mark.low, mark.high)
                elif isinstance(mark, Points) and len(mark.error):
                    y, (down, up) = np.asarray(mark.y), mark.bars
                    yield from (y - down, y + up)
                else:
                    yield mark.y
