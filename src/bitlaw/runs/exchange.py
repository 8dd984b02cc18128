"""Tables of our own columns in, checked cell by cell, and tables out.

All bad cells are reported at once, with line and column. Tables with columns of other names come in by
`importing.import_runs`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import DataError, nearest
from ..shell import join
from ..shell import path as as_word
from .check import check
from .export import write
from .raw import Problem, Raw, told
from .schema import SCHEMA
from .sources.tables import SAVE_AS_CSV, SPREADSHEETS, from_csv, from_frame, from_parquet
from .store import Store, in_folder, is_address
from .table import Runs


def read_runs(source: Any) -> Runs:
    """Read runs from a CSV or Parquet file, a store, a study's folder, or a data frame.

    Args:
        source: a path ending in .csv, .parquet or .sqlite; a folder that holds `runs.sqlite`, or a table called `runs`
            or `rows`; `postgresql://user@host/database`; or a pandas, polars or Arrow data frame. Columns have the
            names that `bitlaw runs schema` lists; `import_runs` takes any others.

    Returns:
        The checked table.

    Raises:
        DataError: naming line, column and reason of each bad cell.
        StoreError: a store that cannot be opened.

    >>> import polars as pl
    >>> read_runs(pl.DataFrame({"params": [1e6], "tokens": [2e7], "loss": [3.1], "w_format": ["int4"]}))
    <Runs: 1 trained, 0 quantised after training, 0 without a loss>
    """
    if isinstance(source, Runs):
        return source
    if not isinstance(source, (str, os.PathLike)):
        return _checked(from_frame(source))
    if is_address(source):
        return Store(source, read_only=True).runs()
    path = Path(source)
    try:
        if path.is_dir():
            path = in_folder(path)
        found = path.exists()
    except OSError as error:
        raise DataError(f"cannot look at {str(path)[:80]}: {error.strerror}") from error
    if not found:
        raise DataError(
            f"there is no file {path}; name a .csv, .parquet or .sqlite file, or a study's folder"
        )
    suffix = path.suffix.lower()
    if suffix == ".sqlite":
        return Store(path, read_only=True).runs()
    if suffix == ".csv":
        return _checked(from_csv(path))
    if suffix == ".parquet":
        return _checked(from_parquet(path))
    if suffix in SPREADSHEETS:
        raise DataError(f"{path} is a spreadsheet; {SAVE_AS_CSV}")
    if suffix == ".json":
        raise DataError(
            f"{path} is no table of runs; a saved fit goes to bitlaw plan --fit, and what a tool has written through "
            "bitlaw runs import"
        )
    raise DataError(
        f"cannot tell what {path} is; bitlaw reads .csv, .parquet and .sqlite, "
        "and `bitlaw runs import` makes them of much else"
    )


def write_runs(runs: Runs, path: str | os.PathLike[str], spreadsheet: bool = False) -> None:
    """Write runs to a .csv, .parquet or .tex file, whole or not at all; columns without a value are left out.

    Args:
        runs: the table.
        path: the file; .tex is a LaTeX table of the columns that a reader looks at first, for booktabs.
        spreadsheet: in a CSV file, put ' before text that a spreadsheet would run as a formula (that begins with
            = + - @). Such a file is for people: read back, these texts are no longer the same.

    Raises:
        DataError: an unknown kind of file, or one that cannot be written.
    """
    write(runs, Path(path), spreadsheet)


def _checked(raw: Raw) -> Runs:
    where = raw.name or "the data frame"
    for name in raw.frame.columns:
        if name not in SCHEMA:
            close = nearest(name[:80], SCHEMA)  # the list of all of them would fill a screen
            hint = f"{close} " if close.startswith("did") else ""
            file = join([as_word(raw.name)]) if raw.name else "FILE"
            hint += f"`bitlaw runs import {file}` takes columns of any names"
            raise DataError(f"{where}: unknown column {name[:80]!r}; {hint}; `bitlaw runs schema` lists ours")
    for name in ("tokens", "loss"):
        if name not in raw.frame.columns:
            raise DataError(f"{where}: column {name!r} is missing; every table needs params, tokens and loss")
    if not raw.places and not raw.problems:
        raise DataError(f"{where} has a header but no rows")
    frame, flaws = check(raw.frame)
    problems = [*raw.problems, *(Problem(raw.places[f.row], f.column, "", f.reason) for f in flaws)]
    if problems:
        raise DataError(told(raw.name, problems))
    return Runs(frame, raw.name)
