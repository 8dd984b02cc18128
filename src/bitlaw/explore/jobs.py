"""Work that takes longer than an answer may: done in the background, asked for again until it is there, and kept."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from queue import Queue
from typing import Any, Literal, TypeAlias

from ..errors import BitlawError, ConfigError

KEPT = 24  # results
WAITING = 8  # in one lane
FORGOTTEN_SECONDS = 90.0  # since anybody asked how a job is; browsers wake hidden pages once a minute

State: TypeAlias = Literal["waiting", "running", "done", "failed"]
Report: TypeAlias = Callable[[float, str], None]
Work: TypeAlias = Callable[[Report], Mapping[str, bytes]]

log = logging.getLogger("bitlaw.explore")


class GivenUp(Exception):
    """Nobody waits for it any more."""


@dataclass
class Job:
    """One piece of work.

    Attributes:
        key: by which it is asked for: the same for the same rows, law, options and conditions.
        work: what is done.
        state: where it stands.
        share, doing: how far it is, and at what.
        parts: what came of it, each ready to be sent.
        error: why there is none, in words.
        asked: when it was last asked for.
        seconds: it took.
    """

    key: str
    work: Work
    state: State = "waiting"
    share: float = 0.0
    doing: str = ""
    parts: Mapping[str, bytes] = field(default_factory=dict)
    error: str = ""
    asked: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def report(self, share: float, doing: str) -> None:
        """Say how far the work is; it ends here if nobody waits for it.

        Raises:
            GivenUp: so it is.
        """
        self.share, self.doing = share, doing
        if time.monotonic() - self.asked > FORGOTTEN_SECONDS:
            raise GivenUp

    def as_json(self) -> dict[str, Any]:
        """What is said of it."""
        facts = {"key": self.key, "state": self.state, "share": round(self.share, 3), "doing": self.doing}
        return {**facts, "error": self.error, "parts": sorted(self.parts), "seconds": round(self.seconds, 2)}


class Jobs:
    """The work of a server: a line for each kind of it, done one after the other.

    >>> jobs = Jobs(("fit",))
    >>> job = jobs.begin("fit", "a", lambda report: {"answer": b"42"})
    >>> while job.state != "done": time.sleep(0.001)
    >>> jobs.begin("fit", "a", lambda report: {}).parts
    {'answer': b'42'}
    """

    def __init__(self, lanes: tuple[str, ...]) -> None:
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lines: dict[str, Queue[Job]] = {name: Queue() for name in lanes}
        for name, line in self._lines.items():  # daemons: the end of the program does not wait for a fit
            threading.Thread(target=self._run, args=(line,), name=f"bitlaw-{name}", daemon=True).start()

    def begin(self, lane: str, key: str, work: Work) -> Job:
        """The job of a key, which is begun if there is none or it was given up.

        Raises:
            ConfigError: too much waits already.
        """
        with self._lock:
            job = self._jobs.get(key)
            if job is None:
                if self._lines[lane].qsize() >= WAITING:
                    raise ConfigError(f"{WAITING} {lane}s wait already; ask again when some are done")
                job = self._jobs[key] = Job(key, work)
                self._lines[lane].put(job)
            return self._seen(job)

    def find(self, key: str) -> Job | None:
        """The job of a key."""
        with self._lock:
            job = self._jobs.get(key)
            return job and self._seen(job)

    def _seen(self, job: Job) -> Job:
        job.asked = time.monotonic()
        self._jobs.move_to_end(job.key)
        ended = [k for k, j in self._jobs.items() if j.state in ("done", "failed")]
        for key in ended[: max(0, len(ended) - KEPT)]:
            del self._jobs[key]
        return job

    def _run(self, line: Queue[Job]) -> None:
        while True:
            job, began = line.get(), time.monotonic()
            state: State = "failed"
            try:
                job.report(0.0, "")
                job.state = "running"
                job.parts = job.work(job.report)
                state = "done"
            except GivenUp:
                with self._lock:
                    self._jobs.pop(job.key, None)
                job.error = "given up, for nobody waited for it; ask again"
            except BitlawError as error:
                job.error = str(error)
            except Exception as error:  # one question must not end the line for all that follow
                log.exception("a question of the explorer was not foreseen")
                job.error = f"this was not foreseen ({type(error).__name__}); the terminal says more"
            job.seconds, job.share = time.monotonic() - began, 1.0
            job.state = state
