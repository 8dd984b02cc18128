"""What a worker does: reads the text, then trains, quantises and evaluates the trunks it is told of.

It uses one thread, so that its numbers do not depend on how many cores there are.
"""

from __future__ import annotations

import shutil
import socket
import time
from contextlib import suppress
from typing import Any, Protocol

import torch

from ...errors import LabError
from ..corpus import read_corpus, spread_windows
from ..train import Interrupted, World, train_trunk
from .rows import FAILURES, blame, end_rows
from .team import Bench

REPORT_SECONDS = 0.2


class Line(Protocol):
    """A worker's end of its line to the engine; `Connection` is one. All raise an error when the engine is gone."""

    def send(self, message: tuple[str, Any], /) -> None:
        """Say something."""

    def recv(self) -> Any:
        """Wait for a task."""

    def poll(self) -> bool:
        """Whether one has come."""


def work(line: Line, bench: Bench, device: str) -> None:
    """Train the trunks that come through a line, until told to end.

    A task is a trunk's config and the branches whose rows are stored; None asks for an end. A worker says `ready`
    with the names of work that it sees checkpoints of; `work` with tokens trained on; `rows` of one end; `bad` with a
    branch, a reason and an average if an end cannot be scored; `done`; `failed` with the reason, after which it ends;
    `error` if something is wrong that is not one cell's fault.
    """
    torch.set_num_threads(1)
    heard, spoken = 0, time.monotonic()

    def on_tokens(tokens: int) -> None:
        nonlocal heard, spoken
        heard += tokens
        if time.monotonic() - spoken > REPORT_SECONDS:
            line.send(("work", heard))
            heard, spoken = 0, time.monotonic()

    def should_stop() -> bool:
        if not line.poll():
            return False
        line.recv()  # raises EOFError when the engine is gone
        return True

    try:
        corpus = read_corpus(bench.corpus, bench.tokenizer)
        line.send(("ready", [path.name for path in bench.folder.glob("*") if path.is_dir()]))
        finished = None
        while (task := line.recv()) is not None:
            if finished is not None:  # another task means that the rows of the one before are stored
                shutil.rmtree(finished, ignore_errors=True)
            config, done = task
            if config.corpus_sha256 != corpus.sha256:
                raise LabError(
                    f"the corpus as {socket.gethostname()} reads it is not the one that the sweep was planned with; "
                    "give every machine the same text, and run it again"
                )
            checkpoints = bench.folder / config.work_id()
            try:
                calibration = bench.after.look_at(corpus.calibration, config.seq_len)
                evaluation = spread_windows(corpus.evaluation, config.eval_tokens, config.seq_len)
                place = World(device=torch.device(device))
                for end in train_trunk(config, corpus, checkpoints, done, on_tokens, should_stop, place):
                    try:
                        rows = end_rows(config, end, corpus, calibration, evaluation, bench.after)
                        line.send(("rows", rows))
                    except FAILURES as error:
                        line.send(("bad", (end.branch, blame(error), end.average)))
            except FAILURES as error:
                line.send(("failed", blame(error)))
                return  # a GPU may be of no use to this process any more
            line.send(("work", heard))
            heard = 0
            line.send(("done", None))
            finished = checkpoints
    except (EOFError, BrokenPipeError, ConnectionResetError, Interrupted):
        return
    except Exception as error:  # whatever it is, the engine says it and stops; nothing is passed over
        with suppress(OSError):  # unless it is gone
            line.send(("error", f"{type(error).__name__}: {error}"))
