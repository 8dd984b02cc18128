"""Laws of another modality: five sizes x five amounts of recorded speech (after Droppo & Elibol 2021).

    bitlaw task speech --fetch      # 150 minutes of speech, a 215 MB download
    python studies/speech/run.py    # some minutes on one core; goes on where it was stopped

Rows go to rows.csv beside this file. The saturating law and, beside it, Chinchilla's, which is its case a = 1, are
fitted without the largest size, and judged on it.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student

import bitlaw as bl
from bitlaw.lab.sweep.speech import cells, run_cells
from bitlaw.lab.tasks.audio import PACKAGES, read_speech, speech_corpus
from bitlaw.runs import Store

SIZES = [5_000, 10_000, 20_000, 40_000, 80_000]
FRAMES = [50_000, 100_000, 200_000, 400_000, 800_000]
SEEDS = 1
HERE = Path(__file__).parent


def train(store: Store, work: Path) -> None:
    """Train what the store lacks."""
    torch.set_num_threads(1)
    corpus = speech_corpus("+".join(PACKAGES), [frames for name in PACKAGES for frames in read_speech(name)])
    for row in run_cells(cells(corpus, SIZES, FRAMES, SEEDS), corpus, store, work):
        print(f"{row['params']:>7} {row['tokens']:>8} {row['seed']:>8} {row.get('loss')}", flush=True)


def main(work: Path) -> None:
    """Train, write rows, fit."""
    work.mkdir(parents=True, exist_ok=True)
    store = Store(work / "runs.sqlite")
    train(store, work / "checkpoints")
    frame = store.runs().frame
    kept = [column.name for column in frame if column.null_count() < len(column)]
    frame.select(kept).write_csv(HERE / "rows.csv")
    runs = bl.read_runs(HERE / "rows.csv")
    for law in (bl.laws.saturating, bl.laws.chinchilla):
        fit = bl.fit(law, runs, hold_out=bl.largest())
        held = fit.held_out
        amounts = runs.frame["tokens"].to_numpy()[list(held.index)]
        # A law errs alike at one amount whatever the seed: amounts are the units.
        errors = [np.abs(held.errors)[amounts == amount].mean() for amount in np.unique(amounts)]
        half = student.ppf(0.95, len(errors) - 1) * np.std(errors, ddof=1) / len(errors) ** 0.5
        print(fit)
        print(f"{np.mean(errors):.2%} ± {half:.2%} (90 %, Student's t over {len(errors)} amounts)\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("speech"))
