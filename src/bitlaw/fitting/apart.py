"""Rows that stand apart: laws do not read what was done to them, so fits and figures leave them out and say so."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..formats import UNQUANTIZED
from ..laws import Law
from ..runs import Runs

#: Parts whose low precision moves a loss, and which hardly any law reads.
UNREAD = {
    "emb": "embeddings of low precision",
    "head": "an output head of low precision",
    "q": "queries of low precision",
    "grad": "gradients of low precision",
    "grad_w": "gradients of weights of low precision",
    "post_a": "activations quantised after training",
    "post_kv": "keys and values quantised after training",
}


def apart(law: Law, runs: Runs) -> Iterator[tuple[NDArray[np.bool_], str]]:
    """Yield which rows (n,) of a table a law leaves out for what was done to them, and why, in words."""
    for part, what in UNREAD.items():
        beyond = (runs.bits(part) < UNQUANTIZED).to_numpy()
        if part not in law.parts and beyond.any():
            yield beyond, f"{int(beyond.sum())} rows with {what} are left out: this law does not read it"
    sparse = (runs.frame["w_sparsity"].fill_null(0.0) > 0).to_numpy()
    if sparse.any() and "w_sparsity" not in law.columns:
        yield sparse, f"{int(sparse.sum())} rows with sparse weights are left out: this law does not read it"
    yield from no_law_reads(runs.frame)


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
