"""Rows that stand apart: no law reads what was done to them, so fits leave them out and say so."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray


def no_law_reads(frame: pl.DataFrame) -> Iterator[tuple[NDArray[np.bool_], str]]:
    """Yield which rows (n,) are left out whatever the law, and why, in words.

    Those of a low precision that came late, of fine-tuned models, and of averaged weights, where others are not: they
    are the same runs.
    """
    late = (frame["qat_share"].fill_null(1.0) < 1).to_numpy()
    if late.any():
        yield (
            late,
            f"{int(late.sum())} rows trained in low precision at the end only are left out: no law reads it",
        )
    tuned = frame["tuning"].is_not_null().to_numpy()
    if tuned.any():
        yield tuned, f"{int(tuned.sum())} rows of fine-tuned models are left out: no law reads them"
    averaged = frame["average"].is_not_null().to_numpy()
    if 0 < averaged.sum() < len(frame):
        yield (
            averaged,
            f"{int(averaged.sum())} rows of averaged weights are left out: they are the same runs as others; fit them "
            "apart",
        )
