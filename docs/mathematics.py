"""A hook of mkdocs: equations become MathML while the site is built, so that no page needs a script for them."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_SPAN = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)


def on_page_content(text: str, **_: Any) -> str:
    """Replace what `arithmatex` marked by MathML."""

    def equation(found: re.Match[str]) -> str:
        display = "block" if found[1] == "div" else "inline"
        return convert(html.unescape(found[2]), display=display)

    return _SPAN.sub(equation, text)
