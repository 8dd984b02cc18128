"""One trunk of a sweep, here and now, on all processes that torchrun started; the first of them stores its rows.

It holds the trunk's lease as an engine does, so that the sweep's engines leave it alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from ...errors import LabError, StoreError
from ...runs import Leases, Store
from ..corpus import Corpus, spread_windows
from ..train import TrunkConfig, World, train_trunk
from .after import After
from .plan import cost, undone
from .rows import FAILURES, blame, end_rows, failed_rows


def train_large(
    config: TrunkConfig,
    store: Store | None,
    folder: Path,
    corpus: Corpus,
    after: After,
    world: World,
    name: str,
    on_work: Callable[[float], None] = lambda work: None,
    on_rows: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train the branches of a trunk whose rows are not stored, and store their rows as they end.

    Args:
        config: the trunk.
        store: where rows go; None in all processes but the first.
        folder: where its checkpoints go; one that all processes see. It is removed at the end.
        corpus: the text.
        after: what is done to ends that are trained.
        world: the processes that train it, each of which calls this.
        name: in the store, of who trains; one that was killed goes on at once under its old name.
        on_work: told of work done, in the unit of `work_left`.
        on_rows: told of rows stored, a cell at a time.
        should_stop: asked after every step.

    Raises:
        ConfigError: many processes would not train what one would.
        Interrupted: after `should_stop` said so, in any of the processes; state is saved.
        LabError: another engine is at this trunk, or took it; or the processes are not at the same.
        StoreError: the store cannot be read or written.
    """
    calibration = after.look_at(corpus.calibration, config.seq_len)
    evaluation = spread_windows(corpus.evaluation, config.eval_tokens, config.seq_len)
    branches = config.branches()
    ours = _Ours(config, store, name) if store is not None else None

    def on_tokens(tokens: int) -> None:
        if ours is not None:
            ours.check()
        on_work(cost(config, tokens))

    try:
        missing = undone(config, after, store.statuses()) if store is not None else []
        wanted = world.agree(*(branch in missing for branch in branches))
        done = [branch for branch, want in zip(branches, wanted, strict=True) if not want]
        for end in train_trunk(config, corpus, folder, done, on_tokens, should_stop, world):
            if ours is None:
                continue
            try:
                rows = end_rows(config, end, corpus, calibration, evaluation, after)
            except FAILURES as error:
                rows = failed_rows(config, end.branch, blame(error), end.average, after, ours.store.ids())
            ours.add(rows)
            on_rows(rows)
        if world.first:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        if ours is not None:
            ours.release()


class _Ours:
    """The lease of a trunk, which a thread renews, and rows under it."""

    def __init__(self, config: TrunkConfig, store: Store, name: str) -> None:
        self.store, self.leases = store, Leases(store)
        lease = self.leases.claim([config.work_id()], name)
        if lease is None:
            raise LabError(
                f"another process is at trunk {config.trunk_id()}; see bitlaw sweep status, and wait for it"
            )
        self.lease, self.lost, self.over = lease, False, Event()
        self.thread = Thread(target=self._renew, daemon=True)
        self.thread.start()

    def _renew(self) -> None:
        """Begin the lease's time again whenever a third of it is over, evaluations of an hour included."""
        while not self.over.wait(self.leases.seconds / 3):
            with suppress(StoreError):  # what is lost shows when rows are to be stored
                self.lost |= not self.leases.renew(self.lease)

    def check(self) -> None:
        """Stop if another process has the trunk."""
        if self.lost:
            raise LabError(f"another process took {self.lease.work} since; it is being trained there")

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Store rows."""
        self.lost |= not self.leases.add(self.lease, rows)
        self.check()

    def release(self) -> None:
        """Give the trunk back."""
        self.over.set()
        self.thread.join()
        self.leases.release(self.lease)
