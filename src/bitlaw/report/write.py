"""The front door of reports: what to say is put together, printed by the file's kind, and written whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from ..errors import ConfigError, DataError
from ..files import whole
from ..fitting import Comparison, Fit
from ..planning import Plan
from ..runs import Runs
from . import figures
from .content import content
from .markdown import markdown
from .page import page

PAGES, TEXTS = (".html", ".htm"), (".md", ".markdown")


def write_report(
    path: str | os.PathLike[str],
    runs: Runs | None,
    fit: Fit,
    *,
    comparison: Comparison | None = None,
    plans: Sequence[Plan] = (),
    title: str = "Scaling report",
    command: str = "",
    planner: Sequence[str] = ("bitlaw", "plan", "--fit", "fit.json"),
    before: str = "",
    figure_folder: str | os.PathLike[str] | None = None,
    thorough: bool = False,
    budget: float | None = None,
) -> None:
    """Write a report of runs and a fit: one HTML file that opens from disk, or Markdown with its figures beside it.

    Args:
        path: the file, written whole or not at all; its ending says which, `.html` or `.md`.
        runs: the table the fit was made from; None leaves out what needs rows.
        fit: the fit.
        comparison: laws ranked on held-out rows.
        plans: decisions to put first.
        title: of the report.
        command: that makes the report again.
        planner: the words of a command that plans with this fit, which the planner panel shows and completes.
        before: a command that has to be given before that one.
        figure_folder: where figures are written as SVG, PNG and PDF; None for nowhere, or for Markdown, whose figures
            are its own, for a folder named after the file.
        thorough: also figures that fit again, which take a second or more.
        budget: training cost in 16-bit FLOPs that figures of budgets are to show; None for those of the rows.

    Raises:
        ConfigError: an ending that is neither.
        DataError: a file cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> from bitlaw import Runs, fit
    >>> rows = Runs.from_rows([{"params": n, "tokens": d, "loss": 2 + 400 / n**0.3 + 400 / d**0.3}
    ...                        for n in (1e6, 3e6, 1e7) for d in (1e7, 1e8, 1e9)])
    >>> with TemporaryDirectory() as folder:
    ...     write_report(f"{folder}/report.html", rows, fit("chinchilla", rows, draws=50))
    ...     Path(f"{folder}/report.html").read_text()[:15]
    '<!doctype html>'
    """
    path, as_text = Path(path), is_text(path)
    charts = []
    if runs is not None:
        charts = figures.charts(runs, fit, comparison=comparison, plans=plans, slow=thorough, budget=budget)
    blocks = content(runs, fit, charts, comparison, plans, title, command, planner, before)
    beside = None if figure_folder is None else Path(figure_folder)
    if as_text:
        beside = beside or path.with_name(f"{path.stem}-figures")
        text = markdown(blocks, quote(Path(os.path.relpath(beside, path.parent)).as_posix()))
    else:
        text = page(blocks, title)
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    if beside is not None and charts:
        figures.write_figures(beside, charts)


def is_text(path: str | os.PathLike[str]) -> bool:
    """Whether a report of this name is Markdown, and not a page.

    Raises:
        ConfigError: an ending that is neither.
        DataError: a folder, or a name in one that there is not.

    >>> is_text("report.md"), is_text("report.html")
    (True, False)
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"cannot write {path}: it is a folder; name a file in it, like report.html")
    if not path.parent.is_dir():
        raise DataError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    if path.suffix.lower() not in (*PAGES, *TEXTS):
        raise ConfigError(f"a report ends in .html or .md, not {path.name!r}; name it like report.html")
    return path.suffix.lower() in TEXTS
