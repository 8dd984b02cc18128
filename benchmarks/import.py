"""How long `bitlaw runs import` takes for a large table, clean and with bad cells, to each kind of file.

    python benchmarks/import.py                    # 100,000 rows of 20 columns, a minute of one core
    python benchmarks/import.py --rows 10000

Times are of the whole command line in a process of its own, the start of Python included.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl


def table(rows: int, bad: float, rng: np.random.Generator) -> pl.DataFrame:
    """Runs under other people's names, as text; a share of the losses is spoilt."""
    sizes = rng.choice([0.07, 0.16, 0.41, 1.0, 2.8, 6.9], rows)
    loss = np.char.mod("%.5f", 2 + rng.random(rows))
    loss = np.where(rng.random(rows) < bad, "n/a", loss)
    columns = {
        "run_id": [f"run-{k}" for k in range(rows)],
        "size (B)": sizes.astype(str),
        "train_tokens": np.char.mod("%.6g", sizes * 20e9),
        "eval/loss": loss,
        "weight_bits": rng.choice(["3", "4", "8", "16"], rows),
        "optim": ["adamw"] * rows,
        "lr": np.char.mod("%.3g", rng.random(rows) / 1000 + 1e-5),
        "seed": rng.integers(0, 5, rows).astype(str),
        "d_model": rng.choice(["512", "1024"], rows),
        "n_layers": rng.choice(["8", "16"], rows),
        **{f"metric_{k}": np.char.mod("%.6f", rng.random(rows)) for k in range(10)},
    }
    return pl.DataFrame(columns)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table(arguments.rows, 0.0, rng).write_csv(folder / "clean.csv")
        table(arguments.rows, 0.0, rng).write_parquet(folder / "clean.parquet")
        table(arguments.rows, 0.2, rng).write_csv(folder / "bad.csv")
        for source, out in (
            ("clean.csv", "out.parquet"),
            ("clean.csv", "out.csv"),
            ("clean.csv", "out.sqlite"),
            ("clean.parquet", "out.parquet"),
            ("bad.csv", "out.parquet"),
        ):
            command = [sys.executable, "-m", "bitlaw", "runs", "import", str(folder / source), "-o"]
            command += [str(folder / out), "--yes", "--map", "w_format=weight_bits in int", "--keep-good"]
            command += ["--problems", str(folder / "problems.csv")]
            began = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True)
            seconds = time.perf_counter() - began
            said = done.stdout.splitlines()[0] if done.returncode == 0 else done.stderr[-300:]
            print(f"{source:14} to {out:12} {seconds:5.1f} s   {said.replace(name, '')}")


if __name__ == "__main__":
    main()
