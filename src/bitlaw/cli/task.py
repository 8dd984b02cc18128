"""The verbs that measure low precision on tasks beside language modelling."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError, nearest
from ..units import parse_quantity, percent
from .common import CorpusOption, IntervalOption, JsonFlag, print_json
from .recovery import recovery

if TYPE_CHECKING:
    from ..lab.tasks import Clicks, Method, Score
    from ..lab.tasks.clickthrough import Line

task_app = typer.Typer(
    no_args_is_help=True, help="Measure low precision on other tasks than language modelling, or make one."
)
WAYS = ("float32", "lsq", "lpt", "alpt")
ROUNDINGS = ("stochastic", "nearest")


@task_app.callback()
def _group() -> None:
    """Measure low precision on other tasks than language modelling."""


task_app.command()(recovery)


@task_app.command()
def clicks(
    data: Annotated[
        str, typer.Option(help="synthetic, criteo:PATH, avazu:PATH, or a CSV with a header; gzip too.")
    ] = "synthetic",
    target: Annotated[str, typer.Option(help="Of a CSV: the column of 0 and 1.")] = "click",
    methods: Annotated[str, typer.Option(help="Of float32, lsq, lpt, alpt.")] = "float32,lsq,lpt,alpt",
    bits: Annotated[str, typer.Option(help="Of the integers, 2 to 8.")] = "8,4,2",
    rounding: Annotated[
        str, typer.Option(help="Of what lpt and alpt write back: stochastic, nearest.")
    ] = "stochastic,nearest",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method.")] = 5,
    rows: Annotated[
        int, typer.Option(min=1000, help="Used in all; of a file, drawn from its first million.")
    ] = 150_000,
    epochs: Annotated[int, typer.Option(min=1, help="Over the rows that are trained on.")] = 3,
    rate: Annotated[float, typer.Option(min=1e-6, max=1, help="Adam's, for all methods.")] = 1e-3,
    interval: IntervalOption = 0.9,
    json_: JsonFlag = False,
) -> None:
    """Predict clicks from an embedding table that is held in few bits, and compare the AUC with float32's.

    * float32: the table in full precision
    * lsq: floats that are rounded on the way forward, by learned steps; the floats are kept
    * lpt: only integers and fixed steps are kept; every update is written back to integers
    * alpt: as lpt, with a learned step for each row

    Three fifths of the rows are trained on, a fifth is tested on. By the last fifth the range of the first steps and
    the rate of learned ones are chosen, once for each method. Differences are to float32 of the same seed.

    * `bitlaw task clicks --methods float32,lpt --bits 8,4 --seeds 3`
    * `bitlaw task clicks --data criteo:train.txt --rows 1000000`
    """
    if not 0 < interval < 1:
        raise ConfigError(f"--interval {interval:g} is not between 0 and 1; try 0.9")
    chosen = _methods(_words(methods), _words(bits), _words(rounding))

    import torch

    from ..lab.tasks import Training, clickthrough, synthetic
    from ..study import Progress
    from .progress import Reporter

    torch.set_num_threads(1)  # batches are too small for more
    done, stopped = 0, False
    scores: list[Score] = []
    with Reporter() as reporter:
        try:
            reporter(Progress(0, 1, f"reading {data}"))
            table = None if data == "synthetic" else _read(data, target, max(rows, 1_000_000))
            used = rows if table is None else min(rows, len(table.labels))
            total = clickthrough.runs_needed(chosen, seeds) * (used - 2 * (used // 5)) * epochs

            def on_rows(count: int) -> None:
                nonlocal done
                done += count
                reporter(Progress(done, total, f"training: {len(scores)} of {seeds * len(chosen)} scored"))

            for score in clickthrough.compare(
                lambda seed: table or synthetic(seed, rows),
                chosen,
                range(seeds),
                Training(rate=rate, epochs=epochs),
                rows,
                on_rows,
            ):
                scores.append(score)
        except KeyboardInterrupt:
            stopped = True
    if stopped:
        print(f"Stopped after {len(scores)} of {seeds * len(chosen)} scores.", file=sys.stderr)
    if not scores:
        raise typer.Exit(130)
    lines = clickthrough.summarise(scores, interval)
    if json_:
        runs = [asdict(score) for score in scores]
        print_json({"level": interval, "methods": [_finite(asdict(line)) for line in lines], "runs": runs})
    else:
        _show(lines, scores, interval)
    if stopped:
        raise typer.Exit(130)


@task_app.command()
def cloze(
    folder: Annotated[
        Path, typer.Option("--out", help="For the task: a YAML file and its questions.")
    ] = Path("cloze"),
    text: CorpusOption = None,
    questions: Annotated[int, typer.Option(min=1, help="At most so many.")] = 500,
    choices: Annotated[int, typer.Option(min=2, help="Words in each list.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of places and lists.")] = 0,
    json_: JsonFlag = False,
) -> None:
    """Write a cloze over word lists, from held-out text, as a task of lm-evaluation-harness.

    A word is left out of a text, and the model says which of some words it was. All of a list have one length and about
    one frequency in the domain, and each is right equally often: guessing gets one of the list right.

    * `bitlaw task cloze --text ~/notes --out tasks`
    * `bitlaw quantize ./model --tasks tasks`
    """
    from ..lab.corpus import read_corpus
    from ..lab.tasks import Cloze

    corpus = read_corpus(text)
    made = Cloze.of(corpus.evaluation, corpus.calibration, questions, choices, seed)
    path = made.write(folder)
    if json_:
        print_json(
            {"task": str(path), "questions": len(made.gaps), "choices": choices, "sha256": made.digest}
        )
    else:
        print(f"{len(made.gaps)} questions with {choices} words each, from {corpus.name}: {path}")


@task_app.command()
def speech(
    sizes: Annotated[
        str, typer.Option(help="Parameters of the blocks, with commas between.")
    ] = "5k,10k,20k,40k",
    frames: Annotated[
        str, typer.Option(help="Trained on, 100 a second; the packages hold 0.8M to train on.")
    ] = "50k,100k,200k,400k",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each size and amount.")] = 1,
    scheme: Annotated[
        str, typer.Option(help='Number formats, like "16", "w=int4", "w=int4 channel,a=int8 token".')
    ] = "16",
    ahead: Annotated[int, typer.Option(min=1, help="Frames to the one that is predicted.")] = 3,
    folder: Annotated[Path, typer.Option("--out", help="Of rows and checkpoints.")] = Path("speech"),
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Fetch the packages of speech with apt, and stop.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """Predict frames of recorded speech with a ladder of causal transformers, for laws of another modality.

    The loss is the mean absolute difference to the log-mel frame some steps ahead (autoregressive predictive coding,
    Chung et al. 2019). Rows go to runs.sqlite; what was stopped goes on, from its last checkpoint.

    * `bitlaw task speech --fetch`
    * `bitlaw task speech --sizes 5k,10k,20k,40k --frames 50k,100k,200k,400k --out speech`
    * `bitlaw fit speech/runs.sqlite --law saturating`
    """
    from ..study import Progress
    from .progress import Reporter

    if fetch:
        from ..lab.tasks.audio import PACKAGES, fetch_speech

        with Reporter() as reporter:
            fetch_speech(lambda done, package: reporter(Progress(done, len(PACKAGES), package)))
        return
    wanted = [
        [round(parse_quantity(word, unit)) for word in _words(text)]
        for text, unit in ((sizes, "params"), (frames, "tokens"))
    ]

    import torch

    from ..lab.sweep.speech import cells, run_cells
    from ..lab.tasks.audio import PACKAGES, read_speech, speech_corpus
    from ..runs import Store

    torch.set_num_threads(1)  # batches are too small for more
    done, stopped = 0, False
    with Reporter() as reporter:
        reporter(Progress(0, 1, "reading speech"))
        recordings = [recording for name in PACKAGES for recording in read_speech(name)]
        corpus = speech_corpus("+".join(PACKAGES), recordings)
        configs = cells(corpus, wanted[0], wanted[1], seeds, scheme, ahead)
        store = Store(folder / "runs.sqlite")
        total = sum(c.steps(c.budgets[0]) * c.batch_size * c.seq_len for c in configs)

        def on_frames(count: int) -> None:
            nonlocal done
            done += count
            reporter(Progress(done, total, f"training: {len(configs)} cells"))

        try:
            for _ in run_cells(configs, corpus, store, folder / "checkpoints", on_frames):
                pass
        except KeyboardInterrupt:
            stopped = True
    ours = {config.cell_id(config.branches()[0]) for config in configs}
    told = ("id", "params", "tokens", "w_format", "seed", "status", "loss", "loss_se", "reason")
    rows = [{name: row[name] for name in told} for row in store.runs().frame.to_dicts() if row["id"] in ours]
    store.close()
    if json_:
        print_json({"unit": "frames", "objective": "l1", "cells": len(configs), "rows": rows})
    else:
        for row in rows:
            loss = row["status"] if row["loss"] is None else f"{row['loss']:.4f} ± {row['loss_se']:.4f}"
            print(f"{row['params']:>9,.0f} parameters {row['tokens']:>11,.0f} frames  {loss}")
        print(
            "\n± is the standard error over recordings, which all rows share; the loss is in deviations of a bin."
        )
    if stopped:
        print(f"Stopped with {len(rows)} of {len(configs)} rows; the same command goes on.", file=sys.stderr)
        raise typer.Exit(130)


def _show(lines: list[Line], scores: list[Score], interval: float) -> None:
    """Print one line a method."""
    print(f"{'':22} {'AUC':>17} {'to float32':>19} {'bytes':>12} {'moments':>12} {'lost':>6} {'clip':>7}")
    for line in lines:
        apart = "" if line.difference is None else f"{line.difference:+.4f} ± {line.difference_half:.4f}"
        lost = "" if line.lost is None else f"{line.lost:.1%}"
        clip = "" if line.method.bits is None else f"{line.method.clip:g}"
        print(
            f"{line.method.name:22} {line.auc:>8.4f} ± {line.auc_half:.4f} {apart:>19} {line.table_bytes:>12,.0f} "
            f"{line.moment_bytes:>12,.0f} {lost:>6} {clip:>7}"
        )
    ceilings = [score.ceiling for score in scores if score.ceiling is not None]
    if ceilings:
        print(f"\nThe teacher itself reaches {sum(ceilings) / len(ceilings):.4f}.")
    rows_error = max(score.auc_se for score in scores)
    print(
        f"\n± is half of a {percent(interval)} interval over seeds, by Student's t; over test rows one AUC has a "
        f"standard error of {rows_error:.4f} (DeLong).\nlost: share of the updates that were rounded to nothing."
    )


def _read(data: str, target: str, limit: int) -> Clicks:
    """Read a table by the name of its format, or by its header."""
    from ..lab.tasks import read_avazu, read_criteo, read_table

    kind, _, path = data.partition(":")
    if path and kind in ("criteo", "avazu"):
        return (read_criteo if kind == "criteo" else read_avazu)(path, limit)
    return read_table(data, target, limit=limit)


def _methods(ways: list[str], widths: list[str], roundings: list[str]) -> list[Method]:
    """The methods that are asked for, in order."""
    for words, known in ((ways, WAYS), (roundings, ROUNDINGS)):
        for word in words:
            if word not in known:
                raise ConfigError(f"unknown {word!r}; {nearest(word, known)}")
    for width in widths:
        if width not in tuple("2345678"):
            raise ConfigError(f"--bits {width}: integers have 2 to 8 bits here; try 8,4,2")
    from ..lab.tasks import Method

    found = []
    for way in ways:
        if way == "float32":
            found.append(Method("float32"))
        for width in widths if way != "float32" else ():
            for how in roundings if way in ("lpt", "alpt") else ["nearest"]:
                found.append(Method(way, int(width), how))
    return found


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or len(set(words)) < len(words):
        raise ConfigError(f"cannot read {text!r}: name one or more, each once, with commas between")
    return words


def _finite(line: dict[str, Any]) -> dict[str, Any]:
    """One seed has no interval: JSON knows no infinity."""
    return {key: None if value == float("inf") else value for key, value in line.items()}
