"""Which laws of the training loss hold: forms of precision, effective parameters, the best bits."""

from __future__ import annotations

import numpy as np
import polars as pl
from ends import steady
from measures import (
    HAS_LOSS,
    LOW,
    ONE_PART,
    PARTS,
    SCHEME,
    TRAINED,
    Noise,
    constants,
    count,
    evidence,
    fit_of,
    interval,
    r2,
    section,
    size,
    student,
    table,
)

import bitlaw as bl
from bitlaw.fitting.split import Facts, Split
from bitlaw.planning import plan
from bitlaw.runs import Runs

FORMS = {
    "kumar": "effective parameters, the paper's choice",
    "kumar-untied": "the same, an exponent of size and one of data",
    "chinchilla": "no precision",
    "additive-power": "precision added, a power of bits (table 1)",
    "multiplicative-power": "precision added, times a power of size (table 1)",
    "effective-data": "effective tokens (table 1)",
    "effective-both": "effective parameters and tokens (table 1)",
    "effective-both-untied": "the same, each with constants of its own (table 1)",
    "efficiency": "effective parameters, free for each format",
    "capacity": "effective parameters by the format's error (Panferov et al.)",
    "additive-granular": "precision added, with tokens and groups (Chen et al.)",
}
PLANNED = ("kumar", "effective-both", "multiplicative-power", "additive-power")
BUDGETS = (1e12, 1e13, 1e14)
SIZE = 219_308  # parameters, where they are given


def rejected_forms(core: pl.DataFrame) -> None:
    """Table 1: forms in which weight precision acts, each size held out in turn."""
    section(
        "Forms of the weights' precision, each size held out in turn",
        "Mean error on the size that is held out, and the mean over sizes of how much larger it is than that of the",
        "paper's choice (90 %, sizes as replicates). The largest size alone is the question of extrapolation.",
    )
    ends = core.filter(TRAINED & HAS_LOSS & ~LOW["a"] & ~LOW["kv"])
    sizes = sorted(ends["params"].unique())
    errors: dict[str, list[float]] = {name: [] for name in FORMS}
    for held in sizes:
        try:
            compared = bl.compare(Runs(ends), tuple(FORMS), hold_out=only(held))
        except bl.BitlawError as error:
            print(f"{size(held)}: {error}\n")
            return
        for e in compared.rankings[0].entries:
            errors[e.name].append(e.held_out.error)
    rows = []
    for name, what in FORMS.items():
        if len(errors[name]) < len(sizes):
            continue
        more = [a - b for a, b in zip(errors[name], errors["kumar"], strict=True)]
        mean, between, _ = student([100 * x for x in more])
        excess = ("-", "-") if name == "kumar" else (f"{mean:.2f}", between)
        rows.append((name, what, *(f"{x:.2%}" for x in errors[name]), *excess))
    table(("law", "precision acts as", *map(size, sizes), "mean excess, %", "90 %"), rows)
    section("The same, the largest size held out")
    show(bl.compare(Runs(ends), tuple(FORMS)), ends)


def only(params: float) -> Split:
    """Hold out one size."""

    def rule(facts: Facts) -> np.ndarray:
        return np.isclose(facts["params"], params)

    return Split(f"{size(params)} parameters", rule)


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


def effective(core: pl.DataFrame) -> None:
    """Finding 2 and its rivals: the effective share of parameters, free for each format and by the paper's form."""
    section(
        "Effective share of parameters, one part in low precision",
        "Free: a constant for each format. Form: 1 - exp(-P / gamma + n), the paper's. 16 / P: bits for parameters,",
        "what a format is worth at equal parameters times bits. Paper: its constants at these bits.",
    )
    ends = steady(core).filter(ONE_PART)
    free, form = fit_of("efficiency", ends), fit_of("kumar", ends)
    if free is None or form is None:
        return
    evidence(free)
    paper = bl.published("kumar-2024").values
    rows = []
    for e in free.estimates:
        part, _, fmt = e.parameter.name.removeprefix("eff_").partition("[")
        if part not in PARTS or not fmt.startswith("int"):
            continue
        bits = int(fmt.removeprefix("int").rstrip("]"))
        by_form, by_paper = (
            1 - np.exp(-bits / v[f"gamma_{part}"] + v[f"n_{part}"]) for v in (form.values, paper)
        )
        rows.append(
            (PARTS[part], bits, e.value, interval(e.low, e.high), by_form, by_paper, 16 * e.value / bits)
        )
    header = ("part", "bits", "free", "90 %", "form", "paper", "free times 16 / P")
    table(header, sorted(rows))


def trades(core: pl.DataFrame, at_16: pl.DataFrame) -> None:
    """Finding 3 without a law: fewer bits for more tokens or parameters, as measured."""
    section(
        "Fewer bits for more tokens or parameters, as measured",
        "Loss of models all of whose parts are in few bits less that at 16 bits. Cost: parameters x tokens x bits, of",
        "the first over the second.",
    )
    ends = core.filter(TRAINED & HAS_LOSS).with_columns(scheme=SCHEME)
    tied = {b: f"w=int{b}, a=int{b}, kv=int{b}" for b in (4, 6, 8)}
    loss = {
        (row["scheme"], row["params"], round(row["tokens"] / 1e5)): row["loss"]
        for row in ends.iter_rows(named=True)
    }
    plain = {(n, round(d / 1e5)): value for n, d, value, _ in at_16.iter_rows()}
    sizes, budgets = sorted({n for n, _ in plain}), sorted({d for _, d in plain})
    rows = []
    for bits, scheme in tied.items():
        for what, more_sizes, more_budgets in (
            ("tokens, next budget", 0, 1),
            ("tokens, the one after", 0, 2),
            ("parameters, next size", 1, 0),
            ("parameters, the one after", 2, 0),
        ):
            cells: dict[float, list[tuple[float, float]]] = {}
            for n, d in plain:
                i, j = sizes.index(n) + more_sizes, budgets.index(d) + more_budgets
                if i < len(sizes) and j < len(budgets) and (scheme, sizes[i], budgets[j]) in loss:
                    cost = sizes[i] * budgets[j] * bits / (n * d * 16)
                    cells.setdefault(n, []).append((cost, loss[scheme, sizes[i], budgets[j]] - plain[n, d]))
            if cells:
                means = [np.mean(of, axis=0) for of in cells.values()]
                costs = [float(m[0]) for m in means]
                rows.append(
                    (
                        bits,
                        what,
                        f"{min(costs):.2f} to {max(costs):.2f}",
                        *student([float(m[1]) for m in means]),
                    )
                )
    table(("bits", "more", "cost", "loss less that at 16 bits", "90 %", "sizes"), rows)


def optimum(core: pl.DataFrame, larger: pl.DataFrame, seeds: Noise) -> None:
    """Finding 3: the best bits, measured at equal parameters times bits, and by several laws."""
    section(
        "Equal parameters times bits, as measured (16M tokens; one run each)",
        "± is of all ten differences at once, by seeds of 16-bit models of up to 220k parameters.",
    )
    equal = larger.filter(TRAINED & HAS_LOSS, (pl.col("tokens") / 16e6 - 1).abs() < 0.01).sort("params")
    if equal.is_empty():
        print("Not trained yet.\n")
    else:
        names = [
            "32 (as 16)" if n < 300e3 else row or "16"
            for n, row in equal.select("params", "w_format").iter_rows()
        ]
        best, between = equal["loss"].min(), seeds.between(1, 1, comparisons=10)
        table(
            ("all parts in", "parameters", "loss", "above the best", "90 %"),
            [
                (name, size(n), loss, loss - best, between)
                for name, (n, loss) in zip(names, equal.select("params", "loss").iter_rows(), strict=True)
            ],
        )
    reach = max(core["flops_6nd"].max(), larger["flops_6nd"].max() or 0.0)
    section(
        "Compute-optimal bits by law",
        "All parts alike; near: bits that cost at most 1 % more of the reducible loss. That the best bits are the",
        "same at every budget is built into the first three laws; where parameters are given, they grow with the",
        f"budget. Budgets beyond {reach:.2g} FLOPs are beyond every run.",
    )
    rows: list[tuple[object, ...]] = []
    for law in PLANNED:
        fit = fit_of(law, steady(core))
        if fit is None:
            continue
        if law == "kumar":
            print(f"{law}:\n")
            evidence(fit)
            table(("constant", "value", "90 %", "status"), constants(fit))
        rows += [(law, *best_bits(fit, budget=budget)) for budget in BUDGETS]
        if law == "kumar":
            rows += [(law, *best_bits(fit, budget=budget, params=SIZE)) for budget in BUDGETS]
    table(("law", "FLOPs", "bits", "90 %", "near", "parameters", "tokens"), rows)


def best_bits(fit: bl.Fit, budget: float, **given: float) -> tuple[object, ...]:
    """The best bits under a budget, with their interval and the range that is nearly as good."""
    try:
        found = plan(fit, budget=budget, **given)
    except bl.BitlawError as error:
        return (budget, str(error), "", "", "", "")
    bits = found["bits"]
    params = f"{size(given['params'])} given" if given else size(found["params"].value)
    return (
        budget,
        bits.value,
        interval(bits.low, bits.high),
        interval(bits.near_low, bits.near_high),
        params,
        count(found["tokens"].value),
    )
