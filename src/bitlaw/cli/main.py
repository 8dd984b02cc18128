"""The verbs, and how errors become one sentence and an exit code."""

from __future__ import annotations

import logging
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import BitlawError, ConfigError
from ..shell import printable
from .allocate import allocate
from .common import (
    CorpusOption,
    CountOption,
    IntervalOption,
    JsonFlag,
    RunsArgument,
    WhereOption,
    command_line,
    counted,
    print_json,
    rows_of,
    working,
)
from .corpus import corpus_app
from .emulate import emulate
from .explore import explore
from .formats import formats
from .generate import generate
from .hardware import hardware
from .judge import VERBS
from .look import laws_app
from .plan import plan
from .quantize import quantize
from .runs import runs_app
from .show import report
from .sweep import sweep_app
from .task import task_app
from .train import train
from .tune import tune
from .verify import verify_study

app = typer.Typer(
    name="bitlaw",
    help="How big, how many tokens, how many bits: precision-aware scaling laws, with error bars.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def main() -> None:
    """Run the command line; errors end with one sentence and the exit code of their kind."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no UTF-8
    try:
        app()
    except BitlawError as error:
        print(f"bitlaw: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    """Measure, fit, plan, show."""
    if version:
        from importlib.metadata import version as installed

        print(installed("bitlaw"))
        raise typer.Exit


def study(
    source: Annotated[
        str,
        typer.Argument(
            help="`quick`, or a TOML file like it. With --verify: `quick`, `thousandth`, or the folder or table of a "
            "study that was run."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for rows, fit and report; default study-NAME, with --verify verify-NAME-N-SEED."
        ),
    ] = None,
    corpus: CorpusOption = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed gives other models.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default one a core.")] = None,
    verify: Annotated[
        int | None,
        typer.Option(
            min=1, help="Make this many of its cells again, drawn at random by --seed, and compare losses."
        ),
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Run a whole study: train, quantise, fit, plan, report; or retrain random cells of one, and compare.

    Finished models are stored as they come. Ctrl-C loses nothing: run the same command to go on.

    Example: `bitlaw study quick --corpus ~/notes`

    Example: `bitlaw study thousandth --verify 3`
    """
    if verify is not None:
        return verify_study(source, verify, out, corpus, seed or 0, workers, json_)
    if source == "thousandth":
        raise ConfigError(
            "the thousandth study takes days; add --verify 3 to make three of its cells again, or make it all with "
            "studies/thousandth/run.py of the repository"
        )
    from ..study import read_study, run_study
    from .progress import Reporter

    described = read_study(source, seed)
    folder = out or Path(f"study-{described.name}")
    command = command_line("study", source, ("--out", out), ("--corpus", corpus), ("--seed", seed))
    with Reporter() as reporter:
        try:
            outcome = run_study(
                described, folder, corpus=corpus, workers=workers, command=command, on_progress=reporter
            )
        except KeyboardInterrupt:
            reporter.close()
            print(
                f"Stopped. What is finished is stored in {folder}; run the same command to go on.",
                file=sys.stderr,
            )
            raise typer.Exit(130) from None
    if json_:
        print_json(
            {
                "fit": _without_draws(outcome.fit.as_json()),
                "plans": [p.as_json() for p in outcome.plans],
                "report": str(outcome.report),
            }
        )
        return
    print(outcome.fit, *([outcome.comparison] if outcome.comparison else []), *outcome.plans, sep="\n\n")
    print(f"\nReport: {outcome.report}   Rows: {folder / 'runs.sqlite'}   Fit: {folder / 'fit.json'}")


def fit(
    runs: RunsArgument,
    law: Annotated[str, typer.Option(help="See `bitlaw laws list`.")] = "kumar",
    save: Annotated[Path | None, typer.Option(help="Keep the fit as JSON, for `bitlaw plan --fit`.")] = None,
    hold_out: Annotated[bool, typer.Option(help="Also fit without the largest size, and predict it.")] = True,
    objective: Annotated[str, typer.Option(help="huber, lad, log-squares or squares.")] = "huber",
    delta: Annotated[
        float | None, typer.Option(help="Huber's delta, like 1e-3; default: from the noise of the rows.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Of the intervals: residual, wild, cluster, student or profile.")
    ] = None,
    borrow: Annotated[
        str | None, typer.Option(help="Take all other constants from a saved fit (.json) or published ones.")
    ] = None,
    free: Annotated[
        list[str] | None, typer.Option(help="A parameter not to be borrowed; may be given often.")
    ] = None,
    fix: Annotated[
        list[str] | None, typer.Option(help="Hold a constant, like E=1.69; may be given often.")
    ] = None,
    draws: Annotated[int, typer.Option(min=0, help="Of the bootstrap; 0 for no intervals.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Of starting points and draws.")] = 0,
    where: WhereOption = None,
    count: CountOption = "as_given",
    interval: IntervalOption = 0.9,
    json_: JsonFlag = False,
) -> None:
    """Fit a law to a table of runs.

    The table needs columns params, tokens and loss; formats go in w_format, a_format, kv_format and
    post_format (like int4; empty means 16 bit). `bitlaw runs schema` lists all columns.

    * `bitlaw fit runs.csv --law kumar --save fit.json`
    * `bitlaw fit two-runs.csv --law efficiency --borrow fit.json`: only what the lender does not have is fitted
    * `bitlaw fit runs.csv --where "params >= 30M" --where "w_format in bf16,int8"`: these rows alone
    """
    from .. import laws
    from ..fitting import examine, load_fit
    from ..fitting import fit as fit_law

    table = rows_of(runs, where)
    how: dict[str, Any] = {"objective": objective, "delta": delta, "method": method, "free": free or ()}
    if borrow is not None:
        how["borrow"] = load_fit(borrow) if borrow.endswith(".json") else laws.published(borrow)
    if fix:
        how["fix"] = dict(map(_constant, fix))
    how |= {"count": counted(count), "interval": interval, "draws": draws, "seed": seed}
    with working(f"fitting {law}"):
        result, comparison = examine(law, table, **how) if hold_out else (fit_law(law, table, **how), None)
    if save is not None:
        result.save(save)
    if json_:
        print_json(_without_draws(result.as_json()))
        return
    print(result, *([comparison] if comparison else []), sep="\n\n")
    if save is not None:
        from ..planning.source import sensible_budget, why_not_plannable

        words = command_line(
            "plan", [], ("--fit", save), ("--budget", f"{sensible_budget(result.ranges):.3g}")
        )
        use = f"; use it with: {words}" if not why_not_plannable(result.law) else ""
        print(f"\nSaved to {printable(str(save))}{use}")


DECIDE, JUDGE, READ, LAB = "Decide", "Fit and judge", "Look up and import", "Train, quantise, generate"
for panel, verbs in {
    DECIDE: (plan, report, explore),
    JUDGE: (fit, *VERBS),
    READ: (formats, hardware),
    LAB: (study, train, tune, quantize, generate, emulate, allocate),
}.items():
    for verb in verbs:
        app.command(rich_help_panel=panel)(verb)
for name, group, panel in (
    ("runs", runs_app, READ),
    ("laws", laws_app, READ),
    ("corpus", corpus_app, READ),
    ("sweep", sweep_app, LAB),
    ("task", task_app, LAB),
):
    app.add_typer(group, name=name, rich_help_panel=panel)


def _constant(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise ConfigError(f"cannot read --fix {text!r}; write NAME=VALUE, like E=1.69") from None


def _without_draws(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != "draws"}
