"""Quantised models brought back by training, and the steps that this takes foretold before it begins.

    python studies/recovery/run.py          # trains the models first; goes on where it was stopped
    python studies/recovery/read.py         # what the rows say

Weights of the blocks are rounded to nearest, and trained through the rounding (straight through) on fresh windows
(`stream`), or on the windows that were linearised (`fixed`), until the loss of 32 held-out windows is back by 25, 50,
75 % of the gap. The prediction sees 96 training windows and those 32, never a real run. Rates are shares of the
inverse of the largest curvature. Rows go to rows.csv beside this file.
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
from bitlaw.planning import Record, read_record, recovery
from bitlaw.planning.descent import Part

FOLDER = Path(tempfile.gettempdir()) / "bitlaw-recovery"
TABLE = Path(__file__).with_name("rows.csv")
FORMATS = ("w2", "w3", "w4")
BACK = (0.25, 0.5, 0.75)
TRAIN, MEASURED, SEQ, BATCH = 96, 32, 64, 8
STEPS, DIRECTIONS, CLASSES, DRAWS = 300, 24, 64, 20
PROBE, STREAM = 71, 72  # seeds of the order of training windows, apart from that of the models


@dataclass(frozen=True)
class Way:
    """How a model is brought back; `share` of 1 / largest curvature is its rate, or effective rate with momentum."""

    name: str
    share: float
    data: str = "stream"
    momentum: float = 0.0

    @property
    def optimizer(self) -> str:
        """As `recovery` calls it."""
        return "adam" if self.name == "adam" else "sgd"


WAYS = (
    Way("sgd", 0.5),
    Way("sgd", 0.5, "fixed"),
    Way("sgd", 0.15),
    Way("momentum", 0.5, momentum=0.9),
    Way("adam", 0.5, momentum=0.9),
)


def mean_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten())


def real(
    model: nn.Module, way: Way, rate: float, corpus: Corpus, probe: tuple[Tensor, Tensor], goals: list[float]
) -> tuple[list[float], float]:
    """Steps after which the measured loss is first at or below each goal, and seconds of a step."""
    x, y = probe
    first, seconds, draw = [math.inf] * len(goals), 0.0, torch.Generator().manual_seed(0)
    if way.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), rate, (0.9, 0.95))
    else:
        optimizer = torch.optim.SGD(model.parameters(), rate, way.momentum)
    for step in range(STEPS + 1):
        with torch.no_grad():
            loss = mean_loss(model, x[TRAIN:], y[TRAIN:]).item()
        first = [min(old, step if loss <= goal else math.inf) for old, goal in zip(first, goals, strict=True)]
        if step == STEPS or math.isfinite(max(first)) or not math.isfinite(loss):
            break
        began = time.perf_counter()
        if way.data == "fixed":
            some = torch.randint(TRAIN, (BATCH,), generator=draw)
            some_x, some_y = x[some], y[some]
        else:
            some_x, some_y = batch(corpus, STREAM, step, BATCH, SEQ)
        optimizer.zero_grad()
        mean_loss(model, some_x, some_y).backward()
        optimizer.step()
        seconds += time.perf_counter() - began
    return first, seconds / max(1, step)


def quantised(model: Transformer, scheme: str) -> Transformer:
    """A copy whose weights of the blocks are rounded while it runs."""
    copy = Transformer(model.shape)
    copy.load_state_dict(model.state_dict())
    return apply_scheme(copy, Scheme.parse(scheme))


def record(
    model: nn.Module, x: Tensor, y: Tensor, reference: float, adam: bool
) -> tuple[Record, float, float]:
    """The record as the law half reads it, its largest curvature, and seconds."""
    began = time.perf_counter()
    moments = second_moments(model, x[:TRAIN], y[:TRAIN], BATCH) if adam else None
    found = linearise(
        model,
        x,
        y,
        trained=TRAIN,
        reference=reference,
        directions=DIRECTIONS,
        classes=CLASSES,
        second_moments=moments,
    )
    with tempfile.TemporaryDirectory() as folder:
        found.save(Path(folder) / "record")
        read = read_record(Path(folder) / "record")
    sharpest = float(np.linalg.eigvalsh(Part(read, slice(0, TRAIN), DIRECTIONS).curvature())[-1])
    return read, sharpest, time.perf_counter() - began


def rows(corpus: Corpus, about: dict[str, int], model: Transformer, scheme: str) -> list[dict[str, object]]:
    """All ways of bringing one quantised model back."""
    held = spread_windows(corpus.evaluation, MEASURED * SEQ, SEQ)
    x, y = batch(corpus, PROBE, 0, TRAIN, SEQ)
    x, y = torch.cat([x, held.inputs]), torch.cat([y, held.targets])
    with torch.no_grad():
        reference = mean_loss(model, held.inputs, held.targets).item()
        start = mean_loss(quantised(model, scheme), held.inputs, held.targets).item()
    goals = [start - back * (start - reference) for back in BACK]
    records = {adam: record(quantised(model, scheme), x, y, reference, adam) for adam in (False, True)}
    out = []
    for way in WAYS:
        found, sharpest, seconds = records[way.optimizer == "adam"]
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
        steps, a_step = real(quantised(model, scheme), way, rate, corpus, (x, y), goals)
        for back, answer, count in zip(BACK, answers, steps, strict=True):
            out.append(
                about
                | {"format": scheme, "way": way.name, "share": way.share, "data": way.data, "back": back}
                | {"rate": rate, "reference": reference, "start": start}
                | {"foretold": answer.steps, "low": answer.low, "high": answer.high, "half": answer.half}
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


def main() -> None:
    """Add what is missing."""
    torch.set_num_threads(1)
    corpus = read_corpus(None)
    done = pl.read_csv(TABLE).to_dicts() if TABLE.exists() else []
    for (about, model), scheme in product(list(checkpoints(corpus, FOLDER)), FORMATS):
        key = about | {"format": scheme}
        if any(key.items() <= row.items() for row in done):
            continue
        began = time.perf_counter()
        done += [
            {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in row.items()}
            for row in rows(corpus, about, model, scheme)
        ]
        pl.DataFrame(done, infer_schema_length=None).write_csv(TABLE)
        shown = [f"{row['foretold']:.0f}/{row['real']:.0f}" for row in done[-15:]]
        print(*key.values(), f"{time.perf_counter() - began:.0f} s", *shown, flush=True)


if __name__ == "__main__":
    main()
