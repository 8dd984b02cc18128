"""The Python reference: every public name with its signature and its docstring, as Markdown for `generate.py`."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import bitlaw as bl
from bitlaw.laws import Law
from bitlaw.report.figures import Figure

ROOMS = (
    "runs",
    "laws",
    "formats",
    "fitting",
    "planning",
    "calibration",
    "datasets",
    "report",
    "report.figures",
)
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example")
WIDTH = 88  # of a signature on one line
BEGINS = re.compile(r"[*\w][*\w, ]*: ")  # what an entry of a section begins with


class Words(str):
    """An annotation as it was written, without the quotes that `inspect` would print."""

    def __repr__(self) -> str:
        return str(self)


def spelt(annotation: Any) -> str:
    """An annotation as the source has it."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def signature(name: str, value: Any) -> str:
    """How something is called, one argument a line where one line is too long."""
    try:
        found = inspect.signature(value)
    except ValueError:
        return name
    written = {
        k: v
        for c in reversed(getattr(value, "__mro__", ()))
        for k, v in vars(c).get("__annotations__", {}).items()
    }
    known = [
        p.replace(default=Words("...")) if inspect.isfunction(p.default) else p
        for p in found.parameters.values()
    ]
    parameters = [
        p
        if p.annotation is p.empty
        else p.replace(annotation=Words(spelt(written.get(p.name, p.annotation))))
        for p in known
        if p.name != "self"
    ]
    returns = spelt(found.return_annotation)
    if isinstance(value, Figure):
        parameters.insert(
            0, inspect.Parameter("ax", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Words("Axes"))
        )
        returns = "Axes"
    arrow = "" if returns in ("_empty", "None") or inspect.isclass(value) else f" -> {returns}"
    text = f"{name}{inspect.Signature(parameters)}{arrow}"
    if len(text) <= WIDTH:
        return text
    lines, starred = [], False
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and not starred:
            lines.append("*")
        starred |= p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)
        lines.append(str(p))
    return f"{name}(\n" + "".join(f"    {line},\n" for line in lines) + f"){arrow}"


def items(lines: list[str]) -> Iterator[str]:
    """The entries of a section of a docstring, `name: meaning`, each on one line."""
    entry = ""
    for line in lines:
        if entry and not BEGINS.match(line):
            entry += " " + line.strip()
        else:
            if entry:
                yield entry
            entry = line.strip()
    if entry:
        yield entry


def section(title: str, lines: list[str]) -> str:
    """One section of a docstring."""
    if title in ("Returns", "Yields", "Example"):
        return f"**{title}** " + " ".join(line.strip() for line in lines)
    pairs = (entry.partition(": ") for entry in items(lines))
    return f"**{'Arguments' if title == 'Args' else title}**\n\n" + "\n".join(
        f"- `{name}`: {meaning}" for name, _, meaning in pairs
    )


def fenced(text: str) -> str:
    """Examples in fences, whether they begin a paragraph or end it."""
    out: list[str] = []
    inside = False
    for line in text.splitlines():
        if line.startswith(">>> ") and not inside:
            out += ["", "```pycon"]
            inside = True
        elif inside and not line.strip():
            out.append("```")
            inside = False
        out.append(line)
    return "\n".join([*out, "```"] if inside else out).strip("\n")


def docstring(value: Any) -> str:
    """A docstring as Markdown: its paragraphs, its sections as lists, its examples in fences."""
    out: list[str] = []
    text = inspect.getdoc(value) or ""
    if inspect.isclass(value) and text.startswith(f"{value.__name__}("):
        return ""  # what a dataclass without words of its own is given
    for block in re.split(r"\n(?=(?:Args|Attributes|Returns|Yields|Raises|Example):\n)", "\n" + text):
        head, _, rest = block.strip("\n").partition(":\n")
        if head not in SECTIONS:
            out.append(fenced(block.strip("\n")))
            continue
        lines = rest.splitlines()
        end = next((i for i, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
        inner = inspect.cleandoc("\n".join(lines[:end])).splitlines()
        if head == "Example" and any(line.startswith(">>>") for line in inner):
            out.append(fenced("\n".join(inner)))
        elif inner:
            out.append(section(head, inner))
        if end < len(lines):
            out.append(fenced("\n".join(lines[end:])))
    return "\n\n".join(out)


def members(value: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties with words of their own, in the order of the source."""
    for name, member in vars(value).items():
        plain = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        shown = not name.startswith("_") and (inspect.isfunction(plain) or isinstance(plain, property))
        if shown and inspect.getdoc(plain):
            yield name, plain


def entry(full: str, value: Any, level: int = 3) -> str:
    """One function or class, with its methods."""
    name = full.rpartition(".")[2]
    out = ["#" * level + f" {full}\n", f"```python\n{signature(name, value)}\n```\n", docstring(value) + "\n"]
    if inspect.isclass(value):
        for short, member in members(value):
            if isinstance(member, property):
                out.append(f"#### {name}.{short}\n\n{docstring(member)}\n")
            else:
                out.append(
                    f"#### {name}.{short}\n\n```python\n{signature(short, member)}\n```\n\n{docstring(member)}\n"
                )
    return "\n".join(out)


def constant(full: str, value: Any) -> str:
    """One line about a value that is neither function nor class."""
    if isinstance(value, Law):
        return f"- `{full}`: the law [{value.name}](../laws.md#{value.name})."
    if isinstance(value, ModuleType):
        return f"- `{full}`: {(value.__doc__ or '').splitlines()[0]}"
    if isinstance(value, dict):
        return f"- `{full}`: a dict of {len(value)}: {', '.join(f'`{key}`' for key in value)}."
    if isinstance(value, tuple):
        return f"- `{full}`: a tuple of {len(value)} `{type(value[0]).__name__}`."
    return f"- `{full}`: `{str(value).replace('typing.', '').replace('bitlaw.formats.grid.', '')}`"


def is_function(value: Any) -> bool:
    """Whether something is called for what it returns."""
    return inspect.isfunction(value) or isinstance(value, Figure)


def room(name: str) -> str:
    """The page of one module."""
    module = importlib.import_module(f"bitlaw.{name}")
    named = [
        (f"bitlaw.{n}" if n in bl.__all__ else f"bitlaw.{name}.{n}", getattr(module, n))
        for n in module.__all__
    ]
    called = [(full, v) for full, v in named if is_function(v) or inspect.isclass(v)]
    rest = [pair for pair in named if pair not in called]
    out = [f"# bitlaw.{name}\n", inspect.getdoc(module) or "", ""]
    functions = [pair for pair in called if is_function(pair[1])]
    classes = [pair for pair in called if inspect.isclass(pair[1])]
    for title, group in (("Functions", functions), ("Classes", classes)):
        if group:
            out += [f"## {title}\n", *(entry(*pair) for pair in sorted(group, key=by_front))]
    if rest:
        out += ["## Values\n", *(constant(*pair) for pair in rest), ""]
    return "\n".join(out)


def by_front(pair: tuple[str, Any]) -> tuple[bool, str]:
    """Names at the front of the house come first."""
    return pair[0].count(".") > 1, pair[0].lower()


def front() -> str:
    """The page of `bitlaw` itself: every name of the front door with its first sentence, and the errors."""
    out = [
        "# Python\n",
        "`import bitlaw as bl` gives the names below; each is loaded when it is first used. "
        "Other public names are in the modules.\n",
        "| name | what it is |\n|---|---|",
    ]
    errors = [n for n in bl.__all__ if n.endswith("Error")]
    for n in bl.__all__:
        value = getattr(bl, n)
        if n in errors:
            continue
        line = (inspect.getdoc(value) or "").splitlines()[0]
        home = n if isinstance(value, ModuleType) else value.__module__.split(".")[1]
        anchor = "" if isinstance(value, ModuleType) else f"#bitlaw{n.lower()}"
        out.append(f"| [`bl.{n}`]({home}.md{anchor}) | {line} |")
    out += [
        "\n## Errors\n",
        "Each says what is wrong, which value, and what to try. The command line ends with the code.\n",
    ]
    out += ["| error | exit code | meaning |\n|---|---|---|"]
    for n in errors:
        value = getattr(bl, n)
        code = getattr(value, "exit_code", "")
        out.append(f"| `bl.{n}` | {code} | {' '.join((inspect.getdoc(value) or '').split())} |")
    return "\n".join(out) + "\n"
