"""Workers that make rows: one process a core, one thread a process.

Only their parent, the engine, writes to the store. It talks to each worker through a pipe of its own, so that a
worker killed at any moment holds no lock; its trunk is given to a fresh worker, which goes on from the newest
checkpoint. A worker whose parent is gone finds its pipe closed at the next step, and ends.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from ...errors import BitlawError, LabError
from ...runs import Lease
from ..corpus import read_corpus, spread_windows
from ..train import Interrupted, TrunkConfig, World, train_trunk
from .after import After
from .rows import end_rows, failed_row

REPORT_SECONDS = 0.2
PATIENCE_SECONDS = 60.0  # for workers to save their state when a sweep is stopped
#: What may be one cell's fault; a disk that is full, or a text that is gone, is not.
FAILURES = (BitlawError, RuntimeError, ArithmeticError, ValueError, MemoryError)


def places(device: str) -> int:
    """GPUs, or cores this process may use."""
    if device == "cuda":
        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker:
    """A process and the parent's end of its pipe."""

    def __init__(
        self,
        slot: int,
        corpus_path: str | None,
        tokenizer: str,
        after: After,
        folder: Path,
        device: str,
    ) -> None:
        context = mp.get_context("spawn")  # a fork would copy open files and torch's threads
        self.slot = slot
        self.config: TrunkConfig | None = None
        self.lease: Lease | None = None
        self.ready = False  # it has read the text and waits for tasks
        self.leaving = False  # it has been told to end: what it still says counts no more
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=work,
            args=(theirs, corpus_path, tokenizer, after, folder, device),
            daemon=True,
        )
        with _sheltered():
            self.process.start()
        theirs.close()

    def tell(self, task: object) -> None:
        """Send a task, or None to end; a worker that is gone is found out when its pipe is read."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(task)

    def leave(self) -> None:
        """Tell it to end, because its trunk is another's now."""
        self.leaving, self.lease, self.config = True, None, None
        self.tell(None)


def dismiss(
    workers: list[Worker],
    keep: Callable[[Worker, list[dict[str, Any]]], None] = lambda worker, rows: None,
) -> None:
    """Ask all workers to save their state and end; rows they still send are kept; insist after a while."""
    for worker in workers:
        worker.tell(None)
    open_pipes = {worker.pipe: worker for worker in workers}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while open_pipes and time.monotonic() < deadline:
        for pipe in wait(list(open_pipes), timeout=1.0):
            assert isinstance(pipe, Connection)
            try:
                kind, content = pipe.recv()
            except (EOFError, OSError):
                del open_pipes[pipe]
                continue
            if kind == "rows":
                keep(open_pipes[pipe], content)
    for worker in workers:
        worker.process.join(timeout=5)
        if worker.process.is_alive():
            worker.process.kill()


@contextmanager
def _sheltered() -> Iterator[None]:
    """Start a process that ignores Ctrl-C from birth, and does not import the caller's script again."""
    main = sys.modules["__main__"]
    hidden = {name: main.__dict__.pop(name) for name in ("__spec__", "__file__") if name in main.__dict__}
    main.__spec__ = None
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main else None
    try:
        yield
    finally:
        main.__dict__.update(hidden)
        if in_main:
            signal.signal(signal.SIGINT, before)


def work(
    pipe: Connection,
    corpus_path: str | None,
    tokenizer: str,
    after: After,
    folder: Path,
    device: str,
) -> None:
    """Train the trunks that come through the pipe, until told to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C, and tells us
    torch.set_num_threads(1)
    heard, spoken = 0, time.monotonic()

    def on_tokens(tokens: int) -> None:
        nonlocal heard, spoken
        heard += tokens
        if time.monotonic() - spoken > REPORT_SECONDS:
            pipe.send(("work", heard))
            heard, spoken = 0, time.monotonic()

    def should_stop() -> bool:
        if not pipe.poll():
            return False
        pipe.recv()  # raises EOFError when the parent is gone
        return True

    try:
        corpus = read_corpus(corpus_path, tokenizer)
        pipe.send(("ready", None))
        while (task := pipe.recv()) is not None:
            config, done = task
            if config.corpus_sha256 != corpus.sha256:
                raise LabError("the corpus has changed since the sweep was planned; run it again")
            try:
                calibration = after.look_at(corpus.calibration, config.seq_len)
                evaluation = spread_windows(corpus.evaluation, config.eval_tokens, config.seq_len)
                place = World(device=torch.device(device))
                ends = train_trunk(
                    config, corpus, folder / config.work_id(), done, on_tokens, should_stop, place
                )
                for end in ends:
                    try:
                        rows = end_rows(config, end, corpus, calibration, evaluation, after)
                    except FAILURES as error:
                        rows = [failed_row(config, end.branch, blame(error))]
                    pipe.send(("rows", rows))
            except FAILURES as error:
                pipe.send(("failed", blame(error)))
                return  # a GPU may be of no use to this process any more
            pipe.send(("work", heard))
            heard = 0
            pipe.send(("done", None))
    except (EOFError, BrokenPipeError, ConnectionResetError, Interrupted):
        return
    except Exception as error:  # whatever it is, the engine says it and stops; nothing is passed over
        pipe.send(("error", f"{type(error).__name__}: {error}"))


def blame(error: Exception) -> str:
    """What went wrong with a cell, in words; what a disk is to blame for is raised again."""
    if isinstance(error.__cause__, OSError):
        raise error
    return f"{type(error).__name__}: {error}"
