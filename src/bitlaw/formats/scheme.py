"""A scheme: how each part of a model is held while it is trained."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from ..errors import ConfigError, nearest
from .grid import Native
from .recipe import Granularity, Recipe

_SHORT = re.compile(r"(kv|w|a)([0-9]+)")


def _part(granularity: Granularity, meaning: str) -> Recipe:
    recipe: Recipe = field(
        default=Recipe(Native("bf16", 16)), metadata={"granularity": granularity, "meaning": meaning}
    )
    return recipe


@dataclass(frozen=True)
class Scheme:
    """The recipe of each part; `bf16` means left alone.

    Where a recipe does not say what shares a scale, it is one for each output of weights and one for each tensor of
    activations and of the KV cache, as in the paper (Kumar et al. 2024, appendix I).

    >>> Scheme.parse("w4a8").name, Scheme.parse("16").name, Scheme.parse("w3").w.format.bits
    ('w4a8', '16', 3)
    >>> Scheme.parse("w=nvfp4, a=e4m3 token").name
    'w=nvfp4, a=e4m3 token'
    """

    w: Recipe = _part("channel", "weights of the blocks' linear layers")
    a: Recipe = _part("tensor", "activations that enter them")
    kv: Recipe = _part("tensor", "keys and values, as a cache would hold them")
    q: Recipe = _part("tensor", "queries")
    emb: Recipe = _part("channel", "token embeddings, one scale for each token of the vocabulary")
    head: Recipe = _part("channel", "weights of the output head")
    grad_a: Recipe = _part("tensor", "gradients that flow back into linear layers")
    grad_w: Recipe = _part("tensor", "gradients of weights")

    def __post_init__(self) -> None:
        for f in fields(self):
            if getattr(self, f.name).stored and f.name not in ("w", "emb", "head"):
                raise ConfigError(f"{f.name} is computed anew at every step; 'stored' is for w, emb and head")

    @property
    def name(self) -> str:
        """What `parse` reads: "w4a8kv6" where all is the paper's, parts with recipes otherwise; "16" for none."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name).quantized}
        short = "".join(f"{part}{recipe.format.bits:g}" for part, recipe in given.items())
        if _SHORT.sub("", short) == "" and given and Scheme.parse(short) == self:
            return short
        words = {}
        for part, recipe in given.items():
            short = str(recipe).replace(f" {_USUAL[part]}", "", 1)
            words[part] = short if Recipe.parse(short, _USUAL[part]) == recipe else str(recipe)
        return ", ".join(f"{part}={text}" for part, text in words.items()) or "16"

    @property
    def quantized(self) -> bool:
        """Whether any part is trained in low precision."""
        return any(getattr(self, f.name).quantized for f in fields(self))

    @property
    def stored(self) -> bool:
        """Whether weights of any part have no float master copy."""
        return any(recipe.stored for recipe in (self.w, self.emb, self.head))

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """Read parts with bits, or with recipes; parts that are not named stay unquantised.

        Args:
            text: like "w4", "w4a8kv6" (symmetric integers), "w=int3 group64 mse, kv=e4m3", or "16" for none. 16 bits of
                a part are none too, so that "w4a16" is "w4" as everywhere; a grid of 16 bits is "a=int16".

        Raises:
            ConfigError: an unknown part, a part named twice, or an impossible recipe.
        """
        if text in ("16", "bf16"):
            return cls()
        short = _SHORT.findall(text)
        if "".join(p + b for p, b in short) == text and short:
            pairs = [(part, "bf16" if bits == "16" else f"int{bits}") for part, bits in short]
        else:
            pairs = [(p.strip(), r) for p, _, r in (item.partition("=") for item in text.split(","))]
        if len({part for part, _ in pairs}) < len(pairs) or not all(r.strip() for _, r in pairs):
            raise ConfigError(
                f"cannot read the scheme {text!r}; write parts with bits, like 'w4', 'a8', 'w4a8kv6', parts with "
                "recipes, like 'w=int3 group64, a=e4m3 token', or '16'"
            )
        return cls.from_parts(dict(pairs))

    @classmethod
    def from_parts(cls, parts: Mapping[str, str]) -> Scheme:
        """Build a scheme from a recipe's text for each part.

        Raises:
            ConfigError: an unknown part or an impossible recipe.
        """
        for part in parts:
            if part not in _USUAL:
                raise ConfigError(f"a model has no part {part!r}; {nearest(part, _USUAL)}")
        return cls(**{part: Recipe.parse(text, _USUAL[part]) for part, text in parts.items()})


_USUAL: dict[str, Granularity] = {f.name: f.metadata["granularity"] for f in fields(Scheme)}
