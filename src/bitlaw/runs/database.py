"""What a store asks of a database; SQLite and PostgreSQL answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa

from ..errors import StoreError

PATIENCE_SECONDS = 120.0  # for a server to come back
T = TypeVar("T")


class Database(ABC):
    """A database that holds one store.

    Attributes:
        name: how messages call it; never with credentials.
        insert: the dialect's `INSERT`, for `ON CONFLICT`.
        clock: seconds since 1970, as the database knows them.
        place: the column that rows are in order of.
    """

    name: str
    insert: Callable[[sa.Table], Any]
    clock: str
    place: str
    engine: sa.Engine

    @abstractmethod
    def prepare(self, connection: sa.Connection, read_only: bool) -> set[str]:
        """Make the table where there is none yet, or check that it is ours; return its columns."""

    def run(self, doing: str, work: Callable[[sa.Connection], T], patience: float = PATIENCE_SECONDS) -> T:
        """Do some work in one transaction; try again for some seconds while a server is away.

        Raises:
            StoreError: the database refused; nothing was changed.
        """
        try:
            with self.engine.begin() as connection:
                return work(connection)
        except sa.exc.DBAPIError as error:
            raise StoreError(f"cannot {doing} the run store {self.name}: {self.cause(error)}") from error

    def cause(self, error: sa.exc.DBAPIError) -> str:
        """What the database said, on one line."""
        return " ".join(str(error.orig).split())
