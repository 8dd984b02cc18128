"""What the losses of trained models say: noise, what low precision costs, whether parts multiply, the best bits."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from measures import (
    HAS_LOSS,
    LOW,
    ONE_PART,
    PARTS,
    PLAIN,
    SCHEME,
    TRAINED,
    UNSTABLE,
    Noise,
    constants,
    evidence,
    fit_of,
    inputs_of,
    interval,
    over_sizes,
    penalties,
    r2,
    section,
    student,
    table,
)
from scipy.optimize import minimize_scalar

import bitlaw as bl
from bitlaw.planning import plan
from bitlaw.runs import Runs

FORMS = (
    "kumar",
    "additive-power",
    "effective-data",
    "effective-both",
    "effective-both-untied",
    "multiplicative-power",
    "capacity",
    "additive-granular",
)
PLANNED = ("kumar", "effective-both", "multiplicative-power", "additive-power")
BUDGETS = (1e12, 1e13, 1e14)


def steady(core: pl.DataFrame) -> pl.DataFrame:
    """Trained ends without activations or KV of 3 bits, which the paper left out too."""
    return core.filter(TRAINED & HAS_LOSS & ~UNSTABLE)


def noise(core: pl.DataFrame) -> dict[str, Noise]:
    """How much a seed moves a loss."""
    section("Noise of seeds (16 bits)")
    ends = core.filter(TRAINED & PLAIN & HAS_LOSS)
    cells = ends.group_by("params", "tokens").agg(
        pl.len(), pl.col("loss").mean().alias("mean"), pl.col("loss").std().alias("sd")
    )
    table(
        ("parameters", "tokens", "seeds", "mean loss", "sd"),
        cells.filter(pl.col("len") > 2).sort("params", "tokens").iter_rows(),
    )
    long, short = pl.col("tokens") > 12e6, (pl.col("tokens") / 1.5e6 - 1).abs() < 0.01
    found = {
        "all": Noise.of(ends),
        "13M tokens and more": Noise.of(ends.filter(long)),
        "mean of 1.5M and 13M": Noise.of(
            ends.filter((short | long) & (pl.col("tokens") < 14e6))
            .group_by("params", "trunk")
            .agg(pl.col("loss").mean(), pl.lit(0.0).alias("tokens"))
        ),
    }
    table(
        ("pooled", "sd", "degrees of freedom (trunks less sizes)"),
        [(what, n.sd, n.df) for what, n in found.items()],
    )
    return found


def stability(core: pl.DataFrame) -> None:
    """Section 7.7, item 3: are activations and KV unstable at 3 bits, and weights not?"""
    section(
        "The lowest bits of each part",
        "Penalty: nats above 16 bits, at the fewest and the most tokens of a size.",
    )
    low = core.filter(TRAINED, ONE_PART).with_columns(scheme=SCHEME)
    low = low.filter(pl.col("scheme").is_in(["w=int3", "a=int3", "kv=int3", "w=int4", "a=int4", "kv=int4"]))
    cost = penalties(core).select("id", "penalty")
    rows = []
    for (scheme, size), some in (
        low.join(cost, on="id", how="left").sort("tokens").group_by("scheme", "params", maintain_order=True)
    ):
        had = some["penalty"].drop_nulls().to_list() or [math.nan]
        rows.append(
            (scheme, size, some.height, some.filter(pl.col("status") == "diverged").height, had[0], had[-1])
        )
    table(("trained", "parameters", "ends", "diverged", "penalty at first", "at last"), sorted(rows))


def exponent(cells: pl.DataFrame) -> float:
    """The g of penalty = k_scheme tokens^g that fits the cells of one size best, in nats."""

    def cost(g: float) -> float:
        total = 0.0
        for _, some in cells.group_by("scheme"):
            x, p = (some["tokens"].to_numpy() / 3e6) ** g, some["penalty"].to_numpy()
            total += float(np.sum((p - x * (x @ p) / (x @ x)) ** 2))
        return total

    return float(minimize_scalar(cost, bounds=(-2, 2), method="bounded").x)


def penalty_growth(core: pl.DataFrame, cosine: pl.DataFrame, seeds: Noise) -> None:
    """Does what low-precision training costs depend on tokens? N_eff says that it does not, g = 0."""
    section(
        "What training in low precision costs, against tokens",
        "One exponent g of tokens for each size and part, penalty = k tokens^g with a k of its own for each scheme;",
        f"schemes that cost more than three sd of seeds ({3 * seeds.sd:.3f}) in the mean over their tokens.",
    )
    rows: list[tuple[object, ...]] = []
    for name, ends in (("cooldown", core), ("cosine", cosine)):
        cost = penalties(ends.filter(~UNSTABLE)).filter(
            ONE_PART, pl.col("tokens").n_unique().over("params", "scheme") > 1
        )
        cost = cost.filter(pl.col("penalty").mean().over("params", "scheme") > 3 * seeds.sd)
        for part, what in PARTS.items():
            some = cost.filter(LOW[part])
            of_size = {size: exponent(cells) for (size,), cells in some.group_by("params")}
            if of_size:
                each = ", ".join(f"{size:.0f}: {g:.2f}" for size, g in sorted(of_size.items()))
                schemes = " ".join(sorted(some["scheme"].unique()))
                rows.append((name, what, schemes, each, *student(list(of_size.values()))))
    table(("schedule", "part", "schemes", "g by parameters", "mean g", "90 %", "sizes"), rows)


def parts_multiply(core: pl.DataFrame) -> None:
    """Finding 2: mixed settings against one part at a time."""
    section(
        "Mixed settings and one part at a time",
        "At equal size and tokens. Sum: the penalty as a share of the sum of the parts'. Product: ln of the effective",
        "share of parameters less the sum of the parts' logarithms, by the 16-bit law; 0 where parts multiply.",
    )
    plain = fit_of("chinchilla", core.filter(TRAINED & PLAIN & HAS_LOSS), draws=0)
    if plain is None:
        return
    floor = plain.values["E"] + plain.values["B"] * pl.col("tokens") ** -plain.values["beta"]
    kept = (pl.col("base") - floor, pl.col("loss") - floor)
    cost = penalties(core.filter(~UNSTABLE)).with_columns(
        share=(kept[0] / kept[1]).log() / plain.values["alpha"]
    )
    single = cost.filter(ONE_PART)
    parts = []
    for part in PARTS:
        of = [f"{part}_format", "params", "tokens"]
        means = single.filter(LOW[part]).group_by(of).agg(pl.col("penalty").mean(), pl.col("share").mean())
        parts.append((of, means.rename({"penalty": f"{part}_penalty", "share": f"{part}_share"})))
    mixed = cost.filter(~ONE_PART)
    for of, means in parts:
        mixed = mixed.join(means, on=of, how="left")
    known = pl.all_horizontal(~LOW[p] | pl.col(f"{p}_penalty").is_not_null() for p in PARTS)
    mixed = mixed.filter(known).with_columns(
        parts=pl.sum_horizontal(f"{p}_penalty" for p in PARTS),
        product=pl.col("share") - pl.sum_horizontal(f"{p}_share" for p in PARTS),
    )
    rows = [
        (name, *student(shares(some)), *over_sizes(some, "product"), float(some["penalty"].mean()))
        for (name,), some in (*sorted(mixed.group_by("scheme")), (("all",), mixed))
        if some.height
    ]
    table(("trained", "sum", "90 %", "sizes", "product", "90 %", "sizes", "mean penalty"), rows)
    marginal_fits(core)


def shares(mixed: pl.DataFrame) -> list[float]:
    """Of each size, the mean penalty over the mean of the parts' sums: single sums come near nothing."""
    means = mixed.group_by("params").agg(pl.col("penalty").mean(), pl.col("parts").mean())
    return (means["penalty"] / means["parts"]).to_list()


def marginal_fits(core: pl.DataFrame) -> None:
    """Do constants of one part at a time predict mixed settings as well as constants of all do?"""
    ends = steady(core).with_columns(scheme=SCHEME)
    mixed = ends.filter(~ONE_PART)
    alone = fit_of("kumar", ends.filter(ONE_PART), draws=0)
    if alone is None or mixed.is_empty():
        return
    errors: dict[str, list[pl.DataFrame]] = {"one part at a time": [], "all but the setting": []}
    for (scheme,), some in sorted(mixed.group_by("scheme")):
        rest = fit_of("kumar", ends.filter(pl.col("scheme") != scheme), draws=0)
        for name, fit in zip(errors, (alone, rest), strict=True):
            if fit is not None:
                errors[name].append(some.with_columns(predicted=fit.predict(**inputs_of(fit, some))))
    section("Marginal fits: losses of mixed settings predicted, each setting by a fit without it")
    rows = []
    for name, parts in errors.items():
        found = pl.concat(parts)
        found = found.with_columns(error=(pl.col("predicted") / pl.col("loss")).log().abs())
        mean, between, sizes = over_sizes(found, "error")
        measured, predicted = found["loss"].to_numpy(), found["predicted"].to_numpy()
        rows.append((name, found.height, r2(measured, predicted), f"{mean:.2%}", between, sizes))
    table(("fitted to", "losses", "R2", "mean error", "90 %", "sizes"), rows)


def rejected_forms(core: pl.DataFrame) -> None:
    """Table 1: forms in which weight precision acts."""
    section("Forms of the weights' precision, the largest size held out")
    ends = core.filter(TRAINED & HAS_LOSS & ~LOW["a"] & ~LOW["kv"])
    try:
        compared = bl.compare(Runs(ends), FORMS)
    except bl.BitlawError as error:
        print(f"{error}\n")
        return
    show(compared, ends)


def show(compared: bl.Comparison, frame: pl.DataFrame) -> None:
    """A ranking as a table, with R2 on the rows held out."""
    ranked = compared.rankings[0]
    gaps = (
        ranked.what == "gap"
    )  # of which few are nothing but noise, and weigh most in a mean of shares and in R2
    rows = []
    for e in (*ranked.entries, *ranked.baselines):
        held = e.held_out
        measured = frame["gap" if gaps else "loss"].to_numpy()[list(held.index)]
        predicted = measured * (1 + np.array(held.errors))
        behind = interval(100 * e.behind_low, 100 * e.behind_high, " %") if e.behind is not None else "first"
        rows.append(
            (
                e.name,
                e.parameters or "no law",
                f"{held.error:.2%} ± {e.margin:.2%}",
                f"{np.median(np.abs(held.errors)):.2%}" if gaps else r2(measured, predicted),
                f"{held.rows - held.outside} of {held.rows}",
                behind,
            )
        )
    middle = "median error" if gaps else "R2"
    header = ("law", "parameters", "mean error", middle, "rows", "behind the first, 90 %, all at once")
    table(header, rows)
    print(f"{ranked.clusters} trunks held out ({ranked.split}). {ranked.verdict}\n")
    for name, why in compared.left_out.items():
        print(f"- {name}: {why}")
    print()


def optimum(core: pl.DataFrame, larger: pl.DataFrame, seeds: Noise) -> None:
    """Finding 3: the best bits, measured at equal parameters times bits, and by several laws."""
    section("Equal parameters times bits, as measured (16M tokens; one run each)")
    equal = larger.filter(TRAINED & HAS_LOSS, (pl.col("tokens") / 16e6 - 1).abs() < 0.01).sort("params")
    if equal.is_empty():
        print("Not trained yet.\n")
    else:
        best = equal["loss"].min()
        table(
            ("weights", "parameters", "loss", "above the best", "90 %"),
            [
                (
                    row["w_format"],
                    row["params"],
                    row["loss"],
                    row["loss"] - best,
                    f"± {seeds.between(1, 1):.3f}",
                )
                for row in equal.iter_rows(named=True)
            ],
        )
    section(
        "Compute-optimal bits by law",
        "All parts alike; near: bits that cost at most 1 % more of the reducible loss.",
        f"Budgets beyond {core['flops_6nd'].max():.2g} FLOPs are beyond every run.",
    )
    rows = []
    for law in PLANNED:
        fit = fit_of(law, steady(core))
        if fit is None:
            continue
        if law == "kumar":
            print(f"{law}: {evidence(fit)}\n")
            table(("constant", "value", "90 %", "status"), constants(fit))
        rows += [(law, *best_bits(fit, budget)) for budget in BUDGETS]
    table(("law", "FLOPs", "bits", "90 %", "near", "parameters", "tokens"), rows)


def best_bits(fit: bl.Fit, budget: float) -> tuple[object, ...]:
    """The best bits under a budget, with their interval and the range that is nearly as good."""
    try:
        found = plan(fit, budget=budget)
    except bl.BitlawError as error:
        return (budget, str(error), "", "", "", "")
    bits = found["bits"]
    return (
        budget,
        bits.value,
        interval(bits.low, bits.high),
        interval(bits.near_low, bits.near_high),
        found["params"].value,
        found["tokens"].value,
    )
