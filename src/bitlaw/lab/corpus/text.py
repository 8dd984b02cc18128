"""Documents in one array of tokens, and the places where they begin."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIECE = 2**20  # bytes that a tokenizer is given at once; a longer document is cut at a line end
BATCH = 16  # pieces encoded at once: what a library says of each token takes far more room than the text

ONE_EACH = np.ones(256, np.uint16)


@dataclass(frozen=True)
class Text:
    """Documents one after the other, as tokens.

    Attributes:
        tokens: of all documents.
        starts: where each document begins, rising from 0.
        lengths: bytes that each token of the vocabulary stands for, where that is known.
    """

    tokens: NDArray[Any]
    starts: NDArray[np.int64]
    lengths: NDArray[np.uint16] | None = None

    @classmethod
    def of(cls, documents: Iterable[bytes]) -> Text:
        r"""Documents one after the other, as a text of bytes.

        >>> text = Text.of([b"To be\n", b"or not"])
        >>> text.starts.tolist(), list(text.documents())
        ([0, 6], [b'To be\n', b'or not'])
        """
        data = list(documents)
        starts = np.cumsum([0, *map(len, data[:-1])])
        return cls(np.frombuffer(b"".join(data), np.uint8), starts, ONE_EACH)

    @cached_property
    def sha256(self) -> str:
        """Hash of the tokens."""
        return hashlib.sha256(np.ascontiguousarray(self.tokens).view(np.uint8)).hexdigest()

    @property
    def size(self) -> int | None:
        """Bytes of text that the tokens stand for; None means unknown."""
        if self.lengths is None:
            return None
        parts = (self.tokens[start : start + PIECE] for start in range(0, len(self.tokens), PIECE))
        return sum(int(self.lengths[part].sum(dtype=np.int64)) for part in parts)

    def documents(self) -> Iterator[bytes]:
        """The documents of a text of bytes again."""
        for start, end in itertools.pairwise([*self.starts, len(self.tokens)]):
            yield self.tokens[start:end].tobytes()

    def pieces(self) -> Iterator[tuple[int, str]]:
        """Yield the documents of a text of bytes with their numbers, long ones in pieces."""
        for number, document in enumerate(self.documents()):
            start = 0
            while start < len(document):
                end = min(start + PIECE, len(document))
                if end < len(document):
                    end = document.rfind(b"\n", start, end) + 1 or _character(document, end)
                yield number, document[start:end].decode("utf-8", errors="replace")
                start = end

    def encode(self, tokenizer: Any, kind: Any = np.int32, lengths: NDArray[np.uint16] | None = None) -> Text:
        """Return a text of bytes in the tokens of a tokenizer (of the library `tokenizers`), without special ones.

        Args:
            tokenizer: gives the numbers.
            kind: the type that holds them.
            lengths: bytes that each token stands for, if known.
        """
        parts: list[NDArray[Any]] = [np.zeros(0, kind)]
        counts = np.zeros(len(self.starts), np.int64)
        pieces = self.pieces()
        while batch := list(itertools.islice(pieces, BATCH)):
            found = tokenizer.encode_batch([piece for _, piece in batch], add_special_tokens=False)
            for (number, _), encoding in zip(batch, found, strict=True):
                parts.append(np.array(encoding.ids, kind))
                counts[number] += len(parts[-1])
        return Text(np.concatenate(parts), np.cumsum(counts) - counts, lengths)


def _character(document: bytes, end: int) -> int:
    """The place where the character that an end may cut begins."""
    for back in range(4):
        if document[end - back] & 0xC0 != 0x80:
            return end - back
    return end
