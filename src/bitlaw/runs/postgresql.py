"""A store in a PostgreSQL database, for workers on many machines.

A server is restarted now and then: work that it breaks off is done again until it answers, for a bounded
time; every piece of work may be done twice, because rows are stored once by their id.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ..errors import NoStoreError, StoreError
from .database import PATIENCE_SECONDS, Database
from .tables import VERSION, runs

LONGEST_PAUSE = 2.0
CONNECT_SECONDS = 10
PASSING = ("08", "57P", "53300", "40001", "40P01")  # connection lost, shutting down, too many, lost a race

log = logging.getLogger("bitlaw.runs")
T = TypeVar("T")


class PostgreSQL(Database):
    """A database by its URL; the tables are made when it is opened for writing and has none."""

    insert = staticmethod(insert)
    clock = "extract(epoch FROM clock_timestamp())::float8"
    place = "place"

    def __init__(self, address: str, read_only: bool) -> None:
        try:
            url = sa.make_url(address).set(drivername="postgresql+psycopg")
        except (sa.exc.ArgumentError, ValueError):
            raise _unreadable() from None  # whatever was said of it may hold a password
        if "@" in (url.host or ""):  # what stands before it is of a password
            raise _unreadable()
        host = url.host or url.query.get("host") or "local"
        self.name = f"postgresql://{host}{f':{url.port}' if url.port else ''}/{url.database or ''}"
        self._secrets = {
            str(s) for s in (url.password, url.query.get("password"), url.query.get("sslpassword")) if s
        }
        try:
            self.engine = sa.create_engine(
                url,
                poolclass=sa.pool.NullPool,  # a connection held by each of a thousand workers is one too many
                connect_args={"connect_timeout": CONNECT_SECONDS, "application_name": "bitlaw"},
                execution_options={"postgresql_readonly": True} if read_only else {},
            )
        except ImportError:
            raise StoreError(
                'PostgreSQL stores need psycopg; install it with: pip install "bitlaw[postgres]"'
            ) from None

    def prepare(self, connection: sa.Connection, read_only: bool) -> set[str]:
        """Make the table where the database has none, or check that it is ours; return its columns."""
        if not read_only:  # workers that start together must not make it together
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(0x6269746C)))
        look = sa.inspect(connection)
        if not look.has_table("runs") and not read_only:
            runs.create(connection)
            connection.exec_driver_sql(
                "ALTER TABLE runs ADD COLUMN place bigint GENERATED ALWAYS AS IDENTITY"
            )
            connection.exec_driver_sql("CREATE TABLE bitlaw_store (version integer NOT NULL)")
            connection.exec_driver_sql(f"INSERT INTO bitlaw_store VALUES ({VERSION})")
        elif not look.get_table_names():
            raise NoStoreError(f"nothing is stored yet in {self.name}; a study or a sweep begins a run store")
        elif not look.has_table("bitlaw_store"):
            raise StoreError(f"{self.name} is not a bitlaw run store; name another database")
        elif connection.exec_driver_sql("SELECT max(version) FROM bitlaw_store").scalar_one() > VERSION:
            raise StoreError(f"{self.name} was written by a newer bitlaw; install a newer version to read it")
        return {column["name"] for column in sa.inspect(connection).get_columns("runs")}

    def run(self, doing: str, work: Callable[[sa.Connection], T], patience: float = PATIENCE_SECONDS) -> T:
        """Do some work in one transaction, again and again while the server is away."""
        deadline, pause, said = time.monotonic() + patience, 0.1, False
        while True:
            try:
                with self.engine.begin() as connection:
                    result = work(connection)
                if said:
                    log.warning("%s answers again", self.name)
                return result
            except sa.exc.DBAPIError as error:
                state = getattr(error.orig, "sqlstate", None)
                passing = isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError)) and (
                    state is None or state.startswith(PASSING)
                )
                if not passing or time.monotonic() + pause > deadline:
                    waited = f" (for {patience:.0f} s)" if passing and patience else ""
                    raise StoreError(
                        f"cannot {doing} the run store {self.name}{waited}: {self.cause(error)}"
                    ) from error
                if not said and pause > 0.3:
                    said = True
                    log.warning(
                        "%s does not answer (%s); trying again for %.0f s",
                        self.name,
                        self.cause(error),
                        patience,
                    )
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def cause(self, error: sa.exc.DBAPIError) -> str:
        """What the server said, on one line and without the password."""
        text = super().cause(error)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _unreadable() -> StoreError:
    return StoreError(
        "cannot read the address of the run store; write postgresql://user@host:port/database, and a password's "
        "@ and / as %40 and %2F"
    )
