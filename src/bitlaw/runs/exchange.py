"""Tables from anywhere, checked cell by cell, and tables out.

A CSV file is read as text and every cell is parsed here: data-frame readers turn a column into text, or a
bad number into NaN, without a word. All bad cells are reported at once, with line and column.
"""

from __future__ import annotations

import csv
import math
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import narwhals.stable.v1 as nw
import polars as pl

from ..errors import DataError, nearest
from ..files import whole
from ..formats import parse_format
from .schema import COLUMN, SCHEMA, Column
from .store import Store, is_address
from .table import Runs, check_row, check_unique, named

MAX_BYTES = 2**30
MAX_CELL = 1_000_000
SHOWN = 10  # bad cells spelled out in one message


def read_runs(source: Any) -> Runs:
    """Read runs from a CSV or Parquet file, a store, a study's folder, or a data frame.

    Args:
        source: a path ending in .csv, .parquet or .sqlite; a folder that holds `runs.sqlite`;
            `postgresql://user@host/database`; or a pandas, polars or Arrow data frame.

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
        return _from_frame(source)
    if is_address(source):
        return Store(source, read_only=True).runs()
    path = Path(source)
    try:
        if path.is_dir():
            path = path / "runs.sqlite"
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
        return _from_csv(path)
    if suffix == ".parquet":
        try:
            frame = pl.read_parquet(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"cannot read {path} as Parquet: {error}") from error
        return _from_frame(frame, str(path))
    raise DataError(f"cannot tell what {path} is; bitlaw reads .csv, .parquet and .sqlite")


def write_runs(runs: Runs, path: str | os.PathLike[str]) -> None:
    """Write runs to a .csv or .parquet file, whole or not at all; columns without a value are left out.

    Raises:
        DataError: an unknown kind of file.
    """
    used = [s.name for s in runs.frame if s.null_count() < len(s)]
    suffix = Path(path).suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise DataError(f"cannot write {path}; name a file that ends in .csv or .parquet")
    with whole(path) as temporary:
        frame = runs.frame.select(used)
        frame.write_csv(temporary) if suffix == ".csv" else frame.write_parquet(temporary)


def _from_frame(source: Any, name: str = "") -> Runs:
    try:
        frame = nw.from_native(source, eager_only=True)
    except TypeError as error:
        raise DataError(
            f"cannot read runs from a {type(source).__name__}; give a path or a data frame"
        ) from error
    _check_header(list(frame.columns), name or "the data frame")
    texts: list[dict[str, Any]] = []
    for place, row in enumerate(frame.iter_rows(named=True), start=1):
        texts.append({"": f"row {place}", **row})
    return _checked(texts, name)


def _from_csv(path: Path) -> Runs:
    csv.field_size_limit(MAX_CELL)
    rows: list[dict[str, Any]] = []
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(
                f"{path} is larger than {MAX_BYTES >> 30} GiB; split it, or convert it to Parquet"
            )
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if not header:
                raise DataError(
                    f"{path} is empty; its first line must name the columns: params,tokens,loss,..."
                )
            header = [name.strip() for name in header]
            _check_header(header, str(path))
            for cells in reader:
                where = f"line {reader.line_num}"
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise DataError(f"{path}, {where} has {len(cells)} cells, its header {len(header)}")
                rows.append({"": where, **dict(zip(header, cells, strict=True))})
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a UTF-8 CSV file: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    return _checked(rows, str(path))


def _check_header(header: list[str], where: str) -> None:
    for name in header:
        if name not in COLUMN:
            raise DataError(f"{where}: unknown column {name!r}; {nearest(name, SCHEMA)}")
        if header.count(name) > 1:
            raise DataError(f"{where}: column {name!r} stands there twice; keep one")
    for name in ("tokens", "loss"):
        if name not in header:
            raise DataError(f"{where}: column {name!r} is missing; every table needs params, tokens and loss")


def _checked(raw: list[dict[str, Any]], source: str) -> Runs:
    """Parse every cell; rows carry their place in the source under the empty name."""
    if not raw:
        raise DataError(f"{source or 'the data frame'} has a header but no rows")
    rows, problems = [], []
    for cells in raw:
        where = cells.pop("")
        row: dict[str, Any] = {}
        bad = False
        for name, cell in cells.items():
            try:
                row[name] = _parse(COLUMN[name], cell)
            except ValueError as error:
                bad = True
                problems.append(f"{where}, column {name}: {error}")
        if not bad:
            try:
                check_row(row, where)
            except DataError as error:
                problems.append(str(error))
        rows.append(row)
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        prefix = f"{source}: " if source else ""
        raise DataError(prefix + "; ".join(problems[:SHOWN]) + more)
    rows = named(rows)
    frame = pl.DataFrame(rows, schema_overrides={k: v for k, v in SCHEMA.items() if k in rows[0]})
    check_unique(frame)
    return Runs(frame, source)


def _parse(column: Column, cell: Any) -> Any:
    """Turn a cell into the column's type; empty cells are None.

    Raises:
        ValueError: with the reason.
    """
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    if isinstance(cell, str):
        cell = cell.strip()
    value: Any = cell
    if column.kind in ("text", "format"):
        if isinstance(cell, float) and cell.is_integer():
            cell = int(cell)
        value = str(cell)
    elif isinstance(cell, str):
        value = _number(cell)
        if column.kind == "integer" and math.isfinite(value):
            value = _whole(cell)
    elif isinstance(cell, bool) or not isinstance(cell, (int, float)):
        raise ValueError(f"{cell!r} is not a number")
    if column.kind == "integer":
        if isinstance(value, float) and not value.is_integer():
            raise ValueError(f"{cell!r} is not a whole number")
        if abs(value) >= 2**63:
            raise ValueError(f"{cell!r} is too large")
        value = int(value)
    elif column.kind == "number":
        value = float(value)
    problem = column.problem(value)
    if problem:
        raise ValueError(problem)
    return parse_format(value).name if column.kind == "format" else value


def _whole(text: str) -> int:
    """Read a whole number exactly: a float would round what is above 2^53."""
    try:
        exact = Decimal(text)
        if exact != exact.to_integral_value():
            raise ValueError
    except (ArithmeticError, ValueError):
        raise ValueError(f"{text[:40]!r} is not a whole number") from None
    if abs(exact) >= 2**63:
        raise ValueError(f"{text[:40]!r} is too large")
    return int(exact)


def _number(text: str) -> float:
    """Read a plain decimal number; Python's own `float` also takes 1_000, nan, inf and foreign digits."""
    if not text.isascii() or "_" in text:
        raise ValueError(f"{text[:40]!r} is not a number")
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"{text[:40]!r} is not a number; write it like 2.5e9, without units or commas"
        ) from None
