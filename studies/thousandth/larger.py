"""How laws fitted to the core predict the larger models, judged as docs/log.md said before any was trained."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from copies import GAP_LAWS, METHODS, copies
from ends import show, steady
from measures import (
    HAS_LOSS,
    PLAIN,
    TRAINED,
    UNSTABLE,
    fit_of,
    gaps_of,
    inputs_of,
    over_sizes,
    section,
    table,
)

import bitlaw as bl
from bitlaw.fitting import all_for
from bitlaw.fitting.split import Facts, Split
from bitlaw.runs import Runs

PLANNED = 21  # rows
PREDICTED = "kumar-unified"  # of gaps of models trained in low precision


def beyond(facts: Facts) -> np.ndarray:
    """Which rows are of larger models, or of the 16M tokens that no model of the core was trained on."""
    return (facts["params"] > 300_000) | np.isclose(facts["tokens"], 16e6, rtol=0.01)


def held_out(core: pl.DataFrame, larger: pl.DataFrame) -> None:
    """Every law's error on the larger models, and how many lie in its prediction intervals."""
    section("Held out: larger models")
    ends = larger.filter(TRAINED & HAS_LOSS).with_columns(q_format=pl.lit("bf16"))
    if ends.is_empty():
        print("Not trained yet.\n")
        return
    lost = larger.filter(TRAINED & ~HAS_LOSS)
    print(f"{ends.height} of {PLANNED} rows have a loss{''.join(f', {i} diverged' for i in lost['id'])}.\n")
    for what, fitted in (
        ("", steady(core)),
        (", activations and KV of 3 bits fitted too", core.filter(TRAINED & HAS_LOSS)),
    ):
        section(f"Losses predicted{what}")
        rows = [scored(law.name, fitted, ends) for law in all_for(Runs(fitted))[0]]
        # Who predicts all of them first: on fewer rows an error may be smaller because they are the easier ones.
        table(
            ("law", "rows", "mean error", "bias", "in 90 % prediction intervals", "error of integer weights"),
            sorted((row for row in rows if row), key=lambda row: (-row[1], row[2])),
        )
        both = pl.concat([fitted, ends])
        show(bl.compare(Runs(both), hold_out=Split("larger models", beyond)), both)
    gaps(core, larger)


def scored(name: str, fitted: pl.DataFrame, ends: pl.DataFrame) -> tuple[object, ...] | None:
    """How a law fitted to the core predicts each of some ends; what it has no constants for, it does not predict."""
    fit = fit_of(name, fitted)
    if fit is None:
        return None
    errors, whole, inside = [], [], 0
    for k, row in enumerate(ends.iter_rows(named=True)):
        try:
            given = {column: values[0] for column, values in inputs_of(fit, ends[k]).items()}
            seen = bl.forecast(fit, **given).score(row["loss"])
        except bl.BitlawError:
            continue
        errors.append(seen.error)
        inside += seen.inside
        if row["w_format"].startswith(("int", "bf16")) and row["params"] > 900_000:
            whole.append(abs(seen.error))
    error, bias = np.mean(np.abs(errors)) if errors else math.nan, np.mean(errors) if errors else math.nan
    return (
        name,
        len(errors),
        float(100 * error),
        float(100 * bias),
        f"{inside} of {ends.height}",
        float(100 * np.mean(whole)) if whole else math.nan,
    )


def gaps(core: pl.DataFrame, larger: pl.DataFrame) -> None:
    """Gaps of the larger models, by laws of the gap fitted to those of the core, each method by itself."""
    section(
        "Gaps predicted",
        "Mean |ln(predicted / measured)| of gaps at 3 and 4 bits, and bias of the logarithm, of those that are more",
        "than nothing as measured and as predicted, so many of all.",
    )
    rows = []
    for method in METHODS[:2]:
        some = copies(core).filter(~UNSTABLE, pl.col("method") == method)
        every = copies(larger).filter(pl.col("method") == method).with_columns(q_format=pl.lit("bf16"))
        if every.is_empty():
            continue
        for law, fitted in (
            *((law, some.filter(PLAIN)) for law in GAP_LAWS),
            (PREDICTED, pl.concat([steady(core), some])),
        ):
            fit = fit_of(law, fitted)
            for what, after in (("16 bits", every.filter(PLAIN)), ("low precision", every.filter(~PLAIN))):
                if fit is None or after.is_empty() or (law in GAP_LAWS and what != "16 bits"):
                    continue
                gap = gaps_of(fit, after)
                fine = (gap > 0) & (after["gap"].to_numpy() > 0)
                off = after.filter(pl.Series(fine)).with_columns(
                    off=pl.Series(np.log(gap[fine] / after["gap"].to_numpy()[fine]))
                )
                mean, between, sizes = over_sizes(off.with_columns(pl.col("off").abs()), "off")
                counted = f"{off.height} of {after.height}"
                rows.append((method, law, what, counted, mean, between, sizes, off["off"].mean()))
    table(("method", "law", "trained in", "gaps", "mean error", "90 %", "sizes", "bias"), rows)
