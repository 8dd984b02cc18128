"""What an engine asks of its workers, wherever they are.

Only the engine writes to the store. A worker is told tasks and says what becomes of them, through a line of its own:
one that is killed at any moment holds no lock, and its trunk is given to a fresh one, which goes on from the newest
checkpoint that it can see, or from the start; the rows are the same.
"""

from __future__ import annotations

import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runs import Lease
from ..train import TrunkConfig
from .after import After

PATIENCE_SECONDS = 60.0  # for workers to save their state when a sweep is stopped


@dataclass(frozen=True)
class Bench:
    """What all workers of a sweep work with.

    Attributes:
        corpus: the text, as `read_corpus` takes it.
        tokenizer: likewise.
        after: what is done to ends that are trained.
        folder: for checkpoints, on the machine of the worker; absolute.
    """

    corpus: str | None
    tokenizer: str
    after: After
    folder: Path


class Worker(ABC):
    """One that makes rows, as the engine knows it."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.config: TrunkConfig | None = None
        self.lease: Lease | None = None
        self.there = True  # it has a place; an actor may wait for one
        self.ready = False  # it has read the text and waits for tasks
        self.silent = 0.0  # seconds since its last word
        self.tokens = 0  # since it was given its task, or last gave a row
        self.begun: Collection[str] = ()  # work whose checkpoints it could see when it was ready
        self.leaving = False  # it has been told to end: what it still says counts no more

    @abstractmethod
    def tell(self, task: object) -> None:
        """Send a task, or None to end; that a worker is gone is found out when it is heard."""

    def leave(self) -> None:
        """Tell it to end, because its trunk is another's now."""
        self.leaving, self.lease, self.config = True, None, None
        self.tell(None)


class Team(ABC):
    """Workers of one kind: how they are started, heard and ended."""

    @abstractmethod
    def places(self) -> int:
        """How many workers there is room for."""

    @abstractmethod
    def start(self, slot: int, bench: Bench) -> Worker:
        """Start a worker in one of the places."""

    @abstractmethod
    def hear(self, workers: Iterable[Worker], seconds: float) -> Iterator[tuple[Worker, str, Any]]:
        """What workers have to say, as soon as any has, or nothing after some seconds.

        Yields:
            worker, kind of message and content, as `work` sends them. One that has ended is `gone`, or `lost` if its
            whole machine is, with how that happened as content.
        """

    @abstractmethod
    def end(self, workers: Iterable[Worker]) -> None:
        """Make an end of workers that are still there."""

    @abstractmethod
    def tidy(self, folder: Path, wanted: Collection[str]) -> None:
        """Remove checkpoints of all work but some, wherever workers have left them; see `remove_others`."""

    def dismiss(
        self,
        workers: Collection[Worker],
        keep: Callable[[Worker, list[dict[str, Any]]], None] = lambda worker, rows: None,
    ) -> None:
        """Ask all workers to save their state and end; rows they still send are kept; insist after a while."""
        for worker in workers:
            worker.tell(None)
        here = [worker for worker in workers if worker.ready]  # the others have nothing to save
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            while here and time.monotonic() < deadline:
                for worker, kind, content in self.hear(list(here), 1.0):
                    if kind in ("gone", "lost"):
                        here.remove(worker)
                    elif kind == "rows":
                        keep(worker, content)
        finally:  # Ctrl-C again: what a checkpoint holds is whole, the rest is given up
            self.end(workers)


def remove_others(folder: Path, wanted: Collection[str]) -> None:
    """Remove the checkpoints in a folder that are not wanted, and nothing else that may lie there."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if re.fullmatch("[0-9a-f]{16}", path.name) and path.name not in wanted:
            shutil.rmtree(path, ignore_errors=True)
