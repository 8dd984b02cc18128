"""Blocks as HTML: one self-contained page that opens from disk, from a mail, from an artefact of CI, and prints.

Everything is inside the file: figures as data that its scripts draw, equations as MathML. A policy in its head lets no
other script run and nothing be requested. Every text from a table is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy as sp
from sympy.printing.mathml import mathml

from ..html import escape, items, table
from .blocks import Answer, Block, Code, Equations, Heading, Items, Panel, Picture, Table, Text
from .document import document
from .interactive import plotly

NO_SCRIPT = "Figures and the planner need JavaScript, which is off or not available here; all else is below."


def page(blocks: Sequence[Block], title: str) -> str:
    """Print a report as HTML.

    Args:
        blocks: of the report.
        title: of the file.

    Returns:
        The text of the file.
    """
    data: dict[str, Any] = {}
    body = "\n".join(_html(block, data) for block in blocks)
    law = next((block.law for block in blocks if isinstance(block, Panel)), None)
    return document(title, f'<noscript><p class="soft">{NO_SCRIPT}</p></noscript>\n{body}', data, law)


def _html(block: Block, data: dict[str, Any]) -> str:
    """A block as HTML; what scripts need of it goes into `data`."""
    if isinstance(block, Heading):
        return f"<h{block.level}>{escape(block.text)}</h{block.level}>"
    if isinstance(block, Text):
        return (
            f'<p class="{block.tone}">{escape(block.text)}</p>'
            if block.tone
            else f"<p>{escape(block.text)}</p>"
        )
    if isinstance(block, Items):
        return items(block.texts)
    if isinstance(block, Table):
        cells = table(block.header, block.rows, block.numbers, block.caption)
        # Focusable, so that wide tables can be scrolled by keys.
        name = escape(block.folded or block.caption or "Table")
        whole = f'<div class="scroll" tabindex="0" role="group" aria-label="{name}">{cells}</div>'
        return (
            f"<details><summary>{escape(block.folded)}</summary>{whole}</details>" if block.folded else whole
        )
    if isinstance(block, Code):
        return f'<pre tabindex="0"><code>{escape(block.text)}</code></pre>'
    if isinstance(block, Equations):
        return "\n".join(_equation(left, right) for left, right in block.sides.items())
    if isinstance(block, Picture):
        return _figure(block, data)
    if isinstance(block, Panel):
        data["planner-data"] = block.data
        before, after = ("\n".join(_html(b, data) for b in part) for part in (block.before, block.after))
        return f'{before}\n<section id="planner" aria-label="Planner"></section>\n{after}'
    assert isinstance(block, Answer)
    return f'<section class="answer">{"".join(_html(b, data) for b in block.blocks)}</section>'


def _equation(left: str, right: sp.Expr) -> str:
    names = {
        s: sp.Symbol(escape(s.name)) for s in right.free_symbols
    }  # labels of a file, which sympy writes as they are
    equation = mathml(sp.Eq(sp.Symbol(left), right.xreplace(names), evaluate=False), printer="presentation")
    # As it is printed in papers.
    equation = equation.replace("&ExponentialE;", "e").replace("<mo>-</mo>", "<mo>\u2212</mo>")
    space = "http://www.w3.org/1998/Math/MathML"
    return (
        '<p class="equation" tabindex="0" role="group" aria-label="Equation">'
        f'<math xmlns="{space}" display="block">{equation}</math></p>'
    )


def _figure(picture: Picture, data: dict[str, Any]) -> str:
    chart, name = picture.chart, f"figure-{len(data) + 1}"
    data[name] = plotly(chart)
    return (
        f'<figure data-chart="{name}"><header><h3>{escape(chart.title)}</h3><div class="scales"></div></header>'
        f'<div class="canvas" role="img" aria-label="{escape(chart.title)}" aria-describedby="{name}-caption"></div>'
        f'<figcaption id="{name}-caption">{escape(chart.caption)}</figcaption></figure>'
    )
