"""Text and tables as HTML, for pages and notebooks. Whatever comes from a table or a file is escaped here."""

from __future__ import annotations

import html
from collections.abc import Collection, Sequence


def escape(value: object) -> str:
    """A value as text of a page; it can open no tag and end no attribute.

    >>> escape("<b> & 'c'")
    '&lt;b&gt; &amp; &#x27;c&#x27;'
    """
    return html.escape(str(value))


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[int] = (), caption: str = ""
) -> str:
    """A table whose first cell of each row heads it.

    Args:
        header: of the columns.
        rows: cells as text.
        numbers: places of columns that hold numbers, which are aligned at the right.
        caption: what the table is, for those who cannot see where it stands.

    Returns:
        HTML, every text escaped.

    >>> table(["law", "error"], [["a<b", "1 %"]], numbers=[1])
    '<table><thead><tr><th scope="col">law</th><th scope="col" align="right">error</th></tr></thead><tbody><tr><th \
scope="row">a&lt;b</th><td align="right">1 %</td></tr></tbody></table>'
    """
    sides = ['align="right"' if k in numbers else "" for k in range(len(header))]

    def cell(name: str, k: int, text: str, scope: str = "") -> str:
        if not text:  # an empty heading is none
            name, scope = "td", ""
        words = " ".join(w for w in (name, f'scope="{scope}"' if scope else "", sides[k]) if w)
        return f"<{words}>{escape(text)}</{name}>"

    head = "".join(cell("th", k, text, "col") for k, text in enumerate(header))
    body = "".join(
        "<tr>"
        + "".join(cell("td" if k else "th", k, t, "" if k else "row") for k, t in enumerate(row))
        + "</tr>"
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def items(texts: Sequence[str]) -> str:
    """A list of sentences, every text escaped; nothing where there are none.

    >>> items(["one & two"])
    '<ul><li>one &amp; two</li></ul>'
    """
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>" if texts else ""
