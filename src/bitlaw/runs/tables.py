"""The tables of a store, alike on every database."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from .schema import COLUMNS, STATUSES

VERSION = 1

# SQLite's strict tables know these three types alone; REAL and INTEGER would be half as long on PostgreSQL.
_integer: sa.types.TypeEngine[int] = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_number: sa.types.TypeEngine[Any] = sa.Double().with_variant(sa.REAL(), "sqlite")
_TYPE: dict[str, sa.types.TypeEngine[Any]] = {
    "text": sa.Text(),
    "format": sa.Text(),
    "integer": _integer,
    "number": _number,
}

metadata = sa.MetaData()
runs = sa.Table(
    "runs",
    metadata,
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
#: Who is at what: a name of work, the worker that has it, when it is free again (seconds since 1970 by the
#: database's clock), and how many workers have begun it since it last gave a row.
leases = sa.Table(
    "leases",
    metadata,
    sa.Column("work", sa.Text(), primary_key=True),
    sa.Column("worker", sa.Text(), nullable=False),
    sa.Column("expires", _number, nullable=False),
    sa.Column("attempts", _integer, nullable=False),
    sqlite_strict=True,
)
