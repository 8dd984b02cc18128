"""The thousandth study, a piece at a time: stored rows come from `rows.parquet`, and go back there as they come.

    python studies/thousandth/run.py            # goes on until it is done, or stopped by Ctrl-C or SIGTERM
    python studies/thousandth/run.py --export   # only writes what the stores hold to rows.parquet

The text is `package:rfc` (bitlaw corpus get rfc): 362 MiB of tokens, so that nothing repeats. A machine with more cores
takes more workers; a cluster takes the two TOML files by themselves (`bitlaw sweep work`).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from bitlaw import Runs, Store, read_runs, write_runs

HERE = Path(__file__).parent
SWEEPS = ("small", "large")


def folder(sweep: str) -> Path:
    return Path(f"sweep-thousandth-{sweep}")


def restore(store: Path) -> None:
    """Put the rows that were published into a store that lacks them; ids that are there are left as they are."""
    rows = HERE / "rows.parquet"
    if rows.exists():
        Store(store).add(read_runs(rows).frame.to_dicts())


def export() -> None:
    """Write all rows of both stores, those of one trunk together."""
    frames = [read_runs(folder(s)).frame for s in SWEEPS if (folder(s) / "runs.sqlite").exists()]
    if not frames:
        return
    rows = {row["id"]: row for frame in frames for row in frame.to_dicts()}
    ordered = sorted(rows.values(), key=lambda r: (r["params"], r["trunk"], r["tokens"], r["id"]))
    write_runs(Runs.from_rows(ordered), HERE / "rows.parquet")
    print(f"{len(ordered)} rows of {len({r['trunk'] for r in ordered})} trunks")


def note_hours(sweep: str) -> None:
    """Add the CPU hours of all that was just run to `hours.csv`, evaluation and steps that were made twice included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (HERE / "hours.csv").open("a", encoding="utf-8") as lines:
        lines.write(
            f"{datetime.now(UTC):%Y-%m-%d %H:%M},{sweep},{(used.ru_utime + used.ru_stime) / 3600:.3f}\n"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--export", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", choices=SWEEPS)
    asked = parser.parse_args()
    if asked.export:
        export()
        return
    for sweep in [asked.only] if asked.only else SWEEPS:
        restore(folder(sweep) / "runs.sqlite")
        command = ["sweep", "run", str(HERE / f"{sweep}.toml"), "--corpus", "package:rfc"]
        command += ["--folder", str(folder(sweep)), "--workers", str(asked.workers)]
        done = subprocess.run([sys.executable, "-m", "bitlaw", *command], check=False)
        export()
        note_hours(sweep)
        if done.returncode:
            sys.exit(done.returncode)


if __name__ == "__main__":
    main()
