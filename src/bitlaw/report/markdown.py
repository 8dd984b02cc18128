"""Blocks as Markdown, with figure files beside it: for a repository, an issue, a wiki."""

from __future__ import annotations

import re
from collections.abc import Sequence

import sympy as sp

from .blocks import Answer, Block, Code, Equations, Heading, Items, Panel, Picture, Table, Text

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$])")
_FIRST = re.compile(r"^(\d*)([-+=.)])(?=[-=\s]|$)")  # begins a list, or is a line
_FOREIGN = re.compile(r"[^A-Za-z0-9_=\[\].+-]")


def markdown(blocks: Sequence[Block], figures: str) -> str:
    r"""Print a report as Markdown.

    Args:
        blocks: of the report; the planner panel, and tables that a page folds away, are left out.
        figures: the folder of the figures' SVG files, as seen from the file.

    Returns:
        The text of the file.

    >>> print(markdown([Heading("A *b*", 1), Table(["law", "error"], [["a|b", "1 %"]], [1])], "figures"))
    # A \*b\*
    <BLANKLINE>
    | law | error |
    | --- | ---: |
    | a\|b | 1 % |
    <BLANKLINE>
    """
    parts = [text for block in blocks if (text := _text(block, figures))]
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    r"""Text that Markdown shows as it is, on one line.

    >>> print(plain("<b> _c_ 1|2"), plain("- 3"), plain("-3"), plain("1. a"))
    \<b\> \_c\_ 1\|2 \- 3 -3 1\. a
    """
    text = _SPECIAL.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")
    return _FIRST.sub(r"\1\\\2", text)


def _text(block: Block, figures: str) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {plain(block.text)}"
    if isinstance(block, Text):
        return f"**{plain(block.text)}**" if block.tone == "lead" else plain(block.text)
    if isinstance(block, Items):
        return "\n".join(f"- {plain(text)}" for text in block.texts)
    if isinstance(block, Table):
        return "" if block.folded else _table(block)
    if isinstance(block, Code):
        longest = max((len(run) for run in re.findall("`+", block.text)), default=0)
        fence = "`" * max(3, longest + 1)
        return f"{fence}\n{block.text}\n{fence}"
    if isinstance(block, Equations):
        return "\n\n".join(_equation(left, right) for left, right in block.sides.items())
    if isinstance(block, Picture):
        chart = block.chart
        image = f"![{plain(chart.title)}]({figures}/{chart.name}.svg)"
        return f"### {plain(chart.title)}\n\n{image}\n\n{plain(chart.caption)}"
    if isinstance(block, Answer):
        return "\n\n".join(text for inner in block.blocks if (text := _text(inner, figures)))
    assert isinstance(block, Panel)
    return ""


def _equation(left: str, right: sp.Expr) -> str:
    names = {
        s: sp.Symbol(_FOREIGN.sub("?", s.name)) for s in right.free_symbols
    }  # labels of a file may hold anything
    return f"```math\n{sp.latex(sp.Eq(sp.Symbol(left), right.xreplace(names), evaluate=False))}\n```"


def _table(block: Table) -> str:
    rules = ["---:" if k in block.numbers else "---" for k in range(len(block.header))]
    lines = [[plain(h) for h in block.header], rules, *([plain(c) for c in row] for row in block.rows)]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{plain(block.caption)}\n\n{text}" if block.caption else text
