"""Parquet files, read by a process of its own.

The library that reads them ends the whole process where a file is damaged in some ways, and a file of some kilobytes
may unpack to more than the memory holds. Neither shall take a notebook or the explorer with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

MAX_BYTES = 2**30  # of the file, and of its text when it is unpacked
MAX_COLUMNS = 10_000  # as in `raw`, which this process does without
MAX_CELLS = 200_000_000
MAX_MEMORY = 8 * 2**30  # of the process
REFUSED = 3


def unpacked(path: Path) -> tuple[pl.DataFrame, list[str]]:
    """The columns of a file, and the names of those that were left out because they hold lists.

    Raises:
        ValueError: it cannot be read, with the reason.
        OSError: it cannot be looked at.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES >> 30} GiB; split it")
    with TemporaryDirectory(prefix="bitlaw-") as folder:
        out = Path(folder) / "rows.arrow"
        # -P: no module is taken from the folder that somebody happens to stand in, nor from this one.
        words = [sys.executable, "-P", __file__, str(path.absolute()), str(out)]
        quiet = {**os.environ, "RUST_BACKTRACE": "0"}
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, env=quiet)
        if done.returncode == REFUSED:
            raise ValueError(json.loads(done.stdout))
        if done.returncode:
            raise ValueError("it is damaged, or unpacks to more than memory holds")
        with out.open("rb") as file:
            return pl.read_ipc(file), json.loads(done.stdout)


def has_lists(kind: object) -> bool:
    """Whether a cell may be as long as it likes, whatever the file weighs."""
    if isinstance(kind, pl.Struct):
        return any(has_lists(field.dtype) for field in kind.fields)
    return isinstance(kind, (pl.List, pl.Array))


def unpack(path: Path, out: Path) -> list[str]:
    """Write what a file holds to another that the same library reads; the names of columns of lists.

    Raises:
        ValueError: it says of itself that it is too large, or its text is.
    """
    schema = pl.read_parquet_schema(path)
    scanned = pl.scan_parquet(path)
    rows = scanned.select(pl.len()).collect().item()
    if len(schema) > MAX_COLUMNS or rows * len(schema) > MAX_CELLS:
        raise ValueError(f"{rows:,} rows of {len(schema):,} columns are more than anybody trains; split it")
    lists = [name for name, kind in schema.items() if has_lists(kind)]
    frame = scanned.drop(lists).collect()
    letters = sum(int(s.str.len_bytes().sum()) for s in frame if s.dtype == pl.String)
    if letters > MAX_BYTES:
        raise ValueError(f"it holds more than {MAX_BYTES >> 30} GiB of text; is this a table of runs?")
    frame.write_ipc(out)
    return lists


if __name__ == "__main__":
    with suppress(ImportError, OSError, ValueError):  # where the system knows no such limits
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    try:
        print(json.dumps(unpack(Path(sys.argv[1]), Path(sys.argv[2]))))
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        print(json.dumps(str(error)[:400]))
        sys.exit(REFUSED)
