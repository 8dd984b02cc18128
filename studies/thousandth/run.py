"""The thousandth study, a piece at a time: stored rows come from `rows.parquet`, and go back there as they come.

    python studies/thousandth/run.py                     # goes on until it is done, or stopped by Ctrl-C or SIGTERM
    python studies/thousandth/run.py --only noise small  # these sweeps, in this order
    python studies/thousandth/run.py --export            # only writes what the stores hold to rows.parquet

The text is `package:rfc` (bitlaw corpus get rfc), 362 MiB of tokens, so that nothing repeats; of the stage `code` it is
`package:rust`, 58 MiB. A machine with more cores takes more workers; a cluster takes the TOML files by themselves
(`bitlaw sweep work`). `trunks.csv` says which sweep each trunk is of.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from card import CSV_WITHOUT, card

from bitlaw import Runs, Store, read_runs, write_runs
from bitlaw.lab.model import load_model, save_model

HERE = Path(__file__).parent
MODELS = HERE / "models"  # ends of 16-bit trunks, under 20 MB in all
BUNDLE = HERE.parents[1] / "src" / "bitlaw" / "datasets"  # what the package carries
STAGES = {
    "core": ("small", "large", "noise"),
    "held-out": ("equal-32", "equal-16", "equal-fp8", "equal-fp6", "equal-fp4", "larger-1m", "larger-3m"),
    "schedule": ("cosine-high", "cosine-low", "flat-high", "flat-low", "cooled"),
    "formats": ("formats", "backward"),
    "code": ("code-small", "code-large"),
}
SWEEPS = tuple(sweep for sweeps in STAGES.values() for sweep in sweeps)


def folder(sweep: str) -> Path:
    return Path(f"sweep-thousandth-{sweep}")


def published() -> dict[str, list[dict[str, Any]]]:
    """The rows that were published, by sweep."""
    if not (HERE / "rows.parquet").exists():
        return {}
    sweep_of = dict(pl.read_csv(HERE / "trunks.csv").select("trunk", "sweep").iter_rows())
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in read_runs(HERE / "rows.parquet").frame.to_dicts():
        rows.setdefault(sweep_of[row["trunk"]], []).append(row)
    return rows


def restore(sweep: str) -> None:
    """Put the rows that were published into a sweep's store; ids that are there are left as they are.

    Trunks that should have left models which are not there are left out: they are trained again, and their new rows
    are published in place of the old.
    """
    rows = published().get(sweep, [])
    if tomllib.loads((HERE / f"{sweep}.toml").read_text())["sweep"].get("keep_models"):
        lost = {row["trunk"] for row in rows if wide(row) and not (MODELS / row["id"]).exists()}
        rows = [row for row in rows if row["trunk"] not in lost]
    Store(folder(sweep) / "runs.sqlite").add(rows)


def wide(row: dict[str, Any]) -> bool:
    """Whether a row is of the end of a 16-bit trunk."""
    formats = {row[name] for name in row if name.endswith("_format")}
    return row["status"] == "ok" and row["parent"] is None and formats <= {"bf16", None}


def keep_models(sweep: str) -> None:
    """Publish the ends of 16-bit trunks as bf16 safetensors; those of low precision stay where the sweep put them."""
    for place in sorted((folder(sweep) / "models").glob("*")):
        if place.suffix != ".tmp" and not (MODELS / place.name).exists():
            loaded = load_model(place)
            if not loaded.scheme.quantized:
                save_model(replace(loaded, model=loaded.model.bfloat16()), MODELS / place.name)


def export() -> None:
    """Publish the rows of all stores beside those that are published, those of one trunk together."""
    rows = {row["id"]: (sweep, row) for sweep, some in published().items() for row in some}
    for sweep in SWEEPS:
        if (folder(sweep) / "runs.sqlite").exists():
            for row in read_runs(folder(sweep)).frame.to_dicts():
                rows[row["id"]] = (
                    rows.get(row["id"], (sweep,))[0],
                    row,
                )  # a trunk stays of the sweep that it was of
            keep_models(sweep)
    order = {sweep: place for place, sweep in enumerate(SWEEPS)}
    found = sorted(
        rows.values(), key=lambda r: (order[r[0]], r[1]["params"], r[1]["trunk"], r[1]["tokens"], r[1]["id"])
    )
    runs = Runs.from_rows([row for _, row in found])
    write_runs(runs, HERE / "rows.parquet")
    write_runs(Runs(runs.frame.drop(CSV_WITHOUT, strict=False)), HERE / "rows.csv")
    stage_of = {sweep: stage for stage, sweeps in STAGES.items() for sweep in sweeps}
    trunks = {row["trunk"]: (stage_of[sweep], sweep, row["trunk"]) for sweep, row in found}
    pl.DataFrame(list(trunks.values()), schema=("stage", "sweep", "trunk"), orient="row").write_csv(
        HERE / "trunks.csv"
    )
    for here, there in (("rows.parquet", "thousandth.parquet"), ("trunks.csv", "thousandth.csv")):
        shutil.copy(HERE / here, BUNDLE / there)
    (HERE / "README.md").write_text(card(), encoding="utf-8")
    print(f"{len(found)} rows of {len(trunks)} trunks")


def used() -> float:
    """CPU seconds of all processes that this one started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def note_hours(sweep: str, seconds: float) -> None:
    """Add the CPU hours of what was just run to `hours.csv`, evaluation and steps that were made twice included."""
    with (HERE / "hours.csv").open("a", encoding="utf-8") as lines:
        lines.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M},{sweep},{seconds / 3600:.3f}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--export", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", choices=SWEEPS, nargs="+", default=SWEEPS)
    asked = parser.parse_args()
    if asked.export:
        export()
        return
    for sweep in asked.only:
        restore(sweep)
        text = "package:rust" if sweep in STAGES["code"] else "package:rfc"
        command = ["sweep", "run", str(HERE / f"{sweep}.toml"), "--corpus", text]
        command += ["--folder", str(folder(sweep)), "--workers", str(asked.workers)]
        before = used()
        done = subprocess.run([sys.executable, "-m", "bitlaw", *command], check=False)
        note_hours(sweep, used() - before)
        export()
        if done.returncode:
            sys.exit(done.returncode)


if __name__ == "__main__":
    main()
