"""The verb that shows: a report of runs, or of a saved fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import BitlawError, ConfigError, FitError
from ..shell import join, path
from ..units import format_quantity, parse_quantity
from .common import JsonFlag, WhereOption, command_line, print_json, working

if TYPE_CHECKING:
    from ..fitting import Comparison, Fit
    from ..planning import Plan
    from ..runs import Runs

LEVEL = 0.9  # of intervals


def report(
    runs: Annotated[
        str,
        typer.Argument(
            help="A .csv, .parquet or .sqlite file, a study's folder, or postgresql://user@host/database; "
            "or a fit that `bitlaw fit --save` wrote (.json)."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write, .html or .md.")] = Path(
        "report.html"
    ),
    law: Annotated[
        list[str] | None,
        typer.Option(help="The law to fit, default kumar; further ones are ranked beside it."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Rank every law that the rows can determine.")
    ] = False,
    rows: Annotated[
        str | None, typer.Option("--runs", help="The rows of a saved fit, for their figures.")
    ] = None,
    where: WhereOption = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Plan for this cost; default: ten times that of the largest size on the most tokens."
        ),
    ] = None,
    quantize_to: Annotated[
        list[str] | None,
        typer.Option(help="Also: how long to train the largest size for this format; repeat it."),
    ] = None,
    interval: Annotated[
        float | None, typer.Option(help="Level of the intervals, default 0.9; a saved fit has its own.")
    ] = None,
    title: Annotated[str, typer.Option(help="Of the report.")] = "Scaling report",
    figures: Annotated[Path | None, typer.Option(help="Folder for the figures as SVG, PNG and PDF.")] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Also figures that fit again, like profiles of the constants.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """Write one page of answers, evidence and methods that opens from disk, offline; or Markdown.

    * `bitlaw report runs.csv -o report.html --budget 1e21`
    * `bitlaw report runs.csv --law kumar --compare --quantize-to int4`
    * `bitlaw report fit.json -o report.md`: what can be said without the rows
    """
    from ..report import write_report
    from ..report.write import is_text
    from ..runs import is_address

    is_text(out)  # refused before anything is fitted
    how: dict[str, Any] = {"title": title, "figure_folder": figures, "thorough": thorough}
    flags = [
        ("--out", out),
        *(("--law", name) for name in law or ()),
        *(("--where", condition) for condition in where or ()),
        ("--compare", compare),
        ("--runs", rows),
    ]
    flags += [("--budget", budget), *(("--quantize-to", name) for name in quantize_to or ())]
    flags += [
        ("--interval", interval),
        ("--title", title if title != "Scaling report" else None),
        ("--figures", figures),
        ("--thorough", thorough),
    ]
    if runs.endswith(".json"):
        if interval is not None:
            raise ConfigError("a saved fit has its intervals already; drop --interval, or fit again with it")
        if rows is None and (figures is not None or thorough):
            raise ConfigError("figures are of rows; name those of the fit, like --runs runs.csv")
        with working("reading the fit"):
            table, fitted, comparison = _saved(runs, rows, law, compare, where or [])
        shown, how["planner"] = runs, ("bitlaw", "plan", "--fit", runs)
    else:
        if rows is not None:
            raise ConfigError("--runs is for the rows of a saved fit; name the fit, or the rows alone")
        level = LEVEL if interval is None else interval
        with working("fitting"):
            table, fitted, comparison = _fitted(runs, law or ["kumar"], compare, where or [], level)
        shown = table.source if is_address(runs) else runs  # a page is passed on; a password is not
        saving = ["bitlaw", "fit", path(shown), "--law", (law or ["kumar"])[0], "--save", "fit.json"]
        saving += [] if interval is None else ["--interval", f"{interval:g}"]
        saving += [word for condition in where or () for word in ("--where", condition)]
        how |= {"planner": ("bitlaw", "plan", "--fit", "fit.json"), "before": join(saving)}
    how["command"] = command_line("report", shown, *flags)
    with working("planning and drawing"):
        plans = list(_plans(fitted, budget, quantize_to or []))
        how["budget"] = None if budget is None else parse_quantity(budget, "flops")
        write_report(out, table, fitted, comparison=comparison, plans=plans, **how)
    if json_:
        print_json({"report": str(out)})
    else:
        print(f"Wrote {out}")


def _fitted(
    runs: str, named: list[str], every: bool, conditions: list[str], interval: float
) -> tuple[Runs, Fit, Comparison | None]:
    from .. import laws
    from ..fitting import examine
    from ..runs import read_runs, where

    table = where(read_runs(runs), conditions)
    fitted, comparison = examine(laws.get(named[0]), table, interval=interval)
    if every or len(named) > 1:
        return table, *_compared(table, fitted, None if every else named)
    return table, fitted, comparison


def _compared(table: Runs, fitted: Fit, named: list[str] | None) -> tuple[Fit, Comparison | None]:
    """Laws on the rows of a fit, or a note why they cannot be compared: the fit has an answer all the same."""
    from ..fitting import compare

    try:
        return fitted, compare(table, named, count=fitted.counting, interval=fitted.level)
    except FitError as error:
        return replace(fitted, notes=(*fitted.notes, f"no laws were compared: {error}")), None


def _saved(
    path: str, rows: str | None, law: list[str] | None, every: bool, conditions: list[str]
) -> tuple[Runs | None, Fit, Comparison | None]:
    from ..fitting import load_fit
    from ..runs import read_runs, where

    if law:
        raise ConfigError("a saved fit has its law already; drop --law, or name the rows instead of the fit")
    if every and rows is None:
        raise ConfigError("laws are compared on rows; give those of the fit with --runs")
    if conditions and rows is None:
        raise ConfigError("--where chooses among rows; give those of the fit with --runs, or leave it out")
    fitted, table = load_fit(path), None if rows is None else where(read_runs(rows), conditions)
    if table is not None and every:
        return table, *_compared(table, fitted, None)
    return table, fitted, None


def _plans(fitted: Fit, budget: str | None, quantize_to: list[str]) -> list[Plan]:
    """What was asked; where no budget was said, the best model for a sensible one, if the law has an answer."""
    from ..planning import plan
    from ..planning.source import SENSIBLE, sensible_budget, why_not_plannable

    level = fitted.level
    found = [plan(fitted, budget=budget, interval=level)] if budget is not None else []
    if budget is None and not why_not_plannable(fitted.law):
        try:
            flops = sensible_budget(fitted.ranges)
            answer = plan(fitted, budget=flops, interval=level)
            said = f"no budget was given: {format_quantity(flops, 'flops')} is {SENSIBLE} times what the largest size "
            said += "on the most tokens of the rows costs"
            found.append(replace(answer, notes=(said, *answer.notes)))
        except BitlawError:  # nobody asked
            pass
    if quantize_to and (why := why_not_plannable(fitted.law)):
        raise ConfigError(
            f"--quantize-to: {fitted.law.name} says nothing of a size quantised after training: {why}"
        )
    largest = fitted.ranges["params"][1] if quantize_to else None
    return found + [plan(fitted, params=largest, quantize_to=name, interval=level) for name in quantize_to]
