"""What the losses of trained models say: noise, and what low precision costs, in one part and in several."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
from measures import (
    HAS_LOSS,
    LOW,
    NEAR,
    ONE_PART,
    PARTS,
    PLAIN,
    SCHEME,
    TRAINED,
    UNSTABLE,
    Noise,
    count,
    fit_of,
    inputs_of,
    interval,
    over_sizes,
    penalties,
    quantiles,
    r2,
    section,
    size,
    student,
    table,
)
from scipy.optimize import minimize_scalar

import bitlaw as bl

SHORT, LONG = (pl.col("tokens") / 1.5e6 - 1).abs() < 0.01, (pl.col("tokens") / 13e6 - 1).abs() < 0.01
SEEDED = SHORT | LONG  # where there are several seeds
LOWEST = ("w=int3", "a=int3", "kv=int3", "w=int4", "a=int4", "kv=int4")
FEW = pl.any_horizontal(pl.col(f"{part}_format").is_in([f"int{b}" for b in range(3, 7)]) for part in PARTS)
WARM = 200_000  # tokens after which a training loss should fall
DRAWS = 400


def steady(core: pl.DataFrame) -> pl.DataFrame:
    """Trained ends without activations or KV of 3 bits, which the paper left out too."""
    return core.filter(TRAINED & HAS_LOSS & ~UNSTABLE)


def noise(core: pl.DataFrame, at_16: pl.DataFrame) -> dict[str, Noise]:
    """How much a seed moves a loss, and what the penalties are measured against."""
    section("Noise of seeds (16 bits)")
    ends = core.filter(TRAINED & PLAIN & HAS_LOSS)
    cells = ends.group_by("params", "tokens").agg(
        pl.len(), pl.col("loss").mean().alias("mean"), pl.col("loss").std().alias("sd")
    )
    table(
        ("parameters", "tokens", "seeds", "mean loss", "sd"),
        [
            (size(n), count(d), seeds, mean, sd)
            for n, d, seeds, mean, sd in cells.filter(pl.col("len") > 2).sort("params", "tokens").iter_rows()
        ],
    )
    found = {
        "all": Noise.of(ends),
        "13M tokens and more": Noise.of(ends.filter(pl.col("tokens") > 12e6)),
        "mean of 1.5M and 13M": Noise.of(
            ends.filter(SEEDED)
            .group_by("params", "trunk")
            .agg(pl.col("loss").mean(), pl.lit(0.0).alias("tokens"))
        ),
        "13M less 1.5M": changes(ends),
    }
    table(
        ("pooled", "sd", "degrees of freedom (trunks less sizes)"),
        [(what, n.sd, n.df) for what, n in found.items()],
    )
    section(
        "What penalties are measured against", "Mean of trunks of 16 bits and of one part at 10 or 12 bits."
    )
    table(
        ("parameters", "tokens", "trunks", "loss", "less that of 16 bits alone"),
        [
            (size(n), count(d), trunks, loss, loss - mean)
            for n, d, loss, trunks, _, mean, _ in at_16.join(cells, on=["params", "tokens"])
            .sort("params", "tokens")
            .iter_rows()
        ],
    )
    return found


def changes(ends: pl.DataFrame) -> Noise:
    """How much a seed moves the change of a loss from 1.5M to 13M tokens."""
    both = ends.filter(SEEDED).filter(pl.len().over("trunk") == 2).sort("tokens")
    by_trunk = both.group_by("params", "trunk", maintain_order=True)
    return Noise.of(by_trunk.agg(pl.col("loss").last() - pl.col("loss").first(), pl.lit(0.0).alias("tokens")))


def stability(core: pl.DataFrame, at_16: pl.DataFrame) -> None:
    """Section 7.7, item 3: are activations and KV unstable at 3 bits, and weights not?"""
    section(
        "The lowest bits of each part",
        "Penalty: nats above 16 bits at the fewest and the most tokens of a size. Rise: the most that the training",
        f"loss, a mean over some steps, rose from one point of its curve to the next after {count(WARM)} tokens; 16",
        "bits for comparison.",
    )
    low = core.filter(TRAINED, ONE_PART).with_columns(scheme=SCHEME.replace("", "16 bits"))
    low = low.filter(pl.col("scheme").is_in([*LOWEST, "16 bits"]))
    cost = penalties(core, at_16).select("id", "penalty")
    joined = low.join(cost, on="id", how="left").sort("tokens")
    rows = []
    for (scheme, params), some in joined.group_by("scheme", "params", maintain_order=True):
        had = some["penalty"].drop_nulls().to_list() or [math.nan]
        diverged = some.filter(pl.col("status") == "diverged").height
        rise = max((rises(curve) for curve in some["curve"].drop_nulls()), default=math.nan)
        rows.append((scheme, params, some["trunk"].n_unique(), some.height, diverged, had[0], had[-1], rise))
    header = ("trained", "parameters", "trunks", "ends", "diverged", "penalty at first", "at last", "rise")
    table(header, [(scheme, size(n), *rest) for scheme, n, *rest in sorted(rows)])


def rises(curve: str) -> float:
    """The most that a training loss rose between points of its curve, once warm."""
    losses = [loss for tokens, loss in json.loads(curve) if tokens > WARM]
    return max(np.diff(losses), default=math.nan)


def exponent(cells: pl.DataFrame, of: str) -> float:
    """The g of penalty = k_scheme x^g that fits cells best, in nats; x is the column `of`."""
    some = cells.partition_by("scheme")
    largest = cells[of].max()
    return best_power([c[of].to_numpy() / largest for c in some], [c["penalty"].to_numpy() for c in some])


def best_power(x: list[np.ndarray], penalty: list[np.ndarray]) -> float:
    """The g of p = k x^g, a k for each pair of arrays, with the least squares."""

    def cost(g: float) -> float:
        return sum(
            float(np.sum((p - y * (y @ p) / (y @ y)) ** 2))
            for y, p in zip((a**g for a in x), penalty, strict=True)
        )

    return float(minimize_scalar(cost, bounds=(-2, 2), method="bounded").x)


def against_tokens(core: pl.DataFrame, at_16: pl.DataFrame) -> None:
    """Does what low-precision training costs depend on tokens? N_eff says that it does not."""
    section(
        "What training in low precision costs, against tokens",
        "Mean penalty over the sizes that have both ends, and its change within the trunks.",
    )
    cost = penalties(core, at_16).filter(ONE_PART, FEW)
    both = cost.filter(SEEDED).filter(pl.len().over("trunk") == 2).sort("tokens")
    by_trunk = both.group_by("scheme", "params", "trunk", maintain_order=True).agg(
        pl.col("penalty").first().alias("first"), pl.col("penalty").last().alias("last")
    )
    table(
        ("trained", "at 1.5M tokens", "at 13M", "change", "90 %", "sizes"),
        [
            (
                scheme,
                some["first"].mean(),
                some["last"].mean(),
                *student((some["last"] - some["first"]).to_list()),
            )
            for (scheme,), some in sorted(by_trunk.group_by("scheme"))
        ],
    )
    print(
        "One exponent g of tokens for each size and part: penalty = k tokens^g, with a k of its own for each scheme of "
        "3 to 6 bits, fitted in nats; activations and KV of 3 bits are left out. N_eff says g = 0.\n"
    )
    rows: list[tuple[object, ...]] = []
    for part, what in PARTS.items():
        some = cost.filter(LOW[part], ~UNSTABLE, pl.col("tokens").n_unique().over("trunk") > 1)
        of_size = {n: exponent(cells, "tokens") for (n,), cells in some.group_by("params")}
        each = ", ".join(f"{size(n)}: {g:.2f}" for n, g in sorted(of_size.items()))
        rows.append((what, " ".join(sorted(some["scheme"].unique())), each, *student(list(of_size.values()))))
    table(("part", "schemes", "g by parameters", "mean g", "90 %", "sizes"), rows)


def against_size(core: pl.DataFrame, at_16: pl.DataFrame, seeds: Noise) -> None:
    """How what low-precision training costs falls with parameters."""
    section(
        "What training in low precision costs, against parameters",
        "Mean penalty over 1.5M to 13M tokens = k parameters^h, a k for each scheme as above. N_eff says h = -alpha,",
        "an added penalty h = 0. The interval is of seeds alone, which move the mean of 1.5M and 13M tokens as above,",
        "of the trunks and of what they are measured against.",
    )
    known = penalties(core, at_16).filter(ONE_PART, FEW, ~UNSTABLE, pl.col("tokens") < 14e6)
    rows = []
    rng = np.random.default_rng(0)
    for part, what in PARTS.items():
        cells = (
            known.filter(LOW[part])
            .group_by("scheme", "params")
            .agg(pl.col("penalty").mean(), pl.col("base_trunks").first())
            .filter(pl.col("params").n_unique().over("scheme") > 1)
            .sort("scheme", "params")
        )
        if cells.is_empty():
            continue
        sizes = cells["params"].unique().sort()
        some = cells.partition_by("scheme")
        x, lent = [c["params"].to_numpy() for c in some], [c["base_trunks"].to_numpy() ** -0.5 for c in some]
        draws = []
        for _ in range(DRAWS):
            sd = seeds.sd * math.sqrt(seeds.df / rng.chisquare(seeds.df))  # itself known from few seeds
            shared = rng.standard_normal(len(sizes))  # of what all penalties of a size are measured against
            moved = [
                c["penalty"].to_numpy()
                + sd * (rng.standard_normal(c.height) + share * shared[sizes.search_sorted(n)])
                for c, n, share in zip(some, x, lent, strict=True)
            ]
            draws.append(best_power([n / sizes[-1] for n in x], moved))
        each = " ".join(size(n) for n in sizes)
        rows.append(
            (what, each, cells.height, exponent(cells, "params"), interval(*quantiles(np.array(draws))))
        )
    table(("part", "parameters", "trunks", "h", "90 %"), rows)


def turning(core: pl.DataFrame) -> None:
    """Does more training ever raise a loss: of models trained in few bits, or of those quantised to few?"""
    section(
        "Losses that training raises",
        "Loss by tokens; where it is lowest; the last less the one before, 90 % by seeds of 16-bit models (their",
        "change from 1.5M to 13M tokens), where several were treated so. N_eff has no such minimum for models in",
        "training.",
    )
    trained = core.filter(TRAINED & HAS_LOSS, ONE_PART).with_columns(what=SCHEME.replace("", "16 bits"))
    trained = trained.filter(pl.col("what").is_in([*LOWEST, "16 bits"]))
    after = core.filter(~TRAINED & HAS_LOSS, PLAIN, pl.col("post_format").is_in(["int2", "int3", "int4"]))
    after = after.with_columns(what=pl.format("16 bits, then {} by {}", "post_format", "method"))
    every = pl.concat([trained, after])
    counts = pl.col("tokens").n_unique()
    whole = every.filter(counts.over("what", "trunk") == counts.over("params")).sort("tokens")
    budgets = every["tokens"].unique().sort().to_list()
    rows = []
    for (what, params, _), some in whole.group_by("what", "params", "trunk", maintain_order=True):
        at = dict(some.select("tokens", "loss").iter_rows())
        treated = after.filter(pl.col("what") == what)
        seeds = changes(trained.filter(PLAIN) if treated.is_empty() else treated)
        *_, before, last = some["loss"]
        lowest = min(at, key=lambda tokens: at[tokens])
        cells = (at.get(tokens, math.nan) for tokens in budgets)
        rows.append((what, params, *cells, count(lowest), last - before, seeds.between(1)))
    header = ("model", "parameters", *map(count, budgets), "lowest at", "last less before", "90 %")
    table(header, [(what, size(n), *rest) for what, n, *rest in sorted(rows)])


def parts_multiply(core: pl.DataFrame, at_16: pl.DataFrame, seeds: Noise) -> None:
    """Finding 2: mixed settings against one part at a time."""
    section(
        "Mixed settings and one part at a time",
        "At equal size and tokens. Sum: of each size, the mean penalty over the mean sum of the parts', where that is",
        f"more than three sd of seeds ({3 * seeds.sd:.3f}); 1 where penalties add. Product: ln of the effective share",
        "of parameters less the sum of the parts' logarithms, by the 16-bit law at its estimate; 0 where shares",
        "multiply.",
    )
    plain = fit_of("chinchilla", core.filter(TRAINED & NEAR & HAS_LOSS), draws=0)
    if plain is None:
        return
    floor = plain.values["E"] + plain.values["B"] * pl.col("tokens") ** -plain.values["beta"]
    kept = (pl.col("base") - floor, pl.col("loss") - floor)
    cost = penalties(core.filter(~UNSTABLE), at_16).with_columns(
        share=(kept[0] / kept[1]).log() / plain.values["alpha"]
    )
    single = cost.filter(ONE_PART)
    mixed = cost.filter(~ONE_PART)
    for part in PARTS:
        of = [f"{part}_format", "params", "tokens"]
        means = single.filter(LOW[part]).group_by(of).agg(pl.col("penalty").mean(), pl.col("share").mean())
        mixed = mixed.join(
            means.rename({"penalty": f"{part}_penalty", "share": f"{part}_share"}), on=of, how="left"
        )
    known = pl.all_horizontal(~LOW[p] | pl.col(f"{p}_penalty").is_not_null() for p in PARTS)
    mixed = mixed.filter(known).with_columns(
        parts=pl.sum_horizontal(f"{p}_penalty" for p in PARTS),
        product=pl.col("share") - pl.sum_horizontal(f"{p}_share" for p in PARTS),
    )
    table(
        ("trained", "penalty", "sum of the parts'", "sum", "90 %", "sizes", "product", "90 %", "sizes"),
        [
            (
                name,
                float(some["penalty"].mean()),
                float(some["parts"].mean()),
                *student(shares(some, 3 * seeds.sd)),
                *over_sizes(some, "product"),
            )
            for (name,), some in (*sorted(mixed.group_by("scheme")), (("all",), mixed))
            if some.height
        ],
    )


def shares(mixed: pl.DataFrame, least: float) -> list[float]:
    """Of each size, the mean penalty over the mean of the parts' sums, where that is more than noise."""
    means = mixed.group_by("params").agg(pl.col("penalty").mean(), pl.col("parts").mean())
    means = means.filter(pl.col("parts") > least)
    return (means["penalty"] / means["parts"]).to_list()


def marginal_fits(core: pl.DataFrame) -> None:
    """Do constants of one part at a time predict mixed settings as well as constants of all do?"""
    ends = steady(core).with_columns(scheme=SCHEME)
    mixed = ends.filter(~ONE_PART)
    alone, joint = fit_of("kumar", ends.filter(ONE_PART), draws=0), fit_of("kumar", ends, draws=0)
    if alone is None or joint is None or mixed.is_empty():
        return
    left_out = []
    for (scheme,), some in sorted(mixed.group_by("scheme")):
        rest = fit_of("kumar", ends.filter(pl.col("scheme") != scheme), draws=0)
        if rest is not None:
            left_out.append(predicted(rest, some))
    section(
        "Losses of mixed settings predicted",
        "The paper has R2 .897 for constants of one part at a time and .901 for those of all.",
    )
    found = {
        "one part at a time": predicted(alone, mixed),
        "all but the setting": pl.concat(left_out),
        "all, so not predicted": predicted(joint, mixed),
    }
    rows = []
    for name, of in found.items():
        mean, between, sizes = over_sizes(of, "error")
        explained = r2(of["loss"].to_numpy(), of["predicted"].to_numpy())
        rows.append((name, of.height, explained, f"{mean:.2%}", between, sizes))
    table(("fitted to", "losses", "R2", "mean error", "90 %", "sizes"), rows)
    first, second = found["one part at a time"], found["all but the setting"]
    both = first.join(second.select("id", pl.col("error").alias("other")), on="id")
    mean, between, sizes = over_sizes(both.with_columns(more=pl.col("error") - pl.col("other")), "more")
    print(
        f"The first errs by {mean:.5f} more than the second ({between}; {sizes} sizes), as a share of the loss.\n"
    )


def predicted(fit: bl.Fit, frame: pl.DataFrame) -> pl.DataFrame:
    """Losses that a fit predicts, and their errors."""
    found = frame.with_columns(predicted=pl.Series(fit.predict(**inputs_of(fit, frame))))
    return found.with_columns(error=(pl.col("predicted") / pl.col("loss")).log().abs())
