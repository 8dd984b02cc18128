"""Bases of several sizes, each tuned to a behaviour and to facts of a made-up world: what emulated fine-tuning needs.

    python studies/emulation/pairs.py             # hours of one core; goes on where it was stopped
    python studies/emulation/pairs.py 30000       # this size alone
    python studies/emulation/pairs.py --quick     # seconds: one pair of 4k parameters, to see that all of it runs

Bases are trained on the default corpus at the ladder's rate, for 20 tokens a parameter or 1.5M. Behaviour is taught on
300k bytes of the training side of that corpus, its lines tagged, and measured on 48 texts that the model writes;
knowledge is 24 facts in 4 wordings each, and is asked in the 2 others. Both are tuned in full, by seeds of their own.
`score` is the share of lines that are tagged, or of facts ranked first of 24 (chance: 0.042), `told` that of the
wordings that were read; `gain` and `forgotten` are nats a byte, of log-likelihood on held-out text of the tuning and of
the base's own corpus. Rows go to pairs.csv beside this file, models to bitlaw-emulation in the folder for temporary
files: SIZE-SEED/base, behaviour and knowledge.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from functools import partial
from itertools import product
from pathlib import Path

import polars as pl
import torch

from bitlaw.formats import Scheme
from bitlaw.lab.corpus import Corpus, Windows, read_corpus, spread_windows
from bitlaw.lab.decode import Decoder, generate
from bitlaw.lab.model import Loaded, load_model, save_model
from bitlaw.lab.quantize import logits, token_losses
from bitlaw.lab.sweep import SweepConfig, trunks, tune_folder
from bitlaw.lab.tasks import World, behaviour, knowledge, tagged_corpus
from bitlaw.lab.tasks.likelihood import continuations
from bitlaw.lab.train import train_trunk

FOLDER = Path(tempfile.gettempdir()) / "bitlaw-emulation"
TABLE = Path(__file__).with_name("pairs.csv")
SIZES, SEEDS = (30_000, 110_000, 440_000), range(5)
A_PARAMETER, LEAST = 20, 1_500_000  # tokens that a base is trained on
TUNING = {"behaviour": 400_000, "knowledge": 800_000}  # tokens
SHARE = {"behaviour": 0.25, "knowledge": 0.5}  # of the peak rate of the base
TAGGED = 300_000  # bytes of text with the behaviour
TEXTS, LETTERS = 48, 120
MEASURED = 16_384


def base(corpus: Corpus, size: int, seed: int, tokens: int, folder: Path) -> Path:
    """The folder of a base, which is trained if it is not there."""
    place = folder / "base"
    if place.exists():
        return place
    sweep = SweepConfig(
        sizes=(size,), seeds=(seed,), budgets=(tokens,), schemes=("16",), eval_tokens=MEASURED
    )
    (config,) = trunks(sweep, corpus)
    (end,) = train_trunk(config, corpus, folder / "work")
    assert end.model is not None, end.reason
    row = {"learning_rate": config.learning_rate, "tokens": tokens, "trunk": config.trunk_id()}
    save_model(Loaded("base", "", end.model, None, 256, config.seq_len, Scheme(), row), place)
    shutil.rmtree(folder / "work", ignore_errors=True)
    return place


def loss(loaded: Loaded, held: Windows) -> float:
    """Nats a byte."""
    return token_losses(logits(loaded.model, held), held).mean().item()


def score(task: str, loaded: Loaded, world: World, told: bool = False) -> float:
    """How far a model has what was taught; of facts, in other wordings than were told, or in those."""
    if task == "knowledge":
        likely = partial(continuations, loaded)
        return knowledge(world.questions(not told), lambda pairs: [found for found, _ in likely(pairs)])
    texts = generate(Decoder.of(loaded), [b"\n"] * TEXTS, tokens=LETTERS)
    return behaviour(bytes(text.tokens).decode("utf-8", errors="replace") for text in texts)


def pair(
    corpus: Corpus, size: int, seed: int, task: str, tokens: int, taught: int, folder: Path
) -> dict[str, object]:
    """One base and what it is tuned to, as a row."""
    began, world = time.perf_counter(), World.make(seed)
    place, out = base(corpus, size, seed, tokens, folder), folder / task
    text = tagged_corpus(corpus, TAGGED) if task == "behaviour" else world.corpus()
    before = load_model(place)
    rate = SHARE[task] * before.row["learning_rate"]
    if not out.exists():
        tune_folder(place, text, out, tokens=taught, rate=rate, seed=seed, eval_tokens=MEASURED, device="cpu")
    after = load_model(out)
    own, held = (
        spread_windows(side, min(MEASURED, len(side.tokens) // 256 * 128), before.seq_len)
        for side in (text.evaluation, corpus.evaluation)
    )
    loss_before, gain = loss(before, own), loss(before, own) - loss(after, own)
    return {
        "size": size,
        "params": before.model.shape.counts().non_embedding,  # type: ignore[union-attr]
        "seed": seed,
        "task": task,
        "base_tokens": tokens,
        "tokens": taught,
        "rate": rate,
        "base_loss": loss(before, held),
        "forgotten": loss(after, held) - loss(before, held),
        "before": loss_before,
        "gain": gain,
        "score_before": score(task, before, world),
        "score": score(task, after, world),
        "told": score(task, after, world, told=True) if task == "knowledge" else None,
        "seconds": time.perf_counter() - began,
    }


def main(words: list[str]) -> None:
    """Make what is missing, and print each row."""
    torch.set_num_threads(1)
    corpus = read_corpus(None)
    if words == ["--quick"]:
        with tempfile.TemporaryDirectory() as place:
            for task in TUNING:
                print(pair(corpus, 4_000, 0, task, 60_000, 60_000, Path(place)))
        return
    done = pl.read_csv(TABLE).to_dicts() if TABLE.exists() else []
    for seed, size, (task, taught) in product(SEEDS, map(int, words) if words else SIZES, TUNING.items()):
        if any((row["size"], row["seed"], row["task"]) == (size, seed, task) for row in done):
            continue
        tokens = max(LEAST, A_PARAMETER * size)
        row = pair(corpus, size, seed, task, tokens, taught, FOLDER / f"{size}-{seed}")
        done.append({k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in row.items()})
        pl.DataFrame(done).write_csv(TABLE)
        print(done[-1], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
