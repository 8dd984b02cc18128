"""Every cell of a table checked against the schema, a column at a time.

Cells that are plain beyond doubt (a pattern of ASCII digits within the bounds) are taken in bulk; all others, good or
bad, are looked at one by one. Bulk takes nothing that a single look would refuse, and makes the same of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import polars as pl

from ..formats import parse_format
from .schema import COLUMN, SCHEMA, STATUSES, UNSEEN, Column

FEW = 64  # cells that are sooner looked at one by one
MOST_FORMATS = 1000  # that a table can name; a column of more is something else
_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_INTEGER = r"^[+-]?[0-9]{1,18}$"
_CONTROL = f"[{UNSEEN}]"


@dataclass(frozen=True)
class Flaw:
    """What is wrong in a row, by its number from 0; without a column the row as a whole."""

    row: int
    column: str
    reason: str


def check(
    frame: pl.DataFrame, tell: Callable[[float], None] = lambda share: None
) -> tuple[pl.DataFrame, list[Flaw]]:
    """Check columns of the schema, and what no single cell can tell.

    Args:
        frame: our columns, as text or as numbers.
        tell: told which share is done.

    Returns:
        The columns in their types, null where a cell was empty or bad, every row with an id; and all flaws in
        order of rows.
    """
    columns, flaws = [], []
    for place, series in enumerate(frame):
        column, found = check_column(COLUMN[series.name], series)
        columns.append(column)
        flaws += found
        tell((place + 1) / frame.width)
    checked = pl.DataFrame(columns)
    bad = {flaw.row for flaw in flaws}
    flaws += [flaw for flaw in _rows(checked) if flaw.row not in bad]
    ids = checked["id"] if "id" in checked.columns else pl.Series([None] * frame.height, dtype=pl.String)
    flaws += _twice(checked, ids, {flaw.row for flaw in flaws})
    flaws.sort(key=lambda flaw: flaw.row)
    return checked.with_columns(_named(ids).alias("id")), flaws


def _twice(checked: pl.DataFrame, ids: pl.Series, bad: set[int]) -> list[Flaw]:
    """Rows whose id another has; of good rows that are the same in every cell, all but the first."""
    twice = ids.is_duplicated() & ids.is_not_null()
    if not twice.any():
        return []
    wrong = pl.Series([row in bad for row in range(len(ids))], dtype=pl.Boolean)
    first = checked.select(pl.struct(pl.all(), wrong.alias(" wrong")).is_first_distinct()).to_series() | wrong
    distinct = ids.filter(twice & first & ~wrong)
    differ = ids.is_in(distinct.filter(distinct.is_duplicated()).implode())
    return [
        Flaw(row, "id", f"two rows have the id {ids[row]!r}; ids must be unique: drop one, or rename it")
        if differ[row]
        else Flaw(row, "id", f"the row {ids[row]!r} is there twice, the same in all that is read; drop one")
        for row in (twice & (differ | ~first)).arg_true()
    ]


def _named(ids: pl.Series) -> pl.Series:
    """Ids, with one made from its place for every row without."""
    if not ids.null_count():
        return ids
    taken, names = set(ids.drop_nulls()), []
    for place, given in enumerate(ids, start=1):
        name = given or f"row-{place}"
        while given is None and name in taken:
            name += "x"
        taken.add(name)
        names.append(name)
    return pl.Series(names, dtype=pl.String)


def check_column(column: Column, series: pl.Series) -> tuple[pl.Series, list[Flaw]]:
    """Turn a column into its type; cells that cannot be are null and flaws."""
    if column.kind == "format":
        return _formats(column, series)
    if len(series) < FEW:
        return _one_by_one(column, range(len(series)), series.to_list())
    good, sure = _in_bulk(column, series)
    doubtful = (~sure).arg_true().to_list()
    values, flaws = _one_by_one(column, doubtful, series.gather(doubtful).to_list())
    return good.scatter(doubtful, values).alias(column.name), flaws


def _one_by_one(column: Column, rows: Iterable[int], cells: list[Any]) -> tuple[pl.Series, list[Flaw]]:
    flaws, values = [], []
    for row, cell in zip(rows, cells, strict=True):
        try:
            values.append(parse_cell(column, cell))
        except ValueError as error:
            values.append(None)
            flaws.append(Flaw(row, column.name, str(error)))
    return pl.Series(column.name, values, dtype=SCHEMA[column.name]), flaws


def _in_bulk(column: Column, series: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The values of cells that are plain, null elsewhere; and which cells are settled, empty ones among them."""
    kind = SCHEMA[column.name]
    nothing = pl.Series([None], dtype=kind).new_from_index(0, len(series))
    if series.dtype == pl.Null:
        return nothing, series.is_null()
    if series.dtype == pl.String:
        text = series.str.strip_chars()
        empty = series.is_null() | (text == "").fill_null(True)
        if column.kind == "text":
            plain = ~text.str.contains(_CONTROL).fill_null(False)
            plain &= (text.str.len_chars() <= column.longest).fill_null(False)
            if column.choices:
                plain &= text.is_in(column.choices).fill_null(False)
            text = text.set(empty, None)
            return text.set(~plain, None), plain | empty
        plain = text.str.contains(_INTEGER if column.kind == "integer" else _NUMBER).fill_null(False)
        values = text.set(~plain, None).cast(kind, strict=False)
    elif column.kind == "text":
        if not series.dtype.is_integer():
            return nothing, series.is_null()
        values, empty = series.cast(pl.String), series.is_null()
        plain = values.is_in(column.choices).fill_null(False) if column.choices else ~empty
        return values.set(~plain, None), plain | empty
    elif series.dtype.is_integer():
        values, empty = series.cast(kind, strict=False), series.is_null()
    elif series.dtype.is_float():
        empty = series.is_null()
        whole = series.is_finite() & (series == series.floor()) & (series.abs() < 2.0**53)
        values = series.set(~whole.fill_null(False), None) if column.kind == "integer" else series
        values = values.cast(kind, strict=False)
    else:
        return nothing, series.is_null()
    within = values.is_finite() if kind == pl.Float64 else values.is_not_null()
    within &= (values >= column.low) & (values <= column.high)
    if column.exclusive:
        within &= values != column.low
    within = within.fill_null(False)
    return values.set(~within, None), within | empty


def _formats(column: Column, series: pl.Series) -> tuple[pl.Series, list[Flaw]]:
    """Formats name by name: there are few, however many rows there are."""
    reasons: dict[Any, str] = {}
    names: dict[Any, str | None] = {}
    series = comparable(series)
    for cell in series.unique(maintain_order=True).to_list():
        if len(names) + len(reasons) >= MOST_FORMATS:
            reasons[cell] = f"more than {MOST_FORMATS:,} different formats; is this a column of formats?"
            continue
        try:
            names[cell] = parse_cell(column, cell)
        except ValueError as error:
            reasons[cell] = str(error)
    cells = series.to_list()
    checked = pl.Series(column.name, [names.get(cell) for cell in cells], dtype=pl.String)
    if not reasons:
        return checked, []
    return checked, [Flaw(row, column.name, reasons[c]) for row, c in enumerate(cells) if c in reasons]


def comparable(series: pl.Series) -> pl.Series:
    """A column whose cells can be looked up: NaN, which is not itself, as text."""
    lost = series.is_nan().fill_null(False) if series.dtype.is_float() else None
    return series if lost is None or not lost.any() else series.cast(pl.String)


def _rows(frame: pl.DataFrame) -> list[Flaw]:
    """Rows that break a rule between columns."""
    known = [c for c in ("status", "loss", "gap", "post_format") if c in frame.columns]
    table = frame.select(known).with_columns(
        [pl.lit(None, SCHEMA[c]).alias(c) for c in ("status", "loss", "gap", "post_format") if c not in known]
    )
    fine = pl.col("status").is_null() | (pl.col("status") == "ok")
    suspect = (fine & pl.col("loss").is_null()) | (~fine & pl.col("loss").is_not_null())
    suspect |= pl.col("gap").is_not_null() & pl.col("post_format").is_null()
    rows = table.select(suspect.alias("x"))["x"].arg_true().to_list()
    flaws = []
    for row in rows:
        values = table.row(row, named=True)
        flaws += [Flaw(row, "", problem) for problem in [row_problem(values)] if problem]
    return flaws


def row_problem(row: Mapping[str, Any]) -> str:
    """Say what is wrong with a row as a whole; an empty string means nothing."""
    if row.get("status") in (None, "ok") and row.get("loss") is None:
        return f"has no loss; give one, or a status of {' or '.join(STATUSES[1:])}"
    if row.get("status") not in (None, "ok") and row.get("loss") is not None:
        return f"has status {row['status']!r} and a loss; a failed run has none"
    if row.get("gap") is not None and row.get("post_format") is None:
        return "has a gap but no post_format; say which format it was quantised to, or leave the gap out"
    return ""


def parse_cell(column: Column, cell: Any) -> Any:
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
        elif isinstance(cell, float):
            raise ValueError(f"{cell!r} is not text")
        value = str(cell).replace("\r\n", "\n")
    elif isinstance(cell, str):
        value = number(cell)
        if column.kind == "integer" and math.isfinite(value):
            value = _whole(cell)
    elif isinstance(cell, bool) or not isinstance(cell, (int, float)):
        raise ValueError(f"{cell!r} is not a number")
    if column.kind == "integer":
        if isinstance(value, float) and not value.is_integer():
            raise ValueError(
                f"{cell!r} is not a whole number" if math.isfinite(value) else column.problem(value)
            )
        if abs(value) >= 2**63:
            raise ValueError(f"{cell!r} is too large for a whole number of 64 bits")
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
        raise ValueError(f"{text[:40]!r} is too large for a whole number of 64 bits")
    return int(exact)


def number(text: str) -> float:
    """Read a plain decimal number; Python's own `float` also takes 1_000, nan, inf and foreign digits.

    Raises:
        ValueError: with the reason.

    >>> number("2.5e9")
    2500000000.0
    """
    if not text.isascii() or "_" in text:
        raise ValueError(f"{text[:40]!r} is not a number; write it like 2.5e9")
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"{text[:40]!r} is not a number; write it like 2.5e9, without units or commas"
        ) from None


def numbers(series: pl.Series) -> tuple[pl.Series, list[Flaw]]:
    """A column as numbers without bounds, before a unit is put on it; cells that are none are null and flaws."""
    return check_column(_ANY, series)


#: A number of any size: `number` of the schema, without its bounds.
_ANY = Column("gap", "number", "any number")
