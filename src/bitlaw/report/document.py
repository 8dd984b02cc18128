"""A whole HTML file that asks for nothing: its styles, its scripts, and a policy that allows no others."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from ..html import escape
from ..laws import Law
from ..laws.javascript import javascript, runtime

SCRIPTS = ("numbers.js", "planner.js", "charts.js", "panel.js", "page.js")


def document(title: str, body: str, data: Mapping[str, Any], law: Law | None) -> str:
    """Put a page together.

    Args:
        title: of the page, any text.
        body: HTML, escaped already.
        data: what scripts read, by the id of the element that holds it as JSON.
        law: whose functions the planner panel calls; None for a page without one.

    Returns:
        The file's text.
    """
    scripts = [plotly_source(), runtime()]
    scripts += [f"bitlaw.law = {javascript(law)};"] if law is not None else []
    scripts.append("\n".join(asset(name) for name in SCRIPTS))
    scripts = [_within(script) for script in scripts]
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy(scripts)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{asset('page.css')}</style>\n</head>\n<body>\n<main>",
        body,
        "</main>",
        *(
            f'<script type="application/json" id="{name}">{as_json(value)}</script>'
            for name, value in data.items()
        ),
        *(f"<script>{script}</script>" for script in scripts),
        "</body>\n</html>\n",
    ]
    return "\n".join(parts)


def policy(scripts: Sequence[str]) -> str:
    """A content security policy that runs these scripts alone and lets nothing be requested."""
    hashes = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{h}'" for h in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def as_json(value: Any) -> str:
    r"""JSON that can stand in a script element: no text in it can end that.

    >>> as_json({"a": "</script>"})
    '{"a":"\\u003c/script>"}'
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


@cache
def asset(name: str) -> str:
    """The text of a file of this package's assets."""
    return (files("bitlaw.report") / "assets" / name).read_text(encoding="utf-8")


@cache
def plotly_source() -> str:
    """Plotly's JavaScript, which its Python package carries."""
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return source


def _within(script: str) -> str:
    """A script that can stand in a script element; in its strings, what is put in means the same."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
