"""Keys and values of the tokens that were read, so that a next one is one position and not the whole text again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import ConfigError


class KVCache:
    """What attention has seen of a batch of texts; the token at place t of a text is held in slot t.

    A query at place p sees slots 0 to p. So what lies behind a text's end is never seen, and is written over by the
    tokens that come there: texts may differ in length, and each may be cut back by itself. Slots hold what a model's
    `cached_k` and `cached_v` make of keys and values; each is put on its grid once, when it is written.

    Attributes:
        lengths: tokens of each text so far.
        seen_B1TL: of the tokens read last, which slots each query sees.

    Args:
        rows: texts in the batch.
    """

    seen_B1TL: Tensor

    def __init__(self, rows: int) -> None:
        self.lengths = [0] * rows
        self._places_BT = torch.zeros(rows, 0, dtype=torch.long)
        self._held: dict[int, tuple[Tensor, Tensor]] = {}  # of each layer, (B, slots, H, K)

    def advance(self, count: int, device: torch.device) -> Tensor:
        """Add `count` tokens to each text, and return their places (B, T)."""
        starts_B = torch.tensor(self.lengths, device=device)
        self._places_BT = starts_B[:, None] + torch.arange(count, device=device)
        self.lengths = [length + count for length in self.lengths]
        slots_L = torch.arange(max(self.lengths), device=device)
        self.seen_B1TL = slots_L <= self._places_BT[:, None, :, None]
        return self._places_BT

    def extend(self, layer: int, k_BHTK: Tensor, v_BHTK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Write a layer's keys and values of the tokens that came last.

        Returns:
            Keys and values of all slots (B, H, L, K), and which of them each query sees (B, 1, T, L).
        """
        size = self.seen_B1TL.shape[-1]
        held = self._held.get(layer)
        if held is None or held[0].shape[1] < size:
            self._held[layer] = held = (_room(held, 0, size, k_BHTK), _room(held, 1, size, v_BHTK))
        rows_B1 = torch.arange(len(self.lengths), device=k_BHTK.device)[:, None]
        for slots_BLHK, new_BHTK in zip(held, (k_BHTK, v_BHTK), strict=True):
            slots_BLHK[rows_B1, self._places_BT] = new_BHTK.transpose(1, 2)
        k_BLHK, v_BLHK = (slots[:, :size] for slots in held)
        return k_BLHK.transpose(1, 2), v_BLHK.transpose(1, 2), self.seen_B1TL

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget all tokens of each text behind a length.

        Raises:
            ConfigError: a length that a text has not reached.
        """
        if len(lengths) != len(self.lengths) or not all(
            0 <= n <= held for n, held in zip(lengths, self.lengths, strict=True)
        ):
            raise ConfigError(f"texts of {self.lengths} tokens cannot be cut back to {list(lengths)}")
        self.lengths = list(lengths)

    def wipe(self) -> None:
        """Write zeros behind the texts' ends; NaN there would reach queries that do not see it, as 0 NaN is NaN."""
        for slots_BLHK in (part for held in self._held.values() for part in held):
            for row, length in enumerate(self.lengths):
                slots_BLHK[row, length:] = 0

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the texts, in this order; one may be taken more than once."""
        self.lengths = [self.lengths[row] for row in rows]
        places = torch.tensor(rows, dtype=torch.long)
        for layer, (k, v) in self._held.items():
            self._held[layer] = k[places.to(k.device)], v[places.to(v.device)]


def _room(held: tuple[Tensor, Tensor] | None, part: int, size: int, like_BHTK: Tensor) -> Tensor:
    """Zeros with the slots that were held in front; twice as many as before, so that few copies are made."""
    B, H, _, K = like_BHTK.shape
    if held is None:
        return like_BHTK.new_zeros(B, size, H, K)
    before = held[part]
    room = before.new_zeros(B, max(size, 2 * before.shape[1]), H, K)
    room[:, : before.shape[1]] = before
    return room
