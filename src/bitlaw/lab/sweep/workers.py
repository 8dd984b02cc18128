"""Workers that make rows: one process a core, one thread a process.

The parent alone writes to the store. It talks to each worker through a pipe of its own, so that a worker
killed at any moment holds no lock; its trunk is given to a fresh worker, which goes on from the newest
checkpoint. A worker whose parent is gone finds its pipe closed at the next step, and ends.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import shutil
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
from ...runs import Store
from ..corpus import read_corpus, spread_windows
from ..train import Branch, Interrupted, TrunkConfig, train_trunk
from .after import After
from .rows import end_rows, row_ids

DEATHS = 3  # of workers on one trunk before the sweep gives up
REPORT_SECONDS = 0.2
PATIENCE_SECONDS = 60.0  # for workers to save their state when a sweep is stopped

#: A step of a tiny model costs about as much as this many FLOPs a token beyond its matrix products: fitted
#: by eye to steps of 12k to 100k parameters on one core. It only steers the estimate of the time left.
OVERHEAD_FLOPS = 3e5


def cost(config: TrunkConfig, tokens: int) -> float:
    """Work of training on some tokens, in FLOPs with the overhead of small models."""
    return tokens * (config.shape.flops_per_token(config.seq_len) + OVERHEAD_FLOPS)


def _undone(config: TrunkConfig, after: After, ids: set[str]) -> list[Branch]:
    return [branch for branch in config.branches() if not ids.issuperset(row_ids(config, branch, after))]


def work_left(configs: list[TrunkConfig], after: After, ids: set[str]) -> float:
    """Work of all cells that lack a row in the store; a cell that lacks any is trained again."""
    total = 0.0
    for config in configs:
        undone = _undone(config, after, ids)
        if undone:
            steps = config.branch_step(undone[-1])
            steps += sum(config.steps(branch.tokens) - config.branch_step(branch) for branch in undone)
            total += cost(config, steps * config.batch_size * config.seq_len)
    return total


def run_sweep(
    configs: list[TrunkConfig],
    store: Store,
    folder: Path,
    *,
    corpus_path: str | None = None,
    after: After | None = None,
    workers: int | None = None,
    device: str = "auto",
    on_work: Callable[[float], None] = lambda work: None,
    on_rows: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
) -> None:
    """Train every cell whose rows are not in the store, and store its rows as each branch ends.

    Args:
        configs: the trunks.
        store: where rows go.
        folder: where checkpoints go while trunks are under way.
        corpus_path: the text, as `read_corpus` takes it.
        after: what is done to ends that are trained.
        workers: processes; None means one a core, or one a GPU.
        device: `auto`, `cpu` or `cuda`.
        on_work: told of work done, in the unit of `work_left`.
        on_rows: told of rows stored.

    Raises:
        LabError: a worker failed, or died three times on one trunk.
        KeyboardInterrupt: passed on, after every worker has saved its state.
    """
    after = after or After()
    ids = store.ids()
    waiting = [config for config in configs if _undone(config, after, ids)]
    _tidy(folder, {config.work_id() for config in waiting})
    if not waiting:
        return
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    slots = min(workers or _places(device), len(waiting))
    waiting.reverse()  # so that pop() takes the dearest
    team: dict[Connection, _Worker] = {}
    deaths: dict[str, int] = {}

    def hire(slot: int) -> None:
        place = f"cuda:{slot % max(1, torch.cuda.device_count())}" if device == "cuda" else device
        worker = _Worker(slot, corpus_path, after, folder, place)
        team[worker.pipe] = worker
        assign(worker)

    def assign(worker: _Worker) -> None:
        worker.config = waiting.pop() if waiting else None
        if worker.config is None:
            worker.tell(None)
        else:
            config = worker.config
            done = set(config.branches()) - set(_undone(config, after, ids))
            worker.tell((config, done))

    def keep(rows: list[dict[str, Any]]) -> None:
        store.add(rows)
        ids.update(row["id"] for row in rows)
        on_rows(rows)

    try:
        for slot in range(slots):
            hire(slot)
        while team:
            for pipe in wait(list(team)):
                assert isinstance(pipe, Connection)
                worker = team[pipe]
                try:
                    kind, content = pipe.recv()
                except (EOFError, ConnectionResetError):
                    worker.process.join()
                    del team[pipe]
                    if worker.config is not None:
                        trunk = worker.config.work_id()
                        deaths[trunk] = deaths.get(trunk, 0) + 1
                        if deaths[trunk] == DEATHS:
                            raise LabError(
                                f"a worker died {DEATHS} times on trunk {trunk} (exit code "
                                f"{worker.process.exitcode}); is there enough memory? Finished rows are stored"
                            ) from None
                        waiting.append(worker.config)
                        hire(worker.slot)
                    continue
                if kind == "work":
                    on_work(cost(worker.config, content) if worker.config else 0.0)
                elif kind == "rows":
                    keep(content)
                elif kind == "done":
                    assert worker.config is not None
                    shutil.rmtree(folder / worker.config.work_id(), ignore_errors=True)
                    assign(worker)
                else:
                    raise LabError(f"a worker failed: {content}; finished rows are stored")
    finally:
        _dismiss(list(team.values()), keep)


def _places(device: str) -> int:
    """GPUs, or cores this process may use."""
    if device == "cuda":
        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Worker:
    """A process and the parent's end of its pipe."""

    def __init__(
        self,
        slot: int,
        corpus_path: str | None,
        after: After,
        folder: Path,
        device: str,
    ) -> None:
        context = mp.get_context("spawn")  # a fork would copy open files and torch's threads
        self.slot = slot
        self.config: TrunkConfig | None = None
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_work,
            args=(theirs, corpus_path, after, folder, device),
            daemon=True,
        )
        with _sheltered():
            self.process.start()
        theirs.close()

    def tell(self, task: object) -> None:
        """Send a task, or None to end; a worker that is gone is found out when its pipe is read."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(task)


def _dismiss(workers: list[_Worker], keep: Callable[[list[dict[str, Any]]], None]) -> None:
    """Ask all workers to save their state and end; rows they still send are kept; insist after a while."""
    for worker in workers:
        worker.tell(None)
    open_pipes = [worker.pipe for worker in workers]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while open_pipes and time.monotonic() < deadline:
        for pipe in wait(open_pipes, timeout=1.0):
            assert isinstance(pipe, Connection)
            try:
                kind, content = pipe.recv()
            except (EOFError, OSError):
                open_pipes.remove(pipe)
                continue
            if kind == "rows":
                keep(content)
    for worker in workers:
        worker.process.join(timeout=5)
        if worker.process.is_alive():
            worker.process.kill()


def _tidy(folder: Path, wanted: set[str]) -> None:
    """Remove checkpoints of trunks whose rows are all stored."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and path.name not in wanted:
            shutil.rmtree(path, ignore_errors=True)


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


def _work(
    pipe: Connection,
    corpus_path: str | None,
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
        while (task := pipe.recv()) is not None:
            config, done = task
            corpus = read_corpus(corpus_path, config.tokenizer)
            if config.corpus_sha256 != corpus.sha256:
                raise LabError("the corpus has changed since the sweep was planned; run it again")
            calibration = after.look_at(corpus.calibration, config.seq_len)
            evaluation = spread_windows(corpus.evaluation, config.eval_tokens, config.seq_len)
            place = torch.device(device)
            ends = train_trunk(config, corpus, folder / config.work_id(), done, on_tokens, should_stop, place)
            for end in ends:
                pipe.send(("rows", end_rows(config, end, corpus, calibration, evaluation, after)))
            pipe.send(("work", heard))
            heard = 0
            pipe.send(("done", None))
    except (EOFError, BrokenPipeError, ConnectionResetError, Interrupted):
        return
    except (BitlawError, RuntimeError, OSError, ArithmeticError) as error:
        pipe.send(("error", f"{type(error).__name__}: {error}"))
