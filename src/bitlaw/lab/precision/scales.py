"""Which numbers share a scale, and what it is.

A scale here is what numbers are multiplied by to lie on the grid, as in the paper: q = round(x * scale) / scale.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError
from ...formats import Codebook, Float, Microscaled, Native, Recipe, Uniform
from ...formats.gaussian import gaussian_scale
from .rounding import power_of_two, round_values

#: Of the absmax range: where the scale of least error is looked for. Tails as heavy as Student's t want a tenth.
SHRINK = torch.cat([torch.linspace(1.0, 0.2, 81), torch.logspace(-0.75, -2.4, 34)])
E8M0 = 2.0**-127, 2.0**127


def grouped(x: Tensor, recipe: Recipe) -> tuple[Tensor, tuple[int, ...], Callable[[Tensor], Tensor]]:
    """Return a view whose groups lie along whole dimensions, these dimensions, and the way back.

    Rows and columns that do not fill their last group are padded with zeros, which move no scale that is a maximum (but
    those of least error on a grid without zero, a little).

    Raises:
        ConfigError: they do not, and the scale is a mean.
    """
    fmt, size = recipe.format, recipe.size
    sides = x.shape[-2:] if recipe.granularity == "block" else x.shape[-1:]
    if size and recipe.scale in ("absmean", "gaussian") and any(side % size for side in sides):
        shape = " x ".join(map(str, sides))
        raise ConfigError(f"'{recipe}' does not divide {shape} numbers into whole groups; try 'absmax'")
    if isinstance(fmt, Microscaled) or recipe.granularity == "group":
        size = fmt.block if isinstance(fmt, Microscaled) else size
        assert size is not None
        width = x.shape[-1]
        padded = F.pad(x, (0, -width % size)) if width % size else x
        return padded.unflatten(-1, (-1, size)), (-1,), lambda y: y.flatten(-2)[..., :width]
    if recipe.granularity == "block":
        assert size is not None
        rows, width = x.shape[-2:]
        padded = F.pad(x, (0, -width % size, 0, -rows % size))
        split = padded.unflatten(-1, (-1, size)).unflatten(-3, (-1, size))
        return split, (-3, -1), lambda y: y.flatten(-2).flatten(-3, -2)[..., :rows, :width]
    if recipe.granularity == "tensor":
        return x, tuple(range(x.ndim)), lambda y: y
    return x, (-1,), lambda y: y


def absmax(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The largest magnitude of each group."""
    if len(dims) == x.ndim:
        low, high = torch.aminmax(x)  # much cheaper than abs().max() on a CPU
        return torch.maximum(-low, high)
    return x.abs().amax(dims, keepdim=True)


def scale_of(x: Tensor, dims: tuple[int, ...], recipe: Recipe) -> Tensor:
    """The scale of each group of a symmetric grid; a group of zeros stays zero."""
    fmt = recipe.format
    assert isinstance(fmt, (Uniform, Float, Codebook))
    if recipe.scale == "absmean":
        peak = x.abs().mean(dims, keepdim=True)
    elif recipe.scale == "gaussian":
        peak = x.square().mean(dims, keepdim=True).sqrt_() * (gaussian_scale(fmt) * fmt.peak)
    else:
        peak = absmax(x, dims)
    top = peak.new_tensor(fmt.peak)  # a Python number here would be multiplied by a rounded reciprocal
    scale = top / peak.clamp_min(torch.finfo(x.dtype).tiny * max(1.0, fmt.peak))
    if recipe.scale != "mse":
        return scale
    best, least = scale, torch.full_like(scale, torch.inf)
    for shrink in SHRINK.tolist():
        trial = scale / shrink
        error = (round_values(x * trial, fmt).div_(trial) - x).square_().sum(dims, keepdim=True)
        best = torch.where(error < least, trial, best)
        least = torch.minimum(error, least)
    return best


def range_of(x: Tensor, dims: tuple[int, ...], recipe: Recipe) -> tuple[Tensor, Tensor]:
    """The step and the zero point of each group of a grid that has one; zero is always a value."""
    fmt = recipe.format
    assert isinstance(fmt, Uniform)
    low = x.amin(dims, keepdim=True).clamp_max_(0)
    high = x.amax(dims, keepdim=True).clamp_min_(0)
    step = ((high - low) / fmt.high).clamp_min_(torch.finfo(x.dtype).tiny)
    zero = torch.round(-low / step)
    if recipe.scale != "mse":
        return step, zero
    best, least = (step, zero), torch.full_like(step, torch.inf)
    for shrink in SHRINK.tolist():
        trial = step * shrink
        middle = torch.round(-low * shrink / trial)
        error = (on_range(x, trial, middle, fmt) - x).square_().sum(dims, keepdim=True)
        better = error < least
        best = (torch.where(better, trial, best[0]), torch.where(better, middle, best[1]))
        least = torch.minimum(error, least)
    return best


def on_range(
    x: Tensor, step: Tensor, zero: Tensor, fmt: Uniform, chance: torch.Generator | None = None
) -> Tensor:
    """Return x on a grid with a zero point."""
    return (round_values(x / step + zero, fmt, chance) - zero) * step


def tensor_scale(x: Tensor, fmt: Microscaled) -> Tensor:
    """The scale of a whole tensor: it puts the largest scale of a block at its peak. One where blocks need none."""
    one = x.new_ones(())
    if fmt.scale == "e8m0":
        return one
    whole = absmax(x, tuple(range(x.ndim))) / (fmt.scale.peak * fmt.peak)
    return torch.where(whole >= torch.finfo(x.dtype).tiny, whole, one)  # else its reciprocal may be infinite


def block_scales(x: Tensor, fmt: Microscaled, whole: Tensor) -> tuple[Tensor, Tensor]:
    """What the numbers of each block are multiplied by, and what values of the grid are (OCP MX 1.0, 6.3; NVFP4).

    The former is the reciprocal of the latter but for rounding, which for NVFP4 is that of NVIDIA's kernels.
    """
    peak = absmax(x, (-1,))
    if fmt.scale == "e8m0":
        scale = (power_of_two(peak) * 2.0**-fmt.top_exponent).clamp_(*E8M0)
        return 1 / scale, scale
    scale = round_values((peak / fmt.peak / whole).clamp_min_(2.0**fmt.scale.least_exponent), fmt.scale)
    return (1 / whole) / scale, scale * whole


def rounder(
    x: Tensor, dims: tuple[int, ...], recipe: Recipe, whole: Tensor, chance: torch.Generator | None = None
) -> Callable[[Tensor], Tensor]:
    """Find the scales of groups, and return what rounds tensors of the same groups by them.

    Args:
        x: numbers in groups.
        dims: along which the groups lie.
        recipe: format and how scales are found.
        whole: scale of the tensor that the groups are of; read by formats that have one.
        chance: for stochastic rounding.
    """
    fmt = recipe.format
    if isinstance(fmt, Microscaled):
        there, back = block_scales(x, fmt, whole)
        return lambda y: round_values(y * there, fmt, chance).mul_(back)
    return rounder_by(scales_of(x, dims, recipe), recipe, chance)


def scales_of(x: Tensor, dims: tuple[int, ...], recipe: Recipe) -> tuple[Tensor, ...]:
    """The scale of each group, or step and zero point of a grid that has one; not of blocks, which have two scales."""
    if isinstance(recipe.format, Uniform) and recipe.format.shifted:
        return range_of(x, dims, recipe)
    return (scale_of(x, dims, recipe),)


def rounder_by(
    found: tuple[Tensor, ...], recipe: Recipe, chance: torch.Generator | None = None
) -> Callable[[Tensor], Tensor]:
    """Return what rounds tensors by such scales."""
    fmt = recipe.format
    if isinstance(fmt, Uniform) and fmt.shifted:
        step, zero = found
        return lambda y: on_range(y, step, zero, fmt, chance)
    assert not isinstance(fmt, Native)
    (scale,) = found
    return lambda y: round_values(y * scale, fmt, chance).div_(scale)
