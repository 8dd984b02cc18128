"""The columns of the run table, each with its type, unit and bounds, and the checked table itself.

A row is one model at one moment: the end of a training run, or that model after quantisation (then
`post_format` is set and `parent` names the row it was made from). A loss is finite or absent; what went
wrong is a `status`, never a NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import polars as pl

from ..errors import ConfigError, DataError, nearest
from ..formats import UNQUANTIZED, Format, law_bits, layout, parse_format
from ..formats.gaussian import effective_bits

Count: TypeAlias = Literal["non_embedding", "total", "matmul", "as_given"]
Kind: TypeAlias = Literal["text", "integer", "number", "format"]

STATUSES = ("ok", "diverged", "failed")
_DTYPE: dict[str, type[pl.DataType]] = {
    "text": pl.String,
    "integer": pl.Int64,
    "number": pl.Float64,
    "format": pl.String,
}


@dataclass(frozen=True)
class Column:
    """One column: its kind, bounds (`low` may be exclusive), unit and meaning."""

    name: str
    kind: Kind
    meaning: str
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    exclusive: bool = False
    choices: tuple[str, ...] = ()

    def problem(self, value: Any) -> str:
        """Say what is wrong with a value of the right type; an empty string means nothing."""
        if self.kind in ("integer", "number"):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                return f"{value!r} is not a number"
        elif not isinstance(value, str):
            return f"{value!r} is not text"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{value} is not finite; leave the cell empty and say why in `status`"
        if self.kind in ("integer", "number"):
            if value < self.low or value > self.high or (self.exclusive and value == self.low):
                return f"{value:g} is out of range; {self.name} must be {self.range_text()}"
        elif self.kind == "format":
            try:
                parse_format(value)
            except ConfigError as error:
                return str(error)
        elif self.choices and value not in self.choices:
            return f"{value!r} is not one of {', '.join(self.choices)}"
        return ""

    def range_text(self) -> str:
        """The bounds in words."""
        low = "" if self.low == -math.inf else f"{'above' if self.exclusive else 'at least'} {self.low:g}"
        high = "" if self.high == math.inf else f"at most {self.high:g}"
        return " and ".join(part for part in (low, high) if part) or "finite"


def _count(part: str) -> Column:
    return Column(f"params_{part}", "integer", f"parameters of the {part} part", "parameters", low=0)


def _format(part: str, meaning: str) -> Column:
    return Column(f"{part}_format", "format", f"number format of {meaning} in training; empty means bf16")


def _scale(part: str) -> Column:
    choices = ("tensor", "channel", "token", "group", "block")
    return Column(f"{part}_granularity", "text", f"what shares one scale in `{part}_format`", choices=choices)


def _group(part: str) -> Column:
    return Column(f"{part}_group", "integer", f"elements that share one scale in `{part}_format`", low=1)


def _stored(part: str, meaning: str) -> Column:
    meaning = f"how updates of {meaning} were written back; empty means to a float master copy"
    return Column(f"{part}_stored", "text", meaning, choices=("nearest", "stochastic"))


COLUMNS: tuple[Column, ...] = (
    Column("id", "text", "unique name of the row; made from the row's place in the table if absent"),
    Column("status", "text", "`ok`, or why there is no loss; empty means ok", choices=STATUSES),
    Column("reason", "text", "what happened, when the status is not ok"),
    Column("trunk", "text", "training run that the row descends from; rows of one trunk are not independent"),
    Column("parent", "text", "id of the row before quantisation"),
    Column("seed", "integer", "of initialisation and data order", low=0),
    Column("params", "number", "N, model size by the convention in `count`", "parameters", 0, exclusive=True),
    Column("count", "text", "convention of `params`", choices=("non_embedding", "total", "matmul")),
    _count("embedding"),
    _count("attention"),
    _count("mlp"),
    _count("norm"),
    _count("head"),
    Column("tokens", "number", "D, training tokens seen; laws need it", "tokens", 0, exclusive=True),
    Column("unique_tokens", "number", "distinct training tokens seen", "tokens", 0, exclusive=True),
    Column("flops", "number", "training FLOPs, matrix products counted exactly", "flops", 0, exclusive=True),
    Column("flops_6nd", "number", "6 N D with non-embedding N", "flops", 0, exclusive=True),
    _format("w", "weights"),
    _scale("w"),
    _group("w"),
    _stored("w", "weights"),
    Column(
        "w_sparsity",
        "number",
        "share of the weights that is zero; empty means unknown",
        "share",
        low=0,
        high=0.999,
    ),
    _format("a", "activations"),
    _scale("a"),
    _group("a"),
    _format("kv", "keys and values"),
    _scale("kv"),
    _format("q", "queries"),
    _format("emb", "embeddings"),
    _stored("emb", "embeddings"),
    _format("head", "the output head"),
    _stored("head", "the output head"),
    _format("grad", "gradients of activations"),
    _format("grad_w", "gradients of weights"),
    Column(
        "qat_share",
        "number",
        "last share of the tokens trained in these formats, 16 bits before; empty means all",
        low=0,
        high=1,
    ),
    Column("post_format", "format", "format the weights were quantised to after training; empty means none"),
    _scale("post"),
    _group("post"),
    Column("post_a_format", "format", "format of activations after training; empty means as trained"),
    _scale("post_a"),
    _group("post_a"),
    Column("post_kv_format", "format", "format of keys and values after training; empty means as trained"),
    _scale("post_kv"),
    _group("post_kv"),
    Column("method", "text", "how they were quantised: `rtn`, `gptq`, `awq`"),
    Column("calibration_samples", "integer", "texts that `method` was calibrated on", "texts", low=1),
    Column("calibration_sha256", "text", "hash of these texts, as tokens"),
    Column("bpw", "number", "bits per quantised weight, scales included", "bits", 0, exclusive=True),
    Column(
        "bytes", "number", "the whole model, quantised weights packed and all else in 16 bits", "bytes", 0
    ),
    Column(
        "lost_updates",
        "number",
        "share of the updates of stored weights that were rounded to nothing",
        "share",
        low=0,
        high=1,
    ),
    Column("loss", "number", "cross-entropy on the evaluation set", "nats/token", 0, exclusive=True),
    Column("loss_se", "number", "standard error of `loss` over the evaluation set", "nats/token", 0),
    Column(
        "gap", "number", "loss after minus before quantisation, same tokens; may be negative", "nats/token"
    ),
    Column("gap_se", "number", "standard error of `gap`, paired", "nats/token", 0),
    Column("kl", "number", "divergence of next-token probabilities from those before", "nats/token"),
    Column("kl_se", "number", "standard error of `kl`", "nats/token", 0),
    Column("eval_clusters", "integer", "documents or windows that standard errors are over", low=1),
    Column("error", "number", "mean top-1 error over downstream tasks", "share", low=0, high=1),
    Column("chance", "number", "accuracy of guessing on these tasks", "share", low=0, high=0.999),
    Column("schedule", "text", "learning-rate schedule, like `constant` or `cosine`"),
    Column("cooldown", "number", "last share of the tokens over which the rate falls", low=0, high=1),
    Column("learning_rate", "number", "peak learning rate", low=0, exclusive=True),
    Column("learning_rate_end", "number", "learning rate at the checkpoint", low=0),
    Column("warmup_steps", "integer", "steps over which the rate rises", "steps", low=0),
    Column("weight_decay", "number", "AdamW weight decay", low=0),
    Column("steps", "integer", "optimiser steps", "steps", low=0),
    Column("batch_size", "integer", "sequences a step", "sequences", low=1),
    Column("seq_len", "integer", "tokens a sequence", "tokens", low=1),
    Column("width", "integer", "residual stream", low=1),
    Column("depth", "integer", "blocks", low=1),
    Column("heads", "integer", "attention heads", low=1),
    Column("ffn", "integer", "feed-forward width", low=1),
    Column("vocab", "integer", "tokens the model knows", low=1),
    Column("corpus", "text", "what was read"),
    Column("corpus_sha256", "text", "hash of training and held-out text"),
    Column("eval_sha256", "text", "hash of the evaluation tokens"),
    Column("eval_tokens", "integer", "size of the evaluation set", "tokens", low=1),
    Column("eval_batch", "integer", "sequences evaluated at once; per-tensor scales depend on it", low=1),
    Column("config", "text", "the resolved configuration, as JSON"),
    Column("versions", "text", "of bitlaw, torch and Python, and the kind of machine"),
    Column("started", "text", "UTC time the work began, ISO 8601"),
    Column("seconds", "number", "time spent on the row", "s", low=0),
)
#: What a person looks at first.
OVERVIEW = (
    "id",
    "params",
    "tokens",
    *(f"{part}_format" for part in ("w", "a", "kv", "post")),
    "loss",
    "gap",
    "gap_se",
    "status",
)
COLUMN: dict[str, Column] = {column.name: column for column in COLUMNS}
SCHEMA: dict[str, type[pl.DataType]] = {column.name: _DTYPE[column.kind] for column in COLUMNS}


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
        self.source = source

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]], source: str = "") -> Runs:
        """Check rows given as mappings from column to value; absent columns are null.

        Raises:
            DataError: naming the row, column and value that is wrong.
        """
        rows = named(rows)
        for place, row in enumerate(rows, start=1):
            for name, value in row.items():
                if name not in COLUMN:
                    raise DataError(f"row {place}: unknown column {name!r}")
                problem = "" if value is None else COLUMN[name].problem(value)
                if problem:
                    raise DataError(f"row {place}, column {name}: {problem}")
            check_row(row, f"row {place}")
        columns = {name: kind for name, kind in SCHEMA.items() if any(name in row for row in rows)}
        frame = pl.DataFrame(rows, schema=columns)
        runs = cls(frame, source)
        check_unique(runs.frame)
        return runs

    def __len__(self) -> int:
        return self.frame.height

    def __repr__(self) -> str:
        ok = self.ok()
        trained = ok.filter(pl.col("post_format").is_null())
        return (
            f"<Runs{' of ' + self.source if self.source else ''}: {trained.height} trained, "
            f"{ok.height - trained.height} quantised after training, {len(self) - ok.height} without a loss>"
        )

    def ok(self) -> pl.DataFrame:
        """Rows that have a loss."""
        return self.frame.filter(pl.col("loss").is_not_null())

    def filter(self, *predicates: pl.Expr) -> Runs:
        """Return the rows for which all polars expressions hold."""
        return Runs(self.frame.filter(*predicates), self.source)

    def size(self, count: Count = "as_given") -> pl.Series:
        """N of every row under a counting convention.

        `as_given` is the `params` column. The others are summed from the parts where the rows have them,
        or taken from `params` where its `count` says that it is that convention.

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
            sizes = frame.select(pl.coalesce(total.cast(pl.Float64), given).alias("params"))["params"]
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
        table = {name: quantity(parse_format(name)) for name in names.unique()}
        return names.replace_strict(table, return_dtype=pl.Float64)


def named(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give every row without an id one made from its place, which no other row has."""
    copies = [dict(row) for row in rows]
    taken = {row.get("id") for row in copies}
    for place, row in enumerate(copies, start=1):
        if not row.get("id"):
            name = f"row-{place}"
            while name in taken:
                name += "x"
            taken.add(name)
            row["id"] = name
    return copies


def check_row(row: Mapping[str, Any], where: str) -> None:
    """Check what no single cell can tell.

    Raises:
        DataError: naming the place.
    """
    if row.get("status") in (None, "ok") and row.get("loss") is None:
        raise DataError(f"{where} has no loss; give one, or a status of {' or '.join(STATUSES[1:])}")
    if row.get("status") not in (None, "ok") and row.get("loss") is not None:
        raise DataError(f"{where} has status {row['status']!r} and a loss; a failed run has none")
    if row.get("gap") is not None and row.get("post_format") is None:
        raise DataError(f"{where} has a gap but no post_format; say which format it was quantised to")


def check_unique(frame: pl.DataFrame) -> None:
    """Refuse a table in which two rows have one id.

    Raises:
        DataError: naming the id.
    """
    ids = frame["id"].drop_nulls()
    if ids.is_duplicated().any():
        twice = ids.filter(ids.is_duplicated())[0]
        raise DataError(f"two rows have the id {twice!r}; ids must be unique: drop one, or rename it")
