"""GPTQ (Frantar et al. 2023, 2210.17323): round a weight column by column, and let the others make up for it.

Columns are rounded in the order in which their inputs matter, most first; the error of each, weighted by the inverse
of the inputs' second moments H = E[x x^T], is spread over those that are still to come:

    w_j <- w_j - (w_i - q_i) [H^-1]_ij / [H^-1]_ii
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ...errors import ConfigError, LabError
from ...formats import Microscaled, Recipe
from ..precision import quantize
from ..precision.rotation import rotate
from ..precision.scales import rounder, tensor_scale

DAMPING = 0.01  # of the mean diagonal of H, added to it
COLUMNS = 64  # rounded before the others are updated all at once
SHRINK = (
    1.0,
    0.95,
    0.9,
    0.85,
    0.8,
    0.7,
    0.6,
    0.5,
    0.4,
    0.3,
    0.2,
)  # of absmax ranges, tried for recipes of least error
AT_ONCE = 2**24  # numbers of trials that are made together
ATTEMPTS = 8  # at an inverse, each with ten times the damping


def gptq(
    weight: Tensor, moments: Tensor, recipe: Recipe, damping: float = DAMPING, order: bool = True
) -> Tensor:
    """Return a weight on a recipe's grid whose products with its inputs are as they were, as nearly as can be.

    Scales are absmax; for a recipe of least error each row, or the whole matrix if it has one scale, has that share of
    its absmax ranges with which it comes out best by its squared error on the inputs. (Scales of least error in the
    weights themselves cut off too much here: docs/log.md.) A row that comes out worse than rounding to nearest is
    rounded to nearest.

    Args:
        weight: (outputs, inputs).
        moments: E[x x^T] of the inputs (inputs, inputs).
        recipe: format, groups and scales.
        damping: added to the diagonal of H, as a share of its mean.
        order: whether columns are taken by falling E[x^2]; else as they stand.

    Raises:
        ConfigError: a recipe of square blocks.
        LabError: moments that are not finite, or have no inverse.
    """
    if recipe.granularity == "block":
        raise ConfigError("GPTQ rounds columns, which square blocks hold together; try 'group128'")
    if not torch.isfinite(moments).all():
        raise LabError(
            "the inputs' second moments are not finite; the model diverges on the calibration text"
        )
    if recipe.rotate:
        turned = rotate(rotate(moments).T.contiguous())
        plain = replace(recipe, rotate=False)
        return rotate(gptq(rotate(weight), turned, plain, damping, order), back=True)
    places = torch.argsort(moments.diagonal(), descending=True) if order else torch.arange(len(moments))
    spread = _inverse_root(moments.double()[places][:, places], damping)

    def errors(found: Tensor) -> Tensor:
        each = loss(weight, found, moments)
        return each.sum(-1, keepdim=True).expand_as(each) if recipe.granularity == "tensor" else each

    best = quantize(weight, recipe)
    least = errors(best)
    shrink = torch.tensor(
        SHRINK if recipe.scale == "mse" else SHRINK[:1], dtype=weight.dtype, device=weight.device
    )
    for shares in shrink.split(max(1, AT_ONCE // weight.numel())):
        ranges = weight * shares[:, None, None]
        for found in _rounded(weight.expand_as(ranges), _by_column(ranges, recipe), places, spread):
            error = errors(found)
            best = torch.where((error < least)[:, None], found, best)
            least = torch.minimum(error, least)
    return best


def _rounded(
    weight: Tensor, rounded: Callable[[int, Tensor], Tensor], places: Tensor, spread: Tensor
) -> Tensor:
    """Round column after column of weights (trials, outputs, inputs), and let those that are left make up for it."""
    w, order = weight.double()[..., places], places.tolist()
    q = torch.empty_like(w)
    for start in range(0, len(places), COLUMNS):
        end = min(start + COLUMNS, len(places))
        errors = torch.empty(*w.shape[:-1], end - start, dtype=w.dtype, device=w.device)
        for i in range(start, end):
            q[..., i] = rounded(order[i], w[..., i].to(weight.dtype)).double()
            errors[..., i - start] = (w[..., i] - q[..., i]) / spread[i, i]
            w[..., i:end] -= errors[..., i - start, None] * spread[i, i:end]
        w[..., end:] -= errors @ spread[start:end, end:]
    found = torch.empty_like(q)
    found[..., places] = q
    return found.to(weight.dtype)


def loss(weight: Tensor, rounded: Tensor, moments: Tensor) -> Tensor:
    """Mean squared error of each output (outputs,): E[((w - q) x)^2]."""
    error = (weight - rounded).double()
    return ((error @ moments.double()) * error).sum(-1)


def _inverse_root(h: Tensor, damping: float) -> Tensor:
    """The upper Cholesky factor of the inverse of damped moments."""
    eye = torch.eye(len(h), dtype=h.dtype, device=h.device)
    mean = h.diagonal().mean().clamp_min(torch.finfo(h.dtype).tiny)
    for attempt in range(ATTEMPTS):
        root, failed = torch.linalg.cholesky_ex(h + damping * 10**attempt * mean * eye)
        if not failed:
            inverse = torch.cholesky_inverse(root)
            upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
            if not failed:
                return upper
    raise LabError("the inputs' second moments have no inverse, whatever is added to their diagonal")


def _by_column(weight: Tensor, recipe: Recipe) -> Callable[[int, Tensor], Tensor]:
    """Return what rounds one column, given its place, by the absmax scales of weights (trials, outputs, inputs)."""
    recipe = replace(recipe, scale="absmax") if recipe.scale == "mse" else recipe
    fmt = recipe.format
    dims: tuple[int, ...] = (-1,)
    size, whole = recipe.size or weight.shape[-1], weight
    if isinstance(fmt, Microscaled):
        size, whole = fmt.block, tensor_scale(weight, fmt)
    elif recipe.granularity == "tensor":
        dims = (-2, -1)
    rounders = [rounder(part, dims, recipe, whole) for part in weight.split(size, dim=-1)]
    return lambda place, column: rounders[place // size](column[..., None])[..., 0]
