"""One restrained, colour-blind safe style for all figures; whatever a colour tells apart, marker or dash does too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl

#: After Okabe & Ito (2008), told apart under all common colour-vision deficiencies, and seen on paper as on dark pages:
#: so the blue is lighter, and a brown and a violet take the places of yellow and black.
COLOURS = ("#2481C4", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#904824", "#6030E4")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*")
#: The same for the page.
SYMBOLS = (
    "circle",
    "square",
    "triangle-up",
    "diamond",
    "triangle-down",
    "cross",
    "x",
    "triangle-left",
    "star",
)
STAR = -1  # the marker of what is pointed out; no other mark has it
GREY = "#777777"

_RC: Any = {  # matplotlib types its keys one by one; a dict of ours is not that
    "backend": "agg",
    "figure.figsize": (6.4, 4.0),
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.title_fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "bitlaw",
    "pdf.fonttype": 42,
}


def colour(number: int | None) -> str:
    """The colour of a mark; grey where it has none.

    >>> colour(0), colour(None)
    ('#2481C4', '#777777')
    """
    return GREY if number is None else COLOURS[number % len(COLOURS)]


def marker(number: int, markers: tuple[str, ...] = MARKERS) -> str:
    """The marker of a mark, in matplotlib's words or the page's.

    Another one comes with a colour that comes again.

    >>> marker(0), marker(8), marker(STAR, SYMBOLS)
    ('o', 's', 'star')
    """
    if number == STAR:
        return markers[STAR]
    return markers[(number + number // len(COLOURS)) % (len(markers) - 1)]


@contextmanager
def style() -> Iterator[None]:
    """Use the house style, without a display, while figures are drawn."""
    with mpl.rc_context(_RC):
        yield
