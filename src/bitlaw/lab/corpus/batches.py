"""A batch is a pure function of (corpus, seed, step): there is no loader state to save or to lose.

The training text is cut into windows; each epoch visits every window once, in an order that depends only
on (seed, epoch).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import DataError
from .sources import Corpus


@lru_cache(maxsize=4)
def _order(windows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(windows)


def batch(corpus: Corpus, seed: int, step: int, batch_size: int, seq_len: int) -> tuple[Tensor, Tensor]:
    """Return inputs and next-byte targets of one training step, each (batch_size, seq_len) of int64."""
    windows = (len(corpus.train) - 1) // seq_len
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    starts = [_order(windows, seed, int(place // windows))[place % windows] * seq_len for place in places]
    return _windows(corpus.train, np.array(starts), seq_len)


def eval_windows(corpus: Corpus, tokens: int, seq_len: int) -> tuple[Tensor, Tensor, str]:
    """Return inputs, targets and hash of the fixed evaluation set: windows spread over the held-out text.

    Raises:
        DataError: the held-out text is shorter than the evaluation set.
    """
    available = (len(corpus.held_out) - 1) // seq_len
    wanted = tokens // seq_len
    if available < wanted:
        raise DataError(
            f"the held-out text of corpus {corpus.name} has {len(corpus.held_out):,} bytes, fewer than the "
            f"{tokens:,} of the evaluation set; use a larger corpus or a smaller eval_tokens"
        )
    starts = np.linspace(0, available - 1, wanted).astype(np.int64) * seq_len
    x_BT, y_BT = _windows(corpus.held_out, starts, seq_len)
    digest = hashlib.sha256(x_BT.numpy().tobytes() + y_BT.numpy().tobytes()).hexdigest()
    return x_BT, y_BT, digest


def _windows(text: NDArray[np.uint8], starts: NDArray[np.int64], seq_len: int) -> tuple[Tensor, Tensor]:
    windows = text[starts[:, None] + np.arange(seq_len + 1)].astype(np.int64)
    return torch.from_numpy(windows[:, :-1]).contiguous(), torch.from_numpy(windows[:, 1:]).contiguous()
