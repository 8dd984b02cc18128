"""How long must low precision be trained? 16-bit trunks that cool down in 3 bits, over several shares of a budget.

    python studies/cooldown/run.py        # about ten minutes on two cores; goes on where it was stopped

Every share has a 16-bit cooldown beside it, from the same trunk, on the same batches: the difference is that of
precision and not of the schedule. Rows go to rows.csv beside this file.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import t as student

from bitlaw import read_runs, write_runs
from bitlaw.lab.corpus import read_corpus
from bitlaw.lab.sweep import After, SweepConfig, run_sweep, trunks
from bitlaw.runs import Store

HERE = Path(__file__).parent
SHARES = (0.05, 0.1, 0.2, 0.4, 0.8)
SEEDS = range(3)
FOLDER = Path(tempfile.gettempdir()) / "bitlaw-cooldown"


def config(seed: int) -> SweepConfig:
    """Two budgets at one size, 16 bits throughout, 3 bits throughout, and 3 bits at the end."""
    return SweepConfig(
        seed=seed,
        sizes=(24_000,),
        budgets=(400_000, 1_600_000),
        schemes=("16", "w3"),
        late_schemes=("w3", "16"),
        late_cooldowns=SHARES,
    )


def main() -> None:
    """Train what is missing, and print the table."""
    store = Store(FOLDER / "runs.sqlite")
    for seed in SEEDS:
        plan = config(seed)
        run_sweep(trunks(plan, read_corpus()), store, FOLDER / "checkpoints", after=After.of(plan, FOLDER))
    write_runs(store.runs(), HERE / "rows.csv")
    frame = read_runs(HERE / "rows.csv").frame
    low = frame.filter(pl.col("qat_share").is_not_null())
    plain = frame.filter(pl.col("qat_share").is_null() & (pl.col("w_format") == "bf16"))
    pairs = low.join(plain, on=["trunk", "tokens", "cooldown"], suffix="_16")
    print("3 bits at the end, less 16 bits on the same schedule; ± half a 90 % t-interval over trunks")
    for (tokens, share), group in sorted(pairs.group_by("tokens", "cooldown")):
        off = (group["loss"] - group["loss_16"]).to_numpy()
        half = student.ppf(0.95, len(off) - 1) * off.std(ddof=1) / np.sqrt(len(off))
        cell = f"{tokens:>9,.0f} tokens, share {share:4.2f}, n = {len(off)}"
        print(f"{cell}: {off.mean():+.4f} ± {half:.4f}, loss {group['loss'].mean():.4f}")
    whole = frame.filter((pl.col("w_format") == "int3") & pl.col("qat_share").is_null())
    for (tokens,), group in sorted(whole.group_by("tokens")):
        print(f"{tokens:>9,.0f} tokens, 3 bits throughout, n = {len(group)}: loss {group['loss'].mean():.4f}")


if __name__ == "__main__":
    main()
