"""Learning curves at several batch sizes and model sizes; `run.py` reads them.

    python studies/batch/train.py       # about an hour of one core; goes on with the next run where it was stopped

A curve is a trunk without cooldown that ends at every point of it. Rows go to curves.csv beside this file:

- tune: one size, seven batches, three rates each, one seed; the rate that arrives at `TARGET` first is that batch's.
- batch: the same batches at their rates, five further seeds, until `TARGET`; the noise of the gradient at one batch.
- size: five sizes at one batch and the ladder's rate, 600 steps.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch

from bitlaw.lab.corpus import Corpus, batch, read_corpus, spread_windows
from bitlaw.lab.quantize.evaluate import logits, token_losses
from bitlaw.lab.train import TrunkConfig, gradient_noise, train_trunk
from bitlaw.shapes import ladder_shape

HERE = Path(__file__).parent
TABLE = HERE / "curves.csv"
FOLDER = Path(tempfile.gettempdir()) / "bitlaw-batch"
SCHEMES = ("16", "w3")
SIZE, SEQ = 12_000, 64
BATCHES = (256, 512, 1024, 2048, 4096, 8192, 16384)  # tokens
MIDDLE = 1024
FACTORS = (
    0.5,
    1.0,
    2.0,
)  # of 0.5 / width sqrt(batch / 1024 tokens): square-root rule (Malladi et al. 2022, 2205.10287)
TARGET = 2.4
SEEDS = range(1, 6)
SIZES = (6_000, 12_000, 24_000, 48_000, 96_000)
POINTS = sorted({round(20 * 1.15**k) for k in range(35)})
EVAL_TOKENS = 16_384


def config(
    corpus: Corpus, scheme: str, size: int, tokens: int, factor: float, seed: int, points: list[int]
) -> TrunkConfig:
    """A trunk without cooldown that ends at every point; seeds are of their own for each cell."""
    shape = ladder_shape(size)
    return TrunkConfig(
        shape=shape,
        scheme=scheme,
        seed=1_000_000 * seed + 10_000 * SCHEMES.index(scheme) + tokens + size // 100,
        corpus_sha256=corpus.sha256,
        budgets=tuple(tokens * step for step in points),
        batch_size=tokens // SEQ,
        seq_len=SEQ,
        learning_rate=factor * 0.5 / shape.width * (tokens / MIDDLE) ** 0.5,
        warmup_steps=10,
        cooldown=0.0,
        eval_tokens=EVAL_TOKENS,
    )


def curve(corpus: Corpus, stage: str, config: TrunkConfig, target: float) -> Iterator[dict[str, object]]:
    """Train until a loss, or to the last point, and yield the points."""
    windows = spread_windows(corpus.evaluation, EVAL_TOKENS, SEQ)
    fresh = batch(corpus, config.seed + 1, 0, 256, SEQ)
    folder = FOLDER / config.trunk_id()
    for end in train_trunk(config, corpus, folder):
        if end.model is None:
            return
        loss = token_losses(logits(end.model, windows), windows).mean().item()
        tokens = config.batch_size * SEQ
        noise = gradient_noise(end.model, *fresh, parts=64) if stage == "batch" and tokens == MIDDLE else None
        yield {
            "stage": stage,
            "scheme": config.scheme,
            "params": config.shape.counts().non_embedding,
            "batch_tokens": tokens,
            "rate": round(config.learning_rate, 6),
            "seed": config.seed,
            "steps": end.steps,
            "loss": round(loss, 5),
            "noise_batch": noise and round(noise.batch, 1),
            "noise_log_se": noise and round(noise.log_se, 4),
        }
        if loss <= target:
            break
    shutil.rmtree(folder, ignore_errors=True)


def best_factor(frame: pl.DataFrame, scheme: str, tokens: int) -> float:
    """The factor of the tuning run that arrives at the target first, between points by the line through log steps."""
    runs = frame.filter(stage="tune", scheme=scheme, batch_tokens=tokens)
    rule = 0.5 / ladder_shape(SIZE).width * (tokens / MIDDLE) ** 0.5
    arrivals = {}
    for (rate,), run in runs.group_by("rate"):
        below = run.filter(pl.col("loss") <= TARGET)
        if len(below):
            last = run.sort("steps").tail(2)
            (l0, l1), (s0, s1) = last["loss"].to_list(), np.log(last["steps"].to_numpy())
            arrivals[min(FACTORS, key=lambda f: abs(f * rule - rate))] = s0 + (l0 - TARGET) / (l0 - l1) * (
                s1 - s0
            )
    return min(arrivals, key=arrivals.__getitem__)


def main() -> None:
    """Train what is missing."""
    torch.set_num_threads(1)
    corpus = read_corpus()
    rows = (
        pl.read_csv(TABLE, schema_overrides={"scheme": pl.String}, infer_schema_length=None).to_dicts()
        if TABLE.exists()
        else []
    )

    def run(
        stage: str, scheme: str, size: int, tokens: int, factor: float, seed: int, points: list[int]
    ) -> None:
        plan = config(corpus, scheme, size, tokens, factor, seed, points)
        key = {"stage": stage, "scheme": scheme, "seed": plan.seed, "rate": round(plan.learning_rate, 6)}
        if any(key.items() <= row.items() for row in rows):
            return
        rows.extend(curve(corpus, stage, plan, 0.0 if stage == "size" else TARGET))
        part = TABLE.with_suffix(".part")
        pl.DataFrame(rows, infer_schema_length=None).write_csv(part)
        part.replace(TABLE)
        print(key, tokens, rows[-1]["steps"], rows[-1]["loss"], flush=True)

    for scheme in SCHEMES:
        for tokens in BATCHES:
            for factor in FACTORS:
                run("tune", scheme, SIZE, tokens, factor, 0, POINTS)
    tuned = pl.DataFrame(rows, infer_schema_length=None)
    for seed in SEEDS:
        for scheme in SCHEMES:
            for tokens in BATCHES:
                run("batch", scheme, SIZE, tokens, best_factor(tuned, scheme, tokens), seed, POINTS)
    for seed in range(6, 8):
        for size in SIZES:
            run("size", "16", size, MIDDLE, 1.0, seed, [step for step in POINTS if step <= 600])


if __name__ == "__main__":
    main()
