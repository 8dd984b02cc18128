"""The checkpoints that `run.py` quantises and brings back: byte-level models of four sizes, in 16 bits, cooled down."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from bitlaw.formats import Scheme
from bitlaw.lab.corpus import Corpus
from bitlaw.lab.model import Loaded, Transformer, load_model, save_model
from bitlaw.lab.train import TrunkConfig, train_trunk
from bitlaw.shapes import ladder_shape

SIZES = (12_000, 24_000, 48_000)
BUDGETS = (200_000, 800_000)
SEEDS = (0, 1)


def checkpoints(corpus: Corpus, folder: Path) -> Iterator[tuple[dict[str, int], Transformer]]:
    """Yield what each checkpoint is, and its model; those that are not in the folder are trained."""
    for seed in SEEDS:
        for size in SIZES:
            names = [folder / f"{size}-{tokens}-{seed}" for tokens in BUDGETS]
            if not all(name.exists() for name in names):
                _train(corpus, size, seed, names)
            for name, tokens in zip(names, BUDGETS, strict=True):
                model = load_model(name).model
                assert isinstance(model, Transformer)
                yield {"params": model.shape.counts().non_embedding, "tokens": tokens, "seed": seed}, model


def _train(corpus: Corpus, size: int, seed: int, names: list[Path]) -> None:
    shape = ladder_shape(size)
    config = TrunkConfig(
        shape=shape,
        scheme="16",
        seed=1000 * seed + size // 100,
        corpus_sha256=corpus.sha256,
        budgets=BUDGETS,
        batch_size=8,
        seq_len=128,
        learning_rate=0.5 / shape.width,
        warmup_steps=20,
        eval_tokens=65_536,
    )
    work = names[0].parent / f"work-{config.trunk_id()}"
    for end, name in zip(train_trunk(config, corpus, work), names, strict=True):
        assert end.model is not None, end.reason
        shutil.rmtree(name, ignore_errors=True)
        save_model(Loaded(name.name, "", end.model, None, shape.vocab, 128, Scheme(), {}), name)
    shutil.rmtree(work, ignore_errors=True)
