"""Tables of clicks: rows of categorical fields with a yes or no, from a known teacher or from files."""

from __future__ import annotations

import csv
import gzip
import math
import os
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, nearest

Ids: TypeAlias = NDArray[np.int64]
MAX_LINE, MEAN_LINE = 65_536, 1024  # bytes; no file of clicks comes near either
CRITEO = (*(f"I{k}" for k in range(1, 14)), *(f"C{k}" for k in range(1, 27)))


@dataclass(frozen=True)
class Clicks:
    """Rows of categorical fields, numbered together: an id belongs to one field.

    Attributes:
        ids: int64 (rows, fields).
        labels: bool (rows,).
        fields: their names.
        vocabulary: ids in all.
        teacher: true log-odds (rows,), if they are known.
    """

    ids: Ids
    labels: NDArray[np.bool_]
    fields: tuple[str, ...]
    vocabulary: int
    teacher: NDArray[np.float64] | None = None

    def take(self, rows: Ids) -> Clicks:
        """Return some rows, in this order."""
        teacher = None if self.teacher is None else self.teacher[rows]
        return Clicks(self.ids[rows], self.labels[rows], self.fields, self.vocabulary, teacher)

    def split(self, seed: int, most: int | None = None) -> tuple[Clicks, Clicks, Clicks]:
        """Return rows to train on, to choose by, and to test on: three fifths, a fifth and a fifth.

        Test rows are the same for every seed, so that none has had a part in a choice made with another seed.

        Args:
            seed: by which the other rows are drawn.
            most: rows used in all; None means all of them.
        """
        rows = np.random.default_rng(0).permutation(len(self.labels))
        used = min(most or len(rows), len(rows))
        fifth = used // 5
        rest = np.random.default_rng(seed).permutation(rows[fifth:])[: used - fifth]
        return self.take(rest[fifth:]), self.take(rest[:fifth]), self.take(rows[:fifth])


def synthetic(seed: int, rows: int = 150_000, fields: int = 8, values: int = 500, width: int = 4) -> Clicks:
    """Draw clicks from a factorisation machine whose log-odds are known.

        logit = -1 + z,   z = sum_i a[x_i] + sum_{i<j} <v[x_i], v[x_j]>, brought to mean 0 and deviation 1

    Values of a field are drawn with probabilities as 1 / rank (Zipf), a and v from normal distributions; the pairs have
    about a fifth of the variance.

    Args:
        seed: of teacher and rows.
        rows: how many.
        fields: of each row.
        values: of each field.
        width: of the factors v.

    >>> clicks = synthetic(0, rows=1000)
    >>> clicks.ids.shape, clicks.vocabulary, float(clicks.labels.mean()) < 0.5
    ((1000, 8), 4000, True)
    """
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, values + 1)
    places = rng.choice(values, size=(rows, fields), p=share / share.sum())
    ids = places + values * np.arange(fields)
    alone, factors = rng.normal(size=fields * values), rng.normal(size=(fields * values, width))
    v = factors[ids]
    pairs = (v.sum(1) ** 2 - (v**2).sum(1)).sum(1) / 2
    z = 2 * alone[ids].sum(1) / math.sqrt(fields) + pairs / math.sqrt(fields * (fields - 1) / 2 * width)
    logit = (z - z.mean()) / z.std() - 1
    labels = rng.random(rows) < 1 / (1 + np.exp(-logit))
    return Clicks(ids, labels, tuple(f"field{k}" for k in range(fields)), fields * values, logit)


def read_criteo(path: str | os.PathLike[str], limit: int = 1_000_000, least: int = 2) -> Clicks:
    """Read the Criteo format: tab-separated label, 13 integers, 26 hexadecimal categories; any may be empty.

    Integers become categories: x itself up to 2, and floor(ln(x)^2) beyond. An empty cell is a value of its own.

    Args:
        path: the file, or the same in gzip.
        limit: rows read at most, from the first.
        least: values seen less often in these rows are one value, the rare one of their field.

    Raises:
        DataError: no such file, or naming the line that is not of this format.
    """
    table = _Table(CRITEO, least)
    for where, (label, *cells) in _lines(path, "\t", limit, 1 + len(CRITEO)):
        table.add(where, label, [_class(cell, where) for cell in cells[:13]] + cells[13:])
    return table.clicks(path)


def read_avazu(path: str | os.PathLike[str], limit: int = 1_000_000, least: int = 2) -> Clicks:
    """Read the Avazu format: CSV with a header, `id`, `click`, `hour` as YYMMDDHH, and categories.

    The id is left out, and of the hour that of the day is kept.

    Args:
        path: the file, or the same in gzip.
        limit: rows read at most, from the first.
        least: values seen less often in these rows are one value, the rare one of their field.

    Raises:
        DataError: no such file, or naming the line that is not of this format.
    """
    return _read(path, "click", None, limit, least, drop=("id",), change={"hour": _hour})


def read_table(
    path: str | os.PathLike[str],
    target: str,
    fields: Sequence[str] | None = None,
    limit: int = 1_000_000,
    least: int = 2,
) -> Clicks:
    """Read any CSV with a header, every field as categories.

    Args:
        path: the file, or the same in gzip.
        target: column of 0 and 1.
        fields: columns to learn from; None means all others.
        limit: rows read at most, from the first.
        least: values seen less often in these rows are one value, the rare one of their field.

    Raises:
        DataError: no such file or column, or naming the line that is wrong.
    """
    return _read(path, target, fields, limit, least)


def _read(
    path: str | os.PathLike[str],
    target: str,
    fields: Sequence[str] | None,
    limit: int,
    least: int,
    drop: tuple[str, ...] = (),
    change: dict[str, Callable[[str, str], str]] | None = None,
) -> Clicks:
    header = next((cells for _, cells in _lines(path, ",", 1, None)), [])
    if len(set(header)) < len(header):
        raise DataError(f"{_shown(path)}, line 1: a column's name stands there twice")
    for name in (target, *(fields or ()), *drop, *(change or ())):
        if name not in header:
            raise DataError(f"{_shown(path)} has no column {name[:40]!r}; {nearest(name, header[:50])[:400]}")
    chosen = tuple(fields or (name for name in header if name not in (target, *drop)))
    if not chosen or target in chosen:
        raise DataError(f"{_shown(path)}: fields are one or more columns beside the target {target!r}")
    places, place = [header.index(name) for name in chosen], header.index(target)
    changes = [(change or {}).get(name, lambda cell, where: cell) for name in chosen]
    table = _Table(chosen, least)
    for where, cells in islice(_lines(path, ",", limit + 1, len(header)), 1, None):
        values = [make(cells[k], where) for make, k in zip(changes, places, strict=True)]
        table.add(where, cells[place], values)
    return table.clicks(path)


class _Table:
    """Collects rows, and numbers the values of each field in the order in which they come."""

    def __init__(self, fields: Sequence[str], least: int) -> None:
        self.fields, self.least = tuple(fields), least
        self.seen: list[dict[str, int]] = [{} for _ in fields]
        self.places, self.labels = array("q"), array("b")

    def add(self, where: str, label: str, cells: Iterable[str]) -> None:
        """Take a row."""
        if label not in ("0", "1"):
            raise DataError(f"{where}: the label is {label[:40]!a}, and should be 0 or 1")
        self.labels.append(label == "1")
        self.places.extend(
            seen.setdefault(cell, len(seen)) for seen, cell in zip(self.seen, cells, strict=True)
        )

    def clicks(self, path: str | os.PathLike[str]) -> Clicks:
        """Number the values that are not rare, of one field after the other; the first of a field is the rare one."""
        labels = np.array(self.labels, dtype=bool)
        if labels.all() or not labels.any():
            raise DataError(
                f"{_shown(path)} needs rows of both labels, 0 and 1; {len(labels)} rows were read"
            )
        places = np.array(self.places, dtype=np.int64).reshape(len(labels), -1)
        first = 0
        for k in range(len(self.fields)):
            often = np.bincount(places[:, k]) >= self.least
            places[:, k] = first + np.where(often, np.cumsum(often), 0)[places[:, k]]
            first += 1 + int(often.sum())
        return Clicks(places, labels, self.fields, first)


def _lines(
    path: str | os.PathLike[str], delimiter: str, limit: int, columns: int | None
) -> Iterator[tuple[str, list[str]]]:
    """Yield where each line stands and its cells, up to a limit; nothing is read beyond it."""
    where, left = _shown(path), MAX_LINE + MEAN_LINE * limit
    try:
        with Path(path).open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if zipped else Path(path).open("rb") as file:
            for line in range(1, limit + 1):
                where = f"{_shown(path)}, line {line}"
                data = file.readline(MAX_LINE + 1)
                left -= len(data)
                if not data:
                    return
                if len(data) > MAX_LINE or left < 0:
                    raise DataError(
                        f"{where}: longer than {MAX_LINE} bytes, or than {MEAN_LINE} on the mean so far"
                    )
                text = data.decode("utf-8-sig" if line == 1 else "utf-8").rstrip("\r\n")
                cells = text.split("\t") if delimiter == "\t" else next(csv.reader([text], strict=True), [])
                if columns is not None and len(cells) != columns:
                    raise DataError(f"{where}: {len(cells)} columns, and should have {columns}")
                yield where, cells
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {_shown(path)}: {getattr(error, 'strerror', None) or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where}: {error}") from error


def _class(cell: str, where: str) -> str:
    """An integer of Criteo as a category."""
    if not cell:
        return cell
    if not cell.removeprefix("-").isdecimal() or len(cell) > 19:
        raise DataError(f"{where}: {cell[:40]!a} is not an integer")
    value = int(cell)
    return str(value) if value <= 2 else f"ln{int(math.log(value) ** 2)}"


def _hour(cell: str, where: str) -> str:
    if not (cell.isdecimal() and len(cell) == 8):
        raise DataError(f"{where}: the hour is {cell[:40]!a}, and should be YYMMDDHH")
    return cell[-2:]


def _shown(path: str | os.PathLike[str]) -> str:
    return ascii(str(path))[1:-1][-100:]
