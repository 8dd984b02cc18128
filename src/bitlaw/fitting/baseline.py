"""Guesses without a law, which any law must beat to be worth its name (Choshen et al. 2024, 2410.11840)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .objective import Block
from .result import HeldOut, held_out_errors
from .rows import Rows

MOST = "the loss of the run with most compute"


@dataclass(frozen=True)
class Baseline:
    """A guess and its errors on the rows held out."""

    name: str
    held_out: HeldOut


def baselines(train: Rows, test: Rows, what: str, split: str) -> list[Baseline]:
    """Guess the held-out rows from those to be fitted, without a law.

    Losses: the best loss seen, and the loss of the run with most compute. Gaps: the middle gap of rows of the
    same bits after training, or of the nearest bits.
    """
    seen, ahead = (train.loss, test.loss) if what == "loss" else (train.gap, test.gap)
    if seen is None or ahead is None or not len(seen) or not len(ahead):
        return []
    if what == "gap":
        known = np.isin(ahead.data["post_bits"], seen.data["post_bits"]).all()
        return [
            Baseline(
                f"the middle gap at the same{'' if known else ' or the nearest'} bits",
                held_out_errors(split, _by_bits(seen, ahead), ahead),
            )
        ]
    most = int(np.argmax(train.facts["params"][seen.row] * train.facts["tokens"][seen.row]))
    guesses = {
        "the best loss seen": float(seen.measured.min()),
        MOST: float(seen.measured[most]),
    }
    return [
        Baseline(name, held_out_errors(split, np.full(len(ahead), value), ahead))
        for name, value in guesses.items()
    ]


def _by_bits(seen: Block, ahead: Block) -> np.ndarray:
    bits = seen.data["post_bits"]
    widths = np.unique(bits)
    middle = np.array([np.median(seen.measured[bits == w]) for w in widths])
    nearest = np.abs(ahead.data["post_bits"][:, None] - widths).argmin(1)
    guess: np.ndarray = middle[nearest]
    return guess
