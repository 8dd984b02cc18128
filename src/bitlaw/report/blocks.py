"""What a report is made of, before anything prints it: a page and a Markdown file are printed from the same blocks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import sympy as sp

from ..laws import Law
from .chart import Chart


@dataclass(frozen=True)
class Heading:
    """A heading; the report's title is of level 1."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph: plain, the `lead` that is read first, or `soft` like a caption."""

    text: str
    tone: Literal["", "lead", "soft"] = ""


@dataclass(frozen=True)
class Items:
    """Sentences below one another."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        header, rows: its cells.
        numbers: places of columns that are aligned at the right.
        caption: what it is.
        folded: on a page, what to click on to see it; Markdown files leave such tables out.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Collection[int] = ()
    caption: str = ""
    folded: str = ""


@dataclass(frozen=True)
class Code:
    """Something to be typed."""

    text: str


@dataclass(frozen=True)
class Equations:
    """Equations, by what stands on their left."""

    sides: Mapping[str, sp.Expr]


@dataclass(frozen=True)
class Picture:
    """A figure."""

    chart: Chart


@dataclass(frozen=True)
class Panel:
    """The planner panel, with what stands before and after it; only a page has one."""

    data: Mapping[str, Any]
    law: Law
    before: Sequence[Block] = ()
    after: Sequence[Block] = ()


@dataclass(frozen=True)
class Answer:
    """Blocks that belong together, set apart from the rest."""

    blocks: Sequence[Block]


Block: TypeAlias = Heading | Text | Items | Table | Code | Equations | Picture | Panel | Answer
