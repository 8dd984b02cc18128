"""A Llama-style decoder, small enough to read at one sitting.

RMSNorm before each block half, rotary positions, SwiGLU, no biases, untied embeddings; and, as in the
paper and in BitNet b1.58, one more norm before every output projection, which keeps low-bit training
stable. Tensor names carry their shape: B batch, T time, C width, H heads, K head width, F SwiGLU width,
V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...shapes import Shape
from .cache import KVCache

Past: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]  # what a cache does for one layer


class RMSNorm(nn.Module):
    """Scale each vector to unit root mean square, times a learned gain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return F.rms_norm(x.to(self.weight.dtype), x.shape[-1:], self.weight, eps=1e-6)


class Attention(nn.Module):
    """Causal attention with rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm = RMSNorm(shape.width)
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.queries = nn.Identity()
        self.cached_k = nn.Identity()  # what a KV cache would hold passes through these two
        self.cached_v = nn.Identity()
        self.out_norm = RMSNorm(shape.width)
        self.out = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x_BTC: Tensor, rotation: tuple[Tensor, Tensor], past: Past | None = None) -> Tensor:
        """Let every position look back, and into a cache if there is one."""
        B, T, C = x_BTC.shape
        qkv = self.qkv(self.norm(x_BTC)).view(B, T, 3, self.heads, C // self.heads)
        q_BHTK, k_BHTK, v_BHTK = qkv.permute(2, 0, 3, 1, 4)
        q_BHTK = self.queries(rotate(q_BHTK, rotation))
        k_BHTK = self.cached_k(rotate(k_BHTK, rotation))
        v_BHTK = self.cached_v(v_BHTK)
        seen = None
        if past is not None:
            k_BHTK, v_BHTK, seen = past(k_BHTK, v_BHTK)
        y_BHTK = F.scaled_dot_product_attention(
            q_BHTK, k_BHTK, v_BHTK, attn_mask=seen, is_causal=seen is None
        )
        return self.out(self.out_norm(y_BHTK.transpose(1, 2).reshape(B, T, C)))


class SwiGLU(nn.Module):
    """The gated feed-forward half of a block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm = RMSNorm(shape.width)
        self.gate_up = nn.Linear(shape.width, 2 * shape.ffn, bias=False)
        self.down_norm = RMSNorm(shape.ffn)
        self.down = nn.Linear(shape.ffn, shape.width, bias=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Think about each position by itself."""
        gate_BTF, up_BTF = self.gate_up(self.norm(x_BTC)).chunk(2, dim=-1)
        return self.down(self.down_norm(F.silu(gate_BTF) * up_BTF))


class Block(nn.Module):
    """Attention, then SwiGLU, each added to the residual stream times a factor."""

    def __init__(self, shape: Shape, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.attention = Attention(shape)
        self.mlp = SwiGLU(shape)

    def forward(self, x_BTC: Tensor, rotation: tuple[Tensor, Tensor], past: Past | None = None) -> Tensor:
        """Update the residual stream."""
        x_BTC = torch.add(x_BTC, self.attention(x_BTC, rotation, past), alpha=self.factor)
        return torch.add(x_BTC, self.mlp(x_BTC), alpha=self.factor)


class Transformer(nn.Module):
    """The whole model: tokens in, logits of the next token out.

    `residual` says where each half of a block is made smaller by sqrt(2 depth): in its first weights (`init`, as
    GPT-2), or by a factor that stays (`depth-mup`, Yang et al. 2023). Both begin as the same function.
    """

    def __init__(self, shape: Shape, seed: int = 0, residual: Literal["init", "depth-mup"] = "init") -> None:
        super().__init__()
        self.shape, self.residual = shape, residual
        self.recompute = False  # activations of a block again in the backward pass, instead of keeping them
        self.embedding = nn.Embedding(shape.vocab, shape.width)
        factor = (2 * shape.depth) ** -0.5 if residual == "depth-mup" else 1.0
        self.blocks = nn.ModuleList(Block(shape, factor) for _ in range(shape.depth))
        self.norm = RMSNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocab, bias=False)
        self.initialise(seed)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw the weights.

        | part | standard deviation |
        |---|---|
        | embedding | 1 (a norm follows at once) |
        | projections into a block | 1 / sqrt(fan in) |
        | projections back to the residual stream | 1 / sqrt(fan in * 2 depth); depth-muP: 1 / sqrt(fan in) |
        | output head | 1 / fan in: near-uniform predictions at the start |
        """
        generator = torch.Generator().manual_seed(seed)
        for name, module in self.named_modules():
            if isinstance(module, nn.Embedding):
                module.weight.normal_(0, 1, generator=generator)
            elif isinstance(module, nn.Linear):
                std = module.in_features**-0.5
                if name.endswith((".out", ".down")) and self.residual == "init":
                    std /= math.sqrt(2 * self.shape.depth)
                elif name == "head":
                    std = 1 / module.in_features
                module.weight.normal_(0, std, generator=generator)

    def forward(self, tokens_BT: Tensor, cache: KVCache | None = None) -> Tensor:
        """Return logits (B, T, V); with a cache, of tokens that come after those it holds, which it then holds too."""
        T, device = tokens_BT.shape[1], tokens_BT.device
        places = torch.arange(T, device=device) if cache is None else cache.advance(T, device)[:, None]
        rotation = rotary(places, self.shape.width // self.shape.heads)
        x_BTC = self.embedding(tokens_BT)
        for layer, block in enumerate(self.blocks):
            if self.recompute and cache is None and torch.is_grad_enabled():
                x_BTC = checkpoint(block, x_BTC, rotation, use_reentrant=False)
            else:
                x_BTC = block(x_BTC, rotation, partial(cache.extend, layer) if cache is not None else None)
        return self.head(self.norm(x_BTC))


def rotary(places_T: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the rotary angles at some places, each (..., T, K / 2) (Su et al. 2021)."""
    frequency_K = 10_000.0 ** (-torch.arange(0, width, 2, device=places_T.device) / width)
    angle_TK = places_T[..., None] * frequency_K
    return angle_TK.cos(), angle_TK.sin()


def rotate(x_BHTK: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (x_i, x_{i + K/2}) by its angle."""
    cos, sin = rotation
    first, second = x_BHTK.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
