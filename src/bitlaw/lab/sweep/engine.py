"""The engine of a sweep: claims trunks, has them trained on this machine, stores their rows.

Any number of engines may work on one store, on one machine or many. Each claims trunks with a lease, and
renews it while its worker lives; a row is stored only under a lease that still holds. An engine that is
killed stops renewing, and another one, or itself when it is started again under its name, takes the trunk.
What goes wrong with one trunk becomes rows that say so, and the others go on.
"""

from __future__ import annotations

import logging
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from ...errors import LabError, StoreError
from ...runs import LEASE_SECONDS, Leases, Store
from ..train import Branch, TrunkConfig
from .after import After
from .plan import cost, undone
from .rows import failed_row
from .workers import Worker, device_named, dismiss, places

DEATHS = 3  # of workers on one trunk without a row between, before it counts as failed
NEWBORN = ""  # in the count of deaths: workers that had not begun
LOST_ENGINES = 10  # likewise, of whole engines
POLL_SECONDS = 2.0  # between looks for work that others gave back
SILENCE_SECONDS = 3600.0  # of a worker that has work: longer than any step or evaluation should take
GRACE_SECONDS = 10.0  # for the process of a worker to be gone once its pipe is

log = logging.getLogger("bitlaw.lab")


def run_sweep(
    configs: list[TrunkConfig],
    store: Store,
    folder: Path,
    *,
    corpus_path: str | None = None,
    after: After | None = None,
    workers: int | None = None,
    device: str = "auto",
    name: str | None = None,
    lease_seconds: float = LEASE_SECONDS,
    silence_seconds: float = SILENCE_SECONDS,
    on_work: Callable[[float], None] = lambda work: None,
    on_rows: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
) -> None:
    """Train every cell whose rows are not in the store, and store its rows as each branch ends.

    Returns when every cell has had its rows, those that other engines work on included.

    Args:
        configs: the trunks, in the order in which they are tried.
        store: where rows go.
        folder: where checkpoints go while trunks are under way; of this engine alone.
        corpus_path: the text, as `read_corpus` takes it.
        after: what is done to ends that are trained.
        workers: processes; None means one a core, or one a GPU.
        device: `auto`, `cpu` or `cuda`.
        name: of this engine in the store; one that was killed goes on at once under its old name.
        lease_seconds: after which the trunks of an engine that is gone are free.
        silence_seconds: after which a worker that has said nothing counts as stuck, and another takes its place.
        on_work: told of work done here, in the unit of `work_left`.
        on_rows: told of rows stored here, a cell at a time.

    Raises:
        ConfigError: a device that is not there.
        LabError: something failed that is not one cell's fault, like a full disk.
        StoreError: the store cannot be read or written.
        KeyboardInterrupt: passed on, after every worker has saved its state.
    """
    device = device_named(device)
    engine = _Engine(
        list(configs),
        store,
        folder,
        corpus_path,
        after or After(),
        device,
        name or f"{socket.gethostname()}-{secrets.token_hex(4)}",
        Leases(store, lease_seconds),
        silence_seconds,
        on_work,
        on_rows,
    )
    engine.run(workers or places(device))


@dataclass
class _Engine:
    """Who is at what, and what is left."""

    left: list[TrunkConfig]
    store: Store
    folder: Path
    corpus_path: str | None
    after: After
    device: str
    name: str
    leases: Leases
    patience: float
    on_work: Callable[[float], None]
    on_rows: Callable[[list[dict[str, Any]]], None]
    team: dict[Connection, Worker] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)
    furthest: dict[str, int] = field(default_factory=dict)  # tokens that any worker came to, by trunk
    looked: float = 0.0
    renewed: float = 0.0
    watched: float = field(default_factory=time.monotonic)

    def run(self, slots: int) -> None:
        """Work until nothing is left."""
        self.look()
        try:
            for slot in range(min(slots, len(self.left))):
                self.hire(slot)
            while self.left:
                self.renew()
                self.assign()
                for pipe in wait(list(self.team), timeout=POLL_SECONDS):
                    if isinstance(pipe, Connection) and pipe in self.team:
                        self.hear(self.team[pipe])
                self.watch()
        except StoreError:
            dismiss(list(self.team.values()))
            self.team.clear()
            raise
        finally:
            dismiss(list(self.team.values()), self.keep)
            for worker in self.team.values():
                if worker.lease is not None:
                    self.leases.release(worker.lease)
        self.look()

    def look(self) -> None:
        """See what is left, and remove the checkpoints of all else."""
        statuses = self.store.statuses()
        self.left = [config for config in self.left if undone(config, self.after, statuses)]
        wanted = {config.work_id() for config in self.left}
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if re.fullmatch("[0-9a-f]{16}", path.name) and path.name not in wanted:
                shutil.rmtree(path, ignore_errors=True)

    def hire(self, slot: int) -> None:
        """Start a worker."""
        cuda = self.device == "cuda"
        place = f"cuda:{slot % max(1, torch.cuda.device_count())}" if cuda else self.device
        worker = Worker(slot, self.corpus_path, self.left[0].tokenizer, self.after, self.folder, place)
        self.team[worker.pipe] = worker

    def assign(self) -> None:
        """Claim a trunk for every worker that has none; those with checkpoints here first."""
        for worker in [w for w in self.team.values() if w.ready and w.lease is None and not w.leaving]:
            held = {other.lease.work for other in self.team.values() if other.lease}
            free = {c.work_id(): c for c in self.left if c.work_id() not in held}
            if not free or time.monotonic() < self.looked + POLL_SECONDS:
                return
            begun = sorted(free, key=lambda work: not (self.folder / work).exists())
            lease = self.leases.claim(begun, self.name)
            if lease is None:  # others are at all there is
                self.looked = time.monotonic()
                self.look()
                return
            config = worker.config = free[lease.work]
            worker.lease, worker.tokens = lease, 0
            missing = undone(config, self.after, self.store.statuses())
            if lease.attempts > LOST_ENGINES:
                self.fail(worker, missing, f"{LOST_ENGINES} engines were lost while they were at it")
            elif missing:
                worker.tell((config, set(config.branches()) - set(missing)))
            else:
                self.finish(worker)

    def hear(self, worker: Worker) -> None:
        """Do what a worker's next message asks for."""
        try:
            kind, content = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.bury(worker)
            return
        worker.silent = 0.0
        if kind == "error" and not worker.leaving:
            raise LabError(f"a worker failed: {content}; finished rows are stored")
        if kind == "ready":
            worker.ready = True
            self.deaths.pop(NEWBORN, None)
        elif worker.config is None or worker.leaving:
            return
        elif kind == "work":
            self.on_work(cost(worker.config, content))
            self.advance(worker, content)
        elif kind == "rows":
            self.keep(worker, content)
        elif kind == "failed":
            self.fail(worker, undone(worker.config, self.after, self.store.statuses()), content)
            worker.leave()
        else:
            self.finish(worker)

    def advance(self, worker: Worker, tokens: int) -> None:
        """Note how far a worker is: if it comes further than those that died, their trunk was not to blame."""
        worker.tokens += tokens
        work = worker.config.work_id() if worker.config else NEWBORN
        if worker.tokens > self.furthest.get(work, 0):
            self.furthest[work] = worker.tokens
            self.deaths.pop(work, None)

    def keep(self, worker: Worker, rows: list[dict[str, Any]]) -> None:
        """Store rows, unless the lease was lost; then the work is someone else's."""
        if worker.lease is None:
            return
        if self.leases.add(worker.lease, rows):
            self.deaths.pop(worker.lease.work, None)
            self.furthest.pop(worker.lease.work, None)
            worker.tokens = 0
            self.on_rows(rows)
        else:
            worker.leave()

    def fail(self, worker: Worker, branches: list[Branch], reason: str) -> None:
        """Store that branches failed, and be done with their trunk."""
        config = worker.config
        assert config is not None
        averages = ("",) if config.averages == "none" else ("", config.averages)
        for branch in branches:
            self.keep(worker, [failed_row(config, branch, reason, average) for average in averages])
        self.finish(worker)

    def finish(self, worker: Worker) -> None:
        """Be done with a worker's trunk."""
        if worker.lease is not None:
            shutil.rmtree(self.folder / worker.lease.work, ignore_errors=True)
            self.left = [config for config in self.left if config.work_id() != worker.lease.work]
            self.leases.release(worker.lease)
        worker.lease = worker.config = None

    def bury(self, worker: Worker) -> None:
        """Put a fresh worker in the place of one that is gone; its trunk is claimed again."""
        worker.process.join(GRACE_SECONDS)
        worker.process.kill()
        del self.team[worker.pipe]
        stuck = worker.silent > self.patience
        how = f"no word for {self.patience:.0f} s" if stuck else f"exit code {worker.process.exitcode}"
        on = worker.lease.work if worker.lease is not None else NEWBORN
        if not (worker.ready and on == NEWBORN):
            self.deaths[on] = self.deaths.get(on, 0) + 1
        reason = f"{DEATHS} workers were lost on it (the last: {how}); is there enough memory?"
        if self.deaths.get(on, 0) >= DEATHS:
            if worker.config is None:
                raise LabError(
                    f"{DEATHS} workers were lost before they began (the last: {how}); is there enough memory? "
                    "Finished rows are stored"
                )
            self.fail(worker, undone(worker.config, self.after, self.store.statuses()), reason)
        if self.left:
            self.hire(worker.slot)

    def watch(self) -> None:
        """Put fresh workers in the place of those that are stuck, unless this process stood still too."""
        now = time.monotonic()
        passed, self.watched = min(now - self.watched, 2 * POLL_SECONDS), now
        for worker in list(self.team.values()):
            idle = worker.ready and worker.config is None and not worker.leaving
            worker.silent = 0.0 if idle else worker.silent + passed
            if worker.silent > self.patience:
                log.warning("a worker has said nothing for %.0f s; another takes its place", self.patience)
                worker.process.kill()
                self.bury(worker)

    def renew(self) -> None:
        """Renew all leases when a third of their time is over."""
        if time.monotonic() < self.renewed + self.leases.seconds / 3:
            return
        self.renewed = time.monotonic()
        for worker in self.team.values():
            if worker.lease is not None and not self.leases.renew(worker.lease):
                worker.leave()
