"""A random Hadamard rotation of the last dimension: it spreads outliers over many numbers and keeps inner products."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ...errors import ConfigError

LARGEST = 512  # side of a Hadamard matrix; longer rows are turned in blocks


def rotate(x: Tensor, back: bool = False) -> Tensor:
    """Turn each row by a fixed orthogonal matrix: random signs, then Hadamard blocks of a power of two.

    Raises:
        ConfigError: rows of an odd number of elements.

    >>> x = torch.randn(3, 48)
    >>> torch.allclose(rotate(rotate(x), back=True), x, atol=1e-6)
    True
    """
    turn = _rotation(x.shape[-1], x.dtype, x.device)
    split = x.unflatten(-1, (-1, turn.shape[-1]))
    turned = torch.einsum("...bk,bjk->...bj" if not back else "...bj,bjk->...bk", split, turn)
    return turned.flatten(-2)


@torch.compiler.assume_constant_result
def _rotation(width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A stack of orthogonal matrices (blocks, side, side)."""
    return _made(width, dtype, device)


@lru_cache(maxsize=32)
def _made(width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    side = min(width & -width, LARGEST)
    if side < 2:
        raise ConfigError(f"rows of {width} numbers cannot be rotated: a Hadamard matrix has an even side")
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < side:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    generator = torch.Generator().manual_seed(width)
    with torch.inference_mode(False):  # it is kept, and training may use it after
        signs = (
            torch.randint(0, 2, (width // side, 1, side), generator=generator, dtype=torch.float64) * 2 - 1
        )
        return (matrix * signs / side**0.5).to(device, dtype)
