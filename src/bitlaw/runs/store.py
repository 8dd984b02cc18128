"""The run store: one table, in a SQLite file or in a PostgreSQL database."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa

from ..errors import StoreError
from . import tables
from .database import Database
from .postgresql import PostgreSQL
from .sqlite import SQLite
from .table import Runs

NAMES = ("runs.sqlite", "runs.parquet", "runs.csv", "rows.parquet", "rows.csv")  # of the runs of a folder
TAKEN = 5000  # rows that are written at once
_PLACE = r"^row-[0-9]+x*$"  # an id that a table made


def is_address(source: object) -> bool:
    """Whether something names a PostgreSQL database rather than a file.

    Raises:
        StoreError: it is written like an address, but is none of a run store; it may hold a password, so it is
            not repeated.

    >>> is_address("postgresql://me@there/runs"), is_address("runs.sqlite")
    (True, False)
    """
    text = str(source)
    if isinstance(source, str) and re.match(r"postgres(ql)?(\+\w+)?://", text):
        return True
    if "://" in text or re.search(r"\w\w:/.*@", text, re.DOTALL):  # C:/me@home is a folder
        raise StoreError(
            "cannot use that address for a run store; name a file, or write postgresql://user@host/database"
        )
    return False


def in_folder(folder: Path) -> Path:
    """The run store in a folder, or else a table called `runs` or `rows`; without either, where the store would be."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), folder / NAMES[0])


class Store:
    """A table of runs that many processes may write at once.

    Args:
        where: a file, made with its folder when it is opened for writing and absent; or
            `postgresql://user@host/database`, which needs psycopg (`bitlaw[postgres]`).
        read_only: open without the right to write, as for files from others.
        patience: seconds to try again for while a server does not answer. A process that others started and
            nobody watches has some; a person who mistyped an address wants to know at once.

    Raises:
        NoStoreError: it is to be read, and nothing was stored in it yet.
        StoreError: it is not a bitlaw store, is newer than this version, or cannot be opened.
    """

    def __init__(self, where: str | os.PathLike[str], read_only: bool = False, patience: float = 0.0) -> None:
        address = str(where) if is_address(where) else None
        hint = "name another file" if address is None else "is the server running, and the address right?"
        name = "" if address else str(where)
        try:
            self._database: Database = (
                SQLite(Path(where), read_only) if address is None else PostgreSQL(address, read_only)
            )
            name = self._database.name
            self._columns = self._database.run("open", lambda c: self._prepare(c, read_only), patience)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot open the run store {name}: {error}; {hint}") from error
        except StoreError as error:
            if isinstance(error.__cause__, sa.exc.DBAPIError):
                raise StoreError(f"{error}; {hint}") from error.__cause__
            raise
        self.name = name

    def _prepare(self, connection: sa.Connection, read_only: bool) -> list[sa.Column[Any]]:
        have = self._database.prepare(connection, read_only)
        if "id" not in have:
            raise StoreError(f"{self._database.name} has no table of runs; it is damaged: name another file")
        if not read_only:  # a store of an older version gets the columns that have come since
            for column in (c for c in tables.runs.c if c.name not in have):
                kind = column.type.compile(self._database.engine.dialect)
                connection.exec_driver_sql(f"ALTER TABLE runs ADD COLUMN {column.name} {kind}")
            have |= set(tables.runs.c.keys())
        return [c for c in tables.runs.c if c.name in have]

    @property
    def database(self) -> Database:
        """The database it is in."""
        return self._database

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Check rows and commit them in one transaction; a row whose id is there already is left as it is.

        Raises:
            DataError: a row that breaks the schema; then none is stored.
            StoreError: the database refused, for example because the disk is full.
        """
        records = self.checked(rows)
        if records:
            self._database.run("write to", lambda connection: self.insert(connection, records))

    def take(self, runs: Runs, tell: Callable[[float], None] = lambda share: None) -> int:
        """Store checked runs in one transaction; a row whose id is there already is left as it is.

        Args:
            runs: the rows.
            tell: told which share is stored.

        Returns:
            How many are new.

        Raises:
            StoreError: the database refused; then none is stored.
        """
        frame = runs.frame.with_columns(pl.col("status").fill_null("ok"))
        frame = by_content(frame, frame["id"].str.contains(_PLACE))
        frame = frame.select([s.name for s in frame if s.null_count() < len(s)])
        count = sa.select(sa.func.count()).select_from(tables.runs)

        def work(connection: sa.Connection) -> int:
            before = int(connection.execute(count).scalar_one())
            for place, rows in enumerate(frame.iter_slices(TAKEN)):
                self.insert(connection, rows.to_dicts())
                tell(min(1.0, (place + 1) * TAKEN / frame.height))
            return int(connection.execute(count).scalar_one()) - before

        return self._database.run("write to", work) if frame.height else 0

    def checked(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Rows as they are stored.

        Raises:
            DataError: a row that breaks the schema.
        """
        rows = [{**row, "status": row.get("status") or "ok"} for row in rows]
        made = pl.Series([not row.get("id") for row in rows], dtype=pl.Boolean)
        return by_content(Runs.from_rows(rows).frame, made).to_dicts() if rows else []

    def insert(self, connection: sa.Connection, records: list[dict[str, Any]]) -> None:
        """Store checked rows in a transaction that is under way."""
        connection.execute(self._database.insert(tables.runs).on_conflict_do_nothing(), records)

    def forget(self, id_: str) -> int:
        """Remove a row, what was averaged on its way and all made from them, to be made again; return how many.

        Raises:
            StoreError: the database refused.
        """
        gone = tables.runs.c.id.in_(self.made_from(id_))
        return int(
            self._database.run("write to", lambda c: c.execute(sa.delete(tables.runs).where(gone)).rowcount)
        )

    def made_from(self, id_: str) -> list[str]:
        """Ids of a row, of averages of the weights on its way, and of all that was made from them.

        Raises:
            StoreError: the store is damaged.
        """
        c = tables.runs.c
        found = self._select(sa.select(c.id, c.parent, c.trunk, c.average))
        trunk = next((row["trunk"] for row in found if row["id"] == id_), None)
        made = {row["id"] for row in found if row["id"] == id_}
        for row in found if trunk is not None else ():
            if row["trunk"] == trunk and row["average"] and row["id"].startswith(f"{id_}-"):
                made.add(row["id"])
        while more := {row["id"] for row in found if row["parent"] in made} - made:
            made |= more
        return sorted(made)

    def ids(self) -> set[str]:
        """Ids of all rows.

        Raises:
            StoreError: the store is damaged.
        """
        return set(self.statuses())

    def statuses(self) -> dict[str, str]:
        """The status of every row, by id.

        Raises:
            StoreError: the store is damaged.
        """
        rows = self._select(sa.select(tables.runs.c.id, tables.runs.c.status))
        return {row["id"]: row["status"] for row in rows}

    def runs(self) -> Runs:
        """All rows, in the order they were stored, checked like rows from any other file.

        Raises:
            StoreError: the store is damaged.
            DataError: it holds rows that break the schema.
        """
        rows = self._select(sa.select(*self._columns).order_by(sa.text(self._database.place)))
        return Runs.from_rows(rows, self.name)

    def _select(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        return self._database.run("read", lambda c: [dict(row) for row in c.execute(query).mappings()])

    def close(self) -> None:
        """Release the file."""
        self._database.engine.dispose()


def by_content(frame: pl.DataFrame, made: pl.Series) -> pl.DataFrame:
    """Rows whose ids were made from their places, with ids made from what they hold: a store has rows of many tables.

    Args:
        frame: the rows.
        made: whether the id of each was made.

    >>> runs = Runs.from_rows([{"params": 1e6, "tokens": 2e7, "loss": 3.1}])
    >>> runs.frame["id"].to_list(), by_content(runs.frame, pl.Series([True]))["id"].to_list()
    (['row-1'], ['row-3e4a36b81570'])
    """
    taken: set[str] = set(frame.filter(~made)["id"])
    names = {}
    for row in frame.filter(made).iter_rows(named=True):
        held = {column: value for column, value in row.items() if value is not None and column != "id"}
        name = f"row-{hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:12]}"
        while name in taken:  # a row that stands there twice
            name += "x"
        taken.add(name)
        names[row["id"]] = name
    return frame.with_columns(pl.col("id", "parent").replace(names)) if names else frame
