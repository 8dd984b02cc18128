"""How much of what training tokens do is the decay of the learning rate: gaps and penalties under several schedules."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from copies import copies
from ends import SEEDED
from measures import (
    HAS_LOSS,
    NEAR,
    ONE_PART,
    PLAIN,
    TRAINED,
    Noise,
    interval,
    over_sizes,
    section,
    size,
    student,
    table,
    two_samples,
)

BUDGETS = 4  # up to 13M tokens
KEYS = ["params", "seed", "treatment"]
PAIRS = (
    ("cooldown, peak 0.5", "flat, peak 0.5"),
    ("cosine, peak 0.5", "flat, peak 0.5"),
    ("cosine, peak 0.125", "flat, peak 0.125"),
    ("flat, peak 0.5", "flat, peak 0.125"),
    ("cosine, peak 0.5", "cosine, peak 0.125"),
)
PEAK = (pl.col("learning_rate") * pl.col("width")).round(3)
SHAPE = (
    pl.when(pl.col("schedule") == "cosine")
    .then(pl.lit("cosine"))
    .when(pl.col("cooldown").fill_null(0.0) > 0)
    .then(pl.lit("cooldown"))
    .otherwise(pl.lit("flat"))
)
#: A schedule and its peak, times the width, like "cosine, peak 0.5".
TREATMENT = pl.format("{}, peak {}", SHAPE, PEAK)


def schedules(core: pl.DataFrame, stage: pl.DataFrame, seeds: dict[str, Noise]) -> None:
    """Do gaps, and what training in few bits costs, grow with tokens, or with the decay of the rate?"""
    every = pl.concat([core, stage]).with_columns(treatment=TREATMENT)
    of_gaps(every)
    of_penalties(every, seeds["all"], seeds["13M less 1.5M"])
    of_robustness(every)


def of_gaps(every: pl.DataFrame) -> None:
    """Gaps of 16-bit models: their growth with tokens, their fall with size and bits, and their level."""
    section(
        "Gaps by schedule (16-bit models, RTN and GPTQ at 3 and 4 bits)",
        "Slope of ln gap against ln tokens from 1.5M to 13M. Models of one size and seed share first weights and",
        "order of data, whatever the schedule. End: the last rate as a share of the peak; a schedule is named with",
        "its peak x width.",
    )
    some = copies(every).filter(
        SEEDED,
        PLAIN,
        pl.col("gap") > 0,
        pl.col("method").is_in(["rtn", "gptq"]),
        pl.col("post_format").is_in(["int3", "int4"]),
    )
    end = some.group_by("treatment").agg(
        (pl.col("learning_rate_end") / pl.col("learning_rate")).mean().alias("end")
    )
    ends, slopes = dict(end.iter_rows()), growth(some)
    table(
        ("schedule", "parameters", "end", "slope", "90 %", "seeds"),
        [
            (treatment, size(params), ends[treatment], *student(group["slope"].to_list()))
            for (treatment, params), group in sorted(slopes.group_by("treatment", "params"))
        ],
    )
    print("Differences at equal size and seed; each pair of a size and a seed is a replicate.\n")
    rows = []
    for one, other, pair in paired(slopes, "slope", []):
        rows.append((f"slope: {one} less {other}", *student((pair[one] - pair[other]).to_list())))
        if other.startswith("flat") and not one.startswith("flat"):
            decay = 1 - pair[other] / pair[one]
            rows.append((f"share of the slope of {one} that {other} has not", *student(decay.to_list())))
    cells = ["tokens", "method", "post_format"]
    for one, other, pair in paired(some.with_columns(level=pl.col("gap").log()), "level", cells):
        rows.append((f"ln gap: {one} less {other}", *student((pair[one] - pair[other]).to_list())))
    table(("difference", "mean", "90 %", "replicates"), rows)
    exponents(some, slopes)


def paired(frame: pl.DataFrame, column: str, cells: Sequence[str]) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """Two treatments in the same cells, by size and seed: means over the cells that both have."""
    wide = frame.pivot(
        on="treatment", index=["params", "seed", *cells], values=column, aggregate_function="mean"
    )
    for one, other in PAIRS:
        if {one, other} <= set(wide.columns):
            both = wide.drop_nulls([one, other]).group_by("params", "seed").agg(pl.col(one, other).mean())
            if both.height:
                yield one, other, both


def growth(frame: pl.DataFrame) -> pl.DataFrame:
    """Slopes of ln gap against ln tokens of each size, seed and treatment: means over methods and bits."""
    keys = [*KEYS, "method", "post_format"]
    x, y = pl.col("tokens").log(), pl.col("gap").log()
    slope = ((x - x.mean()) * y).sum() / ((x - x.mean()) ** 2).sum()
    known = frame.filter(pl.col("tokens").n_unique().over(keys) > 1)
    slopes = known.group_by(keys).agg(slope.alias("slope"))
    return slopes.group_by(KEYS).agg(pl.col("slope").mean()).sort(KEYS)


def exponents(some: pl.DataFrame, slopes: pl.DataFrame) -> None:
    """Section 7.7, item 4: up with tokens, down with parameters, about five times a bit, under each schedule."""
    print(
        "The gap's law by schedule, without a fit: gamma_D the slope, gamma_N from the smallest to the largest size, a "
        "bit the ratio of gaps at 3 and 4 bits.\n"
    )
    level = some.with_columns(level=pl.col("gap").log())
    keys = [*KEYS, "tokens", "method"]
    bits = level.pivot(on="post_format", index=keys, values="level", aggregate_function="mean")
    a_bit = bits.group_by(KEYS).agg((pl.col("int3") - pl.col("int4")).mean().exp().alias("bit"))
    rows = []
    for (treatment,), of in sorted(level.group_by("treatment")):
        small, large = of["params"].min(), of["params"].max()
        by_seed = of.group_by("params", "seed").agg(pl.col("level").mean())
        ends = [by_seed.filter(pl.col("params") == n)["level"].to_list() for n in (small, large)]
        rows.append(
            (
                treatment,
                *student(slopes.filter(pl.col("treatment") == treatment)["slope"].to_list()),
                *fall(*ends, math.log(large / small)),
                *student(a_bit.filter(pl.col("treatment") == treatment)["bit"].to_list())[:2],
            )
        )
    header = ("schedule", "gamma_D", "90 %", "replicates", "gamma_N", "90 %", "a bit", "90 %")
    table(header, rows)


def fall(small: Sequence[float], large: Sequence[float], ratio: float) -> tuple[float, str]:
    """How fast levels fall from one size to another, over the logarithm of their ratio, with Student's interval."""
    if min(len(small), len(large)) < 2 or not ratio:
        return math.nan, "-"
    middle = (float(np.mean(small)) - float(np.mean(large))) / ratio
    half = two_samples(small, large) / ratio
    return middle, interval(middle - half, middle + half)


def of_penalties(every: pl.DataFrame, all_ends: Noise, changes: Noise) -> None:
    """What weights of 4 bits cost at each budget, by schedule."""
    section(
        "What weights of 4 bits cost, by schedule",
        "Loss less that at 16 bits (or 10 and more in one part) of the same schedule, means over seeds that have all",
        "ends. Change: from 1.5M to 13M tokens, ± by seeds.",
    )
    ends = every.filter(TRAINED & HAS_LOSS, pl.col("tokens") < 14e6)
    run, cell = ["treatment", "params", "seed"], ["treatment", "params", "tokens"]
    ends = ends.filter(pl.len().over([*run, "w_format", "a_format", "kv_format"]) == BUDGETS)
    seeded = pl.col("seed").n_unique()
    at_16 = ends.filter(NEAR).group_by(cell).agg(pl.col("loss").mean().alias("base"), seeded.alias("others"))
    at_4 = ends.filter(ONE_PART, pl.col("w_format") == "int4", pl.col("w_granularity") == "channel")
    at_4 = at_4.group_by(cell).agg(pl.col("loss").mean(), seeded.alias("seeds"))
    rows = []
    for (treatment, params), some in (
        at_4.join(at_16, on=cell).sort(cell).group_by("treatment", "params", maintain_order=True)
    ):
        penalty = (some["loss"] - some["base"]).to_list()
        # Under a cosine both ends are runs of their own, elsewhere ends of one trunk.
        noise = Noise(all_ends.sd * math.sqrt(2), all_ends.df) if treatment.startswith("cosine") else changes
        between = noise.between(some["seeds"].min(), some["others"].min())
        many = f"{some['seeds'].min()}, {some['others'].min()}"
        rows.append((treatment, size(params), many, *penalty, penalty[-1] - penalty[0], between))
    header = ("schedule", "parameters", "seeds, at 16 bits", "1.5M", "3M", "6M", "13M", "change", "90 %")
    table(header, rows)


def of_robustness(every: pl.DataFrame) -> None:
    """Are models of 4-bit weights hurt less by quantisation, under each schedule?"""
    section(
        "Gaps of models of 4-bit weights beside those of 16-bit models, by schedule",
        "ln of the ratio at equal size and tokens, 2 and 3 bits, RTN and GPTQ; below zero: hurt less.",
    )
    some = copies(every).filter(
        pl.col("gap") > 0,
        pl.col("method").is_in(["rtn", "gptq"]),
        pl.col("post_format").is_in(["int2", "int3"]),
    )
    cell = ["treatment", "params", "tokens", "method", "post_format"]
    at_16 = some.filter(PLAIN).group_by(cell).agg(pl.col("gap").log().mean().alias("base"))
    at_4 = some.filter(ONE_PART, pl.col("w_format") == "int4", pl.col("w_granularity") == "channel")
    ratio = at_4.join(at_16, on=cell).with_columns(ratio=pl.col("gap").log() - pl.col("base"))
    table(
        ("schedule", "mean ln ratio", "90 %", "sizes"),
        [
            (treatment, *over_sizes(group, "ratio"))
            for (treatment,), group in sorted(ratio.group_by("treatment"))
        ],
    )
