"""One model on many processes, each with its part of every batch: torch's DDP, or FSDP2, put on from outside.

torchrun starts the processes. A step is that of one process but for the order of sums: batches, steps and rounding
are the same, gradients are averaged, their norm is that of the whole model. What would not be the same is refused.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import timedelta
from math import lcm
from typing import TYPE_CHECKING, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...errors import ConfigError, LabError
from ...formats import Microscaled, Recipe, Scheme
from ..model import Transformer

if TYPE_CHECKING:
    from .config import TrunkConfig

#: The others wait while the first process evaluates; that one of them died, torchrun sees at once.
PATIENCE = timedelta(days=1)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """The processes that train one model.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
        shard: `ddp`, each holds the whole model, or `fsdp`, each holds a part of every weight and of its optimiser.
        device: of this process.
    """

    rank: int = 0
    size: int = 1
    shard: Literal["ddp", "fsdp"] = "ddp"
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """Whether this is the process that reports, and writes to disk."""
        return self.rank == 0

    def spread(self, model: Transformer) -> nn.Module:
        """Spread a model over the processes, and return what is to be called in its place."""
        if self.size == 1:
            return model
        if self.shard == "ddp":
            # None is unused; but without this DDP puts gradients in another order after the first step, and three or
            # more processes then sum them in another, so that a run that is resumed would not be the same run.
            return nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
        from torch.distributed.fsdp import fully_shard

        mesh = dist.device_mesh.init_device_mesh(self.device.type, (self.size,))
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        return fully_shard(model, mesh=mesh)

    def parts(self, accumulate: int) -> int:
        """Parts of a batch that go through the model one by one, on all processes together."""
        return lcm(accumulate, self.size)

    def agree(self, *flags: bool) -> list[bool]:
        """Of each flag, whether it is up in any process."""
        return [bool(number) for number in self._largest(flags)]

    def same(self, number: int) -> bool:
        """Whether all processes have the same number."""
        high, low = self._largest((number, -number))
        return high == -low

    def _largest(self, numbers: Sequence[int]) -> list[int]:
        if self.size == 1:
            return list(numbers)
        told = torch.tensor(numbers, dtype=torch.int64, device=self.device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return told.tolist()


ALONE = World()


@contextmanager
def joined(shard: Literal["ddp", "fsdp"], device: str = "auto") -> Iterator[World]:
    """The processes that torchrun started this one with; this one alone, if it did not.

    Args:
        shard: as in `World`.
        device: `auto`, `cpu` or `cuda`; each process of a machine takes a GPU of its own.

    Raises:
        ConfigError: a device that is not there.
    """
    gpus = torch.cuda.device_count()
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    number = int(os.environ["LOCAL_RANK"]) if dist.is_torchelastic_launched() else 0
    if device not in ("cpu", "cuda") or (device == "cuda" and number >= gpus):
        raise ConfigError(
            f"cannot use the device {device[:20]!r} in process {number} of a machine with {gpus} GPUs; start one "
            "process a GPU, or try 'cpu'"
        )
    place = torch.device("cuda", number) if device == "cuda" else CPU
    if not dist.is_torchelastic_launched():
        yield World(device=place)
        return
    if device == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), shard, place)
        dist.barrier()  # none ends while the first still evaluates: torchrun would end that too if one failed
    finally:
        dist.destroy_process_group()


def leave() -> None:
    """End this process, done, without the interpreter's own end.

    gloo's threads outlive their process group (torch 2.13), and now and then abort the process in its last moment
    ("terminate called without an active exception"), which torchrun takes for a failure of the whole run.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def check(config: TrunkConfig, world: World) -> None:
    """See that many processes train what one would.

    Raises:
        ConfigError: they would not, and what to change.
        LabError: the processes are not at the same.
    """
    if world.size == 1:
        return
    parts = world.parts(config.accumulate)
    if config.batch_size % parts:
        raise ConfigError(
            f"batch_size: {config.batch_size} sequences are not {parts} equal parts, some for each of {world.size} "
            "processes; use a multiple"
        )
    if config.compile:
        raise ConfigError("compile: many processes train the model as it is; set it to false")
    if config.optimizer == "muon" and world.shard == "fsdp":
        raise ConfigError("optimizer: muon needs whole matrices, and fsdp cuts them; use ddp, or adamw")
    for name in dict.fromkeys([config.scheme, *(scheme for scheme, _ in config.late)]):
        scheme = Scheme.parse(name)
        recipes = {
            f.name: getattr(scheme, f.name) for f in fields(scheme) if getattr(scheme, f.name).quantized
        }
        for part, recipe in recipes.items():
            told = f"{part}: '{recipe}'"
            if recipe.stored:
                raise ConfigError(f"{told} has no float copy to share; many processes train unstored weights")
            if recipe.rounding == "stochastic":
                raise ConfigError(f"{told} draws other numbers in many processes than in one; use 'nearest'")
            if of_a_part(part, recipe) and config.accumulate % world.size:
                raise ConfigError(
                    f"{told} is for all numbers of a part of the batch, and each of {world.size} processes has its "
                    f"own part; set accumulate to {world.size}, which is the same run in one process, or use 'token'"
                )
    if not world.same(int(config.trunk_id(), 16) >> 1):
        raise LabError("the processes differ in text or settings; give all of them the same files")


def of_a_part(part: str, recipe: Recipe) -> bool:
    """Whether what is rounded to depends on the sequences that pass through the model together."""
    if part in ("w", "emb", "head") or not recipe.quantized:
        return False
    if part == "grad_w" or recipe.scale == "learned":  # sums over them: a gradient, or that of a step (LSQ)
        return True
    if isinstance(recipe.format, Microscaled):
        return recipe.format.scale != "e8m0"
    return recipe.granularity == "tensor"


def whole(tensor: Tensor) -> Tensor:
    """A tensor as one process has it; all processes must ask for it."""
    full = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def share(value: Tensor, like: Tensor) -> Tensor:
    """Of a whole tensor the part that this process has of another of its shape; of others all."""
    mesh = getattr(like, "device_mesh", None)
    if mesh is None or hasattr(value, "device_mesh") or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), mesh, like.placements, src_data_rank=None)
