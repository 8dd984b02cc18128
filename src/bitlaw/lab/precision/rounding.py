"""Numbers onto a grid whose scale has been taken out: to the nearest value, or by chance to one of the two around."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor

from ...formats import Float, Grid, Microscaled, Uniform

Round = Callable[[Tensor], Tensor]
_EXPONENT = {torch.float32: (torch.int32, 0x7F800000), torch.float64: (torch.int64, 0x7FF0000000000000)}


def round_values(y: Tensor, grid: Grid, chance: torch.Generator | None = None) -> Tensor:
    """Return y on a grid.

    Ties go to the even neighbour (of half-integers up, of a list of values down), and what lies beyond the grid to its
    ends.

    Args:
        y: float32 or float64.
        grid: where to; of a microscaled format, the grid of its elements.
        chance: if given, up or down at random, so that the mean of many roundings is y.

    >>> from bitlaw import parse_format
    >>> round_values(torch.tensor([0.3, 2.6, -9.0]), parse_format("e2m1"))
    tensor([ 0.5000,  3.0000, -6.0000])
    """
    whole: Round = torch.round if chance is None else partial(_by_chance, generator=chance)
    if isinstance(grid, Uniform):
        if grid.low % 1:  # half-integers lie in the middle between integers
            down = y.floor() if chance is None else whole(y - 0.5)
            return down.add_(0.5).clamp_(grid.low, grid.high)
        return whole(y).clamp_(grid.low, grid.high)
    if isinstance(grid, Float):
        step = power_of_two(y).clamp_min_(2.0**grid.least_exponent).mul_(2.0**-grid.mantissa)
        return whole(y / step).mul_(step).clamp_(-grid.peak, grid.peak)
    if isinstance(grid, Microscaled):
        return round_values(y / grid.unit, grid.element, chance).mul_(grid.unit)
    values, middles = _codebook(grid, y.dtype, y.device)
    y = y.contiguous()  # torch warns of a copy otherwise
    if chance is None:
        return values[torch.bucketize(y, middles)]
    above = torch.bucketize(y, values).clamp_(1, len(values) - 1)
    low, high = values[above - 1], values[above]
    share = ((y - low) / (high - low)).clamp_(0, 1)
    return torch.where(_draw(y, chance) < share, high, low)


def power_of_two(y: Tensor) -> Tensor:
    """The power of two at or below each magnitude; zero for zero and for subnormal numbers.

    >>> power_of_two(torch.tensor([0.3, -5.0, 0.0]))
    tensor([0.2500, 4.0000, 0.0000])
    """
    whole, mask = _EXPONENT[y.dtype]
    return (y.view(whole) & mask).view(y.dtype)


def _by_chance(v: Tensor, generator: torch.Generator) -> Tensor:
    low = v.floor()
    return low + (_draw(v, generator) >= 1 - (v - low))  # exact: v + draw would be rounded, and integers move


def _draw(like: Tensor, generator: torch.Generator) -> Tensor:
    # A compiled graph cannot hold a generator; what is compiled trains, and so draws from torch's own state.
    source = None if torch.compiler.is_compiling() else generator
    return torch.rand(like.shape, generator=source, device=like.device, dtype=like.dtype)


@torch.compiler.assume_constant_result
def _codebook(grid: Grid, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The values of a grid, and the middles between them."""
    return _listed(grid, dtype, device)


@lru_cache(maxsize=16)
def _listed(grid: Grid, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # they are kept, and training may use them after
        values = torch.tensor(grid.values(), dtype=dtype, device=device)
        return values, (values[1:] + values[:-1]) / 2
