"""The checked table of runs, and what laws read from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import polars as pl

from ..errors import DataError, nearest
from ..formats import UNQUANTIZED, Format, law_bits, layout, parse_format
from ..formats.gaussian import effective_bits
from ..html import table
from ..shell import printable
from .check import check
from .raw import column_of
from .schema import COLUMN, OVERVIEW, SCHEMA

SHOWN = 10  # rows of a table in a notebook
Count: TypeAlias = Literal["non_embedding", "total", "matmul", "as_given"]

_WHOLE = pl.col("post_format").is_null()
#: Rows of models as training left them, and of such that were fine-tuned; the others were quantised after it.
TRAINED, TUNED = _WHOLE & pl.col("tuning").is_null(), _WHOLE & pl.col("tuning").is_not_null()


class Runs:
    """An immutable, checked table of runs.

    Build one with `bitlaw.read_runs`, which checks every cell, or from a list of rows. `frame` is a
    polars data frame with all columns of the schema; absent ones are null.

    >>> runs = Runs.from_rows([{"id": "a", "params": 1e6, "tokens": 2e7, "loss": 3.1}])
    >>> len(runs), runs.frame["w_format"].to_list()
    (1, [None])
    """

    def __init__(self, frame: pl.DataFrame, source: str = "") -> None:
        missing = [pl.lit(None, SCHEMA[name]).alias(name) for name in SCHEMA if name not in frame.columns]
        self.frame = frame.with_columns(missing).select(list(SCHEMA)).cast(pl.Schema(SCHEMA))
        self.source = printable(source)

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]], source: str = "") -> Runs:
        """Check rows given as mappings from column to value; absent columns are null.

        Raises:
            DataError: naming the row, column and value that is wrong.
        """
        rows = list(rows)
        for place, row in enumerate(rows, start=1):
            for name, value in row.items():
                if name not in COLUMN:
                    raise DataError(f"row {place}: unknown column {name!r}")
                if not isinstance(value, (str, int, float, np.generic, type(None))):
                    raise DataError(
                        f"row {place}, column {name}: {ascii(value)[:60]} is neither text nor a number"
                    )
        given = {name for row in rows for name, value in row.items() if value is not None} | {"id"}
        try:
            cells = [
                column_of([row.get(name) for row in rows]).alias(name) for name in SCHEMA if name in given
            ]
        except UnicodeEncodeError as error:
            raise DataError(f"{ascii(error.object)[:80]} holds half a character, which is no text") from error
        checked, flaws = check(pl.DataFrame(cells))
        if flaws:
            first = flaws[0]
            raise DataError(
                f"row {first.row + 1}{first.column and f', column {first.column}:'} {first.reason}"
            )
        return cls(checked, source)

    def __len__(self) -> int:
        return self.frame.height

    def __repr__(self) -> str:
        ok = self.ok()
        trained, tuned = ok.filter(TRAINED).height, ok.filter(TUNED).height
        quantized = ok.height - trained - tuned
        said = f", {tuned} tuned" if tuned else ""
        return (
            f"<Runs{' of ' + self.source if self.source else ''}: {trained} trained{said}, {quantized} quantised after "
            f"training, {len(self) - ok.height} without a loss>"
        )

    def _repr_html_(self) -> str:
        header, rows = overview(self)
        more = f"<p>... and {len(rows) - SHOWN} more rows.</p>" if len(rows) > SHOWN else ""
        return f"<div>{table(header, rows[:SHOWN], caption=repr(self)[1:-1])}{more}</div>"

    def ok(self) -> pl.DataFrame:
        """Rows that have a loss."""
        return self.frame.filter(pl.col("loss").is_not_null())

    def to_pandas(self) -> Any:
        """A pandas data frame of all columns; needs pandas and pyarrow.

        Raises:
            DataError: they are not installed.
        """
        return self._native("to_pandas", "pandas pyarrow")

    def to_arrow(self) -> Any:
        """An Arrow table of all columns; needs pyarrow.

        Raises:
            DataError: it is not installed.
        """
        return self._native("to_arrow", "pyarrow")

    def _native(self, method: str, packages: str) -> Any:
        try:
            return getattr(self.frame, method)()
        except ImportError as error:
            raise DataError(f"this needs packages that are not installed: pip install {packages}") from error

    def filter(self, *predicates: pl.Expr) -> Runs:
        """Return the rows for which all polars expressions hold."""
        return Runs(self.frame.filter(*predicates), self.source)

    def size(self, count: Count = "as_given") -> pl.Series:
        """N of every row under a counting convention.

        `as_given` is the `params` column. The others are taken from `params` where its `count` says that it is that
        convention, and else summed from the parts.

        Raises:
            DataError: rows of mixed conventions, or rows that cannot be counted in this one.
        """
        frame = self.frame
        if count == "as_given":
            kinds = frame["count"].unique().to_list()
            if len(kinds) > 1:
                raise DataError(
                    f"rows count parameters in different ways ({', '.join(map(str, sorted(map(str, kinds))))}); "
                    "choose one with count='non_embedding', 'total' or 'matmul'"
                )
            sizes = frame["params"]
        else:
            parts = {
                "non_embedding": ("attention", "mlp", "norm"),
                "total": ("embedding", "attention", "mlp", "norm", "head"),
                "matmul": ("attention", "mlp", "head"),
            }[count]
            total = pl.sum_horizontal([pl.col(f"params_{p}") for p in parts], ignore_nulls=False)
            given = pl.when(pl.col("count") == count).then(pl.col("params"))
            sizes = frame.select(pl.coalesce(given, total.cast(pl.Float64)).alias("params"))["params"]
        if sizes.null_count():
            place = sizes.is_null().arg_true()[0]
            raise DataError(
                f"row {frame['id'][place]!r} has no {'`params`' if count == 'as_given' else count + ' count'}; "
                "give `params`, or the counts by part"
            )
        return sizes.cast(pl.Float64)

    def bits(self, part: str) -> pl.Series:
        """Bits that laws read for a part (`w`, `a`, `kv`, `grad`, `emb` or `post`); unquantised is a million."""
        return self._of_format(part, law_bits)

    def capacity(self, part: str) -> pl.Series:
        """Effective bits of a part's format on Gaussian data; very large where unquantised."""
        return self._of_format(part, effective_bits)

    def layout(self, part: str, field: Literal["exponent", "mantissa"]) -> pl.Series:
        """Bits of the exponent or mantissa of a part's format; NaN for integers, a million where unquantised."""
        place = ("exponent", "mantissa").index(field)
        return self._of_format(part, lambda fmt: layout(fmt)[place])

    def group(self, part: str) -> pl.Series:
        """Elements that share one scale of a part (`w`, `a` or `post`); 2 where unquantised, for want of scales.

        `{part}_group` where given; a channel is as long as the model is wide; otherwise unknown.
        """
        channel = pl.when(pl.col(f"{part}_granularity") == "channel").then(pl.col("width"))
        unquantised = pl.lit(self.bits(part) == UNQUANTIZED)
        group = pl.when(unquantised).then(2).otherwise(pl.coalesce(f"{part}_group", channel))
        return self.frame.select(group.cast(pl.Float64).alias("group"))["group"]

    def quantity(self, name: str) -> pl.Series:
        """What laws read under a name: a column, or what follows from columns; null or NaN where unknown.

        `w_format=int4` is 1 where the column has that label, 0 elsewhere. `batch_tokens` is batch size times
        sequence length, or tokens over steps. `neg_log_accuracy` is of the accuracy above chance,
        -ln[(1 - error - chance) / (1 - chance)].

        Raises:
            DataError: a name that no column gives.

        >>> runs = Runs.from_rows([{"tokens": 6.4e6, "loss": 3.1, "batch_size": 64, "seq_len": 1000}])
        >>> runs.quantity("batch_tokens").to_list(), runs.quantity("w_bits").to_list()
        ([64000.0], [1000000.0])
        """
        column, _, label = name.partition("=")
        part, _, kind = name.rpartition("_")
        derived: dict[str, Callable[[str], pl.Series]] = {
            "bits": self.bits,
            "capacity": self.capacity,
            "exponent": lambda part: self.layout(part, "exponent"),
            "mantissa": lambda part: self.layout(part, "mantissa"),
        }
        if kind in derived and f"{part}_format" in COLUMN:
            return derived[kind](part)
        if kind == "group" and name in COLUMN:
            return self.group(part)
        col = pl.col
        if label and column in COLUMN:
            expression = (col(column) == label).fill_null(False)
        elif name == "batch_tokens":
            expression = pl.coalesce(col("batch_size") * col("seq_len"), col("tokens") / col("steps"))
        elif name == "neg_log_accuracy":
            above = (1 - col("error") - col("chance")) / (1 - col("chance"))
            expression = pl.when(above > 0).then(-above.log())
        elif name in COLUMN and COLUMN[name].kind in ("integer", "number"):
            expression = col(name)
        else:
            raise DataError(f"rows have no quantity {name!r}; {nearest(name, COLUMN)}")
        return self.frame.select(expression.cast(pl.Float64).alias(name))[name]

    def _of_format(self, part: str, quantity: Callable[[Format], float]) -> pl.Series:
        names = self.frame[f"{part}_format"].fill_null("bf16")
        known = {name: quantity(parse_format(name)) for name in names.unique()}
        return names.replace_strict(known, return_dtype=pl.Float64)


def overview(runs: Runs) -> tuple[list[str], list[list[str]]]:
    """The columns that identify a run and say how it ended, as far as they are filled: a header, and rows of text."""
    used = [name for name in OVERVIEW if runs.frame[name].null_count() < len(runs)]
    rows = [
        ["" if v is None else f"{v:.5g}" if isinstance(v, float) else str(v) for v in row]
        for row in runs.frame.select(used).rows()
    ]
    return used, rows
