"""Causal models of Hugging Face, with their parts named as ours are."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from .cache import KVCache

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

    `blocks` stand where they do in our own model, and have `cached_k` and `cached_v` each, so that what is put on one
    from outside is put on the other.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.blocks: nn.ModuleList = model.get_submodule(BLOCKS[model.config.model_type])
        for block in self.blocks:
            block.cached_k, block.cached_v = nn.Identity(), nn.Identity()
        self.model = model
        named = inspect.signature(model.forward).parameters
        self.cache_name = "cache" if "cache" in named else "past_key_values"

    def forward(self, tokens_BT: Tensor, cache: KVCache | None = None) -> Tensor:
        """Return logits (B, T, V); with a cache, of tokens that come after those it holds, which it then holds too."""
        named: dict[str, Any] = {"use_cache": False}
        if cache is not None:
            places_BT = cache.advance(tokens_BT.shape[1], tokens_BT.device)
            named = {"position_ids": places_BT, "attention_mask": cache.seen_B1TL}
        if cache is not None or not all(isinstance(b.cached_k, nn.Identity) for b in self.blocks):
            named |= {"use_cache": True, self.cache_name: _cache(self.blocks, cache)}
        logits: Tensor = self.model(tokens_BT, **named).logits
        return logits


def _cache(blocks: nn.ModuleList, kept: KVCache | None) -> Any:
    """A cache of transformers that holds what blocks make of keys and values, in ours if one is given."""
    from transformers import DynamicCache

    class Cache(DynamicCache):
        def update(
            self, key_states: Tensor, value_states: Tensor, layer_idx: int, *rest: Any, **named: Any
        ) -> Any:
            k = blocks[layer_idx].cached_k(key_states)
            v = blocks[layer_idx].cached_v(value_states)
            # Nothing is kept where nothing is to be: a block may be run twice on what came with a whole text.
            return (k, v) if kept is None else kept.extend(layer_idx, k, v)[:2]

    return Cache()
