"""The verbs that judge laws: compare, protocol, backtest, shift, isoflop, downstream, forecast, score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError, nearest
from .common import (
    CountOption,
    IntervalOption,
    JsonFlag,
    RunsArgument,
    WhereOption,
    counted,
    rows_of,
    show,
    working,
)

if TYPE_CHECKING:
    from ..fitting.split import Split

LawOption = Annotated[str, typer.Option(help="See `bitlaw laws list`, or a .toml file of your own.")]
SPLITS = ("largest", "longest", "lowest-bits")


def compare(
    runs: RunsArgument,
    law: Annotated[
        list[str] | None, typer.Option(help="A law to compare; may be given often. Default: all that fit.")
    ] = None,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{', '.join(SPLITS)}, of several like largest:3, or cheapest:0.5 for all but the cheapest half; "
            "may be given often. Default: all; with --law, largest."
        ),
    ] = None,
    gaps: Annotated[bool, typer.Option("--gaps", help="Compare gaps of quantisation, not losses.")] = False,
    criteria: Annotated[bool, typer.Option("--criteria", help="Also give BIC of a fit to all rows.")] = False,
    where: WhereOption = None,
    count: CountOption = "as_given",
    interval: IntervalOption = 0.9,
    json_: JsonFlag = False,
) -> None:
    """Rank laws by their error on rows held out, beside guesses without a law.

    Example: `bitlaw compare runs.csv --law kumar --law efficiency --hold-out lowest-bits`
    """
    from ..fitting import compare as rank

    splits = [_split(name) for name in hold_out or ()]
    with working("looking at the rows") as tell:
        found = rank(
            rows_of(runs, where),
            law or None,
            what="gap" if gaps else "loss",
            hold_out=splits or None,
            count=counted(count),
            interval=interval,
            criteria=criteria,
            on_law=lambda share, name: tell(f"fitting {name} ({share:.0%} done)"),
        )
    show(found, json_)


def _split(text: str) -> Split:
    """A split as it is written: `largest`, `longest:2`, `cheapest:0.5`."""
    from ..fitting import cheapest, largest, longest, lowest_bits

    made = {"largest": largest, "longest": longest, "lowest-bits": lowest_bits}
    name, _, count = text.partition(":")
    try:
        if name == "cheapest":
            return cheapest(float(count))
        if name in made:
            return made[name](int(count) if count else 1)
    except ValueError:
        raise ConfigError(
            f"--hold-out {text[:40]}: after the colon stands a number, like largest:3 or cheapest:0.5"
        ) from None
    raise ConfigError(f"unknown split {text[:40]!r}; {nearest(text[:40], [*made, 'cheapest:0.5'])}")


def protocol(
    runs: RunsArgument,
    law: LawOption = "chinchilla",
    cut: Annotated[
        float | None, typer.Option(help="Share of each run to leave out at its beginning; default: chosen.")
    ] = None,
    last: Annotated[float, typer.Option(help="Share of the target's training that is predicted.")] = 0.3,
    where: WhereOption = None,
    count: CountOption = "as_given",
    json_: JsonFlag = False,
) -> None:
    """Judge a law on a family of models: largest left out, baselines, how few runs are enough.

    Example: `bitlaw protocol runs.csv --law chinchilla`
    """
    from ..fitting import protocol as judge

    show(judge(law, rows_of(runs, where), cut=cut, last=last, count=counted(count)), json_)


def backtest(
    runs: RunsArgument,
    law: LawOption = "chinchilla",
    share: Annotated[
        list[float] | None, typer.Option(help="Share of the runs to fit, cheapest first; may be given often.")
    ] = None,
    where: WhereOption = None,
    count: CountOption = "as_given",
    json_: JsonFlag = False,
) -> None:
    """Predict the costlier runs from the cheaper ones, as if they had not been trained.

    Example: `bitlaw backtest runs.csv --law kumar --share 0.5`
    """
    from ..fitting import backtest as test

    show(test(law, rows_of(runs, where), shares=share or (0.3, 0.5, 0.7, 0.9), count=counted(count)), json_)


def shift(
    a: Annotated[str, typer.Argument(help="Runs of the first arm.")],
    b: Annotated[str, typer.Argument(help="Runs of the second arm.")],
    law: LawOption = "chinchilla",
    where: WhereOption = None,
    count: CountOption = "as_given",
    interval: IntervalOption = 0.9,
    json_: JsonFlag = False,
) -> None:
    """Test whether a law differs between two sets of runs: another optimiser, corpus or format.

    Example: `bitlaw shift adamw.csv muon.csv --law chinchilla`
    """
    from ..fitting import shift as compare_arms

    arms = (rows_of(arm, where) for arm in (a, b))
    show(compare_arms(law, *arms, count=counted(count), interval=interval), json_)


def isoflop(
    runs: RunsArgument,
    approach: Annotated[int, typer.Option(min=1, max=2, help="1: envelope; 2: parabolas.")] = 2,
    budget: Annotated[
        list[str] | None, typer.Option(help="A budget like 1e19; may be given often. Default: found.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="How far a row's compute may lie from its budget, as a share.")
    ] = 0.1,
    where: WhereOption = None,
    count: CountOption = "as_given",
    interval: IntervalOption = 0.9,
    json_: JsonFlag = False,
) -> None:
    """Find how optimal size and tokens grow with compute, without a law of the loss (IsoFLOP).

    Example: `bitlaw isoflop runs.csv --approach 2 --budget 1e18 --budget 1e19 --budget 1e20`
    """
    from ..fitting import isoflop as find
    from ..units import parse_quantity

    budgets = [parse_quantity(text, "flops") for text in budget] if budget else None
    asked = {"count": counted(count), "interval": interval, "tolerance": tolerance}
    found = find(rows_of(runs, where), approach, budgets, **asked)
    show(found, json_)


def forecast(
    fit: Annotated[Path, typer.Argument(help="A fit that `bitlaw fit --save` wrote.")],
    params: Annotated[str | None, typer.Option(help="Model size, like 8B.")] = None,
    tokens: Annotated[str | None, typer.Option(help="Training tokens, like 200B.")] = None,
    unique_tokens: Annotated[
        str | None, typer.Option(help="Distinct tokens among them, for laws of repeated data.")
    ] = None,
    w: Annotated[
        str | None, typer.Option(help='Format of the weights in training, like int4 or "int4 group128".')
    ] = None,
    a: Annotated[str | None, typer.Option(help="Format of the activations.")] = None,
    kv: Annotated[str | None, typer.Option(help="Format of keys and values.")] = None,
    quantize_to: Annotated[str | None, typer.Option(help="Weights after training, like int4.")] = None,
    pin: Annotated[Path | None, typer.Option(help="Keep the forecast, for `bitlaw score`.")] = None,
    json_: JsonFlag = False,
) -> None:
    """Predict the loss of one run, with the interval it should fall in; pin it before you train.

    Example: `bitlaw forecast fit.json --params 1B --tokens 20B --w int4 --pin 1b.json`
    """
    from ..fitting import forecast as predict
    from ..fitting import load_fit
    from ..planning.choice import read_by
    from ..units import parse_quantity

    source = load_fit(fit)
    sizes = {"params": params, "tokens": tokens}
    missing = [name for name, text in sizes.items() if text is None and name in source.law.columns]
    if missing:
        raise ConfigError(f"{source.law.name} reads {missing[0]} too; add --{missing[0]}")
    formats = {"w": w, "a": a, "kv": kv, "post": quantize_to}
    inputs = {name: parse_quantity(text, name) for name, text in sizes.items() if text is not None}
    if unique_tokens is not None:
        inputs["unique_tokens"] = parse_quantity(unique_tokens, "tokens")
    named = {part: text for part, text in formats.items() if text is not None}
    found = predict(source, **inputs, **read_by(source.law, named))
    if pin is not None:
        found.save(pin)
    show(found, json_)
    if pin is not None and not json_:
        print(f"Pinned to {pin}; when the run has finished: bitlaw score {pin} LOSS")


def score(
    pinned: Annotated[Path, typer.Argument(help="A forecast that `bitlaw forecast --pin` wrote.")],
    loss: Annotated[float, typer.Argument(help="What the run came to, in nats per token.")],
    json_: JsonFlag = False,
) -> None:
    """Score a pinned forecast against the run that has finished.

    Example: `bitlaw score 1b.json 2.731`
    """
    from ..fitting import load_forecast

    show(load_forecast(pinned).score(loss), json_)


def downstream(
    runs: RunsArgument,
    error: Annotated[
        str, typer.Option(help="Which: error (the mean), error_next, error_keyword, ... of `runs schema`.")
    ] = "error",
    margin: Annotated[
        float, typer.Option(help="Share of answers up to which being off the curve does not matter.")
    ] = 0.01,
    sizes: Annotated[int, typer.Option(min=1, help="How many of the largest sizes are held out.")] = 1,
    figures: Annotated[Path | None, typer.Option(help="Folder for the figure as SVG, PNG and PDF.")] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            help="Keep the law that predicted held-out rows best as JSON, for `bitlaw plan --errors`."
        ),
    ] = None,
    where: WhereOption = None,
    interval: IntervalOption = 0.9,
    json_: JsonFlag = False,
) -> None:
    """Fit errors on tasks as a function of the loss, and say whether quantised models obey it.

    The curve is fitted to rows of which nothing is quantised, beside a straight line. Rows trained in low precision, or
    quantised after training, are compared with it at their own loss.

    * `bitlaw downstream runs.csv --error error_keyword`
    * `bitlaw downstream runs.csv --where "method in gptq,none" --figures figures`
    * `bitlaw downstream runs.csv --save errors.json`: for `bitlaw plan --fit fit.json --errors errors.json`
    """
    from ..fitting import downstream as judge
    from ..fitting import largest

    table = rows_of(runs, where)
    with working("fitting"):
        found = judge(table, error, margin=margin, hold_out=largest(sizes), interval=interval)
    if figures is not None:
        from ..report.figures import error_against_loss, write_figures

        write_figures(figures, [error_against_loss.chart(found)])
    if save is not None:
        found.best.save(save)
    show(found, json_)


VERBS = (compare, protocol, backtest, shift, isoflop, downstream, forecast, score)
