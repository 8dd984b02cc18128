"""Which schedule? Cooldowns of six shapes, none, averages of weights, cosines of several peaks, other optimisers.

    python studies/schedules/run.py          # five seeds; goes on where it was stopped
    python studies/schedules/run.py pilot    # one short budget; about four minutes on one core; no file is written

Every way has the same seeds, so initialisation and batches are shared, and differences are within a seed. The peak of
the cosine is the best of four for each budget, chosen on these same losses, which favours it. Rows go to rows.csv
beside this file.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import t as student

from bitlaw import read_runs, write_runs
from bitlaw.lab.corpus import read_corpus
from bitlaw.lab.sweep import run_sweep
from bitlaw.lab.train import TrunkConfig, savings
from bitlaw.runs import Store
from bitlaw.shapes import ladder_shape

HERE = Path(__file__).parent
PILOT = sys.argv[1:] == ["pilot"]
SEEDS = range(5)
BUDGETS = (200_000,) if PILOT else (400_000, 1_600_000)
SHAPE = ladder_shape(24_000)
PEAK = 0.5 / SHAPE.width  # the ladder's
WINDOW = "swa:40:5"
REFERENCE = "1-sqrt"

WAYS: list[dict[str, Any]] = [
    {"averages": WINDOW, "late": (("16", 0.0),)},  # cooldown, none, and the average of each
    {"averages": "ema:0.98", "late": (("16", 0.0),)},
    *({"cooldown_shape": shape} for shape in ("linear", "cosine", "mirror-cosine", "square")),
    {"cooldown_shape": "exponential", "floor": 0.01},
    *({"schedule": "cosine", "learning_rate": PEAK * factor} for factor in (0.5, 1, 2, 4)),
    {"optimizer": "muon"},
    {"optimizer": "schedule-free", "cooldown": 0.0},
    {"optimizer": "schedule-free", "cooldown": 0.0, "beta1": 0.95, "beta2": 0.99},
    {"scheme": "w3", "averages": WINDOW, "late": (("w3", 0.0),)},
]


def configs(corpus_sha256: str) -> list[TrunkConfig]:
    """Every way with every seed; a cosine has a run for every budget."""
    found = []
    for seed in SEEDS:
        for way in WAYS:
            for budgets in [(b,) for b in BUDGETS] if way.get("schedule") == "cosine" else [BUDGETS]:
                common = {"scheme": "16", "learning_rate": PEAK, "warmup_steps": 20, "eval_tokens": 65_536}
                sizes = {"shape": SHAPE, "batch_size": 8, "seq_len": 128, "budgets": budgets}
                found.append(
                    TrunkConfig(**{**common, **sizes, **way, "seed": seed, "corpus_sha256": corpus_sha256})
                )
    return found


def name(row: dict[str, Any]) -> str:
    """What a row is called in the table."""
    low = "3 bits, " if row["w_format"] == "int3" else ""
    average = f" + {row['average']}" if row["average"] else ""
    if row["schedule"] == "cosine":
        return f"cosine schedule, peak x {row['learning_rate'] / PEAK:g}"
    if row["optimizer"] == "schedule-free":
        return f"schedule-free, beta1 {TrunkConfig.model_validate_json(row['config']).beta1}"
    if row["optimizer"] == "muon":
        return "muon, 1-sqrt"
    return low + (row["cooldown_shape"] if row["cooldown"] else "no cooldown") + average


def main() -> None:
    """Train what is missing, and print the table."""
    folder = Path(tempfile.gettempdir()) / ("bitlaw-schedules-pilot" if PILOT else "bitlaw-schedules")
    store = Store(folder / "runs.sqlite")
    planned = configs(read_corpus().sha256)
    run_sweep(planned, store, folder / "checkpoints", workers=1)
    rows = folder / "rows.csv" if PILOT else HERE / "rows.csv"
    ids = {end for config in planned for branch in config.branches() for end in config.end_ids(branch)}
    write_runs(store.runs().filter(pl.col("id").is_in(list(ids))), rows)
    told = [{**row, "way": name(row)} for row in read_runs(rows).frame.to_dicts()]
    frame = pl.DataFrame([{k: row[k] for k in ("way", "seed", "tokens", "loss")} for row in told]).unique()
    base = frame.filter(pl.col("way") == REFERENCE).select("seed", "tokens", pl.col("loss").alias("base"))
    print(f"loss, and loss less that of {REFERENCE}, same seeds; ± half a 90 % t-interval over seeds")
    pairs = frame.drop_nulls().join(base, on=["seed", "tokens"])
    for (tokens, way), group in sorted(
        pairs.group_by("tokens", "way"), key=lambda g: (g[0][0], g[1]["loss"].mean())
    ):
        off = (group["loss"] - group["base"]).to_numpy()
        half = student.ppf(0.95, len(off) - 1) * off.std(ddof=1) / np.sqrt(len(off))
        mean = group["loss"].mean()
        print(f"{tokens:>9,.0f} tokens, n = {len(off)}: {mean:.4f}, {off.mean():+.4f} ± {half:.4f}  {way}")
    plain = planned[0].model_copy(update={"late": ()})
    print(f"one trunk takes {savings(plain).ratio:.3f} of the tokens that a run for each budget takes")


if __name__ == "__main__":
    main()
