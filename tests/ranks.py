"""What tests start under torchrun: trains a list of runs on all processes, and writes what came of them as JSON.

    torchrun --nproc-per-node 2 tests/ranks.py JOBS RESULTS

A job is `changes` of a config, `shard`, `folder`, `double` for float64, and `stops`: steps, counted from the start of
each attempt, after which one process, the last, asks for a stop.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from test_train import TEXT, config, of_model

from bitlaw.lab.train import Interrupted, joined, leave, train_trunk


def trained(job, world):
    """The ends of a run: scheme, average, loss and digest of each."""
    torch.set_default_dtype(torch.float64 if job.get("double") else torch.float32)
    cfg = config(**{name: frozen(value) for name, value in job["changes"].items()})
    stops, found, done = list(job.get("stops", ())), {}, []
    while True:
        left = stops.pop(0) if stops else -1

        def stop():
            nonlocal left
            left -= 1
            return left == 0 and world.rank == world.size - 1

        try:
            for end in train_trunk(cfg, TEXT, Path(job["folder"]), done, should_stop=stop, world=world):
                way = [end.branch.tokens, end.branch.scheme, end.average]
                found[json.dumps(way)] = [*way, loss_of(end.model), of_model(end.model)]
                if end.average == cfg.averages or cfg.averages == "none":
                    done.append(end.branch)
            assert not stops
            return list(found.values())
        except Interrupted:
            pass


def frozen(value):
    """Lists as tuples."""
    return tuple(map(frozen, value)) if isinstance(value, list) else value


@torch.no_grad()
def loss_of(model):
    """Of 63 windows of 64 tokens."""
    tokens = torch.from_numpy(TEXT.evaluation.tokens[: 63 * 64 + 1].astype(np.int64))
    return F.cross_entropy(model(tokens[:-1].view(63, 64)).flatten(0, 1).double(), tokens[1:]).item()


def main():
    """Do the jobs."""
    with joined("ddp", "cpu") as world:
        found = [
            trained(job, replace(world, shard=job["shard"]) if world.size > 1 else world)
            for job in json.loads(Path(sys.argv[1]).read_text())
        ]
    if world.first:
        Path(sys.argv[2]).write_text(json.dumps(found))
    leave()


if __name__ == "__main__":
    main()
