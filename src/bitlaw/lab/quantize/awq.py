"""AWQ (Lin et al. 2024, 2306.00978): stretch the columns whose inputs are large before rounding, and shrink them after.

    q = Q(w s) / s,   s = r^t with r_j = sqrt(E[x_j^2]),  t in [0, 1] of least E[((w - q) x)^2]

Columns that matter so fall on a finer part of the grid. The paper takes mean|x| for r; the root of the mean square,
which is known already, does the same work.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...formats import Recipe
from ..precision import quantize
from .gptq import loss

FAINT = 1e-4  # of the largest input: columns of smaller ones are not shrunk further
GRID = 20  # steps of t from 0, which is rounding to nearest, to 1


def awq(weight: Tensor, moments: Tensor, recipe: Recipe) -> Tensor:
    """Return a weight whose columns were stretched, rounded to a recipe's grid and shrunk again.

    Args:
        weight: (outputs, inputs).
        moments: E[x x^T] of the inputs (inputs, inputs).
        recipe: format, groups and scales.
    """
    size = moments.diagonal().sqrt().to(weight.dtype)
    best, least = quantize(weight, recipe), torch.tensor(torch.inf, dtype=torch.float64)
    if not size.any():
        return best
    size = size.clamp_min(FAINT * size.max())
    for step in range(GRID + 1):
        stretch = size ** (step / GRID)
        stretch = stretch / (stretch.max() * stretch.min()).sqrt()
        rounded = quantize(weight * stretch, recipe) / stretch
        error = loss(weight, rounded, moments).sum()
        if error < least:
            best, least = rounded, error
    return best
