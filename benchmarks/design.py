"""Does choosing runs pay? FLOPs that chosen runs and a space-filling grid need for the same interval.

    python benchmarks/design.py                  # 50 studies of each question, an hour or two of one core
    python benchmarks/design.py --studies 10     # a look

Each study has a truth and a first grid of runs of its own, with 1 % noise. Runs worth more and more FLOPs are added to
it, chosen by `next_runs` or on a grid in (log N, log D) over the same sizes and tokens; both are made of trunks with
cooldowns, whose ends share half the variance of their noise. Everything is then fitted again, and the 90 % interval of
the answer is read off the plan. Two questions: the best size for 100 times the FLOPs of the largest run (a Chinchilla
law), and the best bits there (a Kumar law of weights and activations).

No run of either way has fewer tokens than parameters, for fits warn of such. A grid of k sizes and k budgets spans the
region from its lower corner as far up as its FLOPs allow, and is given the k that is best over all studies.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import bitlaw as bl
from bitlaw import Runs
from bitlaw.laws import Law, Published
from bitlaw.planning import Trunk, next_runs

NOISE = 0.01
SHARED = 0.5  # of the variance, between ends of a trunk
DESIGN = [2.0**k for k in range(-5, 3)]  # FLOPs of runs chosen, in those of the first study
GRID = [2.0**k for k in range(-1, 3)]  # and of grids
SIDES = (2, 3, 4)  # sizes, and budgets, of a grid
LOW = (3, 4, 6, 8)  # bits of a part, of both ways to choose
BEYOND = 4.0  # the region reaches as far beyond the first study, of both ways


@dataclass(frozen=True)
class Question:
    """What is asked, of which law, after which first runs."""

    law: Law
    answer: str
    first: tuple[Trunk, ...]
    schemes: tuple[str, ...]
    factor: float = 100.0

    @property
    def budget(self) -> float:
        """A hundred times the FLOPs of the largest run."""
        return self.factor * max(6 * t.params * max(t.budgets) for t in self.first)

    @property
    def flops(self) -> float:
        """Of the first study."""
        return sum(t.flops for t in self.first)


def _first(sizes: Sequence[float], budgets: Sequence[float], schemes: Sequence[str]) -> tuple[Trunk, ...]:
    return tuple(Trunk(n, s, (d,)) for n in sizes for d in budgets for s in schemes)


QUESTIONS = {
    "size": Question(
        bl.laws.chinchilla,
        "params",
        _first(np.geomspace(1e7, 1e8, 4), np.geomspace(2e8, 2e9, 4), ["16"]),
        ("16",),
    ),
    "bits": Question(
        bl.laws.kumar,
        "bits",
        _first((1e7, 1e8), (2e8, 2e9), ("16", "w3", "w6", "a4", "a8")),
        ("16", *(f"{part}{b}" for part in ("w", "a") for b in LOW)),
    ),
}


def truth(law: Law, question: Question, rng: np.random.Generator) -> dict[str, float]:
    """Constants of a study: plausible shares of the loss at its middle, exponents, and about Kumar's scales of bits."""
    n, d = (math.sqrt(np.prod(x)) for x in ((1e7, 1e8), (2e8, 2e9)))
    alpha, beta = rng.uniform(0.28, 0.42), rng.uniform(0.28, 0.42)
    by_size, by_data = np.exp(rng.uniform(math.log(0.4), math.log(1.2), 2))
    values = {
        "E": rng.uniform(1.5, 2.0),
        "A": by_size * n**alpha,
        "B": by_data * d**beta,
        "alpha": alpha,
        "beta": beta,
    }
    published = bl.published("kumar-2024").values
    values |= {k: v * math.exp(0.1 * rng.standard_normal()) for k, v in published.items() if k not in values}
    if "beta" not in law.names:
        values["B"] = by_data * d**alpha
    return {name: values[name] for name in law.names}


def simulate(
    law: Law, values: dict[str, float], trunks: Sequence[Trunk], name: str, rng: np.random.Generator
) -> list[dict]:
    """Rows of trunks; one row is a trunk by itself where it has one budget."""
    rows = []
    for k, trunk in enumerate(trunks):
        shared = math.sqrt(SHARED) * rng.standard_normal()
        scheme = bl.Scheme.parse(trunk.scheme)
        formats = {p: getattr(scheme, p).format for p in ("w", "a", "kv")}
        low = {p: f for p, f in formats.items() if f.bits < 16}
        for d in trunk.budgets:
            bits = {f"{p}_bits": float(f.bits) for p, f in low.items()}
            exact = predicted(law, values, {"params": trunk.params, "tokens": d, **bits})
            if not math.isfinite(exact):  # outside the true law's domain: the run fails, and is paid for
                continue
            error = NOISE * (shared + math.sqrt(1 - SHARED) * rng.standard_normal())
            rows.append(
                {"params": trunk.params, "tokens": d, "loss": exact * math.exp(error), "trunk": f"{name}-{k}"}
                | {f"{p}_format": f.name for p, f in low.items()}
            )
    return rows


def predicted(law: Law, values: dict[str, float], inputs: dict[str, float]) -> float:
    """The loss, infinite outside the law's domain."""
    data = {name: np.atleast_1d(column) for name, column in law.arrange(inputs).items()}
    return float(law.compiled.guarded("total", law.vector(values), data)[0])


def fitted(law: Law, rows: list[dict], seed: int) -> bl.Fit:
    """As users fit."""
    return bl.fit(law, Runs.from_rows(rows), seed=seed)


def asked(fit: bl.Fit, question: Question, values: dict[str, float]) -> tuple[float, bool]:
    """The width of the answer's 90 % interval, in logarithms for a size, and whether it holds the true answer."""
    found = bl.plan(fit, budget=question.budget)[question.answer]
    known = {name: values[name] for name in fit.law.names}
    true = bl.plan(Published("truth", fit.law, known, fit.law.source, "a simulation"), budget=question.budget)
    held = found.low <= true[question.answer].value <= found.high
    wide = math.log(found.high / found.low) if question.answer == "params" else found.high - found.low
    return wide, held


def grid(question: Question, side: int, spend: float) -> tuple[Trunk, ...]:
    """A grid of trunks over the region, from its lower corner as far up as FLOPs allow, in each scheme."""
    ends = []
    for values in ([t.params for t in question.first], [max(t.budgets) for t in question.first]):
        ends.append((min(values), max(values) * BEYOND))

    def made(reach: float) -> tuple[Trunk, ...]:
        sizes, budgets = (low * (high / low) ** np.linspace(0, reach, side) for low, high in ends)
        trained = {n: tuple(d for d in budgets if d >= n) for n in sizes}
        return tuple(Trunk(n, s, trained[n]) for n in sizes for s in question.schemes if trained[n])

    low, high = 0.01, 1.0
    if sum(t.flops for t in made(high)) <= spend:
        return made(high)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(t.flops for t in made(middle)) <= spend else (low, middle)
    return made(low)


def study(question: Question, seed: int) -> dict:
    """One study: for each way to choose, FLOPs in those of the first study, width, and whether the truth is held."""
    rng = np.random.default_rng([seed, 7])
    values = truth(question.law, question, rng)
    rows = simulate(question.law, values, question.first, "first", rng)
    first = fitted(question.law, rows, seed)
    found: dict = {"seed": seed, "first": asked(first, question, values), "design": [], "expected": []}
    for share in DESIGN:
        design = next_runs(first, share * question.flops, budget=question.budget, narrow=[question.answer])
        more = simulate(question.law, values, design.trunks, "next", rng)
        own = design[question.answer]
        expected = math.log(own.after) if question.answer == "params" else own.after
        again = fitted(question.law, rows + more, seed)
        found["design"].append((design.flops / question.flops, *asked(again, question, values)))
        found["expected"].append(expected)
    for side in SIDES:
        found[f"grid {side}"] = []
        for share in GRID:
            trunks = grid(question, side, share * question.flops)
            more = simulate(question.law, values, trunks, "grid", rng)
            flops = sum(t.flops for t in trunks) / question.flops
            again = fitted(question.law, rows + more, seed)
            found[f"grid {side}"].append((flops, *asked(again, question, values)))
    return found


def falling(points: list[tuple[float, float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    """Log FLOPs and log widths, made to fall by pooling neighbours that do not (isotonic regression)."""
    x, y = np.log(np.array([point[:2] for point in points])).T
    blocks = [[value, 1] for value in y]
    k = 0
    while k < len(blocks) - 1:
        if blocks[k][0] < blocks[k + 1][0]:
            (a, m), (b, n) = blocks[k], blocks[k + 1]
            blocks[k : k + 2] = [[(a * m + b * n) / (m + n), m + n]]
            k = max(k - 1, 0)
        else:
            k += 1
    return x, np.repeat([b[0] for b in blocks], [b[1] for b in blocks])


def ratio(found: dict, side: int, share: float) -> float:
    """FLOPs of chosen runs over those of a grid, for the width that the grid has; 0 or infinite beyond the ends."""
    x, y = falling([*found["design"]])
    gx, gy = falling(found[f"grid {side}"])
    want = float(np.interp(math.log(share), gx, gy))
    if want >= y[0]:
        return 0.0
    if want < y[-1]:
        return math.inf
    k = int(np.flatnonzero(y <= want)[0])
    at = x[k] if y[k - 1] == y[k] else x[k - 1] + (x[k] - x[k - 1]) * (y[k - 1] - want) / (y[k - 1] - y[k])
    return math.exp(at) / share


def median_interval(values: Sequence[float], level: float = 0.9) -> tuple[float, float, float]:
    """The median, and its interval by order statistics (binomial)."""
    from scipy.stats import binom

    ordered = sorted(values)
    k = max(0, int(binom.ppf((1 - level) / 2, len(ordered), 0.5)) - 1)
    return float(np.median(ordered)), ordered[k], ordered[len(ordered) - 1 - k]


def report(name: str, found: list[dict]) -> str:
    """What came out."""
    lines = [f"{name}: {len(found)} studies; FLOPs in those of the first study"]
    first = np.median([f["first"][0] for f in found])
    held = sum(f["first"][1] for f in found)
    lines.append(f"  first study alone: median width {first:.3g}; the interval holds the truth in {held}")
    for what in ("design", *(f"grid {side}" for side in SIDES)):
        texts = []
        for k, share in enumerate(DESIGN if what == "design" else GRID):
            used = np.median([f[what][k][0] for f in found])
            held = sum(f[what][k][2] for f in found)
            texts.append(f"{share:g} ({used:.2g}): {np.median([f[what][k][1] for f in found]):.3g} [{held}]")
        lines.append(f"  {what}, median width at FLOPs (used) [holds the truth]: " + ", ".join(texts))
    off = [math.log(f["design"][k][1] / f["expected"][k]) for f in found for k in range(len(DESIGN))]
    lines.append(
        "  width found / width expected: median "
        + ", ".join(
            f"{math.exp(np.median([math.log(f['design'][k][1] / f['expected'][k]) for f in found])):.2f} at {share:g}"
            for k, share in enumerate(DESIGN)
        )
        + f"; 90 % of all within {math.exp(np.quantile(off, 0.05)):.2f} to {math.exp(np.quantile(off, 0.95)):.2f}"
    )
    for share in GRID:
        each = {side: [ratio(f, side, share) for f in found] for side in SIDES}
        side = max(SIDES, key=lambda s: float(np.median(each[s])))
        middle, low, high = median_interval(each[side])
        half = sum(r <= 0.5 for r in each[side])
        lines.append(
            f"  grid {side} at {share:g}: chosen runs need {middle:.3f} of its FLOPs (median; 90 % interval "
            f"{low:.3f} to {high:.3f}), at most half in {half} of {len(found)}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=50)
    parser.add_argument(
        "--first-seed", type=int, default=0, help="seeds from 1000 on were used while this was made"
    )
    parser.add_argument("--question", choices=[*QUESTIONS], action="append")
    parser.add_argument("--kept", type=Path, default=Path("design-studies.jsonl"), help="studies so far")
    chosen = parser.parse_args()
    lines = chosen.kept.read_text().splitlines() if chosen.kept.exists() else []
    known = {(name, found["seed"]): found for name, found in map(json.loads, lines)}
    for name in chosen.question or QUESTIONS:
        collected = []
        for seed in range(chosen.first_seed, chosen.first_seed + chosen.studies):
            if (name, seed) not in known:
                began = time.time()
                known[name, seed] = study(QUESTIONS[name], seed)
                with chosen.kept.open("a") as file:
                    file.write(json.dumps([name, known[name, seed]]) + "\n")
                print(f"{name} {seed}: {time.time() - began:.0f} s", flush=True)
            collected.append(known[name, seed])
        print(report(name, collected), flush=True)
