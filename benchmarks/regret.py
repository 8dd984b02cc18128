"""How good plans are: what they lose against the truth's own optimum, counted. Writes docs/regret.md.

    python benchmarks/regret.py                  # 200 truths a study, about half an hour of one core
    python benchmarks/regret.py --truths 20      # a look

Counts are kept as they come (--kept), so a run that was stopped goes on where it stopped.

Truths are drawn around the published constants of Kumar et al. 2024, a study of each is simulated, fitted and planned
with as users do, at a hundred times the cost of its largest run; then the truth says what the plan would have given.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from truths import STUDIES, Study, tokens_for, truth

import bitlaw as bl
from bitlaw.planning.choice import WHOLE_BITS, chosen, tied
from bitlaw.planning.limits import Limits
from bitlaw.planning.optimum import Search
from bitlaw.planning.source import Source

LEVELS = (0.5, 0.8, 0.9, 0.95)
DRAWS = 200  # half the default: the time of a fit
BEYOND = 100  # times the cost of the largest run
ALLOWED = 1.01  # ratio of the excess loss to the least there can be


# ---- what a plan gives


def judged(study: Study, seed: int, rivals: bool) -> dict[str, Any]:
    """Simulate, fit and plan once, and let the truth judge it."""
    rng = np.random.default_rng([seed, STUDIES.index(study)])
    there = truth(study.form, rng)
    runs = study.rows(there, rng)
    fit = bl.fit(study.law, runs, draws=DRAWS, seed=seed)
    flops = BEYOND * 6 * max(n * d for n, d in study.cells)
    plan = bl.plan(fit, budget=flops, runs=runs if rivals else None)
    assert plan.hedge is not None
    quantised = study.quantised
    whole = np.array(WHOLE_BITS if quantised else [16], dtype=float)
    least_whole = there.best(flops, whole, quantised)[1]
    true_bits = whole[np.argmin(least_whole)]
    if quantised:
        p, best, least = there.best_bits(flops)
        of_plan = min(plan.options, key=lambda o: o.loss)
        params, bits = of_plan.params, of_plan.bits
    else:
        p, best, least = 16.0, float(there.best(flops, whole, False)[0][0]), float(least_whole[0])
        params, bits = plan["params"].value, 16.0

    def ratio(n: float, b: float, lowest: float) -> float:
        floor = there.values["E"]
        return (float(there.spending(flops, n, b, quantised)) - floor) / (lowest - floor)

    found: dict[str, Any] = {
        "whole": ratio(params, bits, float(least_whole.min())),
        "hedged": ratio(plan.hedge.params, plan.hedge.bits, float(least_whole.min())),
        "free": ratio(plan["params"].value, plan["bits"].value, least),
        "expected": plan.hedge.at_best,
        "inside": plan["params"].near_low <= plan["params"].low
        and plan["params"].high <= plan["params"].near_high,
        "right bits": bool(bits == true_bits),
        "near": not quantised or any(o.near_optimal and o.bits == true_bits for o in plan.options),
    }
    draws = drawn(fit, flops, quantised)
    for name, value in (("params", best), ("tokens", tokens_for(flops, best, p)), ("bits", p)):
        if name == "bits" and not quantised:
            continue
        ends = [np.nanquantile(draws[name], [0.5 - level / 2, 0.5 + level / 2]) for level in LEVELS]
        low, high = ends[LEVELS.index(0.9)]
        assert math.isclose(low, plan[name].low, rel_tol=1e-6), "these are not the draws of the plan"
        found[name] = [bool(low <= value <= high) for low, high in ends]
        found[f"{name} off"], found[f"{name} width"] = (
            math.log(plan[name].value / value),
            math.log(high / low),
        )
    if rivals:
        found |= {"truth": best, "span": [plan["params"].low, plan["params"].high]}
        found["others"] = [[o.law, o.values["params"], "bits" in o.values] for o in plan.others]
    return found


def drawn(fit: Any, flops: float, quantised: bool) -> dict[str, np.ndarray]:
    """The optimum of every draw, of which a plan gives quantiles at one level."""
    source = Source.of(fit, 0.9)
    choices = tied(source.law, [16.0]) if quantised else chosen(source.law, None, None)
    search = Search(source, choices, Limits(flops=flops), "bits" if quantised else "")
    best = search.in_draws(search.each())
    lost = ~np.isfinite(best.loss)
    return {name: np.where(lost, np.nan, getattr(best, name)) for name in ("params", "tokens", "bits")}


def counted(truths: int, rivals: int, kept: Path, measure: bool) -> dict[str, list[dict[str, Any]]]:
    """Judge what is not judged yet, one truth of every study after the other."""
    lines = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    known = {(name, seed): found for name, seed, found in lines}
    out: dict[str, list[dict[str, Any]]] = {}
    began = time.time()
    for seed in range(truths):
        for study in STUDIES:
            wanted = study.right or seed < truths // 4
            if measure and wanted and (study.name, seed) not in known:
                found = judged(study, seed, not study.right and seed < rivals)
                known[study.name, seed] = found
                with kept.open("a") as file:
                    file.write(json.dumps([study.name, seed, found]) + "\n")
            if (study.name, seed) in known:
                out.setdefault(study.name, []).append(known[study.name, seed])
        if measure and seed % 10 == 9:
            print(f"{seed + 1} of {truths} truths: {time.time() - began:.0f} s", flush=True)
    return out


# ---- the page


def share(hits: Any) -> str:
    """A share with its 95 % interval (Clopper and Pearson 1934)."""
    from scipy.special import betaincinv

    hits = np.asarray(hits, dtype=bool)
    k, n = int(hits.sum()), len(hits)
    if not n:
        return "none"
    low = 0.0 if k == 0 else betaincinv(k, n - k + 1, 0.025)
    high = 1.0 if k == n else betaincinv(k + 1, n - k, 0.975)
    return f"{k / n:.1%} ({low:.0%} to {high:.0%})"


def band(nominal: float, n: int, judged: int) -> float:
    """Half the joint 99 % band of a counted share, by Bonferroni over all that are judged."""
    from scipy.special import ndtri

    return float(-ndtri(0.005 / judged) * math.sqrt(nominal * (1 - nominal) / n))


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def of(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows])


def regrets(found: dict[str, list[dict[str, Any]]], studies: list[Study]) -> list[str]:
    rows = []
    for study in studies:
        kept = found[study.name]
        ratios, hedges = of(kept, "whole"), of(kept, "hedged")
        quantiles = [f"{q - 1:.2%}" for q in np.quantile(ratios, [0.5, 0.9, 1])]
        rows.append(
            [study.name, str(len(kept)), share(ratios <= ALLOWED), *quantiles, f"{ratios.mean() - 1:.2%}"]
            + [share(hedges <= ALLOWED), f"{hedges.mean() - 1:.2%}", f"{of(kept, 'expected').mean():.2%}"]
        )
    return table(
        [
            "study",
            "n",
            "within 1 %",
            "median",
            "90 %",
            "worst",
            "mean",
            "hedged: within 1 %",
            "mean",
            "expected",
        ],
        rows,
    )


def coverages(found: dict[str, list[dict[str, Any]]], studies: list[Study]) -> list[str]:
    judged = sum(len(LEVELS) * (2 if s.quantised else 1) for s in studies)
    rows = []
    for study in studies:
        kept = found[study.name]
        cells = []
        for name in ("params", "tokens", "bits"):
            if name not in kept[0]:
                cells.append("")
                continue
            held = of(kept, name).mean(axis=0)
            texts = [
                f"**{x:.1%}**" if abs(x - level) > band(level, len(kept), judged) else f"{x:.1%}"
                for x, level in zip(held, LEVELS, strict=True)
            ]
            cells.append(" ".join(texts))
        off, width = np.abs(of(kept, "params off")), of(kept, "params width")
        rows.append(
            [study.name, *cells, f"{math.exp(np.median(off)):.3g}", f"{math.exp(np.median(width)):.3g}"]
        )
    heads = ["study", "log N", "log D", "log P", "N off by, median", "high / low of N at 90 %, median"]
    return table(heads, rows)


def page(found: dict[str, list[dict[str, Any]]], command: str) -> str:
    """docs/regret.md."""
    found = {name: rows for name, rows in found.items() if rows}
    right = [s for s in STUDIES if s.right and s.name in found]
    wrong = [s for s in STUDIES if not s.right and s.name in found]
    judged = sum(len(LEVELS) * (2 if s.quantised else 1) for s in right)
    n = max(len(rows) for rows in found.values())
    inside = [row for s in right for row in found[s.name] if row["inside"]]
    outside = [row for s in right for row in found[s.name] if not row["inside"]]
    lines = [
        "<!-- Made by benchmarks/regret.py; run it again rather than edit. -->",
        "# How good plans are\n",
        f"Made by `{command}`. Truths are drawn around the constants of Kumar et al. 2024 (exponents 0.25 to 0.55, the "
        "two costs up to twofold, gammas 1.5-fold, offsets 1.3-fold, E 1.5 to 3); runs of each are simulated, fitted "
        f"as by default but for {DRAWS} draws in place of 400, and planned with a budget of {BEYOND} times the cost of "
        "the largest run. The studies: the paper's 18 cells (30M to 220M parameters, 1.5B to 26B tokens) in one format "
        "(18 runs), in nine (162) or, with quantisation after training, in up to 26 (465); and 8 x 5 cells of 30M to "
        "1B parameters and 1B to 40B tokens (40 runs). Percentages in their names are the noise of log losses. In the "
        "trunks, runs of one size and formats share half of its variance.\n",
        "## Regret, when the law is right\n",
        "(L - E) / (L* - E) - 1: what the recommended plan loses by the truth, as a share of the reducible loss. "
        "The plan is the best whole number of bits (2 to 8, 10, 12, 16) with its size and tokens, L* the truth's best "
        "over the same numbers; chinchilla is planned at 16 bits. Shares within 1 % with their 95 % intervals "
        "(Clopper-Pearson); the median, the 90 % quantile, the worst and the mean. Hedged: the plan's second answer, "
        "which is expected to lose least over the draws; beside it, what the plans themselves expected to lose, on "
        "average.\n",
        *regrets(found, right),
        "With bits that are any number, against the truth's best of any number, shares within 1 % are "
        + ", ".join(
            f"{np.mean(of(found[s.name], 'free') <= ALLOWED):.1%} ({s.name})" for s in right if s.quantised
        )
        + ".\n",
        "One percent allows log N to be off by about sqrt(0.02 / (alpha beta)), a factor of 1.4 either way at "
        "exponents of 0.4. A plan says itself whether it is that sure: of those whose 90 % interval of N lies "
        f"within their near-optimal range, {share(of(inside, 'whole') <= ALLOWED)} of {len(inside)} are within "
        f"1 %, of the others {share(of(outside, 'whole') <= ALLOWED)} of {len(outside)}.\n",
        "## Intervals, when the law is right\n",
        "Share of intervals that hold the truth's optimum (of any number of bits), at nominal "
        + ", ".join(f"{level:.0%}" for level in LEVELS)
        + f". In bold: outside the joint 99 % band of the {judged} counts of log N and log D (Bonferroni, n = {n}: "
        + ", ".join(f"{level:.0%} ± {band(level, n, judged):.1%}" for level in LEVELS)
        + "; at one number of bits, log D is log N). The last columns: the factor by which N is off, and how wide its "
        "90 % interval is.\n",
        *coverages(found, right),
        "The truth's best whole number of bits is among the near-optimal options, and is the plan's own:\n",
        *table(
            ["study", "n", "near-optimal", "the plan's"],
            [
                [
                    s.name,
                    str(len(found[s.name])),
                    share(of(found[s.name], "near")),
                    share(of(found[s.name], "right bits")),
                ]
                for s in right + wrong
                if s.quantised
            ],
        ),
    ]
    if wrong:
        lines += [
            "## When the law is wrong\n",
            "The outer exponent joins the two costs, (A / N_eff^alpha + B / D^beta)^0.8; the cost of bits grows as "
            "D^0.1 to D^0.3; capacity is tanh(F x)^C of the effective bits x of integers. Columns as above; bold is "
            "outside the joint 99 % band of these counts, at their n.\n",
            *regrets(found, wrong),
            *coverages(found, wrong),
            *spreads(found, wrong),
        ]
    return "\n".join(lines)


def spreads(found: dict[str, list[dict[str, Any]]], studies: list[Study]) -> list[str]:
    """How often other laws, asked by `plan(..., runs=rows)`, reach the truth."""
    rows = []
    for study in studies:
        kept = [row for row in found[study.name] if "others" in row]
        if not kept:
            continue
        cells = []
        for alike in (False, True):
            spans = []
            for row in kept:
                sizes = [n for _, n, bits in row["others"] if bits or not (alike and study.quantised)]
                spans.append((min([row["span"][0], *sizes]), max([row["span"][1], *sizes])))
            held = [low <= row["truth"] <= high for (low, high), row in zip(spans, kept, strict=True)]
            cells += [share(held), f"{np.median([high / low for low, high in spans]):.3g}"]
        alone = [row["span"][0] <= row["truth"] <= row["span"][1] for row in kept]
        count = np.median([len(row["others"]) for row in kept])
        rows.append([study.name, str(len(kept)), f"{count:.0f}", share(alone), *cells])
    if not rows:
        return []
    return [
        "`plan(..., runs=rows)` asks the laws and objectives that fit about as well. How often the truth's N lies in "
        "the 90 % interval alone, in the range of that and all their answers, and of those that choose bits too; and "
        "how wide these ranges are (high / low, median).\n",
        *table(
            ["truth", "n", "others, median", "interval", "with all", "width", "with those of bits", "width"],
            rows,
        ),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--truths", type=int, default=200, help="of each study; a quarter where the law is wrong"
    )
    parser.add_argument("--rivals", type=int, default=25, help="of these, how many are put to other laws too")
    parser.add_argument("--page", action="store_true", help="only write the page, from the counts so far")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "regret.md")
    parser.add_argument("--kept", type=Path, default=Path("regret-counts.jsonl"), help="counts so far")
    asked = parser.parse_args()
    counts = counted(asked.truths, asked.rivals, asked.kept, not asked.page)
    command = f"python benchmarks/regret.py --truths {asked.truths} --rivals {asked.rivals}"
    asked.out.write_text(page(counts, command), encoding="utf-8")
