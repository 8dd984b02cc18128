"""How laws fitted to the core predict the larger models, judged as docs/log.md said before any was trained."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from copies import GAP_LAWS, METHODS, copies
from ends import steady
from forms import show
from measures import (
    HAS_LOSS,
    PLAIN,
    SCHEME,
    TRAINED,
    UNSTABLE,
    count,
    fit_of,
    gaps_of,
    inputs_of,
    interval,
    over_sizes,
    quantiles,
    section,
    size,
    table,
)

import bitlaw as bl
from bitlaw.fitting import all_for
from bitlaw.fitting.split import Facts, Split
from bitlaw.runs import Runs

PLANNED = 21  # rows
DRAWS = 2000
SHOWN = ("kumar", "chinchilla")  # beside the best
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
    print(f"{ends.height} of {PLANNED} rows have a loss.\n")
    for row in larger.filter(TRAINED & ~HAS_LOSS).iter_rows(named=True):
        print(
            f"- {size(row['params'])}, {count(row['tokens'])} tokens, {row['id']}: {row['status']}, {row['reason']}"
        )
    print()
    for what, fitted in (
        ("", steady(core)),
        (", activations and KV of 3 bits fitted too", core.filter(TRAINED & HAS_LOSS)),
    ):
        section(
            f"Losses predicted{what}",
            "Mean of |predicted - measured| in percent of the loss, 90 % by drawing trunks anew; bias: the mean with",
            "its sign. Inside: rows in their 90 % prediction interval, of all; a row that a law says nothing of is",
            "not inside.",
        )
        laws, why = all_for(Runs(fitted))
        found = {law.name: scored(law.name, fitted, ends) for law in laws}
        found = {name: of for name, of in found.items() if of is not None and of.height}
        # Who predicts all of them first: on fewer rows an error may be smaller because they are the easier ones.
        ranked = sorted(found, key=lambda name: (-found[name].height, found[name]["error"].abs().mean()))
        table(
            ("law", "rows", "mean error", "90 %", "bias", "inside", "error, 1M and 3M in integers"),
            [summary(name, found[name], ends.height) for name in ranked],
        )
        for name, reason in why.items():
            if not reason.startswith("it predicts"):
                print(f"- {name}: {reason}")
        print()
        by_row(ends, {name: found[name] for name in dict.fromkeys([ranked[0], *SHOWN]) if name in found})
        both = pl.concat([fitted, ends])
        show(bl.compare(Runs(both), hold_out=Split("larger models", beyond)), both)
    gaps(core, larger)


def scored(name: str, fitted: pl.DataFrame, ends: pl.DataFrame) -> pl.DataFrame | None:
    """Predictions of some ends by a law fitted to the core; what it has no constants for, it does not predict."""
    fit = fit_of(name, fitted)
    if fit is None:
        return None
    found = []
    for k, row in enumerate(ends.iter_rows(named=True)):
        try:
            given = {column: values[0] for column, values in inputs_of(fit, ends[k]).items()}
            seen = bl.forecast(fit, **given)
        except bl.BitlawError:
            continue
        score = seen.score(row["loss"])
        of = (row["id"], row["trunk"], row["params"], row["w_format"] or "bf16")
        found.append((*of, seen.loss, seen.low, seen.high, score.error, score.inside))
    names = ("id", "trunk", "params", "weights", "loss", "low", "high", "error", "inside")
    return pl.DataFrame(found, schema=names, orient="row")


def summary(name: str, of: pl.DataFrame, every: int) -> tuple[object, ...]:
    """A law's errors in percent."""
    off = of.with_columns(pl.col("error") * 100)
    whole = off.filter(pl.col("params") > 900e3, ~pl.col("weights").str.starts_with("e"))
    return (
        name,
        off.height,
        float(off["error"].abs().mean()),
        interval(*by_trunks(off)),
        float(off["error"].mean()),
        f"{off['inside'].sum()} of {every}",
        float(whole["error"].abs().mean() or math.nan),
    )


def by_trunks(off: pl.DataFrame) -> tuple[float, float]:
    """The interval of a mean error, trunks drawn anew."""
    sums = off.group_by("trunk").agg(pl.col("error").abs().sum(), pl.len()).sort("trunk")
    error, rows = sums["error"].to_numpy(), sums["len"].to_numpy()
    picked = np.random.default_rng(0).integers(len(error), size=(DRAWS, len(error)))
    return quantiles(error[picked].sum(axis=1) / rows[picked].sum(axis=1))


def by_row(ends: pl.DataFrame, found: dict[str, pl.DataFrame]) -> None:
    """Each held-out model beside what some laws said of it; in brackets what lies outside the prediction interval."""
    print("Losses, predictions and their 90 % intervals; in brackets where the loss lies outside.\n")
    rows = []
    for row in ends.with_columns(scheme=SCHEME).sort("params", "scheme", "tokens").iter_rows(named=True):
        cells = []
        for of in found.values():
            here = of.filter(pl.col("id") == row["id"])
            if here.is_empty():
                cells.append("-")
                continue
            said = here.row(0, named=True)
            text = f"{said['loss']:.4f} ({said['low']:.3f} to {said['high']:.3f})"
            cells.append(text if said["inside"] else f"[{text}]")
        rows.append(
            (
                size(row["params"]),
                count(row["tokens"]),
                row["scheme"] or "16 bits",
                f"{row['loss']:.4f}",
                *cells,
            )
        )
    table(("parameters", "tokens", "trained", "loss", *found), rows)
    sizes = sorted(ends["params"].unique())
    print("Mean error by size, percent.\n")
    table(
        ("law", *map(size, sizes)),
        [
            (
                name,
                *(
                    float(100 * (of.filter(pl.col("params") == n)["error"].abs().mean() or math.nan))
                    for n in sizes
                ),
            )
            for name, of in found.items()
        ],
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
                fine = np.isfinite(gap) & (gap > 0) & (after["gap"].to_numpy() > 0)
                off = after.filter(pl.Series(fine)).with_columns(
                    off=pl.Series(np.log(gap[fine] / after["gap"].to_numpy()[fine]))
                )
                mean, between, sizes = over_sizes(off.with_columns(pl.col("off").abs()), "off")
                counted = f"{off.height} of {after.height}"
                bias = float(off["off"].mean() or math.nan)
                rows.append((method, law, what, counted, mean, between, sizes, bias))
    table(("method", "law", "trained in", "gaps", "mean error", "90 %", "sizes", "bias"), rows)
