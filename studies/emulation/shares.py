"""How much of what tuning gives a large model do emulations have, of its size or of a smaller one's tuning?

    python studies/emulation/shares.py    # after pairs.py; minutes of one core; writes shares.csv beside this file

For each pair and task, ways to have a tuned model, beside both bases:

    large        the large model, tuned: what is to be recovered
    up           the large base with what tuning changed in the small one
    down         the small base with what tuning changed in the large one
    small        the small model, tuned
    beta .5, 2   up, with half of what tuning changed, and twice

`gain` is of log-likelihood over the base of the same size, in nats a byte on held-out text of the task; `share` is it
in gains of `large`. `score` counts what is there in the end: the share of lines that show the behaviour, of 48 texts
that are drawn, or of facts that are ranked first of 24 in wordings that were kept back (chance: .042). `forgotten` is
loss more than the base's on its own corpus. Intervals are Student's over pairs, 90 %, paired by seed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch
from pairs import CORPUS, LARGE, SMALL, TASKS, Pair, pairs, text_of
from scipy.stats import t as student

from bitlaw.lab.corpus import Windows, read_corpus, spread_windows
from bitlaw.lab.decode import Decoder, Source, emulate, generate, log_likelihoods
from bitlaw.lab.model import load_model
from bitlaw.lab.tasks import World, behaviour, knowledge

TABLE = Path(__file__).with_name("shares.csv")
TEXTS, LETTERS = 48, 120
MEASURED, SEQ = 16_384, 128


def loss(source: Source, held: Windows) -> float:
    """Nats a byte, of all but the first byte of each window."""
    texts = held.inputs.tolist()
    found = log_likelihoods(source, [text[:1] for text in texts], [text[1:] for text in texts])
    return -float(torch.cat(found).mean())


def score(task: str, source: Source, world: World) -> float:
    """How far a source has what was taught."""
    if task == "knowledge":

        def likely(pairs: list[tuple[bytes, bytes]]) -> list[float]:
            contexts, answers = zip(*pairs, strict=True)
            return [float(each.sum()) for each in log_likelihoods(source, contexts, answers, batch=64)]

        return knowledge(world.questions(), likely)
    texts = generate(source, [b"\n"] * TEXTS, tokens=LETTERS)
    return behaviour(bytes(text.tokens).decode("utf-8", errors="replace") for text in texts)


def ways(base: dict[int, Source], tuned: dict[int, Source]) -> dict[str, tuple[int, Source]]:
    """Every way to have a tuned model, with the size whose base it is compared with."""
    up = partial(emulate, base[LARGE], base[SMALL], tuned[SMALL])
    return {
        "large": (LARGE, tuned[LARGE]),
        "up": (LARGE, up()),
        "down": (SMALL, emulate(base[SMALL], base[LARGE], tuned[LARGE])),
        "small": (SMALL, tuned[SMALL]),
        "beta .5": (LARGE, up(beta=0.5)),
        "beta 2": (LARGE, up(beta=2.0)),
    }


def measured(pair: Pair, task: str, own: Windows, held: Windows) -> list[dict[str, object]]:
    """The rows of a pair and a task."""
    world = World.make(pair.seed)
    base = {size: Decoder.of(load_model(folder)) for size, folder in pair.folders.items()}
    tuned = {size: Decoder.of(load_model(pair.tuned(size, task))) for size in pair.folders}
    before = {size: (loss(base[size], own), loss(base[size], held)) for size in base}
    rows = [
        {"seed": pair.seed, "task": task, "way": f"base {size}", "gain": 0.0, "loss": before[size][0],
         "forgotten": 0.0, "score": score(task, base[size], world)}
        for size in base
    ]  # fmt: skip
    for name, (size, source) in ways(base, tuned).items():
        found = loss(source, own)
        rows.append(
            {"seed": pair.seed, "task": task, "way": name, "gain": before[size][0] - found, "loss": found,
             "forgotten": loss(source, held) - before[size][1], "score": score(task, source, world)}
        )  # fmt: skip
    return rows


def interval(values: np.ndarray) -> str:
    """Mean and its interval."""
    if len(values) < 2:
        return f"{values.mean():.3f} (one pair)"
    half = student.ppf(0.95, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.3f} ± {half:.3f}"


def main() -> None:
    """Measure, write the table, and print shares and scores with their intervals."""
    torch.set_num_threads(1)
    corpus = read_corpus(CORPUS)
    held = spread_windows(corpus.evaluation, MEASURED, SEQ)
    rows: list[dict[str, object]] = []
    for pair in pairs():
        for task in TASKS:
            text = text_of(task, pair.seed, corpus).evaluation
            own = spread_windows(text, min(MEASURED, len(text.tokens) // 256 * SEQ), SEQ)
            rows += measured(pair, task, own, held)
            pl.DataFrame(rows).write_csv(TABLE, float_precision=5)
    table = pl.DataFrame(rows)
    for task in TASKS:
        some = table.filter(task=task)
        of_large = some.filter(way="large").sort("seed")["gain"].to_numpy()
        for (name,), group in some.group_by("way", maintain_order=True):
            group = group.sort("seed")
            share = interval(group["gain"].to_numpy() / of_large)
            columns = (f"{c} {interval(group[c].to_numpy())}" for c in ("score", "loss", "forgotten"))
            print(f"{task}, {name}: share {share}, {', '.join(columns)}")


if __name__ == "__main__":
    main()
