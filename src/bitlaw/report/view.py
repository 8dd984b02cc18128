"""The rows of a table as the figures want them: numbers that the fitted law reads, trained and quantised apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..errors import DataError
from ..fitting import Fit
from ..fitting.apart import apart
from ..fitting.rows import gaps, select
from ..formats import UNQUANTIZED
from ..laws.terms import TRAINED_PARTS
from ..planning.cost import train_flops
from ..runs import Runs
from .chart import NothingToDraw

Array = NDArray[np.float64]
#: Rows without low precision in training.
UNQUANTISED = pl.all_horizontal(pl.col(f"{part}_bits") == UNQUANTIZED for part in TRAINED_PARTS)


@dataclass(frozen=True)
class View:
    """Rows with a loss, beside a fit.

    Attributes:
        fit: the fit.
        frame: rows with a loss in table order (what held-out indices point into), with `fitted`, as what the fit took
            the row (`loss`, `gap` or nothing), `apart`, whether the law leaves it out for what was done to it,
            `measured`, what the law predicts, `gap`, also where it follows from the parent's loss, and a column for
            each of the law's inputs, NaN where the table does not say.
        own: whether the fit was made from these rows; else `fitted` is what it could take them as, and held-out indices
            mean nothing.
    """

    fit: Fit
    frame: pl.DataFrame
    own: bool

    @classmethod
    def of(cls, runs: Runs | View, fit: Fit) -> View:
        """Arrange a table for the figures of a fit; what is arranged already stays as it is."""
        if isinstance(runs, View):
            return runs
        ok = runs.filter(pl.col("loss").is_not_null())
        inputs = [i for i in fit.law.inputs if i.column not in ("params", "tokens")]
        sizes = (
            ok.size(fit.counting)
            if "params" in fit.law.columns and len(ok)
            else ok.frame["params"].cast(pl.Float64)
        )
        target = ok.frame["loss"] if fit.law.target == "loss" else ok.quantity(fit.law.target)
        fitted, lone = np.full(len(ok), "", dtype=object), np.zeros(len(ok), dtype=bool)
        for mask, _ in apart(fit.law, ok):
            lone |= mask
        for block in select(fit.law, runs, fit.counting).blocks():
            fitted[block.row] = block.kind
        frame = ok.frame.with_columns(
            sizes.alias("params"),
            target.fill_null(float("nan")).alias("measured"),
            pl.Series("fitted", fitted.tolist(), dtype=pl.String),
            pl.Series("apart", lone),
            pl.Series("gap", gaps(ok.frame)[0]).fill_nan(None),
            *(ok.bits(part).alias(f"{part}_bits") for part in (*TRAINED_PARTS, "post")),
        ).with_columns(_read(ok, i.column).alias(i.column) for i in inputs)
        return cls(fit, frame.with_columns(pl.int_range(frame.height).alias("place")), fit.is_of(runs))

    @cached_property
    def trained(self) -> pl.DataFrame:
        """Rows before quantisation after training that the law was, or could be, fitted to."""
        return self.frame.filter(pl.col("post_format").is_null() & (pl.col("fitted") == "loss"))

    @cached_property
    def quantized(self) -> pl.DataFrame:
        """Rows with a gap, but for those that the law leaves out."""
        return self.frame.filter(
            (pl.col("post_bits") < UNQUANTIZED) & pl.col("gap").is_not_null() & ~pl.col("apart")
        )

    @cached_property
    def lone(self) -> pl.DataFrame:
        """Rows with a gap that the law leaves out for what was done to them."""
        return self.frame.filter(pl.col("gap").is_not_null() & pl.col("apart"))

    @cached_property
    def held(self) -> dict[int, float]:
        """The signed relative error of each held-out row, by its place; nothing for rows of another fit."""
        held = self.fit.held_out
        return {} if held is None or not self.own else dict(zip(held.index, held.errors, strict=True))

    def weights_only(self) -> pl.DataFrame:
        """Trained rows of which everything but the weights is unquantised."""
        return self.trained.filter(but("w"))

    def largest_cost(self) -> float:
        """Cost of the costliest trained run at 16 bits."""
        self.need("params", "tokens")
        params, tokens = (self.trained[name].to_numpy() for name in ("params", "tokens"))
        if not len(params):
            raise NothingToDraw("no row has a loss of its own; give rows before quantisation")
        return float(train_flops(params, tokens, np.full(len(params), 16.0)).max())

    def need(self, *columns: str) -> None:
        """Refuse laws that do not read some columns, or that predict no loss.

        Raises:
            NothingToDraw: such a law.
        """
        law = self.fit.law
        missing = [name for name in columns if name not in law.columns]
        if missing or law.loss == 0:
            what = f"does not read {' and '.join(missing)}" if missing else "has no loss in training"
            raise NothingToDraw(f"{law.name} {what}; take a law that does")

    # ---- what the law says

    def data(self, rows: pl.DataFrame) -> dict[str, Array]:
        """The law's inputs for some rows of `frame`, each (n,)."""
        return {i.column: rows[i.column].cast(pl.Float64).to_numpy() for i in self.fit.law.inputs}

    def predicted(self, rows: pl.DataFrame, what: str = "total") -> Array:
        """Predictions for some rows of `frame` (n,); NaN outside the law's domain."""
        theta = self.fit.law.vector(self.fit.values)
        return self._finite(self.fit.law.compiled.guarded(what, theta, self.data(rows)))

    def curve(self, row: Mapping[str, Any], what: str = "total", **swap: Array) -> tuple[Array, Array, Array]:
        """Prediction and interval along arrays of one shape that take the place of what one row has.

        Args:
            row: a row of `frame`, or any mapping with the law's inputs.
            what: `total` or `gap`.
            **swap: arrays by column.

        Returns:
            The prediction and both ends of the fit's confidence interval, NaN outside the law's domain, and the
            ends NaN where there are no draws.
        """
        theta = np.concatenate([self.fit.law.vector(self.fit.values)[None], self.fit.draws])
        values = self._along(theta, what, row, swap)
        low = high = np.full(values.shape[1:], np.nan)
        if self.fit.df:
            low, high = self.ends(values[1:])
        return values[0], low, high

    def values(self, row: Mapping[str, Any], what: str = "total", **swap: Array) -> Array:
        """The prediction of `curve` without its interval, for surfaces."""
        found: Array = self._along(self.fit.law.vector(self.fit.values)[None], what, row, swap)[0]
        return found

    def _along(self, theta: Array, what: str, row: Mapping[str, Any], swap: Mapping[str, Array]) -> Array:
        shape = np.broadcast_shapes(*(np.shape(value) for value in swap.values()))
        inputs = dict(swap)
        unique, tokens = row.get("unique_tokens"), row.get("tokens")
        if "tokens" in swap and (not unique or tokens is None or unique >= tokens):
            inputs["unique_tokens"] = swap["tokens"]  # a row that repeats nothing still would not
        data = {
            i.column: np.broadcast_to(np.asarray(inputs.get(i.column, row[i.column]), float), shape).ravel()
            for i in self.fit.law.inputs
        }
        values = self._finite(self.fit.law.compiled.guarded(what, theta, data))
        return np.asarray(values.reshape((len(theta), *shape)), dtype=np.float64)

    def ends(self, draws: Array) -> tuple[Array, Array]:
        """The ends of the fit's interval from draws (S, n), NaN where none is finite."""
        tail = (1 - self.fit.level) / 2
        finite = np.isfinite(draws)
        whole, some = finite.all(axis=0), finite.any(axis=0)
        out = np.full((2, draws.shape[1]), np.nan)
        out[:, whole] = np.quantile(draws[:, whole], [tail, 1 - tail], axis=0)
        # Where any may be missing, numpy goes column by column, which takes ten times as long.
        part = some & ~whole
        out[:, part] = np.nanquantile(draws[:, part], [tail, 1 - tail], axis=0)
        return out[0], out[1]

    @staticmethod
    def _finite(values: Array) -> Array:
        return np.where(np.isfinite(values), values, np.nan)


def but(part: str) -> pl.Expr:
    """Rows without low precision in training of any other part."""
    return pl.all_horizontal(
        pl.col(f"{other}_bits") == UNQUANTIZED for other in TRAINED_PARTS if other != part
    )


def _read(runs: Runs, name: str) -> pl.Series:
    try:
        return runs.quantity(name).fill_null(float("nan"))
    except DataError:
        return pl.Series(name, np.full(len(runs), np.nan))
