"""What other formats cost, forward and backward, and which constants carry over to another text."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from copies import copies
from ends import LONG, SHORT, steady
from measures import (
    HAS_LOSS,
    LOW,
    NEAR,
    ONE_PART,
    PARTS,
    PLAIN,
    SCHEME,
    TRAINED,
    Noise,
    drawn,
    evidence,
    fit_of,
    inputs_of,
    interval,
    penalties,
    quantiles,
    section,
    size,
    table,
)

import bitlaw as bl
from bitlaw.runs import Runs

BUDGETS = pl.col("tokens") < 14e6  # of the stage of formats
OF_WEIGHTS = ("gamma_w", "n_w")
GRADIENTS = LOW["grad"] | LOW["grad_w"]


def formats(core: pl.DataFrame, other: pl.DataFrame, at_16: pl.DataFrame, seeds: dict[str, Noise]) -> None:
    """Penalties of formats beside those of the core's integers at the same size and tokens."""
    mean, change = seeds["mean of 1.5M and 13M"], seeds["13M less 1.5M"]
    fewest = (
        at_16.filter(pl.col("params").is_in(other["params"].unique().to_list()))["base_trunks"].min() or 1
    )
    section(
        "What formats cost",
        "Nats above 16 bits, mean over the token counts at which there is a loss, and the change from 1.5M to 13M",
        f"tokens; one trunk each: mean {mean.between(1, fewest)}, change {change.between(1, fewest)} at 90 %, by",
        "seeds of 16-bit models and for one row at a time. Bits: nominal, without scales. `grad`: gradients of",
        "activations; `grad_w`: of weights.",
    )
    if other.is_empty():
        print("Not trained yet.\n")
        return
    here = core.filter(BUDGETS, ONE_PART, pl.col("params").is_in(other["params"].unique().to_list()))
    every = pl.concat([other, here])
    cost = penalties(every, at_16)
    ends = every.filter(TRAINED & ~NEAR).with_columns(scheme=SCHEME)
    ends = ends.join(cost.select("id", "penalty"), on="id", how="left")
    rows = []
    for (params, scheme), some in sorted(ends.group_by("params", "scheme"), key=lambda group: group[0]):
        part = next(p for p, low in LOW.items() if some.select(low.alias("low"))["low"].all())
        bits = Runs(some).bits(part)[0] if part in PARTS else math.nan
        first, last = (some.filter(end)["penalty"].drop_nulls() for end in (SHORT, LONG))
        grown = float(last.item() - first.item()) if len(first) == len(last) == 1 else math.nan
        had = some["penalty"].drop_nulls()
        diverged = some.filter(pl.col("status") == "diverged").height
        rows.append((size(params), scheme, bits, len(had), diverged, float(had.mean() or math.nan), grown))
    table(("parameters", "trained", "bits", "ends", "diverged", "penalty", "change"), rows)
    means = cost.group_by("params", "scheme").agg(pl.col("penalty").mean())
    layouts(means, mean)
    granularity(means, mean)
    floats(core, other)
    backward(core, cost.filter(GRADIENTS), mean)


def layouts(means: pl.DataFrame, seeds: Noise) -> None:
    """Floats of as many bits that split them otherwise between exponent and mantissa."""
    split = pl.col("scheme").str.extract_groups(r"^w=e(?<e>\d)m(?<m>\d)$").struct
    known = means.with_columns(
        e=split.field("e").cast(pl.Int64, strict=False), m=split.field("m").cast(pl.Int64, strict=False)
    ).filter(pl.col("e").is_not_null())
    known = known.with_columns(bits=1 + pl.col("e") + pl.col("m")).sort("params", "bits", "e")
    rows = []
    for (params, bits), some in known.group_by("params", "bits", maintain_order=True):
        for one, other in zip(some.iter_rows(named=True), some[1:].iter_rows(named=True), strict=False):
            more = other["penalty"] - one["penalty"]
            rows.append((size(params), bits, other["scheme"], one["scheme"], more, seeds.between(1, 1)))
    section(
        "Exponent or mantissa", "Penalty of weights in the first less that in the second, of as many bits."
    )
    table(("parameters", "bits", "first", "second", "difference", "90 %"), rows)


def granularity(means: pl.DataFrame, seeds: Noise) -> None:
    """Section 7.7, item 8: do scales of their own bring activations to what weights of one scale a tensor cost?"""
    section(
        "What shares a scale",
        f"Penalties; a difference between two of them is known {seeds.between(1, 1)} (90 %, seeds). The paper's",
        "activations with scales of their own have one a channel; these have one a token.",
    )
    rows = []
    for (params,), some in sorted(means.group_by("params")):
        of = dict(some.select("scheme", "penalty").iter_rows())
        for bits in (3, 4, 6, 8):
            names = (f"a=int{bits}", f"a=int{bits} token", f"w=int{bits} tensor", f"w=int{bits}")
            if names[1] in of:
                rows.append((size(params), bits, *(of.get(name, math.nan) for name in names)))
    header = ("activations, a tensor", "activations, a token", "weights, a tensor", "weights, a channel")
    table(("parameters", "bits", *header), rows)


def floats(core: pl.DataFrame, other: pl.DataFrame) -> None:
    """The law's constants for weights in floats, beside those for integers, at the same size."""
    section(
        "Weights in floats, by bits",
        "gamma_w and n_w with A and B of this size, all else borrowed from the core's fit.",
    )
    lender = fit_of("kumar", steady(core), draws=0)
    if lender is None:
        return
    plain_floats = other.filter(TRAINED & HAS_LOSS, ONE_PART, pl.col("w_format").str.contains(r"^e\dm\d$"))
    here = steady(core).filter(BUDGETS, pl.col("params").is_in(plain_floats["params"].unique().to_list()))
    integers = here.filter(LOW["w"], ONE_PART)
    rows: list[tuple[object, ...]] = []
    for what, low, name in (
        ("floats", plain_floats, "kumar-2024-float"),
        ("integers", integers, "kumar-2024"),
    ):
        published = bl.published(name).values
        some = pl.concat([here.filter(PLAIN), low])
        fit = fit_of("kumar", some, borrow=lender, free=(*OF_WEIGHTS, "A", "B"))
        if fit is not None:
            rows += [
                (what, low["trunk"].n_unique(), e.parameter.name, e.value, interval(e.low, e.high), e.status,
                 published[e.parameter.name])
                for e in fit.estimates
                if e.parameter.name in OF_WEIGHTS
            ]  # fmt: skip
    table(("weights in", "trunks", "constant", "value", "90 %", "status", "published"), rows)


def backward(core: pl.DataFrame, cost: pl.DataFrame, seeds: Noise) -> None:
    """Do low-precision gradients act as if there were fewer parameters, or fewer tokens (Castro et al., Quartet)?"""
    section(
        "Gradients in low precision: effective parameters or tokens",
        "One constant a format, fitted to the penalties of its sizes and token counts by the 16-bit law at its",
        f"estimate; rms: what is left, in nats, beside {seeds.sd:.3f} by which a seed moves the mean of a trunk.",
    )
    law = fit_of("chinchilla", core.filter(TRAINED & NEAR & HAS_LOSS), draws=0)
    if law is None:
        return
    v = law.values
    rows = []
    for (scheme,), some in sorted(cost.group_by("scheme")):
        penalty, found = some["penalty"].to_numpy(), []
        for of, coefficient, power in (("params", v["A"], v["alpha"]), ("tokens", v["B"], v["beta"])):
            term = coefficient * some[of].to_numpy() ** -power
            more = (penalty @ term) / (term @ term)  # x^-power - 1 of the effective share x
            left = float(np.sqrt(np.mean((penalty - more * term) ** 2)))
            found += [(1 + more) ** (-1 / power) if more > -1 else math.nan, left]
        rows.append((scheme, some["trunk"].n_unique(), some.height, *found))
    table(("trained", "trunks", "ends", "share of parameters", "rms", "share of tokens", "rms"), rows)


def second_text(core: pl.DataFrame, code: pl.DataFrame) -> None:
    """Which constants carry over to source code?"""
    section("A second text: source code")
    if code.is_empty():
        print("Not trained yet.\n")
        return
    cells = code.filter(TRAINED).with_columns(scheme=SCHEME).select("scheme", "params", "tokens").unique()
    alike = core.with_columns(scheme=SCHEME).join(cells, on=["scheme", "params", "tokens"], how="semi")
    pairs = {
        "kumar": (steady(alike), steady(code)),
        "gap-kumar": tuple(
            copies(some).filter(PLAIN, pl.col("method") == "gptq", pl.col("post_format") <= "int6")
            for some in (alike, code)
        ),
    }
    for law, (here, there) in pairs.items():
        of_text, of_code = fit_of(law, here), fit_of(law, there, seed=1)  # draws that have nothing in common
        if of_text is None or of_code is None:
            continue
        for text, fit in (("RFCs", of_text), ("code", of_code)):
            print(f"{law}, {text}:")
            evidence(fit)
        there_at = {e.parameter.name: e for e in of_code.estimates}
        rows = []
        for e in of_text.estimates:
            name = e.parameter.name
            if e.status != "fixed" and name in there_at:
                other = there_at[name]
                change = quantiles(drawn(of_code, name) - drawn(of_text, name))
                rows.append(
                    (
                        name,
                        e.value,
                        interval(e.low, e.high),
                        other.value,
                        interval(other.low, other.high),
                        interval(*change),
                    )
                )
        table(("constant", "RFCs", "90 %", "code", "90 %", "code less RFCs, 90 % each"), rows)
        if law == "kumar":
            borrowed(of_text, there)


def borrowed(lender: bl.Fit, code: pl.DataFrame) -> None:
    """The error on the largest models of code of a law of which only E, A and B are of code, of smaller models."""
    largest = pl.col("params") == code["params"].max()
    small, some = code.filter(~largest), code.filter(largest)
    fits = {
        "all": fit_of("kumar", small, draws=0),
        "E, A, B": fit_of("kumar", small, draws=0, borrow=lender, free=("E", "A", "B")),
        "nothing": lender,
    }
    rows = []
    for name, fit in fits.items():
        if fit is not None:
            error = np.abs(np.log(fit.predict(**inputs_of(fit, some)) / some["loss"].to_numpy())).mean()
            rows.append((name, some.height, f"{error:.2%}"))
    table(("fitted to smaller models of code", "losses of the largest", "mean error"), rows)
