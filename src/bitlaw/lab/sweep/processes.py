"""Workers that are processes of this machine, with a pipe to the engine each; one whose engine is gone ends."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from ...errors import ConfigError
from .team import Bench, Team, Worker, remove_others
from .workers import work

#: Ctrl-C, and what Slurm, Kubernetes and systemd send: often to workers too, but it is the engine that stops them.
STOPS = (signal.SIGINT, signal.SIGTERM)


def device_named(name: str) -> str:
    """`cpu` or `cuda`, whichever is meant by that or by `auto`.

    Raises:
        ConfigError: a device that is not there.
    """
    gpu = torch.cuda.is_available()
    if name not in ("auto", "cpu", "cuda") or (name == "cuda" and not gpu):
        raise ConfigError(f"cannot use the device {name[:20]!r} here; try 'auto', or 'cpu'")
    return "cuda" if gpu and name != "cpu" else "cpu"


class Processes(Team):
    """One process a core, or one a GPU.

    Args:
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: a device that is not there.
    """

    def __init__(self, device: str = "auto") -> None:
        self.gpus = torch.cuda.device_count() if device_named(device) == "cuda" else 0

    def places(self) -> int:
        """GPUs, or cores this process may use."""
        if self.gpus:
            return self.gpus
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def start(self, slot: int, bench: Bench) -> Process:
        """Start a process, on the next GPU in turn."""
        return Process(slot, bench, f"cuda:{slot % self.gpus}" if self.gpus else "cpu")

    def hear(self, workers: Iterable[Worker], seconds: float) -> Iterator[tuple[Worker, str, Any]]:
        """See `Team`."""
        by_pipe = {worker.pipe: worker for worker in workers if isinstance(worker, Process)}
        for pipe in wait(list(by_pipe), timeout=seconds):
            assert isinstance(pipe, Connection)
            worker = by_pipe[pipe]
            try:
                kind, content = pipe.recv()
            except (EOFError, OSError):
                worker.process.join(timeout=5)
                kind, content = "gone", f"exit code {worker.process.exitcode}"
            yield worker, kind, content

    def end(self, workers: Iterable[Worker]) -> None:
        """See `Team`."""
        for worker in workers:
            assert isinstance(worker, Process)
            if worker.ready:  # it has been told, and is ending by itself as good as always
                worker.process.join(timeout=5)
            worker.process.kill()
            worker.process.join(timeout=5)

    def tidy(self, folder: Path, wanted: Collection[str]) -> None:
        """See `Team`."""
        remove_others(folder, wanted)


class Process(Worker):
    """A process and the engine's end of its pipe."""

    def __init__(self, slot: int, bench: Bench, device: str) -> None:
        super().__init__(slot)
        context = mp.get_context("spawn")  # a fork would copy open files and torch's threads
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_begin, args=(theirs, bench, device), daemon=True)
        with _sheltered():
            self.process.start()
        theirs.close()

    def tell(self, task: object) -> None:
        """See `Worker`."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(task)


@contextmanager
def _sheltered() -> Iterator[None]:
    """Start a process that is deaf to `STOPS` from birth, and does not import the caller's script again.

    A signal that comes meanwhile is heard afterwards.
    """
    main = sys.modules["__main__"]
    hidden = {name: main.__dict__.pop(name) for name in ("__spec__", "__file__") if name in main.__dict__}
    main.__spec__ = None
    masks = hasattr(signal, "pthread_sigmask")  # not on Windows
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS) if masks else ()
    try:
        yield
    finally:
        main.__dict__.update(hidden)
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(pipe: Connection, bench: Bench, device: str) -> None:
    """What the process does."""
    for stop in STOPS:
        signal.signal(stop, signal.SIG_IGN)
    work(pipe, bench, device)
