"""What a report says, in order: the answers, the evidence, the methods."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from ..fitting import Comparison, Fit
from ..fitting.tell import (
    estimate_cells,
    fit_lines,
    fit_title,
    held_out_text,
    intervals_of,
    ranking_cells,
    ranking_title,
)
from ..laws.terms import TARGETS
from ..planning import Plan
from ..planning.answer import OTHERS, answer_cells, option_cells, option_title, other_cells, quantity, span
from ..planning.cost import train_flops
from ..planning.source import why_not_plannable
from ..runs import Runs
from ..runs.table import overview
from ..units import percent
from .blocks import Answer, Block, Code, Equations, Heading, Items, Panel, Picture, Table, Text
from .chart import Chart
from .panel import panel_data

OTHER_ROWS = (
    "These are not the rows that the fit was made from (another table, or other conditions): the figures show them "
    "beside that fit. Fit again to have both from one."
)
VERSIONS = ("bitlaw", "numpy", "scipy", "sympy", "polars", "plotly")


def content(
    runs: Runs | None,
    fit: Fit,
    charts: Sequence[Chart],
    comparison: Comparison | None,
    plans: Sequence[Plan],
    title: str,
    command: str,
    planner: Sequence[str],
    before: str,
) -> list[Block]:
    """Put a report together.

    Args:
        runs: the rows; None where only the fit is there.
        fit: the fit.
        charts: figures of both.
        comparison: laws ranked on held-out rows.
        plans: decisions, the most wanted first.
        title: of the report.
        command: that makes it again.
        planner: the words that plan with this fit.
        before: a command without which these do not work, like the one that saves the fit.

    Returns:
        The blocks in reading order.
    """
    what = repr(runs)[1:-1] if runs is not None else f"A saved fit of {fit.provenance.source or 'rows'}"
    return [
        Heading(title, 1),
        Text(f"{what}. Law: {fit.law.name}, {fit_title(fit).partition(': ')[2]}.", "soft"),
        Heading("Answers"),
        *_answers(fit, comparison, plans),
        *_panel(fit, plans, planner, before),
        Heading("Evidence"),
        *_evidence(runs, fit, charts, comparison),
        Heading("Methods"),
        *_methods(runs, fit, command),
    ]


# ---- answers


def _answers(fit: Fit, comparison: Comparison | None, plans: Sequence[Plan]) -> Iterator[Block]:
    for plan in plans:
        yield Answer(list(_plan(plan)))
    if reason := why_not_plannable(fit.law):
        yield Text(f"No plan is made with this law: {reason}.")
    elif not plans:
        yield Text("No plan was asked for.")
    if fit.held_out:
        yield Text(held_out_text(fit.held_out, fit.law.loss == 0, fit.law.target))
    for ranking in comparison.rankings if comparison else ():
        yield Text(f"Laws compared on {ranking.split}: {ranking.verdict}")


def _plan(plan: Plan) -> Iterator[Block]:
    yield Heading(plan.question, 3)
    yield Text(decision(plan), "lead")
    header, rows = answer_cells(plan)
    yield Table(header, rows, {1}, caption=f"Law: {plan.law}")
    if plan.options:
        near = [o.formats for o in plan.options if o.near_optimal and o.formats != plan.formats]
        if near:
            yield Text(f"As good, {plan.columns[3]}: {', '.join(near)}.")
        header, rows = option_cells(plan)
        yield Table(header, rows, range(1, len(header)), folded=option_title(plan))
    if any(not o.reason for o in plan.others):
        header, rows = other_cells(plan)
        yield Table(header, rows, range(1, len(header)), OTHERS)
    yield Items([_sentence(note) for note in plan.remarks])


def decision(plan: Plan) -> str:
    """The decision of a plan as a sentence, and how sure it is."""
    known = {a.name: a for a in plan.answers}
    parts = []
    if "params" in known:
        parts.append(f"{quantity('params', known['params'].value)} parameters")
    if "tokens" in known:
        tokens = known["tokens"]
        parts.append(f"{'on ' if parts else ''}{quantity('tokens', tokens.value)} tokens")
    if plan.formats:
        parts.append(f"in {plan.formats}")
    elif "bits" in known:
        parts.append(f"at {quantity('bits', known['bits'].value)} bits")
    text = " ".join(parts) or plan.question
    for name in ("loss", "gap"):
        if name in known:
            a = known[name]
            sure = (
                f" ({percent(plan.level)} {plan.kind} interval {span(name, a.low, a.high)})"
                if a.low == a.low
                else ""
            )
            text += f"; {name} {quantity(name, a.value)}{sure}"
    free = [
        a for a in plan.answers if not a.given and a.low == a.low and a.name in ("params", "tokens", "bits")
    ]
    if free:
        told = (
            f"{'parameters' if a.name == 'params' else a.name} {span(a.name, a.low, a.high)}" for a in free
        )
        text += f". How sure, at {percent(plan.level)}: {', '.join(told)}"
    return f"{text[:1].upper()}{text[1:]}."


def _panel(fit: Fit, plans: Sequence[Plan], planner: Sequence[str], before: str) -> Iterator[Block]:
    if why_not_plannable(fit.law) or not planner:
        return
    how = "Worked out here, in this page, from the fitted law."
    if fit.df:
        how += " Losses and gaps are of the chosen point, and so are their intervals."
    saving = (Text("The command above plans with a saved fit, which this one makes:", "soft"), Code(before))
    yield Panel(
        panel_data(fit, command=planner, budget=_budget(plans)),
        fit.law,
        (Heading("Ask it yourself", 3), Text(how, "soft")),
        saving if before else (),
    )


def _budget(plans: Sequence[Plan]) -> float | None:
    """What the first plan of free bits spends, so that the panel begins where the answers stand."""
    for plan in plans:
        known = {a.name: a for a in plan.answers}
        if not plan.formats and {"params", "tokens", "bits"} <= known.keys() and not known["params"].given:
            return train_flops(*(known[name].value for name in ("params", "tokens", "bits")))
    return None


# ---- evidence


def _evidence(
    runs: Runs | None, fit: Fit, charts: Sequence[Chart], comparison: Comparison | None
) -> Iterator[Block]:
    if runs is None:
        yield Text("The rows of this fit were not given, so figures of them are left out.")
    elif not fit.is_of(runs):
        yield Text(OTHER_ROWS)
    yield from (Picture(chart) for chart in charts)
    for ranking in comparison.rankings if comparison else ():
        header, rows = ranking_cells(ranking)
        yield Heading(ranking_title(ranking), 3)
        yield Table(header, rows, range(1, len(header)))
    if comparison and comparison.rankings:
        yield Text(intervals_of(comparison.rankings[0]), "soft")
    if comparison and comparison.left_out:
        rows = [[name, reason] for name, reason in comparison.left_out.items()]
        yield Table(["law", "why"], rows, folded=f"{len(rows)} laws or splits were left out")


# ---- methods


def _methods(runs: Runs | None, fit: Fit, command: str) -> Iterator[Block]:
    yield Heading("The law", 3)
    symbol, unit = TARGETS[fit.law.target]
    yield Equations(fit.law.display())
    yield Text(f"{fit.law.source}. {symbol} is in {unit}; N counted as {fit.count}.", "soft")
    yield Heading("Its constants", 3)
    header, rows = estimate_cells(fit)
    yield Table(header, rows, {1})
    for line in fit_lines(fit):
        yield Text(line, "soft")
    yield Heading("What the rows do not tell, and what was left out", 3)
    yield Items([_sentence(note) for note in fit.notes] or ["Nothing to add."])
    yield Heading("Rows", 3)
    if runs is None:
        yield Text(
            f"Not given. The fit was made of {sum(fit.rows.values())} rows of {fit.provenance.source}."
        )
    else:
        yield from _rows(runs)
    yield Heading("How to make this again", 3)
    if command:
        yield Code(command)
    installed = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    made = f"rows {fit.provenance.rows_sha256[:16]}; fitted by bitlaw {fit.provenance.bitlaw}, {fit.provenance.made}"
    yield Text(f"Python {platform.python_version()}, {installed}; {made}.", "soft")


def _rows(runs: Runs) -> Iterator[Block]:
    corpora, hashes = (runs.frame[name].drop_nulls().unique().sort() for name in ("corpus", "eval_sha256"))
    if len(corpora):
        yield Text(
            f"Text: {', '.join(corpora)}. Evaluation set {', '.join(h[:16] for h in hashes) or 'not told'}."
        )
    header, rows = overview(runs)
    numbers = [k for k, name in enumerate(header) if runs.frame[name].dtype.is_numeric()]
    yield Table(header, rows, numbers, folded=f"All {len(runs)} rows")


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:]}".rstrip(".") + "."
