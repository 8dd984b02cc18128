"""The run store: one SQLite file, safe to kill at any moment.

Rollback journal and full synchronisation rather than WAL: WAL has a corruption bug in the SQLite that
current Pythons link (fixed in 3.51.3), and a sweep commits a row every few seconds at most. The file
carries an application id and a version; a file that is not ours, or is newer than us, is left alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from ..errors import StoreError
from .schema import COLUMNS, STATUSES
from .table import Runs

APPLICATION_ID = 0x6269746C  # "bitl"
VERSION = 1

_TYPE = {"text": sa.Text, "format": sa.Text, "integer": sa.Integer, "number": sa.REAL}
_metadata = sa.MetaData()
_runs = sa.Table(
    "runs",
    _metadata,
    *(
        sa.Column(c.name, _TYPE[c.kind], primary_key=c.name == "id", nullable=c.name not in ("id", "status"))
        for c in COLUMNS
    ),
    sa.CheckConstraint("status IN ({})".format(", ".join(f"'{s}'" for s in STATUSES)), name="known_status"),
    sa.CheckConstraint("(status = 'ok') = (loss IS NOT NULL)", name="loss_or_status"),
    sa.CheckConstraint("loss IS NULL OR (loss > 0 AND loss < 1e300)", name="finite_loss"),
    sa.CheckConstraint("params > 0 AND tokens > 0", name="positive_size"),
    sqlite_strict=True,
)


class Store:
    """A SQLite file of runs.

    Args:
        path: the file; made, with its folder, when it is opened for writing and absent.
        read_only: open without the right to write, as for files from others.

    Raises:
        StoreError: the file is not a bitlaw store, is newer than this version, or cannot be opened.
    """

    def __init__(self, path: str | Path, read_only: bool = False) -> None:
        self.path = Path(path)
        if read_only and not self.path.is_file():
            raise StoreError(f"there is no run store at {self.path}; name a store file, or a study's folder")
        try:
            if not read_only:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._engine = self._open(read_only)
            self._check_file(read_only)
        except (OSError, sqlite3.Error, sa.exc.DBAPIError) as error:
            cause = getattr(error, "orig", error)
            raise StoreError(f"cannot open the run store {self.path}: {cause}; name another file") from error

    def _open(self, read_only: bool) -> sa.Engine:
        uri = self.path.resolve().as_uri() + ("?mode=ro" if read_only else "")
        engine = sa.create_engine(  # a URL would be decoded once too often for names with ? # or %
            "sqlite://",
            creator=lambda: sqlite3.connect(uri, uri=True, timeout=30),
            poolclass=sa.pool.NullPool,
        )

        @sa.event.listens_for(engine, "connect")
        def prepare(connection: sqlite3.Connection, _: object) -> None:
            connection.isolation_level = None  # the driver would begin transactions late, and by itself
            connection.execute("PRAGMA trusted_schema = OFF")
            if read_only:
                connection.execute("PRAGMA query_only = ON")
            else:
                connection.execute("PRAGMA synchronous = FULL")

        @sa.event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

        return engine

    def _check_file(self, read_only: bool) -> None:
        with self._engine.begin() as connection:

            def pragma(name: str) -> int:
                return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())

            empty = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one() == 0
            if empty and not read_only:
                connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
                _metadata.create_all(connection)
            elif pragma("application_id") != APPLICATION_ID:
                raise StoreError(f"{self.path} is not a bitlaw run store; name another file")
            elif pragma("user_version") > VERSION:
                raise StoreError(
                    f"{self.path} was written by a newer bitlaw; install a newer version to read it"
                )
            have = {row[1] for row in connection.exec_driver_sql("PRAGMA table_info(runs)")}
            if "id" not in have:
                raise StoreError(f"{self.path} has no table of runs; it is damaged: name another file")
            if not read_only:  # a store of an older version gets the columns that have come since
                for column in (c for c in _runs.c if c.name not in have):
                    kind = column.type.compile(self._engine.dialect)
                    connection.exec_driver_sql(f"ALTER TABLE runs ADD COLUMN {column.name} {kind}")
                have |= set(_runs.c.keys())
            self._columns = [c for c in _runs.c if c.name in have]

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Check rows and commit them in one transaction; a row whose id is there already is left as it is.

        Raises:
            DataError: a row that breaks the schema; then none is stored.
            StoreError: the database refused, for example because the disk is full.
        """
        rows = [{**row, "status": row.get("status") or "ok"} for row in rows]
        if not rows:
            return
        records = Runs.from_rows(rows).frame.to_dicts()
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(_runs).on_conflict_do_nothing(), records)
        except sa.exc.DBAPIError as error:
            raise StoreError(f"cannot write to the run store {self.path}: {error.orig}") from error

    def ids(self) -> set[str]:
        """Ids of all rows.

        Raises:
            StoreError: the file is damaged.
        """
        return {row["id"] for row in self._select(sa.select(_runs.c.id))}

    def runs(self) -> Runs:
        """All rows, in the order they were stored, checked like rows from any other file.

        Raises:
            StoreError: the file is damaged.
            DataError: the file holds rows that break the schema.
        """
        rows = self._select(sa.select(*self._columns).order_by(sa.text("rowid")))
        return Runs.from_rows(rows, str(self.path))

    def _select(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        try:
            with self._engine.begin() as connection:
                return [dict(row) for row in connection.execute(query).mappings()]
        except sa.exc.DBAPIError as error:
            raise StoreError(f"cannot read the run store {self.path}: {error.orig}") from error

    def close(self) -> None:
        """Release the file."""
        self._engine.dispose()
