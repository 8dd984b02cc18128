"""A figure as a value: what is drawn, on which axes, with which caption, before anything draws it.

One description, two printers: `draw.draw` puts a chart on a matplotlib `ax` for papers, `interactive.plotly`
turns it into the figure of a page. So a figure is worked out once, and file and page cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Scale: TypeAlias = Literal["linear", "log", "symlog"]


@dataclass(frozen=True)
class Axis:
    """An axis: its label with unit, its scale, and where plain numbers stand, if not by themselves.

    Attributes:
        label: what is on it, unit included.
        scale: `symlog` is linear within `linear_below` of zero and logarithmic beyond.
        ticks: places of the numbers; empty means chosen by the printer.
        names: texts in place of the numbers at `ticks`, for axes of categories.
        low, high: limits; None means chosen by the printer.
        linear_below: of a `symlog` scale.
        reverse: whether it runs downwards or to the left.
    """

    label: str
    scale: Scale = "linear"
    ticks: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    linear_below: float = 1e-3
    reverse: bool = False


@dataclass(frozen=True)
class Points:
    """Measured things: a marker each, with an error bar where `error` is given and a text on hover."""

    x: Sequence[float]
    y: Sequence[float]
    label: str = ""
    colour: int = 0
    marker: int = 0
    error: Sequence[float] = ()
    hover: Sequence[str] = ()
    hollow: bool = False
    faint: bool = False
    second: bool = False


@dataclass(frozen=True)
class Line:
    """A curve; `colour` None is grey; `second` puts it on the second vertical axis."""

    x: Sequence[float]
    y: Sequence[float]
    label: str = ""
    colour: int | None = 0
    marker: int | None = None
    dash: bool = False
    second: bool = False


@dataclass(frozen=True)
class Band:
    """An interval along x."""

    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    label: str = ""
    colour: int | None = 0
    second: bool = False


@dataclass(frozen=True)
class Bars:
    """Horizontal intervals, one a place on the vertical axis, with a marker at the value."""

    y: Sequence[float]
    value: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    label: str = ""
    colour: int = 0
    hover: Sequence[str] = ()


@dataclass(frozen=True)
class Contours:
    """Lines of equal z over a grid: z[i][j] stands at x[j], y[i]; NaN where nothing is known."""

    x: Sequence[float]
    y: Sequence[float]
    z: Sequence[Sequence[float]]
    levels: Sequence[float]
    label: str = ""


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
