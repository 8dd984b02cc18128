"""Numbers of few bits side by side in bytes, as a checkpoint stores them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .grid import Format

_TRITS = 3 ** np.arange(5, dtype=np.int64)


def pack(places: NDArray[np.integer], fmt: Format) -> NDArray[np.uint8]:
    """Pack places in the list of a format's values into bytes, lowest bits first; three levels go five to a byte.

    >>> from bitlaw import parse_format
    >>> pack(np.array([1, 2, 3]), parse_format("int4")).tolist()
    [33, 3]
    """
    places = np.asarray(places, dtype=np.int64).ravel()
    if fmt.stored_bits == 8 / 5:
        padded = np.concatenate([places, np.zeros(-len(places) % 5, dtype=np.int64)])
        return (padded.reshape(-1, 5) @ _TRITS).astype(np.uint8)
    bits = (places[:, None] >> np.arange(round(fmt.stored_bits))) & 1
    return np.packbits(bits.astype(np.uint8).ravel(), bitorder="little")


def unpack(data: NDArray[np.uint8], fmt: Format, count: int) -> NDArray[np.int64]:
    """Return the first `count` places that were packed."""
    if fmt.stored_bits == 8 / 5:
        return (data.astype(np.int64)[:, None] // _TRITS % 3).ravel()[:count]
    width = round(fmt.stored_bits)
    bits = np.unpackbits(data, bitorder="little")[: count * width].reshape(count, width)
    return bits.astype(np.int64) @ (1 << np.arange(width, dtype=np.int64))
