"""What the gaps of quantised copies say: their law, whose are smaller, what recalibration recovers, one law of all."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from ends import steady
from forms import show
from measures import (
    HAS_LOSS,
    LOW,
    ONE_PART,
    PARTS,
    PLAIN,
    TRAINED,
    UNSTABLE,
    constants,
    count,
    drawn,
    evidence,
    fit_of,
    gaps_of,
    inputs_of,
    interval,
    over_sizes,
    quantiles,
    r2,
    scale_of,
    section,
    size,
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
        "C_T D^gamma_D / N^gamma_N exp(-P / gamma_post). A bit: by how much one bit less multiplies the gap. R2 on",
        "the scale of the fit, on which gaps are as their logarithms but for those that are lost in noise, and in",
        "nats; the paper has .97. Gaps of 2 bits are of another order: with and without.",
    )
    rows: list[tuple[object, ...]] = []
    explained = []
    for method in METHODS:
        for bits, few in (("2 to 8", 2), ("3 to 8", 3)):
            some = copies(core).filter(
                PLAIN, pl.col("method") == method, pl.col("post_format") >= f"int{few}"
            )
            fit = fit_of("gap-kumar", some)
            if fit is None:
                continue
            print(f"{method}, {bits} bits:")
            evidence(fit)
            rows += [(method, bits, *c) for c in constants(fit)]
            ratio = np.exp(1 / drawn(fit, "gamma_post"))
            excess = drawn(fit, "gamma_D") - drawn(fit, "gamma_N")
            v = fit.values
            rows.append(
                (method, bits, "a bit", math.exp(1 / v["gamma_post"]), interval(*quantiles(ratio)), "")
            )
            between = interval(*quantiles(excess))
            rows.append((method, bits, "gamma_D - gamma_N", v["gamma_D"] - v["gamma_N"], between, ""))
            measured, gaps = some["gap"].to_numpy(), gaps_of(fit, some)
            on_scale = r2(scale_of(some, measured), scale_of(some, gaps))
            explained.append((method, bits, some.height, on_scale, r2(measured, gaps)))
    table(("method", "bits", "constant", "value", "90 %", "status"), rows)
    table(("method", "bits", "gaps", "R2 on the scale of the fit", "R2 in nats"), explained)
    for method in METHODS[:2]:
        section(f"Forms of the gap, {method.upper()}, the largest size held out")
        some = copies(core).filter(PLAIN, pl.col("method") == method)
        try:
            show(bl.compare(Runs(some), GAP_LAWS, what="gap"), some)
        except bl.BitlawError as error:
            print(f"{error}\n")


def robustness(core: pl.DataFrame) -> None:
    """Are models trained in low precision hurt less by quantisation?"""
    section(
        "Gaps of models trained in low precision beside those of 16-bit models",
        "ln of the ratio at equal size, tokens and bits, at 2 to 4 bits; below zero: hurt less. Models trained at as",
        "few bits as they are quantised to, or fewer, stand in the second table; activations and KV of 3 bits are",
        "left out.",
    )
    some = copies(core).filter(~UNSTABLE, pl.col("post_format").is_in(["int2", "int3", "int4"]))
    cell = ["params", "tokens", "method", "post_format"]
    at_16 = some.filter(PLAIN, pl.col("gap") > 0).group_by(cell).agg(pl.col("gap").mean().alias("gap_16"))
    paired = some.filter(~PLAIN, ONE_PART).join(at_16, on=cell)
    paired = paired.with_columns(
        ratio=(pl.col("gap") / pl.col("gap_16")).log(),
        few=pl.any_horizontal(LOW[p] & (bits_of(p) <= bits_of("post")) for p in PARTS),
        range=pl.when(pl.any_horizontal(LOW[p] & (bits_of(p) <= 4) for p in PARTS))
        .then(pl.lit("3 or 4 bits"))
        .otherwise(pl.lit("5 to 12 bits")),
    )
    rows = []
    for part, what in PARTS.items():
        for (method, span), group in sorted(
            paired.filter(LOW[part], ~pl.col("few"), pl.col("gap") > 0).group_by("method", "range")
        ):
            rows.append((what, span, method, *over_sizes(group, "ratio")))
    table(("part", "trained at", "method", "mean ln ratio", "90 %", "sizes"), rows)
    print("Quantised to as many bits as trained in, or more: the paper sets the gap to nothing.\n")
    rows = []
    for part, what in PARTS.items():
        for (method,), group in sorted(paired.filter(LOW[part], pl.col("few")).group_by("method")):
            mean, between, sizes = over_sizes(
                group.with_columns(share=pl.col("gap") / pl.col("gap_16")), "share"
            )
            rows.append((what, method, group.height, float(group["gap"].mean()), mean, between, sizes))
    header = ("part", "method", "gaps", "mean gap", "share of the gap of 16-bit models", "90 %", "sizes")
    table(header, rows)


def bits_of(part: str) -> pl.Expr:
    """Bits of a part's integers."""
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
        section(f"The unified law, {'effective N' if law == 'kumar-unified' else 'N'} in the gap (GPTQ)")
        fit = fit_of(law, some)
        if fit is None:
            return
        evidence(fit)
        ends, after = some.filter(TRAINED), copies(some)
        loss = r2(ends["loss"].to_numpy(), fit.predict(**inputs_of(fit, ends)))
        gap = gaps_of(fit, after)
        equal = pl.any_horizontal(LOW[p] & (bits_of(p) == bits_of("post")) for p in PARTS)
        spoken, few = np.isfinite(gap), after.select(equal.alias("equal"))["equal"].to_numpy()
        alike = after.filter(pl.Series(spoken & few))
        after, gap = after.filter(pl.Series(spoken & ~few)), gap[spoken & ~few]
        measured = after["gap"].to_numpy()
        on_scale = scale_of(after, measured), scale_of(after, gap)
        errors.append(after.with_columns(error=pl.Series(np.abs(on_scale[0] - on_scale[1]))))
        print(
            f"R2 of {ends.height} losses {loss:.4f} (paper: .90). R2 of {after.height} gaps in nats "
            f"{r2(measured, gap):.4f}, on the scale of the fit {r2(*on_scale):.4f} (paper, of this law: .90; .97 is of "
            f"16-bit models alone, which stand above). Apart: {alike.height} gaps of models quantised to as many bits "
            f"as some part was trained in, which the law takes for nothing; they are {alike['gap'].mean():.4f} nats in "
            f"the mean. {int((~spoken).sum())} are of more bits than some part was trained in, of which it says "
            "nothing.\n"
        )
        if law == "kumar-unified":
            rows: list[tuple[object, ...]] = [(*c, published.get(str(c[0]), "")) for c in constants(fit)]
            scale = published["C_T"] * math.exp(published["b"])
            rows = [(*row[:4], scale if row[0] == "C_T" else row[4]) for row in rows]
            table(("constant", "here", "90 %", "status", "published"), rows)
            print(
                "Of C_T what is published is C_T exp(b). E, A and B are of bytes here and of tokens there.\n"
            )
            critical(fit, core)
    paired = errors[0].with_columns(more=errors[1]["error"] - pl.col("error"))
    mean, between, sizes = over_sizes(paired.filter(~PLAIN), "more")
    print(
        f"Gaps of models trained in low precision: with N in place of the effective N errors are larger by {mean:.3f} "
        f"({between}; {sizes} sizes) on that scale, of {errors[0].filter(~PLAIN)['error'].mean():.3f}.\n"
    )


def critical(fit: bl.Fit, core: pl.DataFrame) -> None:
    """Tokens beyond which more training hurts a model that is then quantised."""
    rows: list[tuple[object, ...]] = []
    for params in sorted(core["params"].unique()):
        for bits in ("int2", "int3", "int4"):
            try:
                tokens = bl.plan(fit, params=params, quantize_to=bits)["tokens"]
            except bl.BitlawError as error:
                rows.append((size(params), bits, str(error), "-", "-"))
                continue
            between = f"{count(tokens.low)} to {count(tokens.high)}"
            rows.append((size(params), bits, count(tokens.value), between, tokens.value / params))
    table(("parameters", "quantised to", "critical tokens", "90 %", "a parameter"), rows)
