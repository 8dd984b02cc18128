"""What a sweep still has to do, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch

from ..corpus import Corpus
from ..train import Branch, Interrupted, TrunkConfig, World, train_trunk
from .after import After
from .rows import copy_ids

#: A step of a tiny model costs about as much as this many FLOPs a token beyond its matrix products: fitted
#: by eye to steps of 12k to 100k parameters on one core. It only steers the estimate of the time left.
OVERHEAD_FLOPS = 3e5
MEASURED_SECONDS = 0.5  # of training, for a scheme that no row tells the speed of
PAIR = 2  # steps: the shortest run there is, and the first are slower than the rest


@dataclass(frozen=True)
class Planned:
    """A trunk of a sweep, and where it stands.

    Attributes:
        config: the trunk.
        cells: its ends.
        done: of these, those whose rows are stored, or that diverged or failed.
        flops: of all its training, trunk and branches.
        left: of the work that is still to be done, in the unit of `cost`.
    """

    config: TrunkConfig
    cells: int
    done: int
    flops: float
    left: float


def cost(config: TrunkConfig, tokens: int) -> float:
    """Work of training on some tokens, in FLOPs with the overhead of small models."""
    return tokens * (config.shape.flops_per_token(config.seq_len) + OVERHEAD_FLOPS)


def undone(config: TrunkConfig, after: After, statuses: Mapping[str, str]) -> list[Branch]:
    """The branches of a trunk that lack a row; what diverged or failed is not tried again, and has no copies."""

    def lacks(branch: Branch) -> bool:
        ends = config.end_ids(branch)
        if statuses.get(ends[0], "ok") != "ok":
            return False
        fine = [end for end in ends if statuses.get(end) == "ok"]
        copies = [copy for end in fine for copy in copy_ids(config, branch, after, end)]
        return any(id_ not in statuses for id_ in (*ends, *copies))

    return [branch for branch in config.branches() if lacks(branch)]


def tokens_of(config: TrunkConfig, branches: list[Branch]) -> int:
    """Tokens of the way to some branches, given in the order in which they leave the trunk."""
    if not branches:
        return 0
    steps = config.branch_step(branches[-1])
    steps += sum(config.steps(branch.tokens) - config.branch_step(branch) for branch in branches)
    return steps * config.batch_size * config.seq_len


def work_left(configs: Iterable[TrunkConfig], after: After, statuses: Mapping[str, str]) -> float:
    """Work of all cells that lack a row in the store; a cell that lacks any is trained again."""
    return sum(cost(config, tokens_of(config, undone(config, after, statuses))) for config in configs)


def planned(configs: Iterable[TrunkConfig], after: After, statuses: Mapping[str, str]) -> list[Planned]:
    """Where every trunk of a sweep stands."""
    found = []
    for config in configs:
        cells, missing = config.branches(), undone(config, after, statuses)
        flops = config.shape.flops_per_token(config.seq_len) * tokens_of(config, cells)
        left = cost(config, tokens_of(config, missing))
        found.append(Planned(config, len(cells), len(cells) - len(missing), flops, left))
    return found


def speeds(configs: Iterable[TrunkConfig], rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Work a second of each scheme, from the seconds in rows of finished trunks; evaluation is part of it."""
    seconds: dict[str, float] = {}
    for row in rows:
        if row["status"] == "ok" and row["parent"] is None and row["seconds"]:
            seconds[row["id"]] = row["seconds"]
    work: dict[str, tuple[float, float]] = {}
    for config in configs:
        ids = [config.cell_id(branch) for branch in config.branches()]
        if seconds.keys() >= set(ids):
            before = work.get(config.scheme, (0.0, 0.0))
            took = sum(seconds[id_] for id_ in ids)
            work[config.scheme] = (
                before[0] + cost(config, tokens_of(config, config.branches())),
                before[1] + took,
            )
    return {scheme: done / took for scheme, (done, took) in work.items() if took}


def measured_speed(config: TrunkConfig, corpus: Corpus) -> float:
    """Work a second of a trunk, by training its first steps for half a second as a worker would: a thread, or a GPU."""
    step = config.batch_size * config.seq_len
    began, tokens = 0.0, 0

    def on_tokens(new: int) -> None:
        nonlocal began, tokens
        if began:
            tokens += new
        else:  # the first step also sets everything up
            began = perf_counter()

    def enough() -> bool:
        return tokens >= PAIR * step and perf_counter() - began > MEASURED_SECONDS

    world = World(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        try:
            for _ in train_trunk(config, corpus, Path(folder), (), on_tokens, enough, world):
                break
        except Interrupted:
            pass
        finally:
            torch.set_num_threads(threads)
        return cost(config, tokens) / (perf_counter() - began)


class Tally:
    """Counts the work that `run_sweep` does and which rows are there, and tells both as they change.

    Args:
        total: all the work, in the unit of `work_left`.
        wanted: ids of rows that are waited for.
        there: ids of rows that are stored already.
        tell: given the work that is done, all of it, and how many of the wanted rows there are.
    """

    def __init__(
        self,
        total: float,
        wanted: Iterable[str],
        there: Iterable[str],
        tell: Callable[[float, float, int], None],
    ) -> None:
        self.total, self.wanted, self.tell, self.done = total, frozenset(wanted), tell, 0.0
        self.made = self.wanted.intersection(there)

    def work(self, work: float) -> None:
        """Take work that was done."""
        self.done += work
        self.tell(self.done, self.total, len(self.made))

    def rows(self, new: Iterable[Mapping[str, Any]]) -> None:
        """Take rows that were stored."""
        self.made |= self.wanted.intersection(row["id"] for row in new)
        self.work(0.0)
