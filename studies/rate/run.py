"""Is the ladder's learning rate near the best one? The smallest and the largest rung at half, once and twice the rate.

    python studies/rate/run.py       # about twenty minutes of one core; goes on where it was stopped

The rungs are 30k and 220k parameters, a thousandth of the precision paper's. Seeds are shared by the three rates of a
size, a paired contrast. Rows go to rows.csv beside this file.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import t as student

from bitlaw import read_runs, write_runs
from bitlaw.lab.corpus import read_corpus
from bitlaw.lab.sweep import SweepConfig, run_sweep, trunks
from bitlaw.runs import Store

HERE = Path(__file__).parent
FACTORS = (0.5, 1.0, 2.0)
SEEDS = tuple(range(4))
SIZES = (30_000, 220_000)
TOKENS = 1_500_000


def config(factor: float) -> SweepConfig:
    """Both rungs with all seeds, at a multiple of the rate."""
    plain = SweepConfig(seeds=SEEDS, sizes=SIZES, budgets=(TOKENS,), schemes=("16",))
    return plain.model_copy(update={"rate_times_width": factor * plain.rate_times_width})


def main() -> None:
    """Train what is missing, and print the table."""
    folder = Path(tempfile.gettempdir()) / "bitlaw-rate"
    store, corpus = Store(folder / "runs.sqlite"), read_corpus()
    planned = [trunk for factor in FACTORS for trunk in trunks(config(factor), corpus)]
    run_sweep(planned, store, folder / "checkpoints", workers=1)
    ids = [trunk.cell_id(trunk.branches()[0]) for trunk in planned]
    write_runs(store.runs().filter(pl.col("id").is_in(ids)), HERE / "rows.csv")
    print("loss less that at the ladder's rate; ± half a 90 % t-interval over seeds")
    for (params,), rows in sorted(read_runs(HERE / "rows.csv").frame.group_by("params")):
        losses = rows.sort("learning_rate", "seed")["loss"].to_numpy().reshape(len(FACTORS), len(SEEDS))
        for factor, own in zip(FACTORS, losses, strict=True):
            off = own - losses[FACTORS.index(1.0)]
            half = student.ppf(0.95, len(SEEDS) - 1) * off.std(ddof=1) / np.sqrt(len(SEEDS))
            print(
                f"{params:>9,.0f} parameters, rate x {factor}, n = {len(off)}: {off.mean():+.4f} ± {half:.4f}, "
                f"loss {own.mean():.4f}"
            )


if __name__ == "__main__":
    main()
