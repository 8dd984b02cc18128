"""What torch draws by itself: from whose state, and from which seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw what torch draws by itself from a seed, for as long as this lasts; no other GPU is touched."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for drawn in {torch.default_generator, own_state(device)}:
            drawn.manual_seed(seed)
        yield


def own_state(device: torch.device) -> torch.Generator:
    """What torch itself draws from on a device."""
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    return torch.default_generator
