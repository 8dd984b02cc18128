"""Workers that are actors of a Ray cluster.

Rows travel back to the engine, which alone writes to the store: so any store will do, nodes need no way to the
database and no password, and who may write is settled in one place. An actor that waits for room lets a
cluster that scales by itself grow. Whoever reaches a Ray cluster may run code on it, and here: use only your own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

from ...errors import ConfigError, LabError
from .team import Bench, Team, Worker, remove_others
from .workers import work

TIDY_SECONDS = 30.0  # for nodes to remove checkpoints; one that is slower keeps them until the next run

log = logging.getLogger("bitlaw.lab")


class RayTeam(Team):
    """Actors, each with a share of a node.

    Every node needs bitlaw, and the text under the same name. Checkpoints are kept in the engine's folder by its
    absolute path on each node: if the nodes share it, a trunk whose node is lost goes on where it was.

    Args:
        address: as `ray.init` takes it: `HOST:PORT`, `ray://HOST:PORT`, or `auto` for the cluster that RAY_ADDRESS
            names or that this machine belongs to.
        cpus: of each actor; shares as well.
        gpus: of each actor; shares as well. None means one if the device is `cuda`, or `auto` where there are GPUs.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: Ray is not installed, or device and GPUs contradict each other.
        LabError: there is no such cluster.
    """

    def __init__(
        self, address: str = "auto", cpus: float = 1.0, gpus: float | None = None, device: str = "auto"
    ) -> None:
        try:
            import ray
        except ImportError:
            raise ConfigError("workers on Ray need the package ray; pip install 'bitlaw[ray]'") from None
        if (device == "cpu" and gpus) or (device == "cuda" and gpus == 0):
            raise ConfigError(
                f"the device is {device!r}, with {gpus:g} GPUs for each worker; drop one of the two"
            )
        if not ray.is_initialized():
            try:
                ray.init(address, logging_level=logging.WARNING)
            except (ConnectionError, ValueError, RuntimeError) as error:
                said = " ".join(str(error).split())[-300:].rstrip(".")
                raise LabError(
                    f"cannot reach a Ray cluster at {address[:80]!r}: {said}; `ray start --head` begins one"
                ) from error
        self.ray = ray
        if gpus is None:
            there = any(node.get("GPU") for node in self._nodes())
            gpus = 1.0 if device == "cuda" or (device == "auto" and there) else 0.0
        self.needs = {"CPU": cpus, "GPU": gpus}
        self.device = "cuda" if gpus else "cpu"
        self.actor = ray.remote(max_concurrency=4, num_cpus=cpus, num_gpus=gpus)(Seat)

    def _nodes(self) -> list[dict[str, float]]:
        """What each living node has, in use or not."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def places(self) -> int:
        """As many actors as the cluster's nodes can hold, at least one; ask for more, and it may grow."""
        needs = {name: need for name, need in self.needs.items() if need}
        room = [
            min((int(node.get(r, 0.0) / n) for r, n in needs.items()), default=1) for node in self._nodes()
        ]
        return max(1, sum(room))

    def start(self, slot: int, bench: Bench) -> Actor:
        """See `Team`."""
        return Actor(slot, self.actor.remote(bench, self.device, os.getcwd()))

    def hear(self, workers: Iterable[Worker], seconds: float) -> Iterator[tuple[Worker, str, Any]]:
        """See `Team`."""
        said = {worker.said: worker for worker in workers if isinstance(worker, Actor)}
        if not self.ray.wait(list(said), timeout=seconds)[0]:
            return
        for answer in self.ray.wait(list(said), num_returns=len(said), timeout=0)[0]:
            worker = said[answer]
            try:
                messages = self.ray.get(answer)
            except self.ray.exceptions.RayError as error:
                cause = " ".join(str(error).split())
                yield worker, "lost" if "node has died" in cause else "gone", cause[:300]
                continue
            worker.said = worker.actor.hear.remote()
            for kind, content in messages:
                yield worker, kind, content

    def end(self, workers: Iterable[Worker]) -> None:
        """See `Team`."""
        for worker in workers:
            assert isinstance(worker, Actor)
            self.ray.kill(worker.actor)

    def tidy(self, folder: Path, wanted: Collection[str]) -> None:
        """See `Team`."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        remove_others(folder, wanted)  # here, however slow the nodes are
        remover = self.ray.remote(num_cpus=0)(remove_others)
        nodes = [node["NodeID"] for node in self.ray.nodes() if node["Alive"]]
        at = [NodeAffinitySchedulingStrategy(node, soft=True) for node in nodes]
        done = [remover.options(scheduling_strategy=node).remote(folder, wanted) for node in at]
        late = self.ray.wait(done, num_returns=len(done), timeout=TIDY_SECONDS)[1]
        if late:
            log.info(
                "%d nodes are slow to remove old checkpoints; what they leave, the next run removes",
                len(late),
            )


class Actor(Worker):
    """An actor, and what it will say next."""

    def __init__(self, slot: int, actor: Any) -> None:
        super().__init__(slot)
        self.actor = actor
        self.said = actor.hear.remote()
        self.there = False

    def tell(self, task: object) -> None:
        """See `Worker`."""
        self.actor.tell.remote(task)


class Seat:
    """What runs in an actor: a worker in a thread, and a line of two queues to it."""

    def __init__(self, bench: Bench, device: str, cwd: str) -> None:
        with suppress(OSError):  # names of texts count from where the engine was started, if that is here too
            os.chdir(cwd)
        self.tasks: Queue[Any] = Queue()
        self.words: Queue[tuple[str, Any]] = Queue()
        self.send, self.recv = self.words.put, self.tasks.get
        self.send(("begun", None))
        Thread(target=self._work, args=(bench, device), daemon=True).start()

    def _work(self, bench: Bench, device: str) -> None:
        work(self, bench, device)
        self.send(("gone", "it ended"))

    def poll(self) -> bool:
        """See `Line`."""
        return not self.tasks.empty()

    def tell(self, task: object) -> None:
        """Take a task."""
        self.tasks.put(task)

    def hear(self) -> list[tuple[str, Any]]:
        """All that was said since the last time; waits for something."""
        messages = [self.words.get()]
        with suppress(Empty):
            while True:
                messages.append(self.words.get_nowait())
        return messages
