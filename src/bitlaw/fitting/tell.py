"""Fits and comparisons in words, as tables that read well in a terminal and in a log file."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .objective import HUBER

if TYPE_CHECKING:
    from .compare import Comparison
    from .result import Fit, HeldOut

WIDTH = 110


def number(value: float) -> str:
    """Four significant digits.

    >>> number(4299.12), number(0.49653), number(float("nan"))
    ('4299', '0.4965', '-')
    """
    return "-" if math.isnan(value) else f"{value:.4g}"


def render(*parts: Table | str) -> str:
    """Turn tables and lines into plain text of a fixed width."""
    console = Console(file=io.StringIO(), width=WIDTH, no_color=True, highlight=False)
    for part in parts:
        console.print(part, markup=False) if isinstance(part, str) else console.print(part)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def fit_text(fit: Fit) -> str:
    """A fit as text."""
    rows = " and ".join(f"{n} {kind} rows" for kind, n in fit.rows.items())
    table = Table(
        title=f"{fit.law.name}: {rows}, {fit.clusters} independent clusters, N counted as {fit.count}",
        title_justify="left",
    )
    for name, justify in (
        ("parameter", "left"),
        ("estimate", "right"),
        (f"{fit.level:.0%} interval", "left"),
        ("status", "left"),
        ("meaning", "left"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for e in fit.estimates:
        interval = "" if e.status == "fixed" else f"{number(e.low)} to {number(e.high)}"
        unit = f" [{e.parameter.unit}]" if e.parameter.unit else ""
        table.add_row(
            e.parameter.name,
            number(e.value),
            interval,
            e.status,
            escape(e.parameter.meaning + unit),
        )
    lines = []
    if fit.df:
        how = fit.method if fit.method == "student" else f"{fit.method} bootstrap"
        lines.append(f"Intervals: confidence, {how}, Student with {fit.df} degrees of freedom.")
    lines.append(objective_text(fit))
    if fit.held_out:
        lines.append(held_out_text(fit.held_out))
    lines += [f"Note: {note}." for note in fit.notes]
    return render(table, *lines)


def objective_text(fit: Fit) -> str:
    """What the fit minimised, as a sentence."""
    if fit.delta is not None:
        return f"Huber loss with delta {fit.delta:g} on log residuals, as given; its sum is {fit.cost:.6g}."
    if fit.objective == "squares":
        return f"Least squares of raw losses; noise {fit.noise['loss']:.4g} nats a token."
    noise = ", ".join(f"{value:.2%} on {kind} rows" for kind, value in fit.noise.items())
    how = {
        "huber": f"Huber loss with delta {HUBER} of it",
        "lad": "Least absolute deviation of log residuals",
        "log-squares": "Least squares of log residuals",
    }[fit.objective]
    return f"Noise estimated from the residuals: {noise}. {how}."


def held_out_text(held: HeldOut) -> str:
    """A held-out error as a sentence."""
    text = (
        f"Held out, {held.split}: {held.rows} losses predicted with a mean absolute error of {held.error:.2%} "
        f"(bias {held.bias:+.2%})"
    )
    if held.outside:
        text += f", {held.outside} of them outside the law's domain"
    if held.gap_rows:
        text += f", {held.gap_rows} gaps with a median error of {held.gap_error:.0%}"
    return text + "."


def comparison_text(comparison: Comparison) -> str:
    """A comparison as text."""
    table = Table(
        title=f"Held out: {comparison.split}, {comparison.rows} losses in {comparison.clusters} clusters",
        title_justify="left",
    )
    for name in ("law", "parameters", "mean abs. error", "bias", "worse than the best by"):
        table.add_column(name, justify="left" if name == "law" else "right")
    for entry in comparison.entries:
        behind = (
            ""
            if entry.behind is None
            else (f"{entry.behind:.2%} ({entry.behind_low:+.2%} to {entry.behind_high:+.2%})")
        )
        table.add_row(
            entry.name,
            str(entry.parameters),
            f"{entry.held_out.error:.2%}",
            f"{entry.held_out.bias:+.2%}",
            behind,
        )
    return render(table, comparison.verdict)
