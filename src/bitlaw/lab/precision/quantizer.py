"""Put a tensor on a format's grid and back: what the hardware would have computed with.

    scale = peak / max|x|,   x_hat = clamp(round(x * scale), low, high) / scale

(Kumar et al. 2024, appendix D.1.) The maximum is over the numbers that share a scale.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import ConfigError
from ...formats import Microscaled, Native, Recipe
from .draws import own_state
from .rotation import rotate
from .scales import grouped, rounder, tensor_scale


def fake_quantize(x: Tensor, recipe: Recipe, chance: torch.Generator | None = None) -> Tensor:
    """Return x on the grid of a recipe's format, with the gradient passed straight through.

    The forward value is rounded (it may be a last bit off its grid, being x plus a difference); the backward pass
    sees the identity (Bengio et al. 2013), so everything behind the quantiser trains in full precision.

    Args:
        x: any tensor; groups lie along its last dimension, blocks along its last two.
        recipe: format, groups, scales, rounding; a native format returns x itself.
        chance: where stochastic rounding draws from; None for torch's own state.

    >>> fake_quantize(torch.tensor([0.2, -0.9, 1.4]), Recipe.parse("int3"))
    tensor([ 0.0000, -0.9333,  1.4000])
    """
    return x + (quantize(x.detach(), recipe, chance) - x.detach()) if recipe.quantized else x


def quantize(x: Tensor, recipe: Recipe, chance: torch.Generator | None = None) -> Tensor:
    """Return x on the grid of a recipe's format; ties go to the even value; a group of zeros stays zero.

    Raises:
        ConfigError: a recipe whose steps are learned, or of stored weights.
    """
    fmt = recipe.format
    if isinstance(fmt, Native):
        return x
    if recipe.scale == "learned" or recipe.stored:
        raise ConfigError(
            f"steps are learned with a model's weights, and stored weights written back as it trains; "
            f"'{recipe}' says nothing of a tensor by itself"
        )
    if x.dtype in (torch.bfloat16, torch.float16):
        return quantize(x.float(), recipe, chance).to(x.dtype)
    if recipe.rotate:
        x = rotate(x)
    chance = (chance or own_state(x.device)) if recipe.rounding == "stochastic" else None
    split, dims, back = grouped(x, recipe)
    padded = split.numel() > x.numel() and torch.compiler.is_compiling()
    # torch 2.13's compiler leaves out numbers when it joins padded groups with what is around them.
    if padded:
        torch._dynamo.graph_break()
    whole = tensor_scale(split, fmt) if isinstance(fmt, Microscaled) else x
    y = back(rounder(split, dims, recipe, whole, chance)(split))
    if padded:
        torch._dynamo.graph_break()
    return rotate(y, back=True) if recipe.rotate else y
