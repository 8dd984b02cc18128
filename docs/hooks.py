"""Hooks of mkdocs: equations become MathML while the site is built, and one page may take in another.

No page needs a script for its equations. `<!-- include: coverage.md -->` stands for that page below its title, one
level of headings down.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

_SPAN = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)
_INCLUDE = re.compile(r"^<!-- include: ([\w-]+\.md) -->$", re.M)


def on_page_markdown(text: str, *, page: Any, config: Any, **_: Any) -> str:
    """Put other pages where a page asks for them; a page without neighbours needs no list of them beside it."""
    if page.parent is None:
        page.meta["hide"] = ["navigation"]

    def whole(found: re.Match[str]) -> str:
        _, _, below = (Path(config.docs_dir) / found[1]).read_text(encoding="utf-8").partition("\n# ")
        return re.sub(r"^##", "###", below.partition("\n")[2], flags=re.M)

    return _INCLUDE.sub(whole, text)


def on_page_content(text: str, **_: Any) -> str:
    """Replace what `arithmatex` marked by MathML."""

    def equation(found: re.Match[str]) -> str:
        display = "block" if found[1] == "div" else "inline"
        return convert(html.unescape(found[2]), display=display)

    return _SPAN.sub(equation, text)
