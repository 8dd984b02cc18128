"""The engine of a sweep: claims trunks, has a team of workers train them, stores their rows.

Any number of engines may work on one store, on one machine or many. Each claims trunks with a lease, and
renews it while its worker lives; a row is stored only under a lease that still holds. An engine that is
killed stops renewing, and another one, or itself when it is started again under its name, takes the trunk.
What goes wrong with one trunk becomes rows that say so, and the others go on.
"""

from __future__ import annotations

import logging
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import LabError, StoreError
from ...runs import LEASE_SECONDS, Leases, Store
from ..train import Branch, TrunkConfig
from .after import After
from .plan import cost, undone
from .processes import Processes
from .rows import failed_rows
from .team import Bench, Team, Worker

DEATHS = 3  # of workers on one trunk without a row between, before it counts as failed
NEWBORN = ""  # in the count of deaths: workers that had not begun
LOST_ENGINES = LOST_MACHINES = 10  # likewise, of whole engines, and of machines with their workers
POLL_SECONDS = 2.0  # between looks for work that others gave back
SILENCE_SECONDS = 3600.0  # of a worker that has work: longer than any step or evaluation should take

log = logging.getLogger("bitlaw.lab")


def run_sweep(
    configs: list[TrunkConfig],
    store: Store,
    folder: Path,
    *,
    corpus_path: str | None = None,
    after: After | None = None,
    workers: int | None = None,
    team: Team | None = None,
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
        workers: how many; None means as many as the team has room for.
        team: where workers are; None means processes of this machine.
        name: of this engine in the store; one that was killed goes on at once under its old name.
        lease_seconds: after which the trunks of an engine that is gone are free.
        silence_seconds: after which a worker that has said nothing counts as stuck, and another takes its place.
        on_work: told of work done here, in the unit of `work_left`.
        on_rows: told of rows of an end that is stored here, with those that were there before.

    Raises:
        LabError: something failed that is not one cell's fault, like a full disk.
        StoreError: the store cannot be read or written.
        KeyboardInterrupt: passed on, after every worker has saved its state.
    """
    if not configs:
        return
    team = team or Processes()
    engine = _Engine(
        list(configs),
        store,
        team,
        Bench(corpus_path, configs[0].tokenizer, after or After(), folder.absolute()),
        name or f"{socket.gethostname()}-{secrets.token_hex(4)}",
        Leases(store, lease_seconds),
        silence_seconds,
        on_work,
        on_rows,
    )
    engine.run(workers or team.places())


@dataclass
class _Engine:
    """Who is at what, and what is left."""

    left: list[TrunkConfig]
    store: Store
    team: Team
    bench: Bench
    name: str
    leases: Leases
    patience: float
    on_work: Callable[[float], None]
    on_rows: Callable[[list[dict[str, Any]]], None]
    workers: list[Worker] = field(default_factory=list)
    deaths: dict[str, int] = field(default_factory=dict)  # by trunk; DEATHS x LOST_MACHINES are too many
    claims: dict[str, int] = field(default_factory=dict)  # made here since the last row, by trunk
    furthest: dict[str, int] = field(default_factory=dict)  # tokens that any worker came to, by trunk
    looked: float = 0.0
    renewed: float = 0.0
    watched: float = field(default_factory=time.monotonic)

    def run(self, slots: int) -> None:
        """Work until nothing is left."""
        self.look()  # checkpoints of other work stay until this is done: the configuration may be as it was tomorrow
        try:
            for slot in range(min(slots, len(self.left))):
                self.hire(slot)
            while self.left:
                self.renew()
                self.assign()
                for worker, kind, content in self.team.hear(self.workers, POLL_SECONDS):
                    self.hear(worker, kind, content)
                self.watch()
        except StoreError:
            self.team.dismiss(self.workers)
            self.workers.clear()
            raise
        finally:
            self.team.dismiss(self.workers, self.keep)
            for worker in self.workers:
                if worker.lease is not None:
                    self.leases.release(worker.lease)
        self.look()
        self.tidy()

    def look(self) -> None:
        """See what is left."""
        statuses = self.store.statuses()
        self.left = [config for config in self.left if undone(config, self.bench.after, statuses)]

    def tidy(self) -> None:
        """Remove the checkpoints of all that is not left."""
        self.team.tidy(self.bench.folder, {config.work_id() for config in self.left})

    def hire(self, slot: int) -> None:
        """Start a worker."""
        self.workers.append(self.team.start(slot, self.bench))

    def assign(self) -> None:
        """Claim a trunk for every worker that has none; those that it has checkpoints of first."""
        for worker in [w for w in self.workers if w.ready and w.lease is None and not w.leaving]:
            held = {other.lease.work for other in self.workers if other.lease}
            free = {c.work_id(): c for c in self.left if c.work_id() not in held}
            if not free or time.monotonic() < self.looked + POLL_SECONDS:
                return
            begun = [work for work in free if work in worker.begun]
            lease = self.leases.claim(dict.fromkeys([*begun, *free]), self.name)
            if lease is None:  # others are at all there is
                self.looked = time.monotonic()
                self.look()
                return
            config = worker.config = free[lease.work]
            worker.lease, worker.tokens = lease, 0
            self.claims[lease.work] = self.claims.get(lease.work, 0) + 1
            missing = undone(config, self.bench.after, self.store.statuses())
            if lease.attempts - self.claims[lease.work] >= LOST_ENGINES:
                self.fail(worker, missing, f"{LOST_ENGINES} engines were lost while they were at it")
            elif missing:
                worker.tell((config, set(config.branches()) - set(missing)))
            else:
                self.finish(worker)

    def hear(self, worker: Worker, kind: str, content: Any) -> None:
        """Do what a worker's message asks for."""
        worker.silent, worker.there = 0.0, True
        if kind in ("gone", "lost"):
            self.bury(worker, content, blame=kind == "gone")
        elif kind == "error" and not worker.leaving:
            raise LabError(f"a worker failed: {content}; finished rows are stored")
        elif kind == "ready":
            worker.ready, worker.begun = True, content
            self.deaths.pop(NEWBORN, None)
        elif worker.config is None or worker.leaving:
            return
        elif kind == "work":
            self.on_work(cost(worker.config, content))
            self.advance(worker, content)
        elif kind == "rows":
            self.keep(worker, content)
        elif kind == "bad":
            branch, reason, average = content
            self.keep(worker, self.failed(worker.config, branch, reason, average))
        elif kind == "failed":
            self.fail(worker, undone(worker.config, self.bench.after, self.store.statuses()), content)
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
            self.claims[worker.lease.work] = 1
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
            for average in averages:
                self.keep(worker, self.failed(config, branch, reason, average))
        self.finish(worker)

    def failed(self, config: TrunkConfig, branch: Branch, reason: str, average: str) -> list[dict[str, Any]]:
        """Rows of what an end lacks, to say why."""
        return failed_rows(config, branch, reason, average, self.bench.after, self.store.ids())

    def finish(self, worker: Worker) -> None:
        """Be done with a worker's trunk."""
        if worker.lease is not None:
            self.left = [config for config in self.left if config.work_id() != worker.lease.work]
            self.claims.pop(worker.lease.work, None)
            self.leases.release(worker.lease)
        worker.lease = worker.config = None

    def bury(self, worker: Worker, how: str, blame: bool) -> None:
        """Put a fresh worker in the place of one that is gone; its trunk, if not to blame, is claimed again."""
        self.team.end([worker])
        self.workers.remove(worker)
        on = worker.lease.work if worker.lease is not None else NEWBORN
        if on != NEWBORN or (blame and not worker.ready):
            self.deaths[on] = self.deaths.get(on, 0) + (LOST_MACHINES if blame else DEATHS)
        if self.deaths.get(on, 0) >= DEATHS * LOST_MACHINES:
            if worker.config is None:
                raise LabError(
                    f"{DEATHS} workers were lost before they began (the last: {how}); is there enough memory? "
                    "Finished rows are stored"
                )
            lost = f"{DEATHS} workers" if blame else f"{LOST_MACHINES} machines"
            reason = f"{lost} were lost on it (the last: {how}); is there enough memory?"
            self.fail(worker, undone(worker.config, self.bench.after, self.store.statuses()), reason)
        if self.left:
            self.hire(worker.slot)

    def watch(self) -> None:
        """Put fresh workers in the place of those that are stuck, unless this process stood still too."""
        now = time.monotonic()
        passed, self.watched = min(now - self.watched, 2 * POLL_SECONDS), now
        for worker in list(self.workers):
            idle = worker.ready and worker.config is None and not worker.leaving
            worker.silent = 0.0 if idle or not worker.there else worker.silent + passed
            if worker.silent > self.patience:
                log.warning("a worker has said nothing for %.0f s; another takes its place", self.patience)
                self.bury(worker, f"no word for {self.patience:.0f} s", blame=True)

    def renew(self) -> None:
        """Renew all leases when a third of their time is over."""
        if time.monotonic() < self.renewed + self.leases.seconds / 3:
            return
        self.renewed = time.monotonic()
        for worker in self.workers:
            if worker.lease is not None and not self.leases.renew(worker.lease):
                worker.leave()
