"""A store in one SQLite file, safe to kill at any moment.

Rollback journal and full synchronisation rather than WAL: WAL has a corruption bug in the SQLite that
current Pythons link (fixed in 3.51.3), and a sweep commits a row every few seconds at most. The file
carries an application id and a version; a file that is not ours, or is newer than us, is left alone.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from ..errors import NoStoreError, StoreError
from .database import Database
from .foreign import explained, guard, harmless
from .tables import VERSION, runs

APPLICATION_ID = 0x6269746C  # "bitl"
WAIT_SECONDS = 30.0  # for others to be done with the file


class SQLite(Database):
    """A file; made, with its folder, when it is opened for writing and absent."""

    insert = staticmethod(insert)
    clock = "(julianday('now') - 2440587.5) * 86400.0"
    place = "rowid"

    def __init__(self, path: Path, read_only: bool) -> None:
        self.name = str(path)
        if read_only and not path.is_file():
            raise NoStoreError(f"there is no run store at {path}; name a store file, or a study's folder")
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        uri, journal = path.resolve().as_uri(), Path(f"{path.resolve()}-journal")

        def connect() -> sqlite3.Connection:
            harmless(path.resolve())
            if not read_only:
                return sqlite3.connect(uri, uri=True, timeout=WAIT_SECONDS)
            # Its writer may have been killed: only who may write can undo the half of a row.
            if journal.exists():
                with suppress(sqlite3.Error), closing(sqlite3.connect(f"{uri}?mode=rw", uri=True)) as other:
                    other.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=WAIT_SECONDS)

        # A URL would be decoded once too often for names with ? # or %.
        self.engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.NullPool)

        @sa.event.listens_for(self.engine, "connect")
        def prepare(connection: sqlite3.Connection, _: object) -> None:
            connection.isolation_level = None  # the driver would begin transactions late, and by itself
            guard(connection)
            if read_only:
                connection.execute("PRAGMA query_only = ON")
            else:
                connection.execute("PRAGMA synchronous = FULL")

        @sa.event.listens_for(self.engine, "begin")
        def begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    def cause(self, error: sa.exc.DBAPIError) -> str:
        """What SQLite said, and what to do if another program holds the file."""
        text = explained(super().cause(error))
        if "locked" in text:
            return f"{text} by another program for {WAIT_SECONDS:.0f} s; close it, and try again"
        return text

    def prepare(self, connection: sa.Connection, read_only: bool) -> set[str]:
        """Make the table in an empty file, or check that the file is ours; return the table's columns."""

        def pragma(name: str) -> int:
            return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())

        empty = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one() == 0
        if empty and not read_only:
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
            runs.create(connection)
        elif empty:
            raise NoStoreError(f"nothing is stored yet in {self.name}; a study or a sweep begins a run store")
        elif pragma("application_id") != APPLICATION_ID:
            raise StoreError(f"{self.name} is not a bitlaw run store; name another file")
        elif pragma("user_version") > VERSION:
            raise StoreError(f"{self.name} was written by a newer bitlaw; install a newer version to read it")
        return {row[1] for row in connection.exec_driver_sql("PRAGMA table_info(runs)")}
