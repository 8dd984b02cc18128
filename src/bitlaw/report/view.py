"""The rows of a table as the figures want them: bits as numbers, trained and quantised apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..fitting import Fit
from ..formats import UNQUANTIZED
from ..laws.terms import PARTS
from ..planning.cost import train_flops
from ..runs import Count, Runs


@dataclass(frozen=True)
class View:
    """Rows with a loss.

    Attributes:
        trained: rows before quantisation after training.
        quantized: rows with a gap.
        losses: loss of every row with one, in table order (what held-out indices point into).
    """

    trained: pl.DataFrame
    quantized: pl.DataFrame
    losses: NDArray[np.float64]

    @classmethod
    def of(cls, runs: Runs, fit: Fit) -> View:
        """Arrange a table for the figures of a fit."""
        ok = runs.filter(pl.col("loss").is_not_null())
        count: Count = fit.count if fit.count in ("non_embedding", "total", "matmul") else "as_given"  # type: ignore[assignment]
        frame = ok.frame.with_columns(
            ok.size(count).alias("params"),
            *(ok.bits(part).alias(f"{part}_bits") for part in (*PARTS, "post")),
        )
        trained = frame.filter(pl.col("post_format").is_null())
        return cls(
            trained=trained,
            quantized=frame.filter((pl.col("post_bits") < UNQUANTIZED) & pl.col("gap").is_not_null()),
            losses=frame["loss"].to_numpy(),
        )

    def weights_only(self) -> pl.DataFrame:
        """Trained rows whose activations, keys and values are unquantised."""
        return self.trained.filter((pl.col("a_bits") == UNQUANTIZED) & (pl.col("kv_bits") == UNQUANTIZED))

    def largest_cost(self) -> float:
        """Cost of the dearest trained run at 16 bits."""
        params, tokens = (self.trained[name].to_numpy() for name in ("params", "tokens"))
        return float(train_flops(params, tokens, np.full(len(params), 16.0)).max())
