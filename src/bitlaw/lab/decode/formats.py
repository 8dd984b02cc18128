"""A model from a folder in number formats, such that a cache can hold what it makes of each token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from ...errors import ConfigError, nearest
from ...formats import Recipe, Scheme
from ..model import Loaded
from ..precision import static_scales
from ..precision.static import uncacheable
from ..quantize import METHODS, quantize_parts
from ..quantize.parts import running


def in_formats(
    loaded: Loaded, scheme: Scheme, method: str, windows: Callable[[], Tensor]
) -> tuple[Loaded, list[Recipe]]:
    """Return a model in a scheme, and the recipes whose scales were found on text and stay; a copy where it changes.

    Args:
        loaded: a model that rounds nothing yet, or something; the scheme of the copy names both.
        scheme: what to round besides.
        method: of the weights: `rtn`, `gptq` or `awq`.
        windows: asked for tokens to look at (W, T), where any are needed.

    Raises:
        ConfigError: an unknown method, or a part or recipe that cannot be.
        DataError: the model would be made to round twice.
        LabError: numbers that are not finite.

    >>> import torch
    >>> from bitlaw.lab.model import Transformer
    >>> from bitlaw.shapes import Shape
    >>> model = Transformer(Shape(width=16, depth=1, heads=2, ffn=24))
    >>> ours = Loaded("a", "", model, None, 256, 32, Scheme(), {})
    >>> low, found = in_formats(ours, Scheme.parse("w4a8"), "rtn", lambda: torch.arange(64)[None])
    >>> low.scheme.name, [str(recipe) for recipe in found]
    ('w4a8', ['int8 tensor'])
    """
    if method not in METHODS:
        raise ConfigError(f"there is no method {method!r}; {nearest(method, METHODS)}")
    both = replace(running(loaded, scheme), w=scheme.w if scheme.w.quantized else loaded.scheme.w)
    model = loaded.model
    if scheme.quantized:
        method = method if scheme.w.quantized else "rtn"
        model = quantize_parts(model, scheme, method, windows() if method != "rtn" else None)
    recipes = dict.fromkeys(recipe for _, recipe in uncacheable(model))
    if recipes:
        model = static_scales(model, windows())
    return replace(loaded, model=model, scheme=both), list(recipes)
