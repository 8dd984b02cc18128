"""One self-contained page: answers first, then the evidence, then how it was done.

Everything is inside the file: figures as SVG, equations as MathML, no script, no address. Every text from
a table is escaped. The page opens from disk, from a mail, from an artefact of CI, and prints.
"""

from __future__ import annotations

import base64
import html
import io
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version

import sympy as sp
from matplotlib.figure import Figure
from sympy.printing.mathml import mathml

from ..files import whole
from ..fitting import Comparison, Fit
from ..fitting.tell import entry_cells, held_out_text, method_text, number, objective_text
from ..planning import Plan
from ..planning.answer import quantity, span
from ..runs import OVERVIEW, Runs
from . import figures
from .chart import Chart
from .draw import draw
from .style import style

_CSS = """
:root { color-scheme: light; --ink: #1a1a1a; --soft: #5b5b5b; --line: #dcdcdc; --tint: #f4f6f8; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: #fff; margin: 0 auto;
  max-width: 60rem; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .6rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p, li { max-width: 46rem; }
.soft, figcaption { color: var(--soft); font-size: .88rem; }
figure { margin: 1rem 0 1.6rem; }
figure img { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .4rem 0 1rem; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; }
.answer { background: var(--tint); padding: .8rem 1rem; border-radius: .4rem; margin: 1rem 0; }
.answer p { margin: .2rem 0; }
code { font-size: .88rem; background: var(--tint); padding: .1rem .3rem; }
pre { background: var(--tint); padding: .6rem .8rem; overflow-x: auto; }
math { font-size: 1.1rem; }
@media print { body { max-width: none; padding: 0; font-size: 11pt; } details > * { display: block; }
  figure, .answer, tr { break-inside: avoid; } }
"""


def write_report(
    path: str | os.PathLike[str],
    runs: Runs,
    fit: Fit,
    *,
    comparison: Comparison | None = None,
    plans: Sequence[Plan] = (),
    title: str = "Scaling report",
    command: str = "",
    figure_folder: str | os.PathLike[str] | None = None,
) -> None:
    """Write a report of runs and a fit as one HTML file and, if asked, its figures as SVG, PNG and PDF.

    Args:
        path: the page; written whole or not at all.
        runs: the table the fit was made from.
        fit: the fit.
        comparison: laws ranked on held-out rows.
        plans: decisions to put first.
        title: of the page.
        command: that makes the page again.
        figure_folder: where figures are written too; None for nowhere.

    Raises:
        DataError: a file cannot be written.
    """
    shown = figures.charts(runs, fit, comparison=comparison, plans=plans)
    drawn = []
    with style():
        for chart in shown:
            canvas, svg = Figure(), io.BytesIO()
            draw(canvas.subplots(), chart)
            canvas.savefig(svg, format="svg", metadata={"Date": None})
            drawn.append((chart, svg.getvalue()))
    text = _page(runs, fit, comparison, plans, drawn, title, command)
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    if figure_folder is not None:
        figures.write_figures(figure_folder, shown)


def _page(
    runs: Runs,
    fit: Fit,
    comparison: Comparison | None,
    plans: Sequence[Plan],
    drawn: Sequence[tuple[Chart, bytes]],
    title: str,
    command: str,
) -> str:
    parts = [f"<h1>{_text(title)}</h1>", f'<p class="soft">{_text(repr(runs)[1:-1])}</p>']
    parts += ["<h2>Answers</h2>", *(_plan(p) for p in plans)]
    if fit.held_out:
        parts.append(f"<p>{_text(held_out_text(fit.held_out))}</p>")
    if comparison:
        parts += ["<h3>Does precision matter to the prediction?</h3>", _comparison(comparison)]
    parts.append("<h2>Evidence</h2>")
    for chart, svg in drawn:
        image = base64.b64encode(svg).decode()
        parts.append(
            f'<figure><img src="data:image/svg+xml;base64,{image}" alt="{_text(chart.name.replace("-", " "))}">'
            f"<figcaption>{_text(chart.caption)}</figcaption></figure>"
        )
    parts += ["<h2>Methods</h2>", "<h3>The law</h3>", _equations(fit), _estimates(fit)]
    parts += [
        "<h3>What the rows do not tell, and what was left out</h3>",
        _list(fit.notes or ("Nothing to add.",)),
    ]
    parts += ["<h3>Rows</h3>", _rows(runs), "<h3>How to make this page again</h3>"]
    if command:
        parts.append(f"<pre>{_text(command)}</pre>")
    parts.append(
        f'<p class="soft">bitlaw {version("bitlaw")}, Python {platform.python_version()}; rows '
        f"{_text(fit.provenance.rows_sha256[:16])}; made {_text(fit.provenance.made)}.</p>"
    )
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{_text(title)}</title>\n'
        f"<style>{_CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _plan(plan: Plan) -> str:
    rows = []
    drawn = plan.level == plan.level  # not NaN
    for a in plan.answers:
        cells = [a.name.replace("_", " "), quantity(a.name, a.value) + (" (given)" if a.given else "")]
        if drawn:
            cells.append("" if a.given else span(a.name, a.low, a.high))
        cells.append(span(a.name, a.near_low, a.near_high))
        rows.append(cells)
    header = [
        "",
        "best",
        *([f"{plan.level:.0%} interval"] if drawn else []),
        f"within {plan.tolerance:.0%} of the reducible loss",
    ]
    options = ""
    if plan.options:
        best = ", ".join(o.formats for o in plan.options if o.near_optimal)
        options = (
            f"<p>Formats that are {_text(plan.columns[3])}: <strong>{_text(best) or 'none'}</strong>.</p>"
        )
    return (
        f'<div class="answer"><p><strong>{_text(plan.question)}</strong></p>{_table(header, rows)}{options}'
        f'<div class="soft">{_list([note[:1].upper() + note[1:] for note in plan.notes])}</div></div>'
    )


def _comparison(comparison: Comparison) -> str:
    parts = []
    for ranking in comparison.rankings:
        header = [
            "law",
            "parameters",
            "mean abs. error",
            "bias",
            f"worse than the best by ({ranking.level:.0%} interval)",
        ]
        what = "losses" if ranking.what == "loss" else "gaps"
        rows = [list(entry_cells(e)) for e in (*ranking.entries, *ranking.baselines)]
        lead = f"Held out: {ranking.split}, {ranking.rows} {what} in {ranking.clusters} clusters."
        parts.append(f"<p>{_text(lead)}</p>{_table(header, rows)}<p>{_text(ranking.verdict)}</p>")
    return "".join(parts)


def _equations(fit: Fit) -> str:
    """The law as MathML: the loss, then the effective parameters it abbreviates."""
    equations = [sp.Eq(sp.Symbol(name), e, evaluate=False) for name, e in fit.law.display().items()]
    blocks = [
        f'<p><math xmlns="http://www.w3.org/1998/Math/MathML" display="block">'
        f"{mathml(e, printer='presentation')}</math></p>"
        for e in equations
    ]
    return "".join(blocks) + f'<p class="soft">{_text(fit.law.source)}. N counted as {_text(fit.count)}.</p>'


def _estimates(fit: Fit) -> str:
    rows = []
    for e in fit.estimates:
        interval = "" if e.status == "fixed" else f"{number(e.low)} to {number(e.high)}"
        rows.append(
            [e.parameter.name, number(e.value), interval, e.parameter.unit, e.status, e.parameter.meaning]
        )
    header = ["parameter", "estimate", f"{fit.level:.0%} interval", "unit", "status", "meaning"]
    return (
        _table(header, rows) + f'<p class="soft">Confidence intervals by {_text(method_text(fit))}, '
        f"Student with {fit.df} degrees of freedom. "
        f"{_text(objective_text(fit))}</p>"
    )


def _rows(runs: Runs) -> str:
    frame = runs.frame.select([c for c in OVERVIEW if runs.frame[c].null_count() < len(runs)])
    rows = [
        ["" if v is None else f"{v:.5g}" if isinstance(v, float) else str(v) for v in row]
        for row in frame.rows()
    ]
    hashes = runs.frame["eval_sha256"].drop_nulls().unique()
    corpora = runs.frame["corpus"].drop_nulls().unique()
    note = ""
    if len(corpora):
        note = f"<p>Text: {_text(', '.join(corpora))}. Evaluation set {_text(', '.join(h[:16] for h in hashes))}.</p>"
    return (
        f"{note}<details><summary>All {len(runs)} rows</summary>{_table(list(frame.columns), rows)}</details>"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(h)}</th>" for h in header)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _list(items: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{_text(item)}.</li>" for item in items) + "</ul>"


def _text(value: object) -> str:
    return html.escape(str(value))
