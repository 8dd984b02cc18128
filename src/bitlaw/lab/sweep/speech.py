"""A ladder of frame predictors on speech, one run a cell, as rows of the same table as language models."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from ...errors import ConfigError, LabError
from ...formats import Scheme
from ...runs import Store
from ...shapes import ladder_shape
from ..corpus import Corpus, spread_windows
from ..quantize.means import clustered_mean
from ..tasks.speech import SpeechConfig, SpeechState, evaluate
from ..train import derived_seed, train_trunk
from .place import alone
from .rows import trained_row

BATCH, SEQ_LEN = 8, 128  # sequences a step, frames each: 1.28 s
RATE_TIMES_WIDTH = 0.25  # peak rate of AdamW; docs/log.md has the check
WARMUP = 20  # steps
EVAL_FRAMES = 32_768


def cells(
    corpus: Corpus, sizes: list[int], frames: list[int], seeds: int, scheme: str = "16", ahead: int = 3
) -> list[SpeechConfig]:
    """Return one run for each size, amount and seed; no two share a seed, so that rows are independent.

    Args:
        corpus: of frames.
        sizes: parameters without the maps from and to frames.
        frames: trained on; more than there are means that some are seen again.
        seeds: runs of each size and amount.
        scheme: of number formats, put on from outside, as `Scheme.parse` reads it.
        ahead: frames from the last one read to the one predicted.

    Raises:
        ConfigError: fewer frames than two steps have, no scheme, or one that needs tokens.
    """
    if Scheme.parse(scheme).emb.quantized:
        raise ConfigError(
            f"scheme {scheme!r}: frames are not looked up, so there is no embedding to quantise"
        )
    if min(frames) < 2 * WARMUP * BATCH * SEQ_LEN:
        raise ConfigError(f"{min(frames):,} frames are too few; use {2 * WARMUP * BATCH * SEQ_LEN:,} or more")
    if not 0 < ahead < SEQ_LEN // 2:
        raise ConfigError(f"{ahead} frames ahead: use 1 to {SEQ_LEN // 2 - 1}")
    found = []
    for seed, size, amount in product(range(seeds), sizes, frames):
        shape = ladder_shape(size, corpus.vocab)
        own = derived_seed(seed, size, amount)
        settings: dict[str, Any] = {"shape": shape, "scheme": scheme, "seed": own, "budgets": (amount,)}
        settings |= {
            "corpus_sha256": corpus.sha256,
            "tokenizer": corpus.tokenizer,
            "eval_tokens": EVAL_FRAMES,
        }
        settings |= {"batch_size": BATCH, "seq_len": SEQ_LEN, "warmup_steps": WARMUP, "ahead": ahead}
        found.append(SpeechConfig(**settings, learning_rate=RATE_TIMES_WIDTH / shape.width))
    return found


def run_cells(
    configs: list[SpeechConfig],
    corpus: Corpus,
    store: Store,
    folder: Path,
    on_frames: Callable[[int], None] = lambda frames: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[dict[str, Any]]:
    """Train the cells that the store has no row of, store their rows, and yield them.

    Args:
        configs: the cells.
        corpus: what they are of.
        store: where rows go; cells that it has are passed over.
        folder: of checkpoints; a cell that was interrupted goes on from its own.
        on_frames: told the frames of every step, and of every cell that is passed over.
        should_stop: asked after every step.

    Raises:
        Interrupted: after `should_stop` said so.
        DataError: the speech kept for evaluation is too short.
        StoreError: another process works in the folder, or it cannot be written.
    """
    windows = spread_windows(corpus.evaluation, EVAL_FRAMES, SEQ_LEN)
    have = store.ids()
    with alone(folder):
        for config in configs:
            if config.cell_id(config.branches()[0]) in have:
                on_frames(config.steps(config.budgets[0]) * BATCH * SEQ_LEN)
                continue
            place = folder / config.work_id()
            ends = train_trunk(
                config, corpus, place, on_tokens=on_frames, should_stop=should_stop, state=SpeechState
            )
            for end in ends:
                row = trained_row(config, end, corpus, windows) | {"unit": "frames", "objective": "l1"}
                # The map from frames is a product too, where looking tokens up is none; its input needs no gradient.
                row["flops"] += 4.0 * config.shape.vocab * config.shape.width * row["tokens"]
                if end.model is None:
                    row |= {"status": "diverged", "reason": end.reason}
                else:
                    loss = clustered_mean(*evaluate(end.model, windows, config.ahead))
                    if not math.isfinite(loss.value):
                        raise LabError(f"the evaluation loss of {row['id']} is {loss.value}")
                    row |= {
                        "status": "ok",
                        "loss": loss.value,
                        "loss_se": loss.se,
                        "eval_clusters": loss.clusters,
                    }
                store.add([row])
                yield row
            shutil.rmtree(place, ignore_errors=True)
