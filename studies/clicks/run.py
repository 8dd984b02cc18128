"""Stochastic against deterministic write-back, ALPT against LPT against LSQ, 8 bits against full precision: five seeds.

    python studies/clicks/run.py synthetic
    python studies/clicks/run.py flights.csv        # which flights.py writes

Trains on 90,000 rows, chooses by 30,000, tests on 30,000 others. A seed draws first values, order, rounding, and rows,
but the test rows of a file, which are always the same; of synthetic clicks it draws the teacher too. The rate is the
one by which float32 does best on validation rows; clips and the rates of steps are chosen as `compare` does. Scores go
to scores-NAME.csv beside this file, comparisons to the screen.
"""

import csv
import sys
from dataclasses import asdict
from itertools import product
from pathlib import Path

import torch

from bitlaw.lab.tasks import Method, Training, compare, paired, read_table, summarise, synthetic, train
from bitlaw.lab.tasks.clickthrough import CHOOSING_SEED, Score

SEEDS = range(5)
BITS = (8, 4, 2)
ROWS = 150_000
METHODS = [Method("float32")]
METHODS += [Method("lsq", bits) for bits in BITS]
METHODS += [
    Method(way, bits, rounding)
    for way, bits, rounding in product(("lpt", "alpt"), BITS, ("stochastic", "nearest"))
]


def row(score: Score) -> dict[str, object]:
    """A score as a line of CSV."""
    return asdict(score.method) | {k: v for k, v in vars(score).items() if k not in ("method", "seconds")}


def main(source: str) -> None:
    """Run all of it on one table."""
    torch.set_num_threads(1)
    flights = None if source == "synthetic" else read_table(source, "late")
    rates = {
        rate: train(
            flights or synthetic(CHOOSING_SEED), Method("float32"), CHOOSING_SEED, Training(rate=rate), ROWS
        ).auc_validation
        for rate in (1e-3, 3e-3, 1e-2)
    }
    best = max(rates, key=lambda rate: rates[rate])
    print("rate of float32 by validation AUC:", {rate: round(value, 4) for rate, value in rates.items()})
    scores = []
    path = Path(__file__).with_name(f"scores-{Path(source).stem}.csv")
    with path.open("w", newline="") as file:
        for score in compare(
            lambda seed: flights or synthetic(seed), METHODS, SEEDS, Training(rate=best), ROWS
        ):
            if not scores:
                writer = csv.DictWriter(file, row(score), lineterminator="\n")
                writer.writeheader()
            scores.append(score)
            writer.writerow(row(score))
            file.flush()
    for line in summarise(scores):
        apart = (
            ""
            if line.difference is None
            else f"  to float32 {line.difference:+.4f} +- {line.difference_half:.4f}"
        )
        lost = "" if line.lost is None else f"  lost {line.lost:.3f}"
        print(
            f"{line.method.name:22} clip {line.method.clip:5} step rate {line.method.step_rate:g}  "
            f"AUC {line.auc:.4f} +- {line.auc_half:.4f}{apart}{lost}  {line.table_bytes:.0f} bytes"
        )
    if scores[0].ceiling is not None:
        print("teacher", sum(score.ceiling or 0 for score in scores) / len(scores))
    pairs = [(f"{way} int{b} stochastic", f"{way} int{b} nearest") for way in ("lpt", "alpt") for b in BITS]
    pairs += [(f"alpt int{b} {how}", f"lpt int{b} {how}") for b in BITS for how in ("stochastic", "nearest")]
    pairs += [(f"{way} int{b} stochastic", f"lsq int{b}") for way in ("lpt", "alpt") for b in BITS]
    for one, other in pairs:
        mean, half = paired(scores, one, other) or (float("nan"), float("nan"))
        print(f"{one} - {other}: {mean:+.4f} +- {half:.4f}")


if __name__ == "__main__":
    main(sys.argv[1])
