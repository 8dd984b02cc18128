"""A process that has imported everything, and forks children that are made to be killed: a start costs milliseconds.

Run as a script it is that process: it reads one job a line on standard input, answers with the child's process id, and
says how the child ended when it is asked with `wait`. A child is told nothing of the one before it but by files.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bitlaw import Store
from bitlaw.runs import Leases

CHECKPOINT_SECONDS = 0.02  # so that a good part of a child's life is spent saving


class Nursery:
    """That process, as a test sees it; one child at a time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.kills = 0

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.communicate(timeout=30)

    def live(self, job: dict[str, Any], seconds: float) -> int:
        """Let a child do a job, and kill it after a time if it is still at it; return its exit status, -9 if killed."""
        self.begin(job)
        return self.end(seconds)

    def begin(self, job: dict[str, Any]) -> None:
        self.child = int(self._ask(json.dumps(job)))

    def end(self, seconds: float) -> int:
        """Kill the child after a time, unless it has ended by then."""
        time.sleep(seconds)
        os.kill(
            self.child, signal.SIGKILL
        )  # it stays a zombie, and its number its own, until it is waited for
        status = self.wait()
        self.kills += status == -signal.SIGKILL
        return status

    def wait(self) -> int:
        """Wait for the child's end; return its exit status, -9 if it was killed."""
        return int(self._ask("wait"))

    def _ask(self, line: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(line, file=self.process.stdin, flush=True)
        return self.process.stdout.readline()


def digest(tensors: dict[str, Any]) -> str:
    data = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        data.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return data.hexdigest()


# ---- what children do


def train(job: dict[str, Any]) -> None:
    """Train a trunk with its branches; every end is a line in a file, with the digest of all tensors."""
    from test_train import TEXT, small

    from bitlaw.lab.train import checkpoint, loop

    folder, ends = Path(job["folder"]), Path(job["ends"])
    logging.basicConfig(filename=job["log"], format="%(message)s")
    loop.CHECKPOINT_SECONDS = job.get("every", CHECKPOINT_SECONDS)
    config = small(**{key: tuple(v) if isinstance(v, list) else v for key, v in job["config"].items()})
    written = [json.loads(line) for line in ends.read_text().splitlines()] if ends.exists() else []
    finish, load, states = loop.State.ends, checkpoint.load, []

    def note(state, end):
        states.append((end.branch, digest(state.tensors())))
        return finish(state, end)

    def say(place, run, at_most):
        found = load(place, run, at_most)
        logging.warning("%s begins at %d", place.name, found[0] if found else 0)
        return found

    loop.State.ends, checkpoint.load = note, say
    done = [branch for branch in config.branches() if branch.tokens in [tokens for tokens, _ in written]]
    for end in loop.train_trunk(config, TEXT, folder, done):
        if not end.average:
            branch, found = states.pop()
            with ends.open("a") as file:
                file.write(json.dumps([branch.tokens, found]) + "\n")


def write(job: dict[str, Any]) -> None:
    """Store rows, three a transaction, and say which are stored: one write of one line, which a kill cannot halve."""
    me, said = job["me"], os.open(job["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    store = Store(job["where"])
    leases = Leases(store)
    lease = leases.claim([me], me)
    assert lease is not None
    k = max((int(id_.split("-")[1]) for id_ in store.ids() if id_.startswith(f"{me}-")), default=-1) + 1
    while True:
        rows = [row(me, k, part) for part in range(3)]
        if k % 2:
            assert leases.add(lease, rows)
        else:
            store.add(rows)
        os.write(said, f"{k}\n".encode())
        store.add([{**row(me, k, 0), "loss": 99.0}])  # it is there already, and stays as it is
        k += 1


def row(me: str, k: int, part: int) -> dict[str, Any]:
    """A row that follows from its id."""
    loss = 1 + int(hashlib.sha256(f"{me}-{k}-{part}".encode()).hexdigest()[:8], 16) / 2**32
    return {"id": f"{me}-{k}-{part}", "params": 1.0 + k, "tokens": 1.0 + part, "loss": loss}


def warm() -> None:
    """Have everything imported and compiled that children need; not the threads of autograd and polars."""
    import psycopg  # noqa: F401
    import torch
    from test_train import SCHEMES, fresh, small

    torch.set_num_threads(1)
    for scheme in SCHEMES:
        state = fresh(small(scheme=scheme, averages="swa:50:5"))
        for parameter in state.named.values():
            parameter.grad = torch.zeros_like(parameter)
        torch.nn.utils.clip_grad_norm_(state.named.values(), 1.0)
        state.optimizer.step(0.01)
    with TemporaryDirectory() as folder:
        Leases(Store(f"{folder}/runs.sqlite")).claim(["warm"], "warm")


def main() -> None:
    """Read jobs and fork."""
    warm()
    child = 0
    for line in sys.stdin:
        if line == "wait\n":
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        child = os.fork()
        if child == 0:
            try:
                job = json.loads(line)
                {"train": train, "write": write}[job["do"]](job)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        print(child, flush=True)


if __name__ == "__main__":
    main()
