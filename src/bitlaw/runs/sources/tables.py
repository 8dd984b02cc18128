"""CSV, Parquet and data frames, as they are.

A CSV file is read as text, to be parsed cell by cell later: data-frame readers turn a column into text, or a bad number
into NaN, without a word.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import narwhals.stable.v1 as nw
import polars as pl

from ...errors import ConfigError, DataError
from ...shell import join
from ...shell import path as as_word
from ..raw import MAX_COLUMNS, Problem, Raw, Tell, check_width, column_of, shown, silent
from .parquet import unpacked

SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
SAVE_AS_CSV = "save it from its program as `CSV UTF-8`, and bitlaw runs import takes that"
MAX_BYTES = 2**30
MAX_CELL = 1_000_000
_EXCEL = re.compile(r'"?sep=(.)"?\s*', re.I)  # its own first line
_ZIP = "PK\x03\x04"
MAX_LINE = 16_000_000
TELL_ROWS = 20_000


def from_csv(path: Path, separator: str | None = None, tell: Tell = silent) -> Raw:
    """Read a CSV file as text.

    Args:
        path: the file; tabs separate cells where it ends in .tsv.
        separator: between cells; default: a comma, or a tab in .tsv.
        tell: told how much is read.

    Raises:
        DataError: it is not a CSV file, or has no header of different names.
    """
    csv.field_size_limit(MAX_CELL)
    given = _separator(separator)
    separator = given or ("\t" if path.suffix.lower() == ".tsv" else ",")
    rows: list[list[str]] = []
    places: list[str] = []
    problems: list[Problem] = []
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError(
                f"{path} is larger than {MAX_BYTES >> 30} GiB; split it, or convert it to Parquet"
            )
        with path.open("rb") as binary, TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file:
            lines = _lines(file, path)
            first, skipped = next(lines, ""), 0
            while first and (not first.strip() or _EXCEL.fullmatch(first)):
                if said := _EXCEL.fullmatch(first):
                    separator = said[1] if given is None else separator
                first, skipped = next(lines, ""), skipped + 1
            reader = csv.reader(chain([first], lines), strict=True, delimiter=separator)
            header = [name.strip() for name in next(reader, [])]
            _check_header(header, path, separator)
            for cells in reader:
                if not any(map(str.strip, cells)):  # nothing, or separators alone, as spreadsheets leave them
                    continue
                place = f"line {reader.line_num + skipped}"
                if len(cells) != len(header):
                    text = separator.join(cells)[:60]
                    reason = f"has {len(cells)} cells, its header {len(header)}; quote cells that hold {separator!r}"
                    problems.append(Problem(place, "", text, reason))
                    continue
                rows.append(cells)
                places.append(place)
                if len(rows) % TELL_ROWS == 0:
                    tell(f"reading {path.name}", min(binary.tell() / size, 1.0))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not a UTF-8 CSV file: {_where(path)} is no UTF-8; save it as `CSV UTF-8`"
        ) from error
    except csv.Error as error:
        raise DataError(
            f"{path} is not a UTF-8 CSV file: line {reader.line_num + skipped}: {error}"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    cells_by_column = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    columns = {}
    for name, column in zip(header, cells_by_column, strict=True):
        if name:
            columns[name] = pl.Series(name, column, dtype=pl.String)
        elif any(map(str.strip, column)):
            raise DataError(f"{path}: a column has no name; name it in the first line, or take it out")
    return Raw(pl.DataFrame(columns), places, str(path), "table", tuple(problems))


def _separator(given: str | None) -> str | None:
    separator = {"tab": "\t", "\\t": "\t"}.get(given or "", given)
    if separator and (len(separator) > 1 or separator in '"\r\n'):
        raise ConfigError(f"a separator is one character, like ';', or tab, not {separator[:20]!r}")
    return separator


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """Lines, none longer than anybody writes: a file of 1 GiB may be one line."""
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE:
            raise DataError(
                f"{path}, line {number} is longer than {MAX_LINE:,} characters; is this a table of runs?"
            )
        yield line


def _where(path: Path) -> str:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return f"line {number}"
    return "its end"


def _check_header(header: list[str], path: Path, separator: str) -> None:
    if not header:
        raise DataError(f"{path} is empty; its first line must name the columns: params,tokens,loss,...")
    check_width(len(header), str(path))
    if header[0].startswith(_ZIP):
        raise DataError(f"{path} is a spreadsheet or an archive, and no CSV file; {SAVE_AS_CSV}")
    for other, word in ((";", "';'"), ("\t", "tab"), ("|", "'|'")):
        if len(header) == 1 and other in header[0] and other != separator:
            raise DataError(
                f"{path} has one column; its cells seem to stand between {word}: give the separator, as in "
                f"bitlaw runs import {join([as_word(str(path))])} --separator {word}"
            )
    seen: set[str] = set()
    for name in filter(None, header):
        if name in seen:
            raise DataError(f"{path}: column {name[:80]!r} stands there twice; keep one")
        seen.add(name)


def from_parquet(path: Path) -> Raw:
    """Read a Parquet file.

    Raises:
        DataError: it is none.
    """
    try:
        frame, lists = unpacked(path)
    except (ValueError, OSError) as error:
        raise DataError(f"cannot read {path} as Parquet: {error}") from error
    notes = (f"columns of lists are left out: {', '.join(map(shown, lists))}",) if lists else ()
    return Raw(_flat(frame), _numbered(frame.height), str(path), notes=notes)


def from_frame(source: Any) -> Raw:
    """Take a pandas, polars or Arrow data frame; what pandas calls missing (None, NA, NaN) is an empty cell.

    Raises:
        DataError: it is none.
    """
    try:
        native = nw.from_native(source, eager_only=True)
    except TypeError as error:
        raise DataError(
            f"cannot read runs from a {type(source).__name__}; give a path or a data frame"
        ) from error
    names = [str(name) for name in native.columns]
    if len(set(names)) < len(names):
        raise DataError("the data frame: two columns have one name; keep one")
    check_width(len(names), "the data frame")
    if isinstance(source, pl.DataFrame):
        frame = source
    elif native.implementation.is_pandas():
        frame = pl.DataFrame({str(name): _of_pandas(source[name]) for name in source.columns})
    else:
        frame = native.to_polars()
    return Raw(_flat(frame), _numbered(frame.height), "", "table")


def _of_pandas(series: Any) -> pl.Series:
    missing = series.isna()
    return column_of([None if lost else value for value, lost in zip(series.tolist(), missing, strict=True)])


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Columns of records taken apart, as in records from elsewhere; what is neither text nor a number as text."""
    nested = [s.name for s in frame if isinstance(s.dtype, pl.Struct)]
    for name in nested[:MAX_COLUMNS]:
        parts = frame[name].struct.unnest()
        parts = parts.rename({part: f"{name}.{part}" for part in parts.columns})
        if twice := set(parts.columns) & set(frame.columns):
            raise DataError(f"two columns are called {shown(min(twice))!r}; keep one")
        frame = frame.drop(name).hstack(parts)
    return pl.DataFrame([s if _simple(s.dtype) else _as_text(s) for s in frame])


def _simple(kind: pl.DataType) -> bool:
    return kind in (pl.String, pl.Boolean, pl.Null) or kind.is_integer() or kind.is_float()


def _as_text(series: pl.Series) -> pl.Series:
    if isinstance(series.dtype, (pl.Categorical, pl.Enum, pl.Decimal)):
        return series.cast(pl.String)
    return column_of(series.to_list()).alias(series.name)


def _numbered(height: int) -> list[str]:
    return [f"row {place}" for place in range(1, height + 1)]
