"""Scales that are found once, on text, and then stay: what a token becomes no longer hangs on the tokens around it.

A dynamic scale of a whole tensor is of all tokens that are read together, those after a token included: a cache of
keys and values, which knows none of these, would hold other numbers. Scales a token, or a group of numbers of one, do
not have this trouble.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ...errors import ConfigError, LabError
from ...formats import Microscaled, Recipe, Uniform
from .layers import FakeQuantize
from .rotation import rotate
from .scales import grouped, rounder, rounder_by, scales_of, tensor_scale

ModelT = TypeVar("ModelT", bound=nn.Module)
ON_TOKENS = ("quantize_input", "cached_k", "cached_v", "queries")  # modules through which tokens pass
TOGETHER = 16  # windows of text whose scale is found together


def spans_tokens(recipe: Recipe) -> bool:
    """Whether the scale of a token's numbers is found from other tokens too.

    >>> [spans_tokens(Recipe.parse(text)) for text in ("int8 tensor", "int8 token", "mxfp4", "nvfp4", "int4 group16")]
    [True, False, False, True, False]
    """
    fmt = recipe.format
    if isinstance(fmt, Microscaled):
        return fmt.scale != "e8m0"  # NVFP4 has a scale of the whole tensor above those of its blocks
    return recipe.quantized and recipe.granularity in ("tensor", "block")


def uncacheable(model: nn.Module) -> Iterator[tuple[str, Recipe]]:
    """Yield name and recipe of whatever makes of a token what hangs on other tokens, or on chance."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] not in ON_TOKENS or not isinstance(module, FakeQuantize):
            continue
        if spans_tokens(module.recipe) or module.recipe.rounding == "stochastic":
            yield name, module.recipe


class StaticQuantize(nn.Module):
    """Rounds like `FakeQuantize`, by a scale that it was shown; without a gradient, as nothing is trained with it.

    Args:
        recipe: with one scale for a tensor, or an NVFP4 above whose blocks there is one.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.found: tuple[Tensor, ...] = ()  # scale; step and zero point; of NVFP4 the scale of the tensor
        self.width = -1.0  # of the range that this is of, or what is proportional to it
        self.ends = torch.empty(0)  # lowest and highest number so far

    def look(self, x: Tensor) -> None:
        """Make the range wide enough for what a dynamic scale would hold of x."""
        fmt = self.recipe.format
        split, dims, _ = grouped(self._turned(x), self.recipe)
        if not torch.isfinite(split).all():
            raise LabError("a number to find a scale for is not finite; the model diverges on the text")
        if isinstance(fmt, Microscaled):
            found: tuple[Tensor, ...] = (tensor_scale(split, fmt),)
        elif isinstance(fmt, Uniform) and fmt.shifted and self.recipe.scale != "mse":
            seen = torch.cat([self.ends.to(x.device), torch.stack(split.aminmax())])
            self.ends = torch.stack(seen.aminmax())
            found = scales_of(self.ends, (0,), self.recipe)
        else:
            found = scales_of(split, dims, self.recipe)
        # Else it is what numbers are multiplied by: small is wide.
        scaled = isinstance(fmt, Microscaled) or len(found) == 2
        width = found[0].item() if scaled else 1 / found[0].item()
        if isinstance(fmt, Microscaled) and not split.any():
            width = 0.0  # the scale of zeros is one, which says nothing of numbers that come later
        if width > self.width:
            self.found, self.width = found, width

    def forward(self, x: Tensor) -> Tensor:
        """Round x."""
        if not self.found:
            raise LabError("no scale was found yet; show `static_scales` some text")
        found = tuple(part.to(x.device) for part in self.found)
        split, dims, back = grouped(self._turned(x), self.recipe)
        # Their own scales are of one token, and found anew.
        blocks = isinstance(self.recipe.format, Microscaled)
        by = rounder(split, dims, self.recipe, found[0]) if blocks else rounder_by(found, self.recipe)
        y = back(by(split))
        return (rotate(y, back=True) if self.recipe.rotate else y).to(x.dtype)

    def _turned(self, x: Tensor) -> Tensor:
        wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        return rotate(wide) if self.recipe.rotate else wide


@torch.no_grad()
def static_scales(model: ModelT, windows_WT: Tensor) -> ModelT:
    """Return a copy of a model whose activations, keys, values and queries have scales that stay.

    What has one scale a tensor gets the widest that 16 windows of the text need together; in the pass that finds it,
    scales are dynamic. What is rounded by chance is rounded to nearest. The rest stays as it is. A range with a zero
    point is of all the text; one of least error (`mse`), that of the windows that need the widest.

    Args:
        model: with a scheme on it.
        windows_WT: tokens of text that is not evaluated on (W, T).

    Raises:
        ConfigError: square blocks of activations, each of which spans tokens that come in decoding one by one.
        LabError: numbers that are not finite.

    >>> from bitlaw.formats import Scheme
    >>> from bitlaw.lab.model import Transformer
    >>> from bitlaw.lab.precision import apply_scheme
    >>> from bitlaw.shapes import Shape
    >>> model = apply_scheme(Transformer(Shape(width=16, depth=1, heads=2, ffn=24)), Scheme.parse("a8kv8"))
    >>> [len(list(uncacheable(m))) for m in (model, static_scales(model, torch.arange(64)[None]))]
    [6, 0]
    """
    found = copy.deepcopy(model)
    device = next(found.parameters()).device
    fixed: dict[str, nn.Module] = {}
    handles = []
    for name, recipe in list(uncacheable(found)):
        if recipe.granularity == "block":
            raise ConfigError(
                f"{name} has '{recipe}', whose square blocks span tokens, and tokens are decoded one by one; try "
                "'token' or 'group32'"
            )
        watched: Any = found.get_submodule(name)
        watched.recipe = recipe = replace(recipe, rounding="nearest")
        if spans_tokens(recipe):
            fixed[name] = static = StaticQuantize(recipe)
            handles.append(watched.register_forward_pre_hook(lambda _, given, s=static: s.look(given[0])))
    for windows in windows_WT.split(TOGETHER) if handles else ():
        found(windows.to(device))
    for handle in handles:
        handle.remove()
    for name, module in fixed.items():
        parent, _, leaf = name.rpartition(".")
        setattr(found.get_submodule(parent), leaf, module)
    return found
