"""What the gaps of quantised copies say: how they grow, whose are smaller, and what recalibration recovers."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from ends import show, steady
from measures import (
    HAS_LOSS,
    LOW,
    ONE_PART,
    PARTS,
    PLAIN,
    SCHEME,
    TRAINED,
    UNSTABLE,
    constants,
    drawn,
    evidence,
    fit_of,
    gaps_of,
    inputs_of,
    interval,
    over_sizes,
    quantiles,
    r2,
    section,
    student,
    table,
)

import bitlaw as bl
from bitlaw.runs import Runs

METHODS = ("rtn", "gptq", "awq")
GAP_LAWS = ("gap-kumar", "gap-qid", "gap-per-format")


def copies(frame: pl.DataFrame) -> pl.DataFrame:
    """Quantised copies whose gap was measured."""
    return frame.filter(~TRAINED & pl.col("gap").is_not_null())


def gap_laws(core: pl.DataFrame) -> None:
    """Finding 1: the gap against tokens, size and bits; which form of it predicts the largest size."""
    section(
        "The gap of 16-bit models",
        "A bit: by how much one bit less multiplies the gap. Gaps of 2 bits are of another order: with and without.",
    )
    rows: list[tuple[object, ...]] = []
    for method in METHODS:
        for bits, few in (("2 to 8", 2), ("3 to 8", 3)):
            some = copies(core).filter(
                PLAIN, pl.col("method") == method, pl.col("post_format") >= f"int{few}"
            )
            fit = fit_of("gap-kumar", some)
            if fit is None:
                continue
            print(f"{method}, {bits} bits: {evidence(fit)}.\n")
            rows += [(method, bits, *c) for c in constants(fit)]
            ratio = np.exp(1 / drawn(fit, "gamma_post"))
            excess = drawn(fit, "gamma_D") - drawn(fit, "gamma_N")
            v = fit.values
            rows.append(
                (method, bits, "a bit", math.exp(1 / v["gamma_post"]), interval(*quantiles(ratio)), "")
            )
            between = interval(*quantiles(excess))
            rows.append((method, bits, "gamma_D - gamma_N", v["gamma_D"] - v["gamma_N"], between, ""))
    table(("method", "bits", "constant", "value", "90 %", "status"), rows)
    for method in METHODS[:2]:
        section(f"Forms of the gap, {method.upper()}, the largest size held out")
        some = copies(core).filter(PLAIN, pl.col("method") == method)
        try:
            show(bl.compare(Runs(some), GAP_LAWS, what="gap"), some)
        except bl.BitlawError as error:
            print(f"{error}\n")


def growth(frame: pl.DataFrame) -> pl.DataFrame:
    """Slopes of ln gap against ln tokens of each size, seed and treatment: means over methods and bits."""
    keys = ["params", "seed", "treatment", "method", "post_format"]
    x, y = pl.col("tokens").log(), pl.col("gap").log()
    slope = ((x - x.mean()) * y).sum() / ((x - x.mean()) ** 2).sum()
    known = frame.filter(pl.col("tokens").n_unique().over(keys) > 1)
    slopes = known.group_by(keys).agg(slope.alias("slope"))
    return slopes.group_by(keys[:3]).agg(pl.col("slope").mean()).sort(keys[:3])


def schedules(core: pl.DataFrame, schedule: pl.DataFrame) -> None:
    """How much of the growth with tokens is the decay of the learning rate?"""
    section(
        "The gap's growth with tokens, by schedule",
        "Slope of ln gap against ln tokens from 1.5M to 13M, 16-bit models, RTN and GPTQ at 3 and 4 bits. Models",
        "of one size and seed share first weights and order of data, whatever the schedule. End: the last rate as a",
        "share of the peak.",
    )
    peak = (pl.col("learning_rate") * pl.col("width")).round(3)
    shape = (
        pl.when(pl.col("schedule") == "cosine")
        .then(pl.lit("cosine"))
        .when(pl.col("cooldown").fill_null(0.0) > 0)
        .then(pl.lit("cooldown"))
        .otherwise(pl.lit("flat"))
    )
    some = copies(pl.concat([core, schedule])).filter(
        pl.any_horizontal((pl.col("tokens") / budget - 1).abs() < 0.01 for budget in (1.5e6, 13e6)),
        PLAIN,
        pl.col("gap") > 0,
        pl.col("method").is_in(["rtn", "gptq"]),
        pl.col("post_format").is_in(["int3", "int4"]),
    )
    some = some.with_columns(treatment=pl.format("{} {}", shape, peak))
    end = some.group_by("treatment").agg(
        (pl.col("learning_rate_end") / pl.col("learning_rate")).mean().alias("end")
    )
    ends, slopes = dict(end.iter_rows()), growth(some)
    rows = [
        (treatment, f"{size:.0f}", ends[treatment], *student(group["slope"].to_list()))
        for (treatment, size), group in sorted(slopes.group_by("treatment", "params"))
    ]
    table(("schedule and peak (rate x width)", "parameters", "end", "slope", "90 %", "seeds"), rows)
    wide = slopes.pivot(on="treatment", index=["params", "seed"], values="slope")
    rows = []
    pairs = (
        ("cooldown 0.5", "flat 0.5"),
        ("cosine 0.5", "flat 0.5"),
        ("cosine 0.125", "flat 0.125"),
        ("flat 0.5", "flat 0.125"),
    )
    for one, other in pairs:
        if {one, other} <= set(wide.columns):
            paired = wide.drop_nulls([one, other])
            rows.append((f"{one} less {other}", *student((paired[one] - paired[other]).to_list())))
    table(("difference of slopes, same size and seed", "mean", "90 %", "pairs"), rows)


def robustness(core: pl.DataFrame) -> None:
    """Are models trained in low precision hurt less by quantisation?"""
    section(
        "Gaps of models trained in low precision beside those of 16-bit models",
        "ln of the ratio at equal size, tokens and bits, at 2 to 4 bits; below zero: hurt less. Models trained at as",
        "few bits as they are quantised to, or fewer, are left out.",
    )
    some = copies(core).filter(pl.col("gap") > 0, pl.col("post_format").is_in(["int2", "int3", "int4"]))
    cell = ["params", "tokens", "method", "post_format"]
    base = some.filter(PLAIN).group_by(cell).agg(pl.col("gap").mean().alias("base"))
    post = pl.col("post_format").str.strip_prefix("int").cast(pl.Int64)
    kept = ~pl.any_horizontal(LOW[p] & (_bits(p) <= post) for p in PARTS)
    paired = some.filter(~PLAIN, ONE_PART, kept).join(base, on=cell)
    paired = paired.with_columns(
        ratio=(pl.col("gap") / pl.col("base")).log(),
        scheme=SCHEME,
        range=pl.when(pl.any_horizontal(LOW[p] & (_bits(p) <= 4) for p in PARTS))
        .then(pl.lit("3 or 4 bits"))
        .otherwise(pl.lit("5 to 12 bits")),
    )
    rows = []
    for part, what in PARTS.items():
        for (method, span), group in sorted(paired.filter(LOW[part]).group_by("method", "range")):
            rows.append((what, span, method, *over_sizes(group, "ratio")))
    table(("trained", "at", "method", "mean log ratio", "90 %", "sizes"), rows)


def _bits(part: str) -> pl.Expr:
    return pl.col(f"{part}_format").str.strip_prefix("int").cast(pl.Int64, strict=False)


def recalibration(core: pl.DataFrame) -> None:
    """What one temperature recovers of a gap."""
    section("Share of the gap that a temperature recovers (16-bit models, gaps above 0.005)")
    parents = core.filter(TRAINED).select(
        pl.col("id").alias("parent"), pl.col("loss_scaled").alias("scaled_before")
    )
    some = (
        copies(core)
        .filter(PLAIN, pl.col("gap") > 0.005)
        .join(parents, on="parent")
        .with_columns(share=1 - (pl.col("loss_scaled") - pl.col("scaled_before")) / pl.col("gap"))
    )
    rows = [
        (method, bits, *over_sizes(group, "share"), float(group["gap"].mean()))
        for (method, bits), group in sorted(some.group_by("method", "post_format"))
    ]
    table(("method", "bits", "share", "90 %", "sizes", "mean gap"), rows)


def unified(core: pl.DataFrame) -> None:
    """Finding 4: one law of all rows, beside the published constants; N against the effective N in the gap."""
    some = pl.concat([steady(core), copies(core).filter(~UNSTABLE & HAS_LOSS & (pl.col("method") == "gptq"))])
    published = dict(bl.published("kumar-2024").values)
    errors = []
    for law in ("kumar-unified", "kumar-unified-n"):
        section(f"The unified law, {'effective N' if law == 'kumar-unified' else 'N'} in the gap")
        fit = fit_of(law, some)
        if fit is None:
            return
        ends, after = some.filter(TRAINED), copies(some)
        loss = r2(ends["loss"].to_numpy(), fit.predict(**inputs_of(fit, ends)))
        gap = gaps_of(fit, after)
        measured, scale = after["gap"].to_numpy(), 2 * after["gap_se"].to_numpy()
        on_scale = np.arcsinh(measured / scale), np.arcsinh(gap / scale)
        errors.append(after.with_columns(error=pl.Series(np.abs(on_scale[0] - on_scale[1]))))
        print(
            f"{evidence(fit)}. R2 of {ends.height} losses {loss:.4f} (paper: 0.90); of {after.height} gaps in nats "
            f"{r2(measured, gap):.4f}, on the scale of the fit (arsinh, logarithms of what is above its noise) "
            f"{r2(*on_scale):.4f} (paper: 0.97). {int((gap <= 0).sum())} gaps are predicted to be nothing.\n"
        )
        if law == "kumar-unified":
            rows: list[tuple[object, ...]] = [(*c, published.get(str(c[0]), "")) for c in constants(fit)]
            scale_of = published["C_T"] * math.exp(published["b"])
            rows = [(*row[:4], scale_of if row[0] == "C_T" else row[4]) for row in rows]
            table(("constant", "here", "90 %", "status", "published"), rows)
            print(
                "Of C_T what is published is C_T exp(b). E, A and B are of bytes here and of tokens there.\n"
            )
    paired = errors[0].with_columns(more=errors[1]["error"] - pl.col("error"))
    mean, between, sizes = over_sizes(paired.filter(~PLAIN), "more")
    print(
        f"Gaps of models trained in low precision: with N in place of the effective N errors are larger by {mean:.3f} "
        f"({between}; {sizes} sizes) on that scale, of {errors[0].filter(~PLAIN)['error'].mean():.3f}.\n"
    )
