"""Who is at what: work that is lent to one worker at a time, and comes back when a worker is gone.

A claim is one statement, `INSERT ... ON CONFLICT DO UPDATE ... WHERE it is free`: both databases lock the row and look
at its newest version before they write it, so of many claims at once one succeeds. Times are the database's
own, so that the clocks of the machines do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from .store import Store
from .tables import leases

LEASE_SECONDS = 60.0


@dataclass(frozen=True)
class Lease:
    """Some work, and who has it.

    Attributes:
        work: its name.
        worker: who has it.
        attempts: workers that have begun it since it last gave a row, this one included.
        left: seconds until it is free, when it was asked.
    """

    work: str
    worker: str
    attempts: int
    left: float


class Leases:
    """The leases of a store.

    Args:
        store: open for writing; the table of leases is made if it has none.
        seconds: how long a lease lasts unless it is renewed.

    Raises:
        StoreError: the database refused; so do all methods.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     leases = Leases(Store(f"{folder}/runs.sqlite"))
    ...     a = leases.claim(["w1", "w2"], "a")
    ...     b = leases.claim(["w1", "w2"], "b")
    ...     (a.work, b.work, leases.claim(["w1", "w2"], "c"))
    ('w1', 'w2', None)
    """

    def __init__(self, store: Store, seconds: float = LEASE_SECONDS) -> None:
        self.seconds = seconds
        self._store, self._database = store, store.database
        self._now: sa.ColumnElement[float] = sa.literal_column(self._database.clock, sa.Double())
        self._database.run("write to", self._make)

    def _make(self, connection: sa.Connection) -> None:
        if self._database.engine.dialect.name == "postgresql":  # two that make it at once would collide
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(0x6269746C)))
        leases.create(connection, checkfirst=True)

    def claim(self, works: Iterable[str], worker: str) -> Lease | None:
        """Take the first work that is free or was this worker's already; None if there is none.

        A worker that asks for what it holds gets it again: so a worker that was started anew under its old name
        need not wait for its own leases to run out.
        """
        others = {lease.work for lease in running(self._store) if lease.worker != worker}
        for work in works:
            if work not in others:
                lease = self._database.run("write to", lambda c, w=work: self._take(c, w, worker))  # type: ignore[misc]
                if lease is not None:
                    return lease
        return None

    def _take(self, connection: sa.Connection, work: str, worker: str) -> Lease | None:
        take = self._database.insert(leases).values(
            work=work, worker=worker, expires=self._now + self.seconds, attempts=1
        )
        free = sa.or_(leases.c.expires < self._now, leases.c.worker == worker)
        new = {
            "worker": worker,
            "expires": self._now + self.seconds,
            "attempts": leases.c.attempts + 1,
        }
        take = take.on_conflict_do_update(index_elements=["work"], set_=new, where=free)
        attempts = connection.execute(take.returning(leases.c.attempts)).scalar()
        return None if attempts is None else Lease(work, worker, attempts, self.seconds)

    def renew(self, lease: Lease) -> bool:
        """Begin a lease's time again; False if another worker has taken the work since."""
        return self._database.run("write to", lambda c: self._hold(c, lease))

    def add(self, lease: Lease, rows: Iterable[Mapping[str, Any]]) -> bool:
        """Store rows of leased work and renew the lease, in one transaction.

        Returns:
            False if another worker has taken the work since; then nothing is stored.

        Raises:
            DataError: a row that breaks the schema.
        """
        records = self._store.checked(rows)

        def work(connection: sa.Connection) -> bool:
            held = self._hold(connection, lease, attempts=1)
            if held:
                self._store.insert(connection, records)
            return held

        return self._database.run("write to", work)

    def _hold(self, connection: sa.Connection, lease: Lease, **also: int) -> bool:
        """Renew a lease; its row stays locked to the end of the transaction."""
        renewed = sa.update(leases).values(expires=self._now + self.seconds, **also)
        return connection.execute(renewed.where(*self._is(lease))).rowcount == 1

    def release(self, lease: Lease) -> None:
        """Give work back, done or not."""
        given = sa.delete(leases).where(*self._is(lease))
        self._database.run("write to", lambda c: c.execute(given).close())

    @staticmethod
    def _is(lease: Lease) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
        return leases.c.work == lease.work, leases.c.worker == lease.worker


def running(store: Store) -> list[Lease]:
    """The leases of a store that have not run out; it may be open for reading only.

    Raises:
        StoreError: the database refused.
    """
    now: sa.ColumnElement[float] = sa.literal_column(store.database.clock, sa.Double())

    def work(connection: sa.Connection) -> list[Lease]:
        if not sa.inspect(connection).has_table("leases"):
            return []
        query = sa.select(leases, (leases.c.expires - now).label("left")).where(leases.c.expires >= now)
        rows = connection.execute(query.order_by(leases.c.work))
        return [Lease(row.work, row.worker, row.attempts, row.left) for row in rows]

    return store.database.run("read", work)
