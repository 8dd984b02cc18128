"""Fits and comparisons in words, as tables that read well in a terminal and in a log file."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..html import escape as shown
from ..html import items
from ..html import table as html_table
from ..terminal import text_width
from ..units import percent
from .objective import HUBER

if TYPE_CHECKING:
    from .ranking import Comparison, Entry, Ranking
    from .result import Fit, HeldOut


def number(value: float) -> str:
    """Four significant digits.

    >>> number(4299.12), number(0.49653), number(float("nan"))
    ('4299', '0.4965', '-')
    """
    return "-" if math.isnan(value) else f"{value:.4g}"


def render(*parts: Table | str) -> str:
    """Turn tables and lines into plain text."""
    console = Console(file=io.StringIO(), width=text_width(), no_color=True, highlight=False)
    for part in parts:
        console.print(part, markup=False) if isinstance(part, str) else console.print(part)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def fit_title(fit: Fit) -> str:
    """What a fit is of."""
    rows = " and ".join(f"{n} {_target(fit, kind)} rows" for kind, n in fit.rows.items())
    return f"{fit.law.name}: {rows}, {fit.clusters} independent clusters, N counted as {fit.count}"


def estimate_cells(fit: Fit) -> tuple[list[str], list[list[str]]]:
    """The estimates: a header, and a row for each parameter."""
    rows = []
    for e in fit.estimates:
        interval = f"{number(e.low)} to {number(e.high)}" if e.low <= e.high else "-"
        interval = "" if e.status == "fixed" else interval
        unit = f" [{e.parameter.unit}]" if e.parameter.unit else ""
        rows.append([e.parameter.name, number(e.value), interval, e.status, e.parameter.meaning + unit])
    return ["parameter", "estimate", f"{percent(fit.level)} interval", "status", "meaning"], rows


def fit_lines(fit: Fit) -> list[str]:
    """How a fit was made and how well it predicts, in sentences."""
    lines = []
    if fit.df:
        student = f", Student with {fit.df} degrees of freedom" if fit.method != "cluster" else ""
        lines.append(f"Intervals: confidence, {method_text(fit)}{student}.")
    lines.append(objective_text(fit))
    if fit.held_out:
        lines.append(held_out_text(fit.held_out, fit.law.loss == 0, fit.law.target))
    return lines


def fit_text(fit: Fit) -> str:
    """A fit as text."""
    table = Table(title=fit_title(fit), title_justify="left")
    header, rows = estimate_cells(fit)
    for name in header:
        table.add_column(name, justify="right" if name == "estimate" else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return render(table, *fit_lines(fit), *(f"Note: {note}." for note in fit.notes))


def fit_html(fit: Fit) -> str:
    """A fit for a notebook."""
    table = html_table(*estimate_cells(fit), numbers={1}, caption=fit_title(fit))
    lines = "".join(f"<p>{shown(line)}</p>" for line in fit_lines(fit))
    return f"<div>{table}{lines}{items(fit.notes)}</div>"


METHOD_TEXTS = {
    "residual": "residual bootstrap",
    "wild": "wild cluster bootstrap",
    "cluster": "cluster bootstrap",
    "student": "sandwich covariance, by cluster where rows share one",
    "profile": "profile of the objective",
}


def method_text(fit: Fit) -> str:
    """How the intervals of the constants were made, in words."""
    return METHOD_TEXTS.get(fit.method, fit.method)


def draws_text(fit: Fit) -> str:
    """How the draws were made, off which all other intervals are read, in words."""
    return METHOD_TEXTS.get(fit.drawn_by, fit.drawn_by)


def _target(fit: Fit, kind: str) -> str:
    """What rows of a kind measure: the gap, or what the law predicts, which is not always a loss."""
    return fit.law.target if kind == "loss" else kind


def objective_text(fit: Fit) -> str:
    """What the fit minimised, as a sentence."""
    if fit.delta is not None:
        return f"Huber loss with delta {fit.delta:g} on log residuals, as given; its sum is {fit.cost:.6g}."
    if fit.objective == "squares":
        noise = ", ".join(f"{value:.4g} on {_target(fit, kind)} rows" for kind, value in fit.noise.items())
        return f"Least squares as measured, not of logarithms; noise {noise}."
    noise = ", ".join(f"{value:.2%} on {_target(fit, kind)} rows" for kind, value in fit.noise.items())
    how = {
        "huber": f"Huber loss with delta {HUBER} of it",
        "lad": "Least absolute deviation of log residuals",
        "log-squares": "Least squares of log residuals",
    }[fit.objective]
    return f"Noise estimated from the residuals: {noise}. {how}."


def held_out_text(held: HeldOut, alone: bool = False, target: str = "loss") -> str:
    """A held-out error as a sentence; `alone` where the law predicts gaps alone, else `target` is what it predicts."""
    what = "gaps" if alone else "losses" if target == "loss" else f"{target}s"
    text = (
        f"Held out, {held.split}: {held.rows} {what} predicted with a mean absolute error of {held.error:.2%} "
        f"(bias {held.bias:+.2%})"
    )
    if held.outside:
        text += f", {held.outside} of them outside the law's domain"
    if alone:
        text += f", median {held.gap_error:.0%}"
    elif held.gap_rows:
        text += f", {held.gap_rows} gaps with a median error of {held.gap_error:.0%}"
    return text + "."


def ranking_title(ranking: Ranking) -> str:
    """What a ranking is of."""
    what = "losses" if ranking.what == "loss" else "gaps"
    return f"Held out: {ranking.split}, {ranking.rows} {what} in {ranking.clusters} clusters"


def ranking_cells(ranking: Ranking) -> tuple[list[str], list[list[str]]]:
    """A ranking: a header, and a row for each law and baseline."""
    header = ["law", "parameters", "mean abs. error", "bias", "worse than the best by"]
    criteria = any(e.bic is not None for e in ranking.entries)
    rows = []
    for entry in (*ranking.entries, *ranking.baselines):
        bic = ["-" if entry.bic is None else f"{entry.bic:.1f}"] if criteria else []
        rows.append([*entry_cells(entry), *bic])
    return header + (["BIC"] if criteria else []), rows


def intervals_of(ranking: Ranking) -> str:
    """How the intervals of a ranking were made."""
    return (
        f"Intervals: {percent(ranking.level)} confidence, Student's t over clusters; those of how much "
        "laws are worse than the best hold for all laws of a ranking at once. A law is clearly worse where the "
        "difference of errors, or their ratio, leaves out equality."
    )


def comparison_text(comparison: Comparison) -> str:
    """A comparison as text."""
    parts: list[Table | str] = []
    for ranking in comparison.rankings:
        table = Table(title=ranking_title(ranking), title_justify="left")
        header, rows = ranking_cells(ranking)
        for name in header:
            table.add_column(name, justify="left" if name == "law" else "right")
        for row in rows:
            table.add_row(*row)
        parts += [table, ranking.verdict]
    if comparison.rankings:
        parts.append(intervals_of(comparison.rankings[0]))
    if comparison.left_out:
        parts.append("Left out:")
        parts += [f"  {name}: {reason}" for name, reason in comparison.left_out.items()]
    return render(*parts)


def comparison_html(comparison: Comparison) -> str:
    """A comparison for a notebook."""
    parts = []
    for ranking in comparison.rankings:
        header, rows = ranking_cells(ranking)
        parts.append(html_table(header, rows, range(1, len(header)), ranking_title(ranking)))
        parts.append(f"<p>{shown(ranking.verdict)}</p>")
    if comparison.rankings:
        parts.append(f"<p>{shown(intervals_of(comparison.rankings[0]))}</p>")
    left_out = [f"{name}: {reason}" for name, reason in comparison.left_out.items()]
    parts += ["<p>Left out:</p>", items(left_out)] if left_out else []
    return f"<div>{''.join(parts)}</div>"


def entry_cells(entry: Entry) -> tuple[str, str, str, str, str]:
    """A law or baseline of a ranking: name, parameters, error, bias, and how far behind."""
    held = entry.held_out
    name, count = entry.name, "no law" if entry.parameters is None else str(entry.parameters)
    if held.outside == held.rows:
        return name, count, "says nothing of them", "", ""
    error = f"{held.error:.2%}" + (f" \u00b1 {entry.margin:.2%}" if entry.margin == entry.margin else "")
    if held.outside:
        error += f", silent on {held.outside}"
    behind = "" if entry.behind is None else f"{entry.behind:.2%}"
    if behind:
        known = entry.behind_low == entry.behind_low
        behind += (
            f" ({entry.behind_low:+.2%} to {entry.behind_high:+.2%})"
            if known
            else " (one cluster: no interval)"
        )
    return name, count, error, f"{held.bias:+.2%}", behind
