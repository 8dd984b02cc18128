"""What makes a step faster and leaves its meaning: compiled graphs, the type of matrix products, batches in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from ..corpus import Corpus, batch
from ..precision.draws import own_state
from .config import TrunkConfig

Made = TypeVar("Made")


@cache
def compiled(function: Callable[..., Made]) -> Callable[..., Made]:
    """A function of a model that torch's compiler makes one graph of; models of one shape and scheme share it.

    The first call takes half a minute, or a few seconds where the compiler's own cache on disk has the graph.
    """
    torch._dynamo.config.recompile_limit = 64  # a trunk's branches may have schemes of their own
    # Else steps would go on, not compiled: other last bits.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(function, dynamic=False)


def generator(device: torch.device) -> torch.Generator:
    """What draws numbers on a device; `torch.manual_seed` seeds those of all kinds of devices, and a step feels it."""
    if device.type == "cuda":
        torch.cuda.init()
    return own_state(device)


def product_type(config: TrunkConfig, device: torch.device) -> torch.dtype:
    """The type of matrix products on a device.

    `auto` is bfloat16 where torch says that the device multiplies it in hardware, and float32 elsewhere: a processor
    without it is a hundred times slower at it.
    """
    if config.autocast != "auto":
        return torch.bfloat16 if config.autocast == "bfloat16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def batches(
    corpus: Corpus, config: TrunkConfig, first: int, last: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of the steps from `first` to before `last`.

    For a GPU a thread cuts the next batch and copies it from pinned memory while this one is trained on.
    """

    def fetch(step: int) -> tuple[Tensor, ...]:
        pair = batch(corpus, config.seed, step, config.batch_size, config.seq_len)
        return tuple(t.pin_memory().to(device, non_blocking=True) for t in pair) if ahead else pair

    ahead = device.type == "cuda"
    if not ahead or first >= last:
        yield from map(fetch, range(first, last))
        return
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(fetch, first)
        for step in range(first, last):
            pair = waiting.result()
            if step + 1 < last:
                waiting = pool.submit(fetch, step + 1)
            yield pair
