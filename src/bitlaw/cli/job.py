"""A sweep as the verbs see it: what its file describes, how far it is, and how that is shown."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, NoStoreError

if TYPE_CHECKING:
    from rich.table import Table

    from ..lab.sweep import Team
    from ..runs import Store


class Job:
    """A sweep as its file describes it, or what was chosen of it, with its text."""

    def __init__(
        self,
        source: str,
        folder: Path | None,
        corpus: str | None,
        only: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        from ..lab.corpus import read_corpus, spread_windows
        from ..lab.sweep import After, trunks
        from ..study import read_study

        study = read_study(source)
        self.folder = folder or Path(f"sweep-{study.name}")
        self.corpus, self.text = corpus, read_corpus(corpus, study.sweep.tokenizer)
        self.configs = trunks(study.sweep.only(**only), self.text)
        self.after = After.of(study.sweep, self.folder)
        spread_windows(self.text.evaluation, study.sweep.eval_tokens, study.sweep.seq_len)
        self.after.look_at(self.text.calibration, study.sweep.seq_len)
        self.cells = {c.cell_id(branch): c for c in self.configs for branch in c.branches()}

    def where(self, store: str | None) -> str:
        """The store that is named, or the one in the folder."""
        return store or str(self.folder / "runs.sqlite")

    @contextmanager
    def stored(self, store: str | None) -> Iterator[Store | None]:
        """The store, opened for reading; None if nothing was stored in it yet."""
        with ExitStack() as open_:
            kept = None
            with suppress(NoStoreError):
                kept = open_.enter_context(opened(self.where(store)))
            yield kept


def team_of(on: str, device: str, cpus: float | None = None, gpus: float | None = None) -> Team:
    """The workers that options ask for."""
    from ..lab.sweep import Processes, RayTeam

    place, _, address = on.partition(":")
    if place not in ("here", "ray") or (place == "here" and address):
        raise ConfigError(f"cannot work on {on[:80]!r}; try 'here', 'ray', or 'ray:ADDRESS'")
    if place == "ray":
        return RayTeam(address or "auto", 1.0 if cpus is None else cpus, gpus, device)
    if cpus is not None or gpus is not None:
        raise ConfigError(
            "--cpus-per-worker and --gpus-per-worker belong to --on ray; --workers says how many work here"
        )
    return Processes(device)


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Take SIGTERM, which Slurm, Kubernetes and systemd send, for Ctrl-C; once, lest it break off what it began."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def opened(store: str) -> Iterator[Store]:
    """A store, opened for reading."""
    from ..runs import Store

    kept = Store(store, read_only=True)
    try:
        yield kept
    finally:
        kept.close()


def progress_of(job: Job, store: Store) -> dict[str, Any]:
    """How far a sweep is."""
    from ..lab.sweep import planned, row_ids, speeds
    from ..runs import running

    rows = store.runs().frame.to_dicts()
    statuses = {row["id"]: row["status"] for row in rows}
    found = planned(job.configs, job.after, statuses)
    ids = {i for c in job.configs for branch in c.branches() for i in row_ids(c, branch, job.after)}
    ours = [row for row in rows if row["id"] in ids]
    ends = [row for row in ours if row["id"] in job.cells]
    works = {config.work_id() for config in job.configs}
    leases = [lease for lease in running(store) if lease.work in works]
    speed, left = speeds(job.configs, rows), [p for p in found if p.left]
    seconds = None
    if leases and all(p.config.scheme in speed for p in left):
        seconds = sum(p.left / speed[p.config.scheme] for p in left) / len(leases)
    return {
        "cells": len(job.cells),
        **{status: sum(row["status"] == status for row in ends) for status in ("ok", "diverged", "failed")},
        "left": sum(p.cells - p.done for p in found),
        "rows_last_hour": sum(_fresh(row) for row in ours),
        "seconds_left": seconds,
        "leases": [asdict(lease) for lease in leases],
        "failures": {row["id"]: row["reason"] for row in ours if row["status"] == "failed"},
    }


def _fresh(row: dict[str, Any]) -> bool:
    """Whether the work on a row ended within the last hour, by the clock of the machine it was made on."""
    if not row["started"]:
        return False
    ended = datetime.fromisoformat(row["started"]) + timedelta(seconds=row["seconds"] or 0.0)
    return datetime.now(UTC) - ended < timedelta(hours=1)


def picture(state: dict[str, Any]) -> Table:
    """A table of how far a sweep is."""
    from rich.markup import escape

    table = table_of("", "")
    for name in ("cells", "ok", "diverged", "failed", "left"):
        table.add_row(name, str(state[name]))
    table.add_row("rows in the last hour", str(state["rows_last_hour"]))
    if state["seconds_left"] is not None and state["left"]:
        table.add_row("time left", f"about {duration(state['seconds_left'])}")
    for lease in state["leases"]:
        again = f", attempt {lease['attempts']}" if lease["attempts"] > 1 else ""
        table.add_row(
            f"at {lease['work']}", escape(f"{lease['worker']}, lease for {lease['left']:.0f} s more{again}")
        )
    for id_, reason in state["failures"].items():
        table.add_row(f"failed {id_}", escape(reason))
    return table


def table_of(*names: str) -> Table:
    """An empty table; names that are words stand to the left, numbers to the right."""
    from rich.table import Table

    table = Table(box=None, show_header=any(names))
    for name in names:
        table.add_column(name, justify="left" if name in ("", "trunk", "scheme", "budgets") else "right")
    return table


def print_table(table: Table) -> None:
    """Print a table."""
    from rich.console import Console

    Console().print(table)


def duration(seconds: float) -> str:
    """A time as people say it."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"
