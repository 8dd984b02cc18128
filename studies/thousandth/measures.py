"""Statistics that the tables of the thousandth study are made of; intervals are of 90 %.

What a seed moves is known from cells of several seeds. Of most schemes there is one trunk a size, so what is claimed of
all sizes is a mean over sizes with Student's interval, in which the differences between sizes count as noise.

What low precision costs is measured against trunks of 16 bits and of one part at 10 or 12 bits, which cost next to
nothing: one 16-bit trunk alone would lend its own seed to every penalty of its size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

import bitlaw as bl
from bitlaw.fitting.objective import student_quantile
from bitlaw.runs import Runs
from bitlaw.runs.schema import COLUMN

LEVEL = 0.9
PARTS = {"w": "weights", "a": "activations", "kv": "KV"}
GRANULARITY = {"w": "channel", "a": "tensor", "kv": "tensor"}  # of the core
TRAINED = pl.col("parent").is_null()
HAS_LOSS = pl.col("loss").is_not_null()
LOW = {
    column.removesuffix("_format"): pl.col(column).fill_null("bf16") != "bf16"
    for column in COLUMN
    if column.endswith("_format") and not column.startswith("post")
}
PLAIN = ~pl.any_horizontal(*LOW.values())
ONE_PART = pl.sum_horizontal(low.cast(pl.Int64) for low in LOW.values()) <= 1
#: 16 bits, or one part at 10 bits and more.
NEAR = ONE_PART & ~pl.any_horizontal(
    low & ~pl.col(f"{part}_format").is_in(["int10", "int12"]) for part, low in LOW.items()
)
UNSTABLE = (pl.col("a_format") == "int3") | (pl.col("kv_format") == "int3")


def _spelled(part: str) -> pl.Expr:
    spelled = pl.lit(part + "=") + pl.col(f"{part}_format")
    if usual := GRANULARITY.get(part):
        unusual = pl.col(f"{part}_granularity").fill_null(usual)
        return pl.when(unusual == usual).then(spelled).otherwise(pl.concat_str(spelled, pl.lit(" "), unusual))
    return spelled


#: What was trained in low precision, like "w=int4, a=int8"; nothing for 16 bits.
SCHEME = pl.concat_str(
    [pl.when(low).then(_spelled(part)) for part, low in LOW.items()], separator=", ", ignore_nulls=True
)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table of Markdown; numbers with four significant digits, what is not known as a dash."""
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(_cell(x) for x in row) + " |")
    print()


def _cell(x: object) -> str:
    if isinstance(x, float):
        return f"{x:.4g}" if math.isfinite(x) else "-"
    return str(x)


def section(title: str, *said: str) -> None:
    """Print a heading, and what the tables under it are of."""
    print(f"## {title}\n")
    if said:
        print(" ".join(said) + "\n")


def size(params: float) -> str:
    """A model size as it is called, like 60k."""
    return f"{params / 1e3:.0f}k" if params < 1e6 else f"{params / 1e6:.2f}M"


def count(tokens: float) -> str:
    """A number of tokens, like 13M."""
    return f"{tokens / 1e6:.3g}M"


def interval(low: float, high: float, unit: str = "") -> str:
    """An interval in words."""
    return f"{low:.3g} to {high:.3g}{unit}" if math.isfinite(low) and math.isfinite(high) else "-"


def student(values: Sequence[float]) -> tuple[float, str, int]:
    """The mean of independent values, Student's interval of it, and how many there are."""
    n = len(values)
    if n < 2:
        return (float(np.mean(values)) if n else math.nan), "-", n
    mean, half = float(np.mean(values)), half_width(values)
    return mean, interval(mean - half, mean + half), n


def half_width(values: Sequence[float]) -> float:
    """Half of Student's interval of a mean."""
    n = len(values)
    return float(student_quantile(n - 1, (1 + LEVEL) / 2) * np.std(values, ddof=1) / math.sqrt(n))


def two_samples(one: Sequence[float], other: Sequence[float]) -> float:
    """Half of Student's interval of the difference of two means, of one variance."""
    n, k = len(one), len(other)
    variance = ((n - 1) * np.var(one, ddof=1) + (k - 1) * np.var(other, ddof=1)) / (n + k - 2)
    return float(student_quantile(n + k - 2, (1 + LEVEL) / 2) * math.sqrt(variance * (1 / n + 1 / k)))


def over_sizes(frame: pl.DataFrame, column: str) -> tuple[float, str, int]:
    """The mean over sizes of means over trunks, with Student's interval and the number of sizes."""
    trunks = frame.group_by("params", "trunk").agg(pl.col(column).mean())
    return student(trunks.group_by("params").agg(pl.col(column).mean())[column].to_list())


@dataclass(frozen=True)
class Noise:
    """How much a seed moves a loss: a standard deviation, and the degrees of freedom behind it."""

    sd: float
    df: int

    @classmethod
    def of(cls, ends: pl.DataFrame) -> Noise:
        """Pool the cells of several seeds; ends of one trunk are no independent evidence, so trunks are counted."""
        cells = ends.group_by("params", "tokens").agg(
            pl.len(), pl.col("loss").var().alias("variance"), pl.col("trunk")
        )
        several = cells.filter(pl.col("len") > 1)
        if several.is_empty():
            return cls(math.nan, 1)
        sd = math.sqrt((several["variance"] * (several["len"] - 1)).sum() / (several["len"] - 1).sum())
        trunks = several.explode("trunk").select("params", "trunk").unique()
        return cls(sd, trunks.height - trunks["params"].n_unique())

    def between(self, n: int, others: float = math.inf, comparisons: int = 1) -> str:
        """Half the interval of a difference between means over so many seeds, of one comparison among several."""
        share = 1 - (1 - LEVEL) / 2 / comparisons
        half = student_quantile(self.df, share) * self.sd * math.sqrt(1 / n + 1 / others)
        return f"± {half:.3g}" if math.isfinite(half) else "-"


def fit_of(law: str, frame: pl.DataFrame, **how: object) -> bl.Fit | None:
    """A fit, or None and the reason in the table's place."""
    try:
        return bl.fit(law, Runs(frame), **how)
    except bl.BitlawError as error:
        print(f"{law}: {error}\n")
        return None


def evidence(fit: bl.Fit) -> None:
    """Print what the intervals of a fit rest on, and what the fit itself notes."""
    rows = " and ".join(f"{n} {kind} rows" for kind, n in fit.rows.items() if n)
    print(f"{rows}, {fit.clusters} trunks, {fit.df} degrees of freedom, {fit.method} bootstrap by trunk.\n")
    for note in fit.notes:
        print(f"- {note}")
    print()


def constants(fit: bl.Fit, names: Sequence[str] = ()) -> list[tuple[object, ...]]:
    """Constants of a fit with their intervals; those that are held are left out."""
    return [
        (e.parameter.name, e.value, interval(e.low, e.high), e.status)
        for e in fit.estimates
        if e.status != "fixed" and (not names or e.parameter.name in names)
    ]


def drawn(fit: bl.Fit, name: str) -> np.ndarray:
    """The draws of one constant."""
    return fit.draws[:, [e.parameter.name for e in fit.estimates].index(name)]


def quantiles(draws: np.ndarray) -> tuple[float, float]:
    """The interval of what was computed from draws."""
    low, high = np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def r2(measured: np.ndarray, predicted: np.ndarray) -> float:
    """Share of the variance that predictions explain."""
    return float(1 - np.sum((measured - predicted) ** 2) / np.sum((measured - measured.mean()) ** 2))


def inputs_of(fit: bl.Fit, frame: pl.DataFrame) -> dict[str, np.ndarray]:
    """The columns that a law reads of rows; formats by name, which a law refuses that was fitted to none such."""
    runs, found = Runs(frame), {}
    for i in fit.law.inputs:
        if i.label is None:
            found[i.column] = runs.quantity(i.column).to_numpy()
        else:
            part = i.column.partition("=")[0]
            found[part] = frame[part].fill_null("bf16").to_numpy()
    return found


def gaps_of(fit: bl.Fit, frame: pl.DataFrame) -> np.ndarray:
    """The gaps that a fit predicts of rows; infinite where its law says nothing."""
    values = np.array([list(fit.values.values())])
    return fit.law.compiled.guarded("gap", values, fit.law.arrange(inputs_of(fit, frame)))[0]


def scale_of(frame: pl.DataFrame, gaps: np.ndarray) -> np.ndarray:
    """Gaps on the scale that laws of them are fitted on: logarithms, but of what is lost in noise."""
    return np.arcsinh(gaps / (2 * frame["gap_se"].to_numpy()))


def base(core: pl.DataFrame) -> pl.DataFrame:
    """Mean loss at 16 bits of each size and token count, over trunks that have an end at every count of their size."""
    ends = core.filter(TRAINED & HAS_LOSS & NEAR)
    counts = pl.col("tokens").n_unique()
    whole = ends.filter(counts.over("params", "trunk") == counts.over("params"))
    return whole.group_by("params", "tokens").agg(
        pl.col("loss").mean().alias("base"), pl.len().alias("base_trunks")
    )


def penalties(frame: pl.DataFrame, at_16: pl.DataFrame) -> pl.DataFrame:
    """Loss of ends of low precision less that of 16 bits at their size and tokens, by `base`."""
    return (
        frame.filter(TRAINED & HAS_LOSS & ~NEAR)
        .join(at_16, on=["params", "tokens"])
        .with_columns(penalty=pl.col("loss") - pl.col("base"), scheme=SCHEME)
    )
