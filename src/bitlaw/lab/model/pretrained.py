"""Causal models of Hugging Face, with their parts named as ours are."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

#: Where the blocks are, by `model_type`.
BLOCKS = {
    "llama": "model.layers",
    "qwen2": "model.layers",
    "qwen3": "model.layers",
    "olmo": "model.layers",
    "olmo2": "model.layers",
    "gpt_neox": "gpt_neox.layers",
}


class Pretrained(nn.Module):
    """A model of transformers as a function from tokens to logits.

    `blocks`, `cached_k` and `cached_v` stand where they do in our own model, so that what is put on one from outside
    is put on the other.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.blocks: nn.ModuleList = model.get_submodule(BLOCKS[model.config.model_type])
        self.cached_k: nn.Module = nn.Identity()
        self.cached_v: nn.Module = nn.Identity()
        self.model = model
        named = inspect.signature(model.forward).parameters
        self.cache_name = "cache" if "cache" in named else "past_key_values"

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Return logits (B, T, V)."""
        if isinstance(self.cached_k, nn.Identity) and isinstance(self.cached_v, nn.Identity):
            logits: Tensor = self.model(tokens_BT, use_cache=False).logits
            return logits
        cache = {self.cache_name: _cache(self.cached_k, self.cached_v)}
        logits = self.model(tokens_BT, use_cache=True, **cache).logits
        return logits


def _cache(keep_k: nn.Module, keep_v: nn.Module) -> Any:
    """A KV cache that holds what two modules make of keys and values."""
    from transformers import DynamicCache

    class Cache(DynamicCache):
        def update(self, key_states: Tensor, value_states: Tensor, *rest: Any, **named: Any) -> Any:
            return super().update(keep_k(key_states), keep_v(value_states), *rest, **named)

    return Cache()
