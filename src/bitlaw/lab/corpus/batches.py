"""A batch is a pure function of (corpus, seed, step): there is no loader state to save or to lose.

The training text is cut into windows; each epoch visits every window once, in an order that depends only
on (seed, epoch).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import DataError
from .sources import Corpus
from .text import Text


@lru_cache(maxsize=4)
def _order(windows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(windows)


def batch(corpus: Corpus, seed: int, step: int, batch_size: int, seq_len: int) -> tuple[Tensor, Tensor]:
    """Return inputs and next-token targets of one training step, each (batch_size, seq_len) of int64."""
    windows = (len(corpus.train.tokens) - 1) // seq_len
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    starts = [_order(windows, seed, int(place // windows))[place % windows] * seq_len for place in places]
    return _cut(corpus.train.tokens, np.array(starts), seq_len)


def distinct_tokens(corpus: Corpus, tokens: int, seq_len: int) -> int:
    """How many of some training tokens are not seen before: no more than the windows of one epoch hold."""
    return min(tokens, (len(corpus.train.tokens) - 1) // seq_len * seq_len)


@dataclass(frozen=True)
class Windows:
    """Stretches of text that a model reads, and which document each token is of.

    Attributes:
        inputs: tokens (W, T).
        targets: the token after each (W, T).
        documents: number of the document that each target is of (W, T).
        sha256: of inputs and targets.
        bytes: that the targets stand for; None means unknown.
    """

    inputs: Tensor
    targets: Tensor
    documents: Tensor
    sha256: str
    bytes: int | None = None


def spread_windows(text: Text, tokens: int, seq_len: int) -> Windows:
    """Return windows of `tokens` tokens in all, spread evenly over a text.

    Raises:
        DataError: the text is shorter than that.
    """
    available = (len(text.tokens) - 1) // seq_len
    wanted = tokens // seq_len
    if available < wanted or not wanted:
        raise DataError(
            f"the text kept from training has {len(text.tokens):,} tokens, too few for windows of {tokens:,} "
            f"in all, {seq_len:,} each; use a larger corpus, or fewer tokens"
        )
    starts = np.linspace(0, available - 1, wanted).astype(np.int64) * seq_len
    inputs, targets = _cut(text.tokens, starts, seq_len)
    places = starts[:, None] + np.arange(1, seq_len + 1)
    documents = np.searchsorted(text.starts, places, side="right") - 1
    digest = hashlib.sha256(inputs.numpy().tobytes() + targets.numpy().tobytes()).hexdigest()
    length = None if text.lengths is None else int(text.lengths[targets.numpy()].sum(dtype=np.int64))
    return Windows(inputs, targets, torch.from_numpy(documents), digest, length)


def _cut(tokens: NDArray[Any], starts: NDArray[np.int64], seq_len: int) -> tuple[Tensor, Tensor]:
    windows = tokens[starts[:, None] + np.arange(seq_len + 1)]
    # Frames of sound, or tokens.
    windows = windows.astype(np.float32 if windows.dtype.kind == "f" else np.int64)
    return torch.from_numpy(windows[:, :-1]).contiguous(), torch.from_numpy(windows[:, 1:]).contiguous()
