"""What a source gives before anything is believed: columns of its own, and where each row stands."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from ..errors import DataError
from ..shell import printable

MAX_COLUMNS = 10_000
MAX_CELLS = 200_000_000
SHOWN = 10  # problems spelled out in one message
FEW = 3  # problems that are alike and yet all spelled out
#: A number as much of the world writes it, 1.234,5, with or without a unit behind it.
_COMMA = r"^\s*([+-]?)([0-9]{1,3}(?:\.[0-9]{3})+|[0-9]+)(?:,([0-9]+))?((?:[eE][+-]?[0-9]+)?[^0-9.,]*\.?)$"
_ONE_POINT = r"^\s*[+-]?[0-9]{1,3}\.[0-9]{3}\s*$"
_INT64 = range(-(2**63), 2**63)
#: Told what is being done, and which share of it is.
Tell: TypeAlias = Callable[[str, float], None]


def silent(doing: str, share: float) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Problem:
    """A cell or a row that cannot be used: where it stands, what is in it, and why not.

    Attributes:
        place: like `line 3`, with the name of the file where there are several.
        column: as the source calls it; empty where a whole row is meant.
        value: what stands there, as text.
        reason: why it cannot be used, and what to do.
    """

    place: str
    column: str
    value: str
    reason: str

    def __str__(self) -> str:
        column = f", column {shown(self.column)}:" if self.column else ""
        return f"{self.place}{column} {self.reason}"


@dataclass(frozen=True)
class Raw:
    """Rows as a source has them.

    Attributes:
        frame: text or numbers; nothing is checked yet.
        places: where each row stands, for messages.
        name: of the source.
        kind: `table`, or the tracker or tool that wrote it.
        problems: rows that could not even be cut into cells; they are not in `frame`.
        notes: what a person should know of how it was read.
    """

    frame: pl.DataFrame
    places: list[str]
    name: str
    kind: str = "table"
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


def told(source: str, problems: Sequence[Problem]) -> str:
    """All problems in one sentence; of those that are alike the first, and how many there are."""
    alike: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        kind = re.sub(r"'[^']*'|[-+.0-9]+", "", problem.reason)
        alike.setdefault((problem.column, kind), []).append(problem)
    texts: list[tuple[str, int]] = []
    for several in alike.values():
        if len(several) <= FEW:
            texts += [(str(problem), 1) for problem in several]
        else:
            texts.append((f"{several[0]}, and {len(several) - 1} more like it", len(several)))
    rest = sum(count for _, count in texts[SHOWN:])
    more = f"; and {rest} more" if rest else ""
    return (f"{source}: " if source else "") + "; ".join(text for text, _ in texts[:SHOWN]) + more


def column_of(values: list[Any]) -> pl.Series:
    """Values of any kind as a column: numbers as they are where all are numbers, else text.

    >>> column_of([1, None, 2.5]).to_list(), column_of([True, "4", 8]).to_list()
    ([1.0, None, 2.5], ['true', '4', '8'])
    """
    values = [v.item() if isinstance(v, np.generic) else v for v in values]
    kinds = {type(v) for v in values if v is not None}
    if kinds == {int} and all(v is None or v in _INT64 for v in values):
        return pl.Series(values, dtype=pl.Int64)
    if kinds <= {int, float} and all(type(v) is not int or abs(v) <= 2**53 for v in values):
        return pl.Series([None if v is None else float(v) for v in values], dtype=pl.Float64)
    return pl.Series([_text(v) for v in values], dtype=pl.String)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple, dict)):
        try:
            return json.dumps(value, default=str)
        except RecursionError:
            raise DataError("a cell holds lists within lists, too many to be read") from None
    return str(value)


def from_records(
    records: Iterable[tuple[str, Mapping[str, Any]]], name: str, kind: str, notes: Iterable[str] = ()
) -> Raw:
    """Flat records, each with its place, as raw rows.

    Raises:
        DataError: there are none, or they have too many columns.
    """
    places, rows, problems = [], [], []
    columns: dict[str, None] = {}
    for place, record in records:
        flat = dict(flatten(record))
        broken = [c for c, v in flat.items() if not _encodable(c) or not _encodable(v)]
        if broken:
            text = ascii(flat[broken[0]])[:80]
            reason = "holds half a character, which is no text; write the file anew as UTF-8"
            problems.append(Problem(place, ascii(broken[0])[1:-1][:80], text, reason))
            continue
        columns.update(dict.fromkeys(flat))
        check_width(len(columns), name)
        places.append(place)
        rows.append(flat)
    if not rows and not problems:
        raise DataError(f"{name} holds no runs")
    check_cells(len(rows), len(columns), name)
    frame = pl.DataFrame({c: column_of([row.get(c) for row in rows]) for c in columns})
    return Raw(frame, places, name, kind, tuple(problems), tuple(notes))


def check_width(columns: int, name: str) -> None:
    """Refuse a table that no person made.

    Raises:
        DataError: more than 10,000 columns.
    """
    if columns > MAX_COLUMNS:
        raise DataError(f"{name} has more than {MAX_COLUMNS:,} columns; keep those that say what was trained")


def check_cells(rows: int, columns: int, name: str) -> None:
    """Refuse a small file that says it is a very large table.

    Raises:
        DataError: more than 200 million cells.
    """
    if rows * columns > MAX_CELLS:
        raise DataError(
            f"{name} has {rows:,} rows of {columns:,} columns, more than anybody trains; split it"
        )


def _encodable(value: Any) -> bool:
    return not isinstance(value, str) or value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)


def flatten(record: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterable[tuple[str, Any]]:
    """Cells of a record; those of records within it under `outer.inner`.

    >>> dict(flatten({"a": 1, "model": {"width": 64}}))
    {'a': 1, 'model.width': 64}
    """
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and depth < 8:
            yield from flatten(value, f"{name}.", depth + 1)
        else:
            yield name, value


def together(raws: list[Raw]) -> Raw:
    """Several sources as one; with more than one, places name theirs."""
    if len(raws) == 1:
        return raws[0]
    names = [c for raw in raws for c in raw.frame.columns]
    columns = {}
    for name in dict.fromkeys(names):
        parts = [raw.frame[name] if name in raw.frame.columns else None for raw in raws]
        kinds = {p.dtype for p in parts if p is not None and p.null_count() < len(p)}
        if len(kinds) == 1:
            (kind,) = kinds
            columns[name] = pl.concat(
                [
                    pl.Series([None] * r.frame.height, dtype=kind) if p is None else p.cast(kind)
                    for p, r in zip(parts, raws, strict=True)
                ]
            )
        else:
            cells: list[Any] = []
            for part, raw in zip(parts, raws, strict=True):
                cells += [None] * raw.frame.height if part is None else part.to_list()
            columns[name] = column_of(cells)
    problems = [
        Problem(f"{r.name}, {p.place}", p.column, p.value, p.reason) for r in raws for p in r.problems
    ]
    return Raw(
        pl.DataFrame(columns),
        [f"{raw.name}, {place}" for raw in raws for place in raw.places],
        ", ".join(dict.fromkeys(raw.name for raw in raws)),
        "table"
        if all(raw.kind == "table" for raw in raws)
        else next(r.kind for r in raws if r.kind != "table"),
        tuple(problems),
        tuple(dict.fromkeys(note for raw in raws for note in raw.notes)),
    )


def with_points(raw: Raw) -> Raw:
    """The same, its numbers with points for decimal commas, and without points between thousands.

    Columns of text of which most cells are such numbers are changed, and of these only such cells.

    >>> frame = pl.DataFrame({"loss": ["2,5", "k.A.", "3"], "tokens": ["1.500.000", "2,1 M", "3"]})
    >>> with_points(Raw(frame, ["1", "2", "3"], "x")).frame.to_dict(as_series=False)
    {'loss': ['2.5', 'k.A.', '3'], 'tokens': ['1500000', '2.1 M', '3']}
    """
    columns, notes = [], list(raw.notes)
    for series in raw.frame:
        if series.dtype == pl.String:
            cells = series.filter((series.str.strip_chars() != "").fill_null(False))
            if len(cells) and cells.str.contains(_COMMA).mean() > 0.5:  # type: ignore[operator]
                if cells.str.contains(_ONE_POINT).all():
                    notes.append(
                        f"column {shown(series.name)}: {shown(cells[0])} is read as {_with_point(cells[0].strip())}, a "
                        "point between thousands; no cell of it has a comma"
                    )
                series = series.replace({cell: _with_point(cell) for cell in cells.unique()})
        columns.append(series)
    return replace(raw, frame=pl.DataFrame(columns), notes=tuple(notes))


def _with_point(cell: str) -> str:
    match = re.fullmatch(_COMMA, cell)
    if match is None:
        return cell
    sign, whole, part, end = match.groups()
    return f"{sign}{whole.replace('.', '')}" + (f".{part}" if part else "") + end.rstrip()


def shown(value: Any) -> str:
    r"""A cell for a message: short, on one line, without control characters.

    >>> shown("a\nb"), shown(None), shown(3.0)
    ('a\\nb', '', '3')
    """
    if value is None:
        return ""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.12g}"
    text = str(value)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return printable(text).replace("\n", "\\n")
