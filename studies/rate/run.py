"""Is the ladder's learning rate near the best one? The smallest and the largest rung at half, once and twice the rate.

    python studies/rate/run.py       # about eight minutes of one core; goes on where it was stopped

Seeds are shared by the three rates of a size, a paired contrast; rows go to rows.csv beside this file. Rungs, batch,
schedule and rate are those of the quick study.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from bitlaw import read_runs, write_runs
from bitlaw.lab.corpus import read_corpus
from bitlaw.lab.sweep import SweepConfig, run_sweep, trunks
from bitlaw.runs import Store
from bitlaw.study import read_study

HERE = Path(__file__).parent
FOLDER = Path(tempfile.gettempdir()) / "bitlaw-rate"
FACTORS = (0.5, 1.0, 2.0)
SEEDS = tuple(range(3))
TOKENS = 400_000


def config(factor: float) -> SweepConfig:
    """Both rungs with all seeds, at a multiple of the rate."""
    quick = read_study("quick").sweep
    return SweepConfig(
        seeds=SEEDS,
        sizes=(min(quick.sizes), max(quick.sizes)),
        budgets=(TOKENS,),
        schemes=("16",),
        batch_size=quick.batch_size,
        seq_len=quick.seq_len,
        warmup_steps=quick.warmup_steps,
        rate_times_width=factor * quick.rate_times_width,
    )


def main() -> None:
    """Train what is missing, and print the table."""
    store, corpus = Store(FOLDER / "runs.sqlite"), read_corpus()
    for factor in FACTORS:
        run_sweep(trunks(config(factor), corpus), store, FOLDER / "checkpoints", workers=1)
    write_runs(store.runs(), HERE / "rows.csv")
    frame = read_runs(HERE / "rows.csv").frame
    print("loss less that at the ladder's rate; ± half a 90 % t-interval over seeds")
    for (params, _width), rows in sorted(frame.group_by("params", "width")):
        table = rows.sort("learning_rate", "seed").select("loss").to_numpy().reshape(len(FACTORS), len(SEEDS))
        for factor, losses in zip(FACTORS, table, strict=True):
            off = losses - table[FACTORS.index(1.0)]
            half = student.ppf(0.95, len(SEEDS) - 1) * off.std(ddof=1) / np.sqrt(len(SEEDS))
            print(
                f"{params:>9,.0f} parameters, rate x {factor}, n = {len(off)}: "
                f"{off.mean():+.4f} ± {half:.4f}, {losses.mean():.4f}"
            )


if __name__ == "__main__":
    main()
