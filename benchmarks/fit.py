"""How fast and how sure the solver is, beside the usual recipe, in one run. Times are CPU seconds.

    python benchmarks/fit.py            # about six minutes on one core
    python benchmarks/fit.py --quick    # one minute, fewer samples of the recipe

The recipe is rebuilt from public descriptions (Hoffmann et al. 2022, Besiroglu et al. 2024): Huber's loss with
delta 1e-3 on log residuals by log-sum-exp, L-BFGS from the 4,500 points of the grid; its bootstrap starts BFGS at
Hoffmann's constants. It is timed on a share of its starts and scaled up. Compiling a law is timed by itself.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from scipy.optimize import minimize as scipy_minimize
from scipy.special import huber, logsumexp

import bitlaw as bl
from bitlaw import Runs
from bitlaw.fitting.centre import rescaled
from bitlaw.fitting.intervals import draw, refits
from bitlaw.fitting.minimize import Aim, minimize
from bitlaw.fitting.objective import Problem
from bitlaw.fitting.rows import Rows, select
from bitlaw.fitting.seed import seeds
from bitlaw.fitting.solve import polish
from bitlaw.laws import Law, chinchilla, kumar_unified, published

OPTIMUM = 0.0010182740178  # Huber, 240 rows
LAD = {"A": 482.005, "B": 2085.43, "alpha": 0.347813, "beta": 0.365854, "E": 1.816864}
DATA = Path(__file__).parents[2] / "shared" / "data"
CELLS = [
    (n, d) for n in (30e6, 60e6, 110e6, 220e6) for d in (1.5e9, 3e9, 6e9, 13e9, 26e9) if d < 26e9 or n < 100e6
]


def seconds(job, repeat: int = 1) -> float:
    """CPU seconds of a job, the least of several."""
    best = np.inf
    for _ in range(repeat):
        began = time.process_time()
        job()
        best = min(best, time.process_time() - began)
    return best


def chinchilla_rows(folder: Path) -> Runs:
    """The 240 runs that Epoch read from Hoffmann's figure."""
    with (folder / "epoch_chinchilla" / "tidy.csv").open() as file:
        kept = [row for row in csv.DictReader(file) if row["epoch_excluded"] == "False"]
    return Runs.from_rows(
        {"params": float(r["n_params"]), "tokens": float(r["d_tokens"]), "loss": float(r["loss"])}
        for r in kept
    )


def recipe(runs: Runs, weight: np.ndarray | None = None):
    """The usual objective: parameters (a, b, e, alpha, beta)."""
    n, d, loss = (np.log(runs.frame[c].to_numpy()) for c in ("params", "tokens", "loss"))
    weight = np.ones(len(n)) if weight is None else weight

    def objective(x: np.ndarray) -> float:
        a, b, e, alpha, beta = x
        predicted = logsumexp([a - alpha * n, b - beta * d, np.full_like(n, e)], axis=0)
        return float((weight * huber(1e-3, predicted - loss)).sum())

    return objective


def compare_with_the_recipe(runs: Runs, starts: int, resamples: int) -> dict[str, float]:
    """One fit and 4,000 bootstrap refits, ours and the recipe's."""
    grid = list(
        itertools.product((0, 5, 10, 15, 20, 25), (0, 5, 10, 15, 20, 25), (-1, -0.5, 0, 0.5, 1),
                          (0, 0.5, 1, 1.5, 2), (0, 0.5, 1, 1.5, 2))
    )  # fmt: skip
    rows = select(chinchilla, runs)
    compiling = compile_time(chinchilla, rows)
    aim = Aim(delta=1e-3)
    problem, optimum = minimize(rows, aim, np.random.default_rng(0))
    ours = seconds(lambda: minimize(rows, aim, np.random.default_rng(0)), repeat=20)

    objective = recipe(runs)
    some = [grid[k] for k in np.random.default_rng(0).choice(len(grid), starts, replace=False)]
    ends: list[float] = []

    def search() -> None:
        ends.extend(scipy_minimize(objective, x, method="L-BFGS-B").fun for x in some)

    theirs = seconds(search) * len(grid) / starts

    draws = np.random.default_rng(42).integers(0, len(runs), (4000, len(runs)))
    weights = np.array([np.bincount(draw, minlength=len(runs)) for draw in draws], dtype=float)
    same = np.broadcast_to(problem.targets, weights.shape)
    rng = np.random.default_rng(0)
    ours_refits = seconds(lambda: refits(problem, optimum.u, same, weights, rng), repeat=3)
    hoffmann = np.array([np.log(406.4), np.log(410.7), np.log(1.69), 0.34, 0.28])

    def their_refits() -> None:
        for weight in weights[:resamples]:
            scipy_minimize(recipe(runs, weight), hoffmann, method="BFGS")

    theirs_refits = seconds(their_refits) * 4000 / resamples
    return {
        "compile": compiling,
        "gap": float(optimum.cost[0]) / OPTIMUM - 1,
        "fit": ours,
        "recipe fit": theirs,
        "recipe gap": min(ends) / OPTIMUM - 1,
        "recipe hits": float(np.mean(np.array(ends) < OPTIMUM * (1 + 1e-6))),
        "fit ratio": theirs / ours,
        "4000 refits": ours_refits,
        "recipe 4000 refits": theirs_refits,
        "refit ratio": theirs_refits / ours_refits,
    }


def compile_time(law: Law, rows: Rows) -> float:
    """CPU seconds to turn a fresh law into NumPy functions."""
    from bitlaw.laws import from_spec

    spec = rows.law.spec.as_json()

    def job() -> None:
        fresh = from_spec(spec)
        theta = np.ones((1, len(fresh.names)))
        for block in rows.blocks():
            function = fresh.compiled.total if block.kind == "loss" else fresh.compiled.gap
            function.jacobian(theta, block.data)
            function.basis(theta, block.data)

    with np.errstate(all="ignore"):
        return seconds(job)


def precision_sweep(law: Law, truth: dict[str, float], seed: int, lowest_a: int) -> Runs:
    """465 runs of a precision law with 0.3 % noise, in 127 or so clusters of rows that share a trunk."""
    rng = np.random.default_rng(seed)
    trained: list[dict[str, str]] = [{}]
    trained += [{"w_format": f"int{b}"} for b in (3, 4, 5, 6, 8, 12)]
    trained += [{"a_format": f"int{b}"} for b in (lowest_a, 5, 6, 8, 12)]
    trained += [{"kv_format": f"int{b}"} for b in (3, 4, 5, 6)]
    trained += [{p: f"int{b}" for p in ("w_format", "a_format", "kv_format")} for b in (4, 6, 8)]
    after: list[tuple[dict[str, str], int]] = [({}, b) for b in (3, 4, 5, 6)]
    after += [({"w_format": "int6"}, 4), ({"a_format": "int6"}, 4), ({"kv_format": "int5"}, 3)]
    rows: list[dict] = []
    for n, d in CELLS:
        rows += [{"params": n, "tokens": d, **formats} for formats in trained]
        rows += [{"params": n, "tokens": d, **formats, "post_format": f"int{b}"} for formats, b in after]
    rows = rows[:465]
    for k, row in enumerate(rows):
        inputs = {c[:-7] + "_bits": float(v[3:]) for c, v in row.items() if c.endswith("_format")}
        exact = float(law.predict(truth, params=row["params"], tokens=row["tokens"], **inputs))
        row |= {
            "loss": exact * float(np.exp(0.003 * rng.standard_normal())),
            "trunk": f"{row['params']}-{k % 32}",
        }
    return Runs.from_rows(rows)


def misses(law: Law, truth: dict[str, float], sweeps: int, lowest_a: int) -> int:
    """Default fits that end above the best of 48 other starts and a start at the truth."""
    count = 0
    for seed in range(sweeps):
        rows = select(law, precision_sweep(law, truth, seed, lowest_a))
        problem, optimum = minimize(rows, Aim(), np.random.default_rng(0))
        others = polish(problem, seeds(problem, 48, np.random.default_rng(1000 + seed))).cost
        best = min(others.min(), polish(problem, at(problem, truth)).cost[0])
        count += int(optimum.cost[0] > best * (1 + 1e-6))
    return count


def at(problem: Problem, truth: dict[str, float]) -> np.ndarray:
    """The truth as coordinates, the inseparable offset b put into C_T."""
    values = {**truth, "b": 0.0, "C_T": truth["C_T"] * np.exp(truth["b"])}
    return problem.coordinates(rescaled(problem.law, problem.law.vector(values), problem.centre, -1))[None]


def precision_laws(sweeps: int) -> dict[str, float]:
    """The 15-parameter form without offsets, and the full form with them."""
    assumed = {**published("kumar-2024").values, "C_w": 0.6, "C_a": 0.8, "C_kv": 0.7, "beta": 0.589}
    parts = dict.fromkeys(("w", "a", "kv"), "kumar-without-offset")
    plain = chinchilla.with_precision(**parts).with_gap("kumar-unified")
    values = {name: assumed[name] for name in plain.names}
    full = {name: assumed[name] for name in kumar_unified.names}
    rows = select(plain, precision_sweep(plain, values, 0, 3))
    problem, optimum = minimize(rows, Aim(), np.random.default_rng(0))
    return {
        "15 parameters: compile": compile_time(plain, rows),
        "15 parameters: fit": seconds(lambda: minimize(rows, Aim(), np.random.default_rng(0)), repeat=3),
        "15 parameters: 1000 cluster refits": seconds(
            lambda: draw("cluster", problem, optimum, 1000, np.random.default_rng(0)), repeat=2
        ),
        f"15 parameters: misses of {sweeps}": misses(plain, values, sweeps, 3),
        f"full form with offsets: misses of {sweeps}": misses(kumar_unified, full, sweeps, 4),
    }


def everyday(folder: Path) -> dict[str, float]:
    """What a user waits for: import, and a plain fit of 500 rows."""
    command = "import time; t = time.process_time(); import bitlaw; print(time.process_time() - t)"
    imports = [
        float(
            subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout
        )
        for _ in range(3)
    ]
    rng = np.random.default_rng(0)
    values = published("chinchilla-2024").values
    cells = [(n, d) for n in np.geomspace(1e7, 1e10, 25) for d in np.geomspace(1e9, 1e12, 20)]
    rows = [
        {"params": n, "tokens": d, "loss": float(chinchilla.predict(values, params=n, tokens=d)) * (1 + e)}
        for (n, d), e in zip(cells, 0.005 * rng.standard_normal(500), strict=True)
    ]
    runs = Runs.from_rows(rows)
    lad = bl.fit("chinchilla", chinchilla_rows(folder), objective="lad", draws=0).values
    return {
        "import": min(imports),
        "plain fit of 500 rows": seconds(lambda: bl.fit("chinchilla", runs, draws=0), repeat=5),
        "worst relative difference from the published LAD constants": max(
            abs(lad[name] / value - 1) for name, value in LAD.items()
        ),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the public run tables")
    chosen = parser.parse_args()
    if not chosen.data.is_dir():
        sys.exit(f"needs the public run tables; {chosen.data} is not a folder: give --data")
    found = everyday(chosen.data)
    found |= compare_with_the_recipe(
        chinchilla_rows(chosen.data), *((45, 20) if chosen.quick else (450, 200))
    )
    found |= precision_laws(10 if chosen.quick else 100)
    print(json.dumps(found, indent=1, default=float))
