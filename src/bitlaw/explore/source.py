"""Runs as they are at this moment: a store or file that is read again when it has changed, and only then."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ..errors import BitlawError, ConfigError, DataError
from ..fitting.result import Provenance
from ..runs import Lease, Runs, Store, is_address, read_runs, running
from ..runs.store import in_folder
from ..runs.tables import runs as table

LOOK_SECONDS = 0.5  # between looks: however many ask, the store is asked this often


@dataclass(frozen=True)
class Snapshot:
    """The rows of one moment.

    Attributes:
        runs: the table.
        version: a hash of it.
        leases: who is at what; empty for files, which nobody works on.
        problem: why it could not be read again, in words; then the rest is what was read before.
        read: how often it was read.
    """

    runs: Runs
    version: str
    leases: tuple[Lease, ...] = ()
    problem: str = ""
    read: int = 1


class Live:
    """Runs that may change while they are looked at.

    Args:
        source: a .sqlite, .csv or .parquet file, a study's folder, or `postgresql://user@host/database`.

    Attributes:
        name: what people are told; never with credentials.
        address: by which it is opened.
        is_store: whether it is a run store, which sweeps write to.

    Raises:
        DataError: there is no such file, or a table with bad cells.
        StoreError: a store that cannot be opened.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     store = Store(f"{folder}/runs.sqlite")
    ...     live = Live(f"{folder}/runs.sqlite")
    ...     before = len(live.look().runs)
    ...     store.add([{"params": 1e6, "tokens": 2e7, "loss": 3.1}])
    ...     before, len(live.look(patience=0).runs)
    (0, 1)
    """

    def __init__(self, source: str | os.PathLike[str]) -> None:
        address = is_address(source)
        path = Path(source)
        if not address and path.is_dir():
            path = in_folder(path)
        self.is_store = address or path.suffix.lower() == ".sqlite"
        self._path = None if address else path
        self.address = str(source) if address else str(path)  # it may hold a password; `name` does not
        self._store = Store(self.address, read_only=True) if self.is_store else None
        self.name = self._store.name if self._store else str(path)
        self._lock = threading.Lock()
        self._mark = self._stamp()
        self._snapshot = self._read(0)
        self._looked = time.monotonic()

    def look(self, patience: float = LOOK_SECONDS) -> Snapshot:
        """The runs as they are, or as they were some moments ago.

        Args:
            patience: how old, in seconds, the last look may be.
        """
        with self._lock:
            if time.monotonic() - self._looked >= patience:
                self._look()
                self._looked = time.monotonic()
            return self._snapshot

    def _look(self) -> None:
        last = self._snapshot
        try:
            mark = self._stamp()
            if mark != self._mark or last.problem:
                self._snapshot = self._read(last.read)
                self._mark = mark
            elif self._store:
                self._snapshot = replace(last, leases=tuple(running(self._store)))
        except BitlawError as error:
            self._snapshot = replace(last, problem=str(error))

    def _read(self, before: int) -> Snapshot:
        runs = self._store.runs() if self._store else read_runs(self._path)
        leases = tuple(running(self._store)) if self._store else ()
        return Snapshot(runs, Provenance.of(runs).rows_sha256[:16], leases, "", before + 1)

    def _stamp(self) -> tuple[Any, ...]:
        """What differs when rows have come or gone; much cheaper than to read them."""
        if self._store is None:
            assert self._path is not None
            try:
                found = self._path.stat()
            except OSError as error:
                raise DataError(
                    f"cannot look at {self.name}: {error.strerror}; name a run store, a study's folder, or a .csv or "
                    ".parquet file"
                ) from error
            return found.st_mtime_ns, found.st_size, found.st_ino
        place: sa.ColumnElement[int] = sa.literal_column(self._store.database.place)
        facts = (
            sa.func.count(),
            sa.func.max(place),
            sa.func.sum(table.c.loss),
            sa.func.sum(table.c.tokens),
            sa.func.max(table.c.id),
        )
        query = sa.select(*facts).select_from(table)
        return self._store.database.run("read", lambda c: tuple(c.execute(query).one()))


def found_here(folder: Path) -> str:
    """The one store, or else table of runs, in a folder or in a study's folder below it.

    Raises:
        ConfigError: there is none, or more than one.
    """
    stores = [*folder.glob("*.sqlite"), *folder.glob("*/runs.sqlite")]
    if len(stores) > 1:
        names = ", ".join(str(path) for path in sorted(stores)[:8])
        raise ConfigError(f"there are several run stores here; name one of {names}")
    if (found := stores[0] if stores else in_folder(folder)).is_file():
        return str(found)
    raise ConfigError(
        "there are no runs in this folder; name a run store (.sqlite, a study's or sweep's folder, "
        "postgresql://user@host/database) or a .csv or .parquet file"
    )
