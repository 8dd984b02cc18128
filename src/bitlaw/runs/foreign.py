"""SQLite files that a stranger may have written: what in them would run, write or grow is refused.

Such a file can hold more than rows. A view or a computed column is a program, which may never end; a trigger runs when
somebody writes; a virtual table has a library read tables that were made to break it. And a journal beside a file may
name another file, anywhere, which SQLite deletes when it has rolled back.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

MAX_VALUE = 50_000_000  # bytes of one value, and of one row
_MAGIC = bytes.fromhex("d9d505f920a163d7")  # that a journal begins with; at its end, that it names a file


def harmless(path: Path) -> None:
    """Refuse a file whose journal names another file; bitlaw's own never do, as they are of one database.

    Args:
        path: the database, as it is opened.

    Raises:
        sqlite3.OperationalError: so it is.
    """
    journal = path.with_name(f"{path.name}-journal")
    try:
        with journal.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(_MAGIC)))
            end = file.read()
    except OSError:  # there is none, or no longer: others may be at work
        return
    if size > len(_MAGIC) and end == _MAGIC:
        raise sqlite3.OperationalError(
            f"{journal.name} names another file to be deleted; remove that journal"
        )


def guard(connection: sqlite3.Connection) -> None:
    """Let a connection read plain tables alone: no view, no trigger, no computed column, no value without an end.

    Raises:
        sqlite3.DatabaseError: the file holds virtual tables.
    """
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
    tables = "sqlite_master m WHERE m.type = 'table'"
    if connection.execute(f"SELECT count(*) FROM {tables} AND m.rootpage = 0").fetchone()[0]:
        raise sqlite3.DatabaseError("it holds virtual tables, which bitlaw does not read")
    columns = f"SELECT DISTINCT m.name FROM pragma_table_xinfo(m.name) x, {tables} AND x.hidden <> 0"
    computed = {
        name for (name,) in connection.execute(columns)
    }  # MLflow has one, in a table that nobody reads

    def stored(
        action: int, first: str | None, second: str | None, base: str | None, within: str | None
    ) -> int:
        """Deny what a view or a trigger asks, and tables that compute."""
        if within or (action == sqlite3.SQLITE_READ and first in computed):
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    connection.set_authorizer(stored)


def explained(text: str) -> str:
    """What SQLite said, in words that say why where it was `guard` that refused."""
    denied = "not authorized" in text or "prohibited" in text
    return (
        f"{text}; bitlaw reads no views, no triggers and no tables with computed columns" if denied else text
    )
