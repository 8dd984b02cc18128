"""The same question by other laws and objectives that fit about as well: their spread is the honest uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, get_args

from ..errors import BitlawError, FitError
from ..fitting import Fit, all_for, compare, fit, largest
from ..fitting.compare import same
from ..fitting.objective import Objective
from ..fitting.ranking import Entry
from ..laws import LAWS, Published, published
from ..runs import Runs, read_runs
from .answer import Other, Plan
from .source import why_not_plannable

ABOUT = 1.5  # times the best law's error on held-out rows: about as well, if not clearly worse


def by_rivals(
    fitted: Fit, runs: Any, ask: Callable[[Fit], Plan], of_gaps: bool
) -> tuple[tuple[Other, ...], list[str]]:
    """Ask the laws that predict the largest size about as well as the best, and the fitted law under every objective.

    Args:
        fitted: the fit that was asked.
        runs: the rows it was fitted to.
        ask: puts the question to a fit.
        of_gaps: whether it is about quantisation after training: laws are then judged on gaps, else on losses.

    Returns:
        Their answers, or why they have none; and what has to be said of the fitted law among them.
    """
    table = read_runs(runs)
    found = []
    for objective in get_args(Objective):
        if objective != fitted.objective:
            found.append((f"{fitted.law.name}, {objective}", fitted.law, objective, float("nan")))
    ranked, notes = _ranked(table, fitted, of_gaps)
    what = "the gaps of the largest size" if of_gaps else "the largest size"
    if not fitted.is_of(table):
        notes.append("these are not the rows that the fit was made from (another table, or other conditions)")
    for entry in ranked:
        best = ranked[0]
        if entry.name == fitted.law.name and entry.behind_low > 0 and entry is not best:
            errors = f"{best.held_out.error:.2%} against {entry.held_out.error:.2%}"
            notes.append(f"{best.name} predicts {what} clearly better ({errors}); ask it first")
    if of_gaps and ranked:
        notes.append(
            "other laws were chosen by their held-out errors on losses, and of these by those on gaps"
        )
    for entry in ranked:
        if _as_well(entry, ranked) and entry.name != fitted.law.name:
            found.append((entry.name, LAWS[entry.name], fitted.objective, entry.held_out.error))
    held = {e.parameter.name: e.value for e in fitted.estimates if e.status == "fixed"}
    others = []
    for name, law, objective, held_out in found:
        fix = held if law is fitted.law else None
        try:
            other = fit(law, table, count=fitted.counting, objective=objective, fix=fix, draws=0)
            others.append(replace(_other(name, ask(other)), held_out=held_out))
        except BitlawError as error:
            others.append(Other(name, {}, "", held_out, str(error)))
    return tuple(others), notes


def _ranked(table: Runs, fitted: Fit, of_gaps: bool) -> tuple[tuple[Entry, ...], list[str]]:
    """Laws by their error on the largest size, each once; none, and why, where that cannot be held out."""
    count = fitted.counting
    try:
        laws, _ = all_for(table, count, "gap" if of_gaps else "loss")
        names = [law.name for law in laws if not why_not_plannable(law)]
        if fitted.law.name in LAWS:  # of laws that are one on these rows, it is the fitted one that stays
            names = list(dict.fromkeys([fitted.law.name, *names]))
        if of_gaps:
            losses = compare(table, names, hold_out=largest(), count=count).entries
            names = [entry.name for entry in losses if _as_well(entry, losses)]  # of what the gap is added to
        ranked = compare(
            table, names, what="gap" if of_gaps else "loss", hold_out=largest(), count=count
        ).entries
    except FitError as error:
        return (), [f"no other laws were asked, for none can be judged on the largest size: {error}"]
    kept: list[Entry] = []
    for entry in sorted(ranked, key=lambda entry: entry.name != fitted.law.name):
        if not any(same(entry.held_out, other.held_out) for other in kept):
            kept.append(entry)
    return tuple(entry for entry in ranked if entry in kept), []


def _as_well(entry: Entry, ranked: Sequence[Entry]) -> bool:
    return not entry.behind_low > 0 and entry.held_out.error <= ABOUT * ranked[0].held_out.error


def by_named(
    laws: Sequence[Fit | Published | str], ask: Callable[[Fit | Published], Plan]
) -> tuple[Other, ...]:
    """Ask laws that were named; of one that cannot answer, its reason is all that it says."""
    several = laws if isinstance(laws, Sequence) and not isinstance(laws, str) else [laws]
    asked = [published(law) if isinstance(law, str) else law for law in several]
    others = []
    for law in asked:
        name = law.law.name if isinstance(law, Fit) else getattr(law, "name", "")
        try:
            others.append(_other(name, ask(law)))
        except BitlawError as error:
            if not name:  # no law at all
                raise
            others.append(Other(name, {}, "", reason=str(error)))
    return tuple(others)


def _other(name: str, plan: Plan) -> Other:
    return Other(name, {a.name: a.value for a in plan.answers if not a.given}, plan.formats)
