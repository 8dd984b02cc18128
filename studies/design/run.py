"""Do chosen runs narrow an answer as they promised, and more than a grid of the same FLOPs? Once, with real runs.

    python studies/design/run.py       # about half an hour of one core; goes on where it was stopped

A cheap start (start.toml: 12k to 48k parameters, 200k to 800k tokens, four seeds) is fitted with a Chinchilla law, and
asked for the best size at ten times the FLOPs of its largest run. `next_runs` then chooses runs worth as many FLOPs as
the start, which are made; and so is a grid of the same FLOPs over the same sizes and tokens. All of it is fitted again,
and a larger run that nothing has seen is predicted. Rows of each part, and the sweeps chosen, stay beside this file.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl

import bitlaw as bl
from bitlaw.lab.corpus import read_corpus
from bitlaw.lab.sweep import run_sweep, trunks
from bitlaw.planning import next_runs
from bitlaw.runs import Runs, Store
from bitlaw.study import read_study

HERE = Path(__file__).parent
SIDE = 4  # sizes, and budgets, of the grid
TIMES = 10  # the budget asked about, in FLOPs of the largest run
GRID_SEED, HELD_SEEDS = 11, (21, 22, 23)  # the start has 0 to 3, and chosen runs have their own


def made(files: list[Path], store: Store, folder: Path) -> Runs:
    """The rows of some sweeps; what the store does not hold yet is trained."""
    corpus = read_corpus()
    planned = [trunk for file in files for trunk in trunks(read_study(str(file)).sweep, corpus)]
    run_sweep(planned, store, folder / "checkpoints", workers=1)
    ids = [trunk.cell_id(branch) for trunk in planned for branch in trunk.branches()]
    return store.runs().filter(pl.col("id").is_in(ids))


def written(texts: dict[str, str], folder: Path) -> list[Path]:
    """Files of sweeps."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def grid_toml(spend: float, start: Runs) -> str:
    """A grid of trunks from the start's lower corner, as far up towards four times its largest as FLOPs allow."""
    ends = [(float(start.frame[c].min()), 4 * float(start.frame[c].max())) for c in ("params", "tokens")]

    def at(reach: float) -> tuple[np.ndarray, np.ndarray]:
        sizes, budgets = (low * (high / low) ** np.linspace(0, reach, SIDE) for low, high in ends)
        return sizes, budgets

    def flops(reach: float) -> float:
        sizes, budgets = at(reach)
        return float(6 * sizes.sum() * (0.8 * budgets[-1] + 0.2 * budgets.sum()))

    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if flops(middle) <= spend else (low, middle)
    sizes, budgets = at(low)
    lines = [
        'name = "grid"',
        "[sweep]",
        f"seeds = [{GRID_SEED}]",
        f"sizes = {[round(x) for x in sizes]}",
        f"budgets = {[round(x) for x in budgets]}",
        'schemes = ["16"]',
    ]
    return "\n".join(lines) + "\n"


def told(name: str, rows: Runs, budget: float, held: Runs) -> bl.Fit:
    """Fit, and say what the fit says of the question and of the held-out runs."""
    fit = bl.fit("chinchilla", rows)
    best = bl.plan(fit, budget=budget)["params"]
    print(
        f"{name}: {fit.rows['loss']} rows, {fit.clusters} trunks, noise {fit.noise['loss']:.3f}; best size "
        f"{best.value:,.0f}, {best.low:,.0f} to {best.high:,.0f}, a factor of {best.high / best.low:.2f}"
    )
    if len(held):
        size, tokens = (float(held.frame[c][0]) for c in ("params", "tokens"))
        point = float(fit.predict(params=size, tokens=tokens))
        low, high = (float(x) for x in fit.band(params=size, tokens=tokens))
        rng = np.random.default_rng(0)
        mean = fit.law.compiled.total(fit.draws, {"params": np.array([size]), "tokens": np.array([tokens])})[
            :, 0
        ]
        single = mean * np.exp(fit.noise["loss"] * rng.standard_normal(len(mean)))
        ends = np.quantile(single, [0.05, 0.95])
        losses = ", ".join(f"{x:.4f}" for x in held.frame["loss"])
        print(
            f"  {size:,.0f} parameters, {tokens:,.0f} tokens: predicted {point:.4f}, mean {low:.4f} to {high:.4f}, a "
            f"run {ends[0]:.4f} to {ends[1]:.4f}; measured {losses}, mean {held.frame['loss'].mean():.4f}"
        )
    return fit


def main() -> None:
    """Train what is missing, and print what came out."""
    folder = Path(tempfile.gettempdir()) / "bitlaw-design"
    folder.mkdir(exist_ok=True)
    store = Store(folder / "runs.sqlite")
    start = made([HERE / "start.toml"], store, folder)
    budget = TIMES * 6 * float((start.frame["params"] * start.frame["tokens"]).max())
    own = start.frame.group_by("trunk").agg(
        pl.col("params").first() * (0.8 * pl.col("tokens").max() + 0.2 * pl.col("tokens").sum())
    )
    spend = 6 * float(own["params"].sum())
    fit = bl.fit("chinchilla", start)
    design = next_runs(fit, spend, budget=budget, narrow=["params"])
    print(design)
    chosen_files = written(design.to_toml(), HERE / "chosen")
    grid_file = written({"grid.toml": grid_toml(spend, start)}, HERE)
    held_file = written(
        {
            "held-out.toml": f'name = "held-out"\n[sweep]\nseeds = {list(HELD_SEEDS)}\nsizes = [96000]\n'
            'budgets = [1600000]\nschemes = ["16"]\n'
        },
        HERE,
    )
    parts = {"start": start}
    for name, files in (("chosen", chosen_files), ("grid", grid_file), ("held-out", held_file)):
        parts[name] = made(files, store, folder)
    for name, rows in parts.items():
        bl.write_runs(rows, HERE / f"{name}.csv")
    held = parts["held-out"]
    for name, rows in (
        ("start alone", [start]),
        ("with the runs chosen", [start, parts["chosen"]]),
        ("with the grid", [start, parts["grid"]]),
        ("with both", [start, parts["chosen"], parts["grid"]]),
    ):
        told(name, Runs(pl.concat([r.frame for r in rows]), "studies/design"), budget, held)
    print(f"expected of the runs chosen: a factor of {design['params'].after:.2f}")


if __name__ == "__main__":
    main()
