"""What other formats cost, and which constants carry over to another text."""

from __future__ import annotations

import numpy as np
import polars as pl
from copies import copies
from ends import exponent, steady
from measures import (
    LOW,
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
    table,
)

import bitlaw as bl
from bitlaw.runs import Runs

BUDGETS = pl.col("tokens") < 14e6  # of the stage of formats


def formats(core: pl.DataFrame, other: pl.DataFrame, seeds: Noise) -> None:
    """Penalties of formats beside those of the core's integers at the same size and tokens."""
    section(
        "What formats cost",
        "Nats above 16 bits, mean over 1.5M to 13M tokens; one trunk each, so that the interval is of the seed alone.",
        "g: of penalty = k tokens^g, where the penalty is more than three sd of seeds. Bits: nominal, without scales.",
    )
    if other.is_empty():
        print("Not trained yet.\n")
        return
    sizes = other["params"].unique().to_list()
    here = core.filter(BUDGETS, ONE_PART, pl.col("params").is_in(sizes))
    cost = pl.concat([penalties(other, base=core), penalties(here, base=core)])
    rows = []
    for (size, scheme), some in sorted(cost.group_by("params", "scheme")):
        mean = float(some["penalty"].mean())
        g = exponent(some) if mean > 3 * seeds.sd and some["tokens"].n_unique() > 1 else float("nan")
        part = next(p for p, low in LOW.items() if some.select(low.alias("low"))["low"].all())
        bits = Runs(some).bits(part)[0] if part in PARTS else float("nan")
        rows.append((size, scheme, bits, some.height, mean, f"± {seeds.between(1, 1):.3f}", g))
    table(("parameters", "trained", "bits", "ends", "penalty", "90 %", "g"), rows)


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
        print(f"{law}, RFCs: {evidence(of_text)}; code: {evidence(of_code)}.\n")
        there_at = {e.parameter.name: e for e in of_code.estimates}
        rows = []
        for e in of_text.estimates:
            name = e.parameter.name
            if e.status != "fixed" and name in there_at:
                other = there_at[name]
                ratio = quantiles(np.log(drawn(of_code, name) / drawn(of_text, name)))
                rows.append(
                    (
                        name,
                        e.value,
                        interval(e.low, e.high),
                        other.value,
                        interval(other.low, other.high),
                        interval(*ratio),
                    )
                )
        table(("constant", "RFCs", "90 %", "code", "90 %", "ln of the ratio, 90 %"), rows)
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
