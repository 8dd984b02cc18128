"""What the rows of the thousandth study say, as tables of Markdown.

    python studies/thousandth/findings.py

Each section answers one question from the published rows, with 90 % intervals whose clusters are trunks.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from measures import (
    ONE_PART,
    PLAIN,
    SCHEME,
    TRAINED,
    UNSTABLE,
    constants,
    inputs_of,
    interval,
    mean_of,
    penalties,
    r2,
    training_flops,
    trunk_slopes,
)

import bitlaw as bl
from bitlaw.fitting.split import Facts, Split
from bitlaw.lab.sweep import seed_noise
from bitlaw.planning import plan
from bitlaw.runs import Runs


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table of Markdown; numbers with four significant digits."""
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(f"{x:.4g}" if isinstance(x, float) else str(x) for x in row) + " |")
    print()


def section(title: str) -> None:
    """Print a heading."""
    print(f"## {title}\n")


def fit_of(law: str, frame: pl.DataFrame, **how: object) -> bl.Fit | None:
    """A fit, or None and the reason in the table's place."""
    try:
        return bl.fit(law, Runs(frame), **how)
    except bl.BitlawError as error:
        print(f"{law}: {error}\n")
        return None


def counts(every: pl.DataFrame) -> None:
    """What was trained and quantised."""
    section("What there is")
    stages = {s: bl.datasets.thousandth(s).frame for s in bl.datasets.STAGES}
    table(
        ("stage", "trunks", "trained ends", "gaps", "diverged", "failed"),
        [
            (
                name,
                f["trunk"].n_unique(),
                f.filter(TRAINED).height,
                f.filter(~TRAINED & pl.col("gap").is_not_null()).height,
                f.filter(pl.col("status") == "diverged").height,
                f.filter(pl.col("status") == "failed").height,
            )
            for name, f in stages.items()
        ],
    )
    for row in every.filter(pl.col("status") != "ok").iter_rows(named=True):
        print(f"- {row['params']:.0f} parameters, {row['tokens']:.0f} tokens, {row['id']}: {row['reason']}")
    shared, separate = training_flops(every)
    print(
        f"Training took {shared:.3g} FLOPs; the same ends as separate runs take {separate:.3g}, "
        f"so shared trunks cost {shared / separate:.3f} of them.\n"
    )


def noise(core: pl.DataFrame) -> None:
    """How much a seed moves a loss."""
    section("Noise of seeds")
    ends = core.filter(TRAINED & PLAIN & pl.col("loss").is_not_null())
    cells = ends.group_by("params", "tokens").agg(
        pl.len(), pl.col("loss").mean().alias("mean"), pl.col("loss").std().alias("sd")
    )
    table(
        ("parameters", "tokens", "seeds", "mean loss", "sd"),
        cells.filter(pl.col("len") > 2).sort("params", "tokens").iter_rows(),
    )
    if pooled := seed_noise(core.to_dicts()):
        print(f"Pooled: {pooled[0]:.4f}, {pooled[1]} degrees of freedom.\n")


def gap_growth(core: pl.DataFrame, every: pl.DataFrame) -> None:
    """Finding 1: the gap against tokens, size and bits, for each method and schedule."""
    section("The gap after training of 16-bit models")
    copies = core.filter(~TRAINED & PLAIN & pl.col("gap").is_not_null())
    rows: list[tuple[object, ...]] = []
    for method in ("gptq", "rtn", "awq"):
        some = copies.filter(pl.col("method") == method)
        fit = fit_of("gap-kumar", some)
        if fit is None:
            continue
        gap, predicted = some["gap"].to_numpy(), fit.predict(**inputs_of(fit, some))
        fine = gap > 0
        rows += [(method, *c, "") for c in constants(fit)]
        rows.append(
            (
                method,
                "R2 of log gaps",
                r2(np.log(gap[fine]), np.log(predicted[fine])),
                "",
                "",
                int(fine.sum()),
            )
        )
    table(("method", "constant", "value", "90 %", "status", "n"), rows)
    section("The gap against tokens, by schedule (log-log slope within size and bits, GPTQ)")
    copies = every.filter(
        ~TRAINED & PLAIN & (pl.col("gap") > 0),
        pl.col("method") == "gptq",
        pl.col("post_format").is_in(["int2", "int3", "int4"]),
    )
    way = pl.format(
        "{}, cooldown {}, peak {}",
        "schedule",
        "cooldown",
        (pl.col("learning_rate") * pl.col("width")).round(3),
    )
    rows = []
    for (name, size, bits), some in copies.with_columns(way=way).group_by("way", "params", "post_format"):
        slopes = trunk_slopes(some, "gap")
        if slopes.height:
            rows.append((name, f"{size:.0f}", bits, *mean_of(slopes, "slope")))
    table(("schedule", "parameters", "bits", "slope", "90 %", "trunks"), sorted(rows, key=str))


def penalty_growth(core: pl.DataFrame) -> None:
    """Does what low-precision training costs depend on tokens?"""
    section(
        "The cost of training in low precision against tokens (log-log slope within trunks, costs above 0.02)"
    )
    large = penalties(core).filter(ONE_PART, pl.col("penalty") > 0.02)
    rows = []
    for (scheme,), some in large.with_columns(scheme=SCHEME).group_by("scheme"):
        slopes = trunk_slopes(some, "penalty")
        if slopes.height:
            rows.append((scheme, *mean_of(slopes, "slope"), float(some["penalty"].mean())))
    table(("scheme", "slope", "90 %", "trunks", "mean cost, nats"), sorted(rows, key=str))


def parts_multiply(core: pl.DataFrame) -> None:
    """Finding 2: constants of one part at a time, and mixed settings."""
    section("Marginal fits and mixed settings")
    ends = core.filter(TRAINED & pl.col("loss").is_not_null() & ~UNSTABLE)
    mixed = ends.filter(~ONE_PART)
    rows = []
    for name, some in (("one part at a time", ends.filter(ONE_PART)), ("all", ends)):
        fit = fit_of("kumar", some)
        if fit is None:
            continue
        for what, judged in (("one part", ends.filter(ONE_PART)), ("mixed", mixed)):
            if judged.height:
                loss, predicted = judged["loss"].to_numpy(), fit.predict(**inputs_of(fit, judged))
                error = np.abs(np.log(predicted / loss)).mean()
                rows.append((name, what, judged.height, r2(loss, predicted), f"{error:.2%}"))
    table(("fitted to", "judged on", "n", "R2", "mean error"), rows)


def rejected_forms(core: pl.DataFrame) -> None:
    """Table 1: forms in which weight precision acts."""
    section("Forms of the weights' precision, the largest size held out")
    ends = core.filter(
        TRAINED & pl.col("loss").is_not_null(),
        (pl.col("a_format") == "bf16") & (pl.col("kv_format") == "bf16"),
    )
    names = (
        "kumar",
        "additive-power",
        "effective-data",
        "effective-both",
        "effective-both-untied",
        "multiplicative-power",
        "capacity",
        "additive-granular",
    )
    try:
        ranked = bl.compare(Runs(ends), names).rankings[0]
    except bl.BitlawError as error:
        print(f"{error}\n")
        return
    table(
        ("law", "parameters", "mean error", "behind the first"),
        [
            (
                e.name,
                e.parameters,
                f"{e.held_out.error:.2%}",
                interval(100 * e.behind_low, 100 * e.behind_high) + " %" if e.behind_low is not None else "",
            )
            for e in ranked.entries
        ],
    )
    print(ranked.verdict + "\n")


def unified(core: pl.DataFrame) -> None:
    """Finding 4: one law of all rows, beside the published constants; N against the effective N in the gap."""
    section("The unified law")
    some = core.filter(pl.col("loss").is_not_null() & ~UNSTABLE, TRAINED | (pl.col("method") == "gptq"))
    published = dict(bl.published("kumar-2024").values)
    for law in ("kumar-unified", "kumar-unified-n"):
        fit = fit_of(law, some)
        if fit is None:
            continue
        ends = some.filter(TRAINED)
        copies = some.filter(~TRAINED & (pl.col("gap") > 0))
        loss = r2(ends["loss"].to_numpy(), fit.predict(**inputs_of(fit, ends.with_columns(post_format=None))))
        gap = fit.law.compiled.gap(
            np.array([list(fit.values.values())]), fit.law.arrange(inputs_of(fit, copies))
        )[0]
        fine = gap > 0
        print(
            f"{law}: R2 of {ends.height} losses {loss:.4f}, of {int(fine.sum())} log gaps "
            f"{r2(np.log(copies['gap'].to_numpy()[fine]), np.log(gap[fine])):.4f}.\n"
        )
        if law == "kumar-unified":
            table(
                ("constant", "here", "90 %", "status", "published"),
                [(*c, published.get(str(c[0]), "")) for c in constants(fit)],
            )


def robustness(core: pl.DataFrame) -> None:
    """Are models trained in low precision hurt less by quantisation?"""
    section("Gap of ends trained in low precision over that of the 16-bit end (GPTQ, log ratio)")
    copies = core.filter(~TRAINED & (pl.col("gap") > 0), pl.col("method") == "gptq")
    base = (
        copies.filter(PLAIN)
        .group_by("params", "tokens", "post_format")
        .agg(pl.col("gap").mean().alias("base"))
    )
    paired = (
        copies.filter(~PLAIN & ONE_PART)
        .join(base, on=["params", "tokens", "post_format"])
        .with_columns(
            ratio=(pl.col("gap") / pl.col("base")).log(),
            scheme=SCHEME,
        )
    )
    rows = [
        (scheme, post, *mean_of(some, "ratio"))
        for (scheme, post), some in paired.filter(
            pl.col("post_format").is_in(["int2", "int3", "int4"])
        ).group_by("scheme", "post_format")
    ]
    table(("trained", "quantised to", "mean log ratio", "90 %", "trunks"), sorted(rows, key=str))


def recalibration(core: pl.DataFrame) -> None:
    """What one temperature recovers of a gap."""
    section("Share of the gap that a temperature recovers (16-bit ends)")
    parents = core.filter(TRAINED).select(
        pl.col("id").alias("parent"), pl.col("loss_scaled").alias("scaled_before")
    )
    copies = (
        core.filter(~TRAINED & PLAIN & (pl.col("gap") > 0.005))
        .join(parents, on="parent")
        .with_columns(share=1 - (pl.col("loss_scaled") - pl.col("scaled_before")) / pl.col("gap"))
    )
    rows = [
        (method, bits, *mean_of(some, "share"), float(some["gap"].mean()))
        for (method, bits), some in copies.group_by("method", "post_format")
    ]
    table(("method", "bits", "share", "90 %", "trunks", "mean gap"), sorted(rows, key=str))


def optimum(core: pl.DataFrame) -> None:
    """Finding 3: the best bits, and how flat they are."""
    section("Compute-optimal bits")
    fit = fit_of("kumar", core.filter(TRAINED & pl.col("loss").is_not_null() & ~UNSTABLE))
    if fit is None:
        return
    table(("constant", "value", "90 %", "status"), constants(fit))
    for budget in (1e12, 1e13, 1e14):
        print(f"```\n{plan(fit, budget=budget)}\n```\n")


def held_out(core: pl.DataFrame) -> None:
    """Stage 2: every law's error on larger models, as the log said beforehand."""
    section("Held out: larger models")
    larger = bl.datasets.thousandth("held-out").frame.filter(TRAINED & pl.col("loss").is_not_null())
    if larger.is_empty():
        print("Not trained yet.\n")
        return
    ends = core.filter(TRAINED & pl.col("loss").is_not_null() & ~UNSTABLE)
    both = Runs(pl.concat([ends, larger.with_columns(q_format=pl.lit("bf16"))]))
    ids = larger["id"].to_list()

    def rule(facts: Facts) -> np.ndarray:
        return (facts["params"] > 300_000) | np.isclose(facts["tokens"], 16e6, rtol=0.01)

    compared = bl.compare(both, hold_out=Split("larger models", rule))
    ranked = compared.rankings[0]
    rows = []
    for entry in ranked.entries:
        fit = fit_of(entry.name, ends)
        inside = 0
        if fit is not None:
            for row in larger.iter_rows(named=True):
                data = {k: v[0] for k, v in inputs_of(fit, pl.DataFrame([row], schema=larger.schema)).items()}
                try:
                    seen = bl.forecast(fit, **data)
                except bl.BitlawError:
                    continue
                inside += seen.low <= row["loss"] <= seen.high
        rows.append(
            (
                entry.name,
                f"{entry.held_out.error:.2%}",
                f"{entry.held_out.bias:+.2%}",
                entry.held_out.outside,
                f"{inside} of {len(ids)}",
            )
        )
    table(("law", "mean error", "bias", "outside its domain", "inside 90 % prediction intervals"), rows)
    print(ranked.verdict + "\n")


def main() -> None:
    """Print all sections."""
    warnings.simplefilter("ignore", RuntimeWarning)
    core, every = bl.datasets.thousandth().frame, bl.datasets.thousandth(None).frame
    print("# Tables of the thousandth study\n")
    counts(every)
    noise(core)
    gap_growth(core, every)
    penalty_growth(core)
    parts_multiply(core)
    rejected_forms(core)
    unified(core)
    robustness(core)
    recalibration(core)
    optimum(core)
    held_out(core)


if __name__ == "__main__":
    main()
