"""How often intervals hold the truth: simulated sweeps, counted. Writes docs/coverage.md.

    python benchmarks/coverage.py                 # 400 sweeps a design, about half an hour on two cores
    python benchmarks/coverage.py --sweeps 40     # a look

Counts are kept as they come (--kept), so a run that was stopped goes on where it stopped.

A Chinchilla law with known constants is drawn on several designs with several kinds of noise, fitted as users
fit, and for each method and level it is counted how often the interval holds the true alpha, the true exponent of
the optimal size a = beta / (alpha + beta), and the true log loss at ten times the largest size and tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

import bitlaw as bl
from bitlaw import Runs

TRUTH = {"E": 1.817, "A": 482.0, "B": 2085.0, "alpha": 0.348, "beta": 0.366}
NOISE = 0.01
LEVELS = (0.5, 0.8, 0.9, 0.95)
METHODS = ("default", "student", "wild", "cluster")
QUANTITIES = ("alpha", "a", "log loss x10")
OPEN = ("one budget, 12", "one ratio, 12")  # designs that leave a direction open
NOISES = ("uniform", "small models noisier", "2 % outliers")


def designs() -> dict[str, tuple[list[tuple[float, float]], int]]:
    """Cells of each design, and how many of them one trunk gives."""
    A, B, alpha, beta = (TRUTH[n] for n in ("A", "B", "alpha", "beta"))
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    isoflop = []
    for flops in (1e18, 1e19, 1e20):
        best = G * (flops / 6) ** (beta / (alpha + beta))
        isoflop += [(n, flops / 6 / n) for n in best * np.exp(np.linspace(-1.2, 1.2, 7))]

    def grid(sizes: int, budgets: int) -> list[tuple[float, float]]:
        return [(n, d) for n in np.geomspace(3e7, 1e9, sizes) for d in np.geomspace(1e9, 4e10, budgets)]

    return {
        "IsoFLOP, 3 x 7": (isoflop, 1),
        "grid, 4 x 3": (grid(4, 3), 1),
        "grid, 5 x 4": (grid(5, 4), 1),
        "grid, 8 x 5": (grid(8, 5), 1),
        "12 trunks x 4": (grid(12, 4), 4),
        "one budget, 12": ([(n, 1e19 / 6 / n) for n in np.geomspace(1e8, 1e10, 12)], 1),
        "one ratio, 12": ([(n, 20 * n) for n in np.geomspace(1e7, 1e10, 12)], 1),
    }


def sweep(cells: list[tuple[float, float]], branches: int, noise: str, seed: int) -> Runs:
    """One simulated sweep; runs of one trunk share half the variance of their noise."""
    rng = np.random.default_rng(seed)
    n, d = np.array(cells).T
    loss = TRUTH["E"] + TRUTH["A"] * n ** -TRUTH["alpha"] + TRUTH["B"] * d ** -TRUTH["beta"]
    own, shared = rng.standard_normal(len(n)), rng.standard_normal(len(n) // branches).repeat(branches)
    error = NOISE * (own if branches == 1 else math.sqrt(0.5) * (own + shared))
    if noise == "small models noisier":  # fourfold for the smallest
        error *= 4 * (n / n.min()) ** (-math.log(4) / math.log(n.max() / n.min()))
    if noise == "2 % outliers":
        error = np.where(rng.random(len(n)) < 0.02, 10 * NOISE * rng.choice([-1, 1], len(n)), error)
    trunks = np.arange(len(n)) // branches
    return Runs.from_rows(
        {"params": a, "tokens": b, "loss": c, "trunk": str(t)}
        for a, b, c, t in zip(n, d, loss * np.exp(error), trunks, strict=True)
    )


def quantities(theta: np.ndarray, n: float, d: float) -> np.ndarray:
    """alpha, a and log loss for stacks of (E, A, B, alpha, beta)."""
    E, A, B, alpha, beta = np.moveaxis(theta, -1, 0)
    return np.stack([alpha, beta / (alpha + beta), np.log(E + A * n**-alpha + B * d**-beta)], axis=-1)


def covered(design: str, noise: str, method: str, seed: int) -> np.ndarray:
    """Whether each interval of one sweep holds the truth (levels, quantities)."""
    cells, branches = designs()[design]
    n, d = 10 * max(c[0] for c in cells), 10 * max(c[1] for c in cells)
    fit = bl.fit(
        "chinchilla",
        sweep(cells, branches, noise, seed),
        method=None if method == "default" else method,
        draws=600,
        seed=seed,
    )
    truth = quantities(np.array([TRUTH[name] for name in fit.law.names]), n, d)
    draws = quantities(fit.draws, n, d)
    ends = [np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2], axis=0) for level in LEVELS]
    return np.array([(low <= truth) & (truth <= high) for low, high in ends])


def band(nominal: float, sweeps: int, cells: int) -> float:
    """Half the simultaneous 99 % band of a counted share, by Bonferroni over all cells that are judged."""
    from scipy.special import ndtri

    return float(-ndtri(0.005 / cells) * math.sqrt(nominal * (1 - nominal) / sweeps))


def study(sweeps: int, workers: int, kept: Path) -> Iterator[tuple[str, str, str, np.ndarray]]:
    """Count every design, noise and method that is not counted yet."""
    lines = kept.read_text().splitlines() if kept.exists() else []
    known = {tuple(key): share for key, share in map(json.loads, lines)}
    with ProcessPoolExecutor(workers or 1) as pool:
        for noise in NOISES:
            for design in designs():
                for method in METHODS:
                    if design in OPEN and (noise, method) != ("uniform", "default"):
                        continue
                    key = (noise, design, method, sweeps)
                    if key in known:
                        yield noise, design, method, np.array(known[key])
                        continue
                    if not workers:
                        continue
                    began = time.time()
                    job = partial(covered, design, noise, method)
                    share = np.mean(list(pool.map(job, range(sweeps), chunksize=10)), axis=0)
                    print(f"{noise}, {design}, {method}: {time.time() - began:.0f} s", flush=True)
                    with kept.open("a") as file:
                        file.write(json.dumps([key, share.tolist()]) + "\n")
                    yield noise, design, method, share


def told(found: list[tuple[str, str, np.ndarray]], width: dict[float, float]) -> str:
    """What the counts of one method under one noise come to."""
    counts = [
        (share[k, j] - level, level, quantity, design)
        for design, _, share in found
        for k, level in enumerate(LEVELS)
        for j, quantity in enumerate(QUANTITIES)
    ]
    inside = sum(abs(off) <= width[level] for off, level, *_ in counts)
    below, level, quantity, design = min(counts)
    above, high_level, high_quantity, high_design = max(counts)
    return (
        f"{inside} of the {len(counts)} counts of the default lie in the band. Farthest off are "
        f"{level + below:.1%} at nominal {level:.0%} ({quantity}, {design}) and "
        f"{high_level + above:.1%} at nominal {high_level:.0%} ({high_quantity}, {high_design})."
    )


def page(sweeps: int, found: list[tuple[str, str, str, np.ndarray]]) -> str:
    """docs/coverage.md."""
    judged = (len(designs()) - len(OPEN)) * len(LEVELS) * len(QUANTITIES)
    opened = [row for row in found if row[1] in OPEN]
    found = [row for row in found if row[1] not in OPEN]
    width = {level: band(level, sweeps, judged) for level in LEVELS}
    lines = [
        "<!-- Made by benchmarks/coverage.py; run it again rather than edit. -->",
        "# How often the intervals hold the truth\n",
        f"{sweeps} simulated sweeps a design: a Chinchilla law ({', '.join(f'{k} {v:g}' for k, v in TRUTH.items())}) "
        f"with {NOISE:.0%} noise on log losses, fitted with the default objective (Huber, 1.345 times the noise). "
        "In each cell: the share of intervals that hold the truth, at nominal "
        + ", ".join(f"{level:.0%}" for level in LEVELS)
        + ". Quantities: alpha; a = beta / (alpha + beta), the exponent of the optimal size; log loss at ten times the "
        "largest size and tokens.\n",
        "The default method is the residual bootstrap where every run is its own cluster, and the wild cluster "
        "bootstrap where runs share a trunk.\n",
        f"Counts outside the joint 99 % band of {judged} counts (Bonferroni: "
        f"{', '.join(f'{level:.0%} ± {width[level]:.1%}' for level in LEVELS)}) are in bold, in every table.\n",
    ]
    for noise in (n for n in NOISES if any(where == n for where, *_ in found)):
        lines += [
            f"## Noise: {noise}\n",
            f"{told([row[1:] for row in found if row[0] == noise and row[2] == 'default'], width)}\n",
            "| design | method | " + " | ".join(QUANTITIES) + " |",
            "|---|---|---|---|---|",
        ]
        for where, design, method, share in found:
            if where != noise:
                continue
            cells = []
            for j in range(len(QUANTITIES)):
                texts = [
                    f"**{share[k, j]:.3f}**"
                    if abs(share[k, j] - level) > width[level]
                    else f"{share[k, j]:.3f}"
                    for k, level in enumerate(LEVELS)
                ]
                cells.append(" ".join(texts))
            lines.append(f"| {design} | {method} | " + " | ".join(cells) + " |")
        lines.append("")
    if opened:
        lines += [
            "## Designs that leave a direction open\n",
            "Along one budget, or one ratio of tokens to parameters, the floor or a whole term may be absent. "
            "Parameters are then said not to be identified, and intervals may be wider than they need be; counts "
            "below the band, where they are still too narrow, are in bold.\n",
            "| design | method | " + " | ".join(QUANTITIES) + " |",
            "|---|---|---|---|---|",
        ]
        for _, design, method, share in opened:
            cells = [
                " ".join(
                    f"**{x:.3f}**" if x < level - width[level] else f"{x:.3f}"
                    for x, level in zip(column, LEVELS, strict=True)
                )
                for column in share.T
            ]
            lines.append(f"| {design} | {method} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweeps", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2, help="0: write the page from the counts so far")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "coverage.md")
    parser.add_argument("--kept", type=Path, default=Path("coverage-counts.jsonl"), help="counts so far")
    chosen = parser.parse_args()
    text = page(chosen.sweeps, list(study(chosen.sweeps, chosen.workers, chosen.kept)))
    chosen.out.write_text(text, encoding="utf-8")
