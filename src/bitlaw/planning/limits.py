"""What there is to spend: how large a model, and on how many tokens, each kind of limit allows.

Sizes are searched below the largest one that memory, the cost of a served token or a budget allow; tokens follow from
what a budget leaves. Serving T tokens costs 2 N T, training on D of them 6 N D, each times what the formats cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .serve import ASPECT, Cache

Array = NDArray[np.float64]
TINY = 1e-100  # bits for weights where the cache leaves none: no model is that small
NEAR_END = 30.0  # sizes are searched up to 1 - exp(-30) of one that leaves nothing for training
NEWTON = 60  # steps at most from a memory limit to the size that fills it; a handful are enough


@dataclass(frozen=True)
class Limits:
    """What a question gives and limits; None is no limit. Each may be one number, or one for every draw.

    Attributes:
        flops: for training, and for serving `served` tokens, in FLOPs of 16 bits.
        served: tokens served in the model's lifetime.
        params: size, where it is given.
        tokens: training tokens, where they are given.
        unique: distinct training tokens there are; more are repeats.
        most_params: largest size.
        most_tokens: most training tokens.
        bytes: of weights and cache in serving.
        token_flops: what a served token may cost.
        cached: tokens whose keys and values serving keeps: context length times sequences at once.
        cache: the model's numbers of them; None goes by the size, N = 12 layers width^2 and width = 128 layers.
    """

    flops: ArrayLike | None = None
    served: float = 0.0
    params: ArrayLike | None = None
    tokens: ArrayLike | None = None
    unique: float | None = None
    most_params: float | None = None
    most_tokens: float | None = None
    bytes: float | None = None
    token_flops: ArrayLike | None = None
    cached: float = 0.0
    cache: Cache | None = None

    def memory(self, params: Array, bpw: Array, kv_bits: Array) -> Array:
        """Bytes of weights, and of the cache."""
        return (params * bpw + self.kept(params)[0] * kv_bits) / 8

    def kept(self, params: Array) -> tuple[Array, Array]:
        """Numbers cached by models of some sizes, and their slopes against the logarithm of the size."""
        if self.cache is not None:
            return np.full_like(params, self.cached * self.cache.numbers), np.zeros_like(params)
        kept = self.cached * 2 * ASPECT ** (-1 / 3) * (params / 12) ** (2 / 3)  # 2 layers width
        return kept, 2 / 3 * kept

    def log_largest(self, train: Array, serve: Array, bpw: Array, kv_bits: Array) -> Array:
        """Logarithm of the largest size that the limits allow; infinite where none of them says anything."""
        largest = np.full(np.broadcast_shapes(train.shape, serve.shape, bpw.shape), np.inf)
        if self.most_params is not None:
            largest = np.minimum(largest, math.log(self.most_params))
        if self.token_flops is not None:
            largest = np.minimum(largest, np.log(column(self.token_flops) / (2 * serve)))
        if self.bytes is not None:
            largest = np.minimum(largest, self._log_filling(bpw, kv_bits))
        if self.flops is not None and self.tokens is not None:
            largest = np.minimum(largest, self._log_spending(self.tokens, train, serve))
        return largest

    def log_within(self, largest: Array, least: Array, serve: Array, place: Array) -> Array:
        """Logarithm of the size at a place between the largest, 0, and the least, 1.

        Where tokens are served, sizes end where serving takes the whole budget, and the best may be right beside that
        wall. There the place is of y, with 1 / N = 1 / N_end + 1 / exp(y), which has no end.
        """
        if self.flops is None or not self.served:
            return largest + (least - largest) * place
        end = np.log(column(self.flops) / (2 * self.served * serve))

        def y(size: Array) -> Array:
            with np.errstate(all="ignore"):  # sizes at or beyond the end
                away = np.where(size < end, size - np.log(-np.expm1(size - end)), np.inf)
            return np.minimum(away, end + NEAR_END)

        return end - np.logaddexp(0.0, end - y(largest) - (y(least) - y(largest)) * place)

    def log_least(self, train: Array, serve: Array) -> Array:
        """Logarithm of the size that spends the budget on the most tokens there are; a smaller one leaves some over."""
        if self.flops is None or self.most_tokens is None:
            return np.full(np.broadcast_shapes(train.shape, serve.shape), -np.inf)
        return self._log_spending(self.most_tokens, train, serve)

    def _log_spending(self, tokens: ArrayLike, train: Array, serve: Array) -> Array:
        """Logarithm of the size that spends the budget on some training tokens."""
        assert self.flops is not None
        whole = 6 * column(tokens) * train + 2 * self.served * serve
        return np.log(column(self.flops) / whole)

    def _log_filling(self, bpw: Array, kv_bits: Array) -> Array:
        """Logarithm of the size whose weights and cache fill the memory."""
        assert self.bytes is not None
        if self.cache is not None:  # of the same size whatever the model's
            left = 8 * self.bytes - self.cached * self.cache.numbers * kv_bits
            return np.log(np.maximum(left, TINY) / bpw)
        x = np.log(8 * self.bytes / bpw)
        for _ in range(NEWTON):
            params = np.exp(x)
            kept, slope = self.kept(params)
            weights = params * bpw
            over = np.log((weights + kept * kv_bits) / (8 * self.bytes))
            step = over * (weights + kept * kv_bits) / (weights + slope * kv_bits)
            x = x - step
            if not (np.abs(step) > 1e-15 * np.abs(x)).any():
                break
        return x

    def log_most_tokens(self, params: Array, train: Array, serve: Array) -> Array:
        """Logarithm of the most training tokens that models of some sizes can have; infinite without a limit."""
        if self.tokens is not None:
            given = np.log(column(self.tokens))
            if self.most_tokens is not None:  # a range of them may reach beyond what there are
                given = np.where(given <= math.log(self.most_tokens) + 1e-9, given, -np.inf)
            return np.broadcast_to(given, params.shape)
        most = np.full(params.shape, np.inf)
        if self.flops is not None:
            left = column(self.flops) - 2 * self.served * serve * params
            with np.errstate(all="ignore"):  # where serving alone costs too much, no tokens are left
                most = np.where(left > 0, np.log(left / (6 * params * train)), -np.inf)
        if self.most_tokens is not None:
            most = np.minimum(most, math.log(self.most_tokens))
        return most

    @property
    def endless(self) -> bool:
        """Whether nothing limits the tokens."""
        return self.flops is None and self.tokens is None and self.most_tokens is None


def column(value: ArrayLike) -> Array:
    """A number, or one for every draw, to stand beside draws by points (S, K)."""
    array = np.asarray(value, dtype=float)
    return array[:, None] if array.ndim else array
