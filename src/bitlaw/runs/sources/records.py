"""What several readers share: JSON, SQLite and folders of strangers, read with their size in mind."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...files import regular
from ..foreign import explained, guard
from ..raw import Raw, from_records

MAX_BYTES = 2**29  # of a JSON file
MAX_FILES = 100_000  # looked at below a folder
MAX_DEPTH = 12


def read_json(path: Path) -> Any:
    """The value in a .json file; the list of values in one of lines.

    Raises:
        DataError: it cannot be read, is too large, or is not JSON.
    """
    shown = ascii(str(path))[1:-1][-200:]
    try:
        raw = regular(path, MAX_BYTES)
        if len(raw) > MAX_BYTES:
            raise DataError(f"{shown} is larger than {MAX_BYTES >> 20} MiB; split it")
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{shown} is not UTF-8: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {shown}: {error.strerror or error}") from error
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return [
            _loads(line, f"{shown}, line {n}") for n, line in enumerate(text.split("\n"), 1) if line.strip()
        ]
    return _loads(text, shown)


def _loads(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {ascii(str(error))[1:-1][:200]}") from error


def from_json(path: Path, found: Any) -> Raw:
    """A list of records, or columns of equal length, as rows.

    Raises:
        DataError: it is neither.
    """
    if isinstance(found, dict) and found and all(isinstance(v, list) for v in found.values()):
        lengths = {len(v) for v in found.values()}
        if len(lengths) > 1:
            raise DataError(
                f"{path}: columns are of different lengths: {', '.join(map(str, sorted(lengths)[:10]))}"
            )
        found = [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise DataError(f'{path} is no list of records, like [{{"params": 1e6, "tokens": 2e7, "loss": 3.1}}]')
    word = "line" if path.suffix.lower() in (".jsonl", ".ndjson") else "record"
    return from_records(((f"{word} {n}", record) for n, record in enumerate(found, 1)), str(path), "table")


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
    connection.execute("PRAGMA query_only = ON")
    try:
        guard(connection)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def tables(path: Path) -> set[str]:
    """Names of the tables of a SQLite file.

    Raises:
        DataError: it is none.
    """
    return {str(row[0]) for row in query(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}


def query(path: Path, text: str) -> list[tuple[Any, ...]]:
    """Rows of a question to a SQLite file of a stranger, which is opened read-only.

    Raises:
        DataError: it is no such file, or has other tables.
    """
    try:
        with closing(_open(path)) as connection:
            return connection.execute(text).fetchall()
    except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} as a SQLite file: {explained(str(error))}") from error


def below(folder: Path, *, end: str = "", within: str = "") -> Iterator[Path]:
    """Files below a folder, in order of names, whose names end in a way or hold a word; links lead nowhere else.

    Raises:
        DataError: there are too many files to look at.
    """
    looked, top = 0, folder.resolve()
    for place, folders, files in os.walk(folder):
        folders.sort()
        if len(Path(place).relative_to(folder).parts) >= MAX_DEPTH:
            folders.clear()
        for name in sorted(files):
            looked += 1
            if looked > MAX_FILES:
                raise DataError(
                    f"{folder} holds more than {MAX_FILES:,} files; name the folder of the runs themselves"
                )
            path = Path(place) / name
            if (
                name.endswith(end)
                and within in name
                and path.resolve().is_relative_to(top)
                and path.is_file()
            ):
                yield path


def mapping(value: Any) -> dict[str, Any]:
    """A JSON object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}
