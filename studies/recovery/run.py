"""Quantised models brought back by training, and the steps that this takes predicted before it begins.

    python studies/recovery/run.py          # trains the models first; goes on where it was stopped
    python studies/recovery/read.py         # what the rows say

Weights of the blocks are rounded to nearest, and trained through the rounding (straight through) on fresh windows
(`stream`), or on the windows that were linearised (`fixed`), until the loss of 32 held-out windows is back by 25, 50,
75 % of the gap; `rest` trains embedding, norms and head alone, so that nothing crosses a rounding threshold. The
prediction sees 96 (or 256) training windows and those 32, never a real run. Rates are shares of the inverse of the
largest curvature. Rows go to rows.csv beside this file, and to repeats.csv a second real run of each first one with
other windows.
"""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from models import checkpoints
from torch import Tensor, nn

from bitlaw.formats import Scheme
from bitlaw.lab.corpus import Corpus, batch, read_corpus, spread_windows
from bitlaw.lab.dynamics import linearise, second_moments
from bitlaw.lab.model import Transformer
from bitlaw.lab.precision import apply_scheme
from bitlaw.lab.quantize.apply import linears_of
from bitlaw.planning import Record, read_record, recovery
from bitlaw.planning.descent import Part

FOLDER = Path(tempfile.gettempdir()) / "bitlaw-recovery"
TABLE = Path(__file__).with_name("rows.csv")
FORMATS = ("w2", "w3", "w4")
BACK = (0.25, 0.5, 0.75)
SMALL = 12_000  # parameters
TRAIN, MANY, MEASURED, SEQ, BATCH = 96, 256, 32, 64, 8
STEPS, DIRECTIONS, CLASSES, DRAWS = 300, 24, 64, 20
PROBE, STREAM = 71, 72  # seeds of the order of training windows, apart from that of the models


@dataclass(frozen=True)
class Way:
    """How a model is brought back; `share` of 1 / largest curvature is its rate, or effective rate with momentum."""

    name: str
    share: float
    data: str = "stream"
    momentum: float = 0.0
    windows: int = TRAIN  # that are linearised

    @property
    def kind(self) -> str:
        """What is linearised."""
        return self.name if self.name in ("adam", "rest") else "sgd"

    @property
    def optimizer(self) -> str:
        """As `recovery` calls it."""
        return "adam" if self.name == "adam" else "sgd"


WAYS = (  # the first three for models of all seeds, the last for the smallest of seed 0, the others for all of seed 0
    Way("sgd", 0.5),
    Way("sgd", 0.5, windows=MANY),
    Way("momentum", 0.5, momentum=0.9),
    Way("sgd", 0.5, "fixed"),
    Way("sgd", 0.15),
    Way("adam", 0.5, momentum=0.9),
    Way("rest", 0.5),
    Way("rest", 0.5, windows=MANY),
)
REPEATS = Path(__file__).with_name("repeats.csv")


def mean_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten())


def real(
    model: nn.Module, way: Way, rate: float, corpus: Corpus, goals: list[float], stream: int = STREAM
) -> tuple[list[float], float]:
    """Steps after which the measured loss is first at or below each goal, and seconds of a step."""
    x, y = windows(corpus, way.windows)
    first, seconds, draw = [math.inf] * len(goals), 0.0, torch.Generator().manual_seed(0)
    if way.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(trained(model), rate, (0.9, 0.95))
    else:
        optimizer = torch.optim.SGD(trained(model), rate, way.momentum)
    for step in range(STEPS + 1):
        with torch.no_grad():
            loss = mean_loss(model, x[-MEASURED:], y[-MEASURED:]).item()
        first = [min(old, step if loss <= goal else math.inf) for old, goal in zip(first, goals, strict=True)]
        if step == STEPS or math.isfinite(max(first)) or not math.isfinite(loss):
            break
        began = time.perf_counter()
        if way.data == "fixed":
            some = torch.randint(way.windows, (BATCH,), generator=draw)
            some_x, some_y = x[some], y[some]
        else:
            some_x, some_y = batch(corpus, stream, step, BATCH, SEQ)
        optimizer.zero_grad()
        mean_loss(model, some_x, some_y).backward()
        optimizer.step()
        seconds += time.perf_counter() - began
    return first, seconds / max(1, step)


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def quantised(model: Transformer, scheme: str, way: str = "") -> Transformer:
    """A copy whose weights of the blocks are rounded while it runs."""
    copy = Transformer(model.shape)
    copy.load_state_dict(model.state_dict())
    if way == "rest":
        for block in copy.blocks:
            for linear in linears_of(block).values():
                linear.weight.requires_grad_(False)
    return apply_scheme(copy, Scheme.parse(scheme))


def record(model: nn.Module, corpus: Corpus, way: Way, reference: float) -> tuple[Record, float, float]:
    """The record as the law half reads it, its largest curvature, and seconds."""
    began = time.perf_counter()
    x, y = windows(corpus, way.windows)
    some = slice(0, way.windows)
    found = linearise(
        model,
        x,
        y,
        trained=way.windows,
        reference=reference,
        directions=DIRECTIONS,
        classes=CLASSES,
        second_moments=second_moments(model, x[some], y[some], BATCH) if way.kind == "adam" else None,
    )
    with tempfile.TemporaryDirectory() as folder:
        found.save(Path(folder) / "record")
        read = read_record(Path(folder) / "record")
    sharpest = float(np.linalg.eigvalsh(Part(read, some, DIRECTIONS).curvature())[-1])
    return read, sharpest, time.perf_counter() - began


def rows(
    corpus: Corpus, about: dict[str, int], model: Transformer, scheme: str, ways: list[Way]
) -> list[dict[str, object]]:
    """Some ways of bringing one quantised model back."""
    x, y = (part[-MEASURED:] for part in windows(corpus, TRAIN))
    with torch.no_grad():
        reference, start = (mean_loss(m, x, y).item() for m in (model, quantised(model, scheme)))
    goals = [start - back * (start - reference) for back in BACK]
    records: dict[tuple[str, int], tuple[Record, float, float]] = {}
    out = []
    for way in ways:
        place = way.kind, way.windows
        if place not in records:
            records[place] = record(quantised(model, scheme, way.kind), corpus, way, reference)
        found, sharpest, seconds = records[place]
        rate = way.share / sharpest * (1 - way.momentum if way.name == "momentum" else 1)
        answers, simulated = [], 0.0
        for back, goal in zip(BACK, goals, strict=True):
            with_interval = back == 0.5 and way == WAYS[0]
            began = time.perf_counter()
            answers.append(
                recovery(
                    found,
                    learning_rate=rate,
                    target=goal,
                    optimizer=way.optimizer,
                    momentum=way.momentum,
                    batch=BATCH,
                    steps=STEPS,
                    draws=DRAWS if with_interval else 0,
                    lazy=math.inf,
                )
            )
            simulated = max(simulated, 0 if with_interval else time.perf_counter() - began)
        steps, a_step = real(quantised(model, scheme, way.kind), way, rate, corpus, goals)
        for back, answer, count in zip(BACK, answers, steps, strict=True):
            out.append(
                about
                | {
                    "format": scheme,
                    "way": way.name,
                    "share": way.share,
                    "data": way.data,
                    "windows": way.windows,
                }
                | {"back": back, "rate": rate, "reference": reference, "start": start}
                | {"predicted": answer.steps, "low": answer.low, "high": answer.high, "half": answer.half}
                | {
                    "real": count,
                    "drift": answer.drift,
                    "first_drift": found.drift,
                    "progress": found.progress,
                }
                | {"leading": answer.leading[-1], "horizon": STEPS}
                | {"linearise_s": seconds, "simulate_s": simulated, "step_s": a_step}
            )
    return out


def windows(corpus: Corpus, count: int) -> tuple[Tensor, Tensor]:
    """Windows that train, then those that are measured."""
    held = spread_windows(corpus.evaluation, MEASURED * SEQ, SEQ)
    x, y = batch(corpus, PROBE, 0, count, SEQ)
    return torch.cat([x, held.inputs]), torch.cat([y, held.targets])


def keep(path: Path, found: list[dict[str, object]]) -> None:
    short = [{k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in row.items()} for row in found]
    pl.DataFrame(short, infer_schema_length=None).write_csv(path)


def repeats(corpus: Corpus, done: list[dict[str, object]]) -> None:
    """The first way once more with other windows: how far two real runs lie apart."""
    found = []
    for (about, model), scheme in product(list(checkpoints(corpus, FOLDER)), FORMATS):
        key = about | {"format": scheme, "way": WAYS[0].name, "share": WAYS[0].share, "data": WAYS[0].data}
        key |= {"windows": WAYS[0].windows}
        old = [row for row in done if key.items() <= row.items()]
        goals = [row["start"] - row["back"] * (row["start"] - row["reference"]) for row in old]  # type: ignore[operator]
        copy, rate = quantised(model, scheme), float(old[0]["rate"])  # type: ignore[arg-type]
        steps, _ = real(copy, WAYS[0], rate, corpus, goals, stream=STREAM + 1)
        found += [
            key | {"back": row["back"], "first": row["real"], "second": step}
            for row, step in zip(old, steps, strict=True)
        ]
    keep(REPEATS, found)


def main() -> None:
    """Add what is missing."""
    torch.set_num_threads(1)
    corpus = read_corpus(None)
    done = pl.read_csv(TABLE, infer_schema_length=None).to_dicts() if TABLE.exists() else []
    for (about, model), scheme in product(list(checkpoints(corpus, FOLDER)), FORMATS):
        key = about | {"format": scheme}
        have = {
            (row["way"], row["share"], row["data"], row["windows"])
            for row in done
            if key.items() <= row.items()
        }
        count = 3 if about["seed"] else len(WAYS) - (about["params"] > SMALL)
        wanted = WAYS[:count]
        missing = [way for way in wanted if (way.name, way.share, way.data, way.windows) not in have]
        if missing:
            began = time.perf_counter()
            found = rows(corpus, about, model, scheme, missing)
            done += found
            keep(TABLE, done)
            shown = [f"{row['predicted']:.0f}/{row['real']:.0f}" for row in found]
            print(*key.values(), f"{time.perf_counter() - began:.0f} s", *shown, flush=True)
    if not REPEATS.exists():
        repeats(corpus, done)


if __name__ == "__main__":
    main()
