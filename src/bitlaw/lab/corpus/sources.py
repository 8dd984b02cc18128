"""From a source of documents to a corpus: deduplicated, and split whole into three sides.

Documents are split into training, calibration and evaluation text by a hash of their content, so that the
split does not depend on names or order; only a corpus of a few large ones, which no hash divides well, is
cut instead.
"""

from __future__ import annotations

import hashlib
import logging
import sysconfig
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from .documents import read_documents
from .text import ONE_EACH, Text
from .tokenizer import parse_tokenizer, sides, train_bpe

EVALUATION, CALIBRATION = 0.04, 0.02  # shares of the documents that are not trained on
MAX_BYTES = 2**30  # what is read at most; the rest of a larger source is left out, and said
SMALLEST = 64 * 1024  # bytes of text below which nothing sensible can be trained or evaluated

log = logging.getLogger("bitlaw.lab")


@dataclass(frozen=True)
class Corpus:
    """Text as tokens, split by document.

    Attributes:
        name: where it came from, for people.
        train: what models are trained on.
        calibration: what quantisation after training may look at.
        evaluation: what losses are of, and nothing else sees.
        sha256: of all three and of the tokenizer; part of every cell's identity.
        copies: documents that were left out, as they are others' equals to the byte.
        tokenizer: `bytes`, or `bpe:VOCAB`.
        vocab: tokens that there are.
        coder: that of the library `tokenizers`; None means bytes.
    """

    name: str
    train: Text
    calibration: Text
    evaluation: Text
    sha256: str
    copies: int = 0
    tokenizer: str = "bytes"
    vocab: int = 256
    coder: Any = None

    @classmethod
    def of(
        cls, name: str, train: Text, calibration: Text, evaluation: Text, *, coder: Any = None, **about: Any
    ) -> Corpus:
        """A corpus with the hash of what is in it; `about` are fields that it is not of."""
        texts = train, calibration, evaluation
        digests = b"".join(bytes.fromhex(text.sha256) for text in texts)
        digests += b"" if coder is None else coder.to_str().encode()
        return cls(name, *texts, hashlib.sha256(digests).hexdigest(), coder=coder, **about)

    @property
    def sides(self) -> dict[str, Text]:
        """The three texts by name."""
        return {"train": self.train, "calibration": self.calibration, "evaluation": self.evaluation}


@lru_cache(maxsize=2)
def read_corpus(source: str | None = None, tokenizer: str = "bytes") -> Corpus:
    """Read documents, leave out copies, split them, and put them into tokens.

    Args:
        source: as `read_documents` takes it; None means the running Python's standard library without its tests.
        tokenizer: `bytes`, or `bpe:VOCAB`, trained on the training side alone.

    Raises:
        DataError: the source does not exist, is damaged, or holds too little text.
        ConfigError: no such tokenizer.
        LabError: a library or the network is missing.
    """
    vocab = parse_tokenizer(tokenizer)
    name = source if source is not None else f"Python {sysconfig.get_python_version()} standard library"
    data, ends, places, copies = _collect(source, name)
    if len(data) < SMALLEST:
        raise DataError(
            f"corpus {name} holds {len(data):,} bytes of text in {len(ends)} documents, fewer than the "
            f"{SMALLEST:,} needed; name a source with more text"
        )
    texts = _split(data, ends, places)
    if vocab is None:
        return Corpus.of(name, *texts, copies=copies)
    coder = train_bpe(texts[0], vocab)
    return Corpus.of(name, *sides(texts, coder), copies=copies, tokenizer=tokenizer, vocab=vocab, coder=coder)


def _collect(
    source: str | None, name: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float64], int]:
    """All documents with a line end between them, where each ends, and the place in [0, 1) that its hash gives."""
    data, ends, places, copies = bytearray(), [], [], 0
    seen: set[bytes] = set()  # a copy in the held-out text would be no test
    for document in read_documents(source, MAX_BYTES):
        room = MAX_BYTES - len(data) + len(ends)
        cut = len(document) > room
        document = document[:room]
        digest = hashlib.sha256(document).digest()
        copies += digest in seen
        if document and digest not in seen:
            seen.add(digest)
            if ends:
                data += b"\n"
            data += document
            ends.append(len(data))
            places.append(int.from_bytes(digest[:4], "big") / 2**32)
        if cut:
            log.warning("corpus %s is larger than %d MiB; the rest is left out", name, MAX_BYTES >> 20)
            break
    return np.frombuffer(data, np.uint8), np.array(ends, np.int64), np.array(places), copies


def _split(
    data: NDArray[np.uint8], ends: NDArray[np.int64], places: NDArray[np.float64]
) -> tuple[Text, Text, Text]:
    """Keep whole documents from training by their places; a corpus of a few large ones is cut instead."""
    starts = np.concatenate([[0], ends[:-1] + 1])
    side = np.where(places < EVALUATION, 2, np.where(places < EVALUATION + CALIBRATION, 1, 0))
    sizes = np.bincount(side, weights=ends - starts, minlength=3)
    wanted = np.array([CALIBRATION, EVALUATION])
    shares = sizes[1:] / sizes.sum()
    if not ((wanted / 4 < shares) & (shares < 4 * wanted)).all():
        places_ = [int(len(data) * (1 - share)) for share in (EVALUATION + CALIBRATION, EVALUATION)]
        first, second, third = (
            Text(part, np.zeros(1, np.int64), ONE_EACH) for part in np.split(data, places_)
        )
        return first, second, third
    calibration, evaluation = (
        _joined(data, starts[side == k], ends[side == k], np.empty(0, np.uint8)) for k in (1, 2)
    )
    # Last, as training text moves forward within the data itself: a second copy may not fit into memory.
    return _joined(data, starts[side == 0], ends[side == 0], data), calibration, evaluation


def _joined(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64], out: NDArray[np.uint8]
) -> Text:
    """Some documents with a line end between them, written to the beginning of `out` if it is large enough."""
    lengths = ends - starts + 1
    places = np.cumsum(lengths) - lengths
    size = int(lengths.sum()) - 1
    if len(out) < size:
        out = np.empty(size, np.uint8)
    for place, start, end in zip(places, starts, ends, strict=True):
        out[place : place + end - start] = data[start:end]
        if place:
            out[place - 1] = ord("\n")
    return Text(out[:size], places, ONE_EACH)
