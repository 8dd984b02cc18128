"""The verb that answers: how many parameters, tokens and bits?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from .common import JsonFlag, WhereOption, rows_of, show


def _option(panel: str, help: str, *flags: str) -> Any:
    return typer.Option(*flags, help=help, rich_help_panel=panel)


SPEND, GIVEN, FORMATS = "What there is to spend", "What is given", "Formats to choose among"
SERVE, WITH, SURE = "Serving", "Hardware", "The law, and how sure"
BACK = "How long until a quantised model is back"


def plan(
    law: Annotated[str | None, _option(SURE, "Published constants, like kumar-2024.")] = None,
    fit: Annotated[Path | None, _option(SURE, "A fit that `bitlaw fit --save` wrote.")] = None,
    record: Annotated[
        Path | None, _option(BACK, "Folder that `bitlaw task recovery` wrote, in place of a law.")
    ] = None,
    learning_rate: Annotated[
        float | None, _option(BACK, "Of the training that brings the loss back.")
    ] = None,
    within: Annotated[
        float | None, _option(BACK, "Nats per token above the loss before quantisation.")
    ] = None,
    momentum: Annotated[float | None, _option(BACK, "Momentum of that training; of Adam, beta1.")] = None,
    batch: Annotated[
        int | None, _option(BACK, "Examples a step; default: all, for Adam those of the record.")
    ] = None,
    steps: Annotated[int | None, _option(BACK, "Most steps that are looked at; default 1,000.")] = None,
    runs: Annotated[
        str | None,
        _option(
            SURE,
            "The fit's rows (file, folder, postgresql://me@db/runs): laws and objectives that fit as well are asked.",
        ),
    ] = None,
    where: WhereOption = None,
    other: Annotated[
        list[str] | None, _option(SURE, "Further published constants to ask; repeat it.")
    ] = None,
    errors: Annotated[
        Path | None,
        _option(SURE, "What `bitlaw downstream --save` wrote: errors on tasks are told too."),
    ] = None,
    budget: Annotated[str | None, _option(SPEND, 'Training cost, like 1e22 or "1e22 flops".')] = None,
    hours: Annotated[
        float | None, _option(SPEND, "Budget as hours on the clock, all devices at work.")
    ] = None,
    money: Annotated[float | None, _option(SPEND, "Budget in USD.")] = None,
    loss: Annotated[
        float | None, _option(SPEND, "Loss to be reached as cheaply as can be, in nats per token.")
    ] = None,
    params: Annotated[str | None, _option(GIVEN, "Model size, like 8B.")] = None,
    tokens: Annotated[str | None, _option(GIVEN, "Training tokens, like 200B.")] = None,
    max_params: Annotated[str | None, _option(GIVEN, "Largest size.")] = None,
    max_tokens: Annotated[str | None, _option(GIVEN, "Most training tokens.")] = None,
    unique_tokens: Annotated[
        str | None, _option(GIVEN, "Distinct tokens there are; muennighoff-2023 repeats them.")
    ] = None,
    batch_tokens: Annotated[str | None, _option(GIVEN, "Tokens a step, for laws of the trajectory.")] = None,
    measured_gap: Annotated[
        float | None, _option(GIVEN, "Loss in low precision less that in 16 bits: is it normal?")
    ] = None,
    bits: Annotated[
        list[str] | None,
        _option(
            FORMATS, 'In training: int8, bf16, w4a8, "w=nvfp4, a=e4m3"; repeat it for several; any; each.'
        ),
    ] = None,
    quantize_to: Annotated[
        list[str] | None,
        _option(FORMATS, 'Weights after training: int4, "int4 group128"; repeat it; any; lowest.'),
    ] = None,
    max_bits: Annotated[float, _option(FORMATS, "Most bits considered, where formats are not named.")] = 16.0,
    max_gap: Annotated[
        float | None,
        _option(
            FORMATS, "With --quantize-to: nats per token that it may cost; with --params, at which tokens."
        ),
    ] = None,
    memory: Annotated[str | None, _option(SERVE, 'For weights and cache, like "16 GB" or "16 MB".')] = None,
    context: Annotated[str | None, _option(SERVE, "Tokens of a sequence that are cached, like 8k.")] = None,
    sequences: Annotated[float, _option(SERVE, "Served at once.")] = 1.0,
    cache: Annotated[
        str | None, _option(SERVE, "Layers, heads of keys and values, their width, like 32,8,128.")
    ] = None,
    kv: Annotated[str | None, _option(SERVE, "Format of cached keys and values, like int8.")] = None,
    speed: Annotated[float | None, _option(SERVE, "Tokens a second, of all sequences.")] = None,
    token_flops: Annotated[
        str | None, _option(SERVE, "What a served token may cost, in 16-bit FLOPs.")
    ] = None,
    served: Annotated[
        str | None, _option(SERVE, "Tokens in the model's lifetime: their cost counts.")
    ] = None,
    hardware: Annotated[
        str | None, _option(WITH, "A name of `bitlaw hardware`, or a TOML file: costs go by its rates.")
    ] = None,
    devices: Annotated[float, _option(WITH, "How many.")] = 1.0,
    achieved: Annotated[
        str | None, _option(WITH, "Share of the peak that runs reach, like 0.4 or 40%, or rows to tell it.")
    ] = None,
    throughput: Annotated[
        str | None, _option(WITH, "Measured tokens a second at --params and --bits, instead.")
    ] = None,
    speedup: Annotated[
        list[str] | None, _option(WITH, "Measured over 16 bits, like fp8=1.4; repeat it.")
    ] = None,
    next_: Annotated[
        str | None, _option(SURE, "FLOPs to spend on the runs that would narrow this answer most.", "--next")
    ] = None,
    next_out: Annotated[Path | None, _option(SURE, "Folder for these runs as sweeps to be run.")] = None,
    tolerance: Annotated[
        float, _option(SURE, "Share of the reducible loss that near-optimal choices may cost.")
    ] = 0.01,
    interval: Annotated[float, _option(SURE, "Level of the intervals.")] = 0.9,
    toml: Annotated[
        Path | None,
        typer.Option(
            help="Write the training configuration, up to 10B: of the hedge over draws, or the best model."
        ),
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Answer: how many parameters, tokens and bits, for training, for serving, or for both?

    * `bitlaw plan --law kumar-2024 --budget 1e22`: the best model for a budget
    * `bitlaw plan --law kumar-2024 --budget 1e22 --bits int8`: the same, trained in 8 bits
    * `bitlaw plan --law kumar-2024 --budget 1e22 --bits each`: which part should keep its bits
    * `bitlaw plan --fit fit.json --params 8B --quantize-to int4`: tokens beyond which training hurts
    * `bitlaw plan --fit fit.json --params 8B --tokens 15T --quantize-to lowest`: the fewest safe bits
    * `bitlaw plan --law kumar-2024 --memory "16 GB" --context 8k --tokens 2T --bits any`: the best model that fits
    * `bitlaw plan --law chinchilla-2024 --loss 2.2 --served 1T`: the cheapest way to a loss, serving included
    * `bitlaw plan --law kumar-2024 --hours 168 --hardware h100 --devices 64 --achieved 0.4`: a week on a cluster
    * `bitlaw plan --law kaplan-2020-trajectory --params 1B --loss 2.5 --batch-tokens 500k`: steps and tokens
    * `bitlaw plan --fit fit.json --params 1B --tokens 20B --bits w4 --measured-gap 0.06`: is my gap normal
    * `bitlaw plan --fit fit.json --budget 1e22 --next 1e18 --next-out next`: which runs would narrow that
    * `bitlaw plan --record record --learning-rate 0.05 --within 0.01 --batch 8`: steps until a model is back
    """
    from rich.console import Console

    from ..fitting import Fit, load_fit
    from ..laws import published
    from ..planning import next_runs, read_record
    from ..planning import plan as answer

    if sum(x is not None for x in (law, fit, record)) != 1:
        raise ConfigError(
            "name one of --law (published constants, like kumar-2024), --fit (a saved fit) and --record (a model's)"
        )
    asked = (
        load_fit(fit)
        if fit is not None
        else read_record(record)
        if record is not None
        else published(law or "")
    )
    question: dict[str, Any] = {
        "budget": budget,
        "hours": hours,
        "money": money,
        "loss": loss,
        "params": params,
        "tokens": tokens,
        "bits": _one_or_more(bits),
        "quantize_to": _one_or_more(quantize_to),
        "max_params": max_params,
        "max_tokens": max_tokens,
        "unique_tokens": unique_tokens,
        "batch_tokens": batch_tokens,
        "memory": memory,
        "token_flops": token_flops,
        "speed": speed,
        "served": served,
        "context": context,
        "sequences": sequences,
        "cache": None if cache is None else _numbers(cache),
        "kv": kv,
        "hardware": hardware,
        "devices": devices,
        "achieved": None if achieved is None else _share(achieved),
        "throughput": throughput,
        "speedups": None if not speedup else dict(map(_factor, speedup)),
        "max_gap": max_gap,
        "max_bits": max_bits,
        "measured_gap": measured_gap,
        "within": within,
        "learning_rate": learning_rate,
        "momentum": momentum,
        "batch": batch,
        "steps": steps,
        "errors": None if errors is None else load_fit(errors),
        "tolerance": tolerance,
    }
    if where and runs is None:
        raise ConfigError("--where chooses among the rows of --runs; name them, or leave it out")
    if next_ is None and next_out is not None:
        raise ConfigError("--next-out is for the runs of --next; say how many FLOPs there are for them")
    if next_ is not None:
        if not isinstance(asked, Fit):
            raise ConfigError("--next narrows the answer of a fit; name one with --fit")
        if runs is not None or other or toml is not None:
            raise ConfigError("--runs, --other and --toml play no part in --next; drop them")
        design = next_runs(asked, next_, interval=interval, **question)
        show(design, json_)
        for name, text in design.to_toml().items() if next_out is not None else ():
            _write((next_out or Path()) / name, text)
        return
    asking = f"asking the laws that fit {runs} about as well" if runs else "searching"
    with Console(stderr=True).status(asking):
        rows = None if runs is None else rows_of(runs, where)
        result = answer(asked, runs=rows, others=other or (), interval=interval, **question)
    show(result, json_)
    if toml is not None:
        _write(toml, result.to_toml())


def _write(path: Path, text: str) -> None:
    from ..files import whole

    with whole(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
    print(f"Wrote {path}", file=sys.stderr)


def _one_or_more(names: list[str] | None) -> str | list[str] | None:
    return names[0] if names and len(names) == 1 else names or None


def _numbers(text: str) -> tuple[int, int, int]:
    try:
        layers, heads, width = (int(word) for word in text.split(","))
    except ValueError:
        raise ConfigError(f"--cache is three whole numbers, like 32,8,128, not {text!r}") from None
    return layers, heads, width


def _share(text: str) -> float | str:
    share = text.removesuffix("%")
    try:
        return float(share) / (1 if share == text else 100)
    except ValueError:
        return text


def _factor(text: str) -> tuple[str, float]:
    name, _, factor = text.partition("=")
    try:
        return name, float(factor)
    except ValueError:
        raise ConfigError(
            f"--speedup names a format and how much faster it is, like fp8=1.4, not {text!r}"
        ) from None
