"""Statistics that the tables of the thousandth study are made of; intervals are of 90 %, over trunks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl

import bitlaw as bl
from bitlaw.fitting.objective import student_quantile
from bitlaw.lab.train import TrunkConfig, savings
from bitlaw.runs import Runs

LEVEL = 0.9
PARTS = {"w": "weights", "a": "activations", "kv": "KV"}
TRAINED = pl.col("parent").is_null()
PLAIN = pl.all_horizontal(pl.col(f"{part}_format") == "bf16" for part in PARTS)
UNSTABLE = (pl.col("a_format") == "int3") | (pl.col("kv_format") == "int3")
ONE_PART = pl.sum_horizontal((pl.col(f"{part}_format") != "bf16").cast(pl.Int64) for part in PARTS) <= 1
#: What was trained in low precision, like "wint4 aint8".
SCHEME = pl.concat_str(
    [
        pl.when(pl.col(f"{part}_format") != "bf16").then(pl.lit(part) + pl.col(f"{part}_format"))
        for part in PARTS
    ],
    separator=" ",
    ignore_nulls=True,
)


def interval(low: float, high: float) -> str:
    """An interval in words."""
    return f"{low:.3g} to {high:.3g}"


def mean_of(frame: pl.DataFrame, column: str) -> tuple[float, str, int]:
    """The mean of a column over trunks, each of which counts once, and Student's interval of it."""
    means = frame.group_by("trunk").agg(pl.col(column).mean())[column].to_numpy()
    if len(means) < 2:
        return (
            float(means.mean()) if len(means) else math.nan,
            "one trunk" if len(means) else "none",
            len(means),
        )
    half = student_quantile(len(means) - 1, (1 + LEVEL) / 2) * means.std(ddof=1) / math.sqrt(len(means))
    return float(means.mean()), interval(means.mean() - half, means.mean() + half), len(means)


def constants(fit: bl.Fit, names: Sequence[str] = ()) -> list[tuple[object, ...]]:
    """Constants of a fit with their intervals."""
    return [
        (e.parameter.name, e.value, interval(e.low, e.high), e.status)
        for e in fit.estimates
        if not names or e.parameter.name in names
    ]


def r2(measured: np.ndarray, predicted: np.ndarray) -> float:
    """Share of the variance that predictions explain."""
    return float(1 - np.sum((measured - predicted) ** 2) / np.sum((measured - measured.mean()) ** 2))


def inputs_of(fit: bl.Fit, frame: pl.DataFrame) -> dict[str, np.ndarray]:
    """The columns of rows that a law reads."""
    runs = Runs(frame)
    known = {"params": frame["params"].to_numpy(), "tokens": frame["tokens"].to_numpy()}
    known |= {f"{part}_bits": runs.bits(part).to_numpy() for part in (*PARTS, "post")}
    return {i.column: known[i.column] for i in fit.law.inputs}


def trunk_slopes(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """The slope of a logarithm against log tokens within each trunk."""
    out = []
    for (trunk,), some in frame.group_by("trunk"):
        if some["tokens"].n_unique() > 2:
            x, y = np.log(some["tokens"].to_numpy()), np.log(some[column].to_numpy())
            out.append({"trunk": trunk, "slope": float(np.polyfit(x, y, 1)[0])})
    return pl.DataFrame(out, schema={"trunk": pl.String, "slope": pl.Float64})


def penalties(core: pl.DataFrame) -> pl.DataFrame:
    """Loss of ends of low precision less that of the 16-bit end of their size and tokens."""
    ends = core.filter(TRAINED & pl.col("loss").is_not_null())
    base = ends.filter(PLAIN).group_by("params", "tokens").agg(pl.col("loss").mean().alias("base"))
    return (
        ends.filter(~PLAIN)
        .join(base, on=["params", "tokens"])
        .with_columns(penalty=pl.col("loss") - pl.col("base"))
    )


def training_flops(rows: pl.DataFrame) -> tuple[float, float]:
    """FLOPs of the training behind some ends, and of separate runs to the same ends."""
    shared = separate = 0.0
    ends = rows.filter(TRAINED).group_by("trunk", "config").agg(pl.col("tokens"))
    for trunk in ends.iter_rows(named=True):
        config = TrunkConfig.model_validate_json(trunk["config"])
        had = {round(tokens) for tokens in trunk["tokens"]}
        step = config.batch_size * config.seq_len
        budgets = tuple(budget for budget in config.budgets if config.steps(budget) * step in had)
        spent = savings(config.model_copy(update={"budgets": budgets}))
        rate = config.shape.flops_per_token(config.seq_len)
        shared, separate = shared + rate * spent.trained, separate + rate * spent.separate
    return shared, separate
