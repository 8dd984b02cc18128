"""Real text without a download: any folder or file, or the standard library's own source files.

A document is a file. Documents are split, whole, into training, calibration and evaluation text by a hash
of their content, so that the split does not depend on names or order; only a corpus of a few large files,
which no hash divides well, is cut instead. Tokens are bytes.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError

EVALUATION, CALIBRATION = 0.04, 0.02  # shares of the documents that are not trained on
MAX_BYTES = 256 * 2**20  # what is read at most; the rest of a larger folder is left out, and said
SMALLEST = 64 * 1024  # bytes of text below which nothing sensible can be trained or evaluated

log = logging.getLogger("bitlaw.lab")


@dataclass(frozen=True)
class Text:
    """Documents one after the other, as tokens.

    Attributes:
        tokens: of all documents.
        starts: where each document begins, rising from 0.
    """

    tokens: NDArray[Any]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, documents: Iterable[bytes]) -> Text:
        """Join documents, with a line end between them."""
        documents = list(documents)
        lengths = np.array([len(document) + 1 for document in documents], dtype=np.int64)
        return cls(np.frombuffer(b"\n".join(documents), np.uint8), np.cumsum(lengths) - lengths)

    def documents(self) -> Iterator[bytes]:
        """The documents again, as bytes."""
        for start, end in itertools.pairwise([*self.starts, len(self.tokens)]):
            yield self.tokens[start:end].tobytes()

    def encode(self, tokenizer: Any) -> Text:
        """Return the documents in the tokens of a tokenizer (of the library `tokenizers`), without special ones."""
        texts = [document.decode("utf-8", errors="replace") for document in self.documents()]
        found = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
        lengths = np.array([len(ids) for ids in found], dtype=np.int64)
        tokens = np.fromiter(itertools.chain.from_iterable(found), np.int32, int(lengths.sum()))
        return Text(tokens, np.cumsum(lengths) - lengths)


@dataclass(frozen=True)
class Corpus:
    """Text as bytes, split by document.

    Attributes:
        name: where it came from, for people.
        train: what models are trained on.
        calibration: what quantisation after training may look at.
        evaluation: what losses are of, and nothing else sees.
        sha256: of all three; part of every cell's identity.
    """

    name: str
    train: Text
    calibration: Text
    evaluation: Text
    sha256: str


@lru_cache(maxsize=2)
def read_corpus(path: str | None = None) -> Corpus:
    """Read every text file below a folder, or one file, or the standard library's sources.

    Args:
        path: a folder or file; None means the running Python's standard library without its tests.

    Raises:
        DataError: the path does not exist, or holds too little text.
    """
    root = Path(path) if path is not None else Path(sysconfig.get_paths()["stdlib"])
    name = str(path) if path is not None else f"Python {sysconfig.get_python_version()} standard library"
    try:
        found = root.exists()
    except OSError as error:
        raise DataError(f"cannot look at corpus {str(root)[:80]}: {error.strerror}") from error
    if not found:
        raise DataError(f"corpus {root} does not exist; name a folder or file of text")
    documents: dict[bytes, bytes] = {}  # by content: a copy in the held-out text would be no test
    size, truncated = 0, False
    for document in _documents(root, only_python=path is None):
        room = MAX_BYTES - size
        if len(document) > room:
            document, truncated = document[:room], True
        if document and documents.setdefault(hashlib.sha256(document).digest(), document) is document:
            size += len(document)
        if truncated:
            log.warning("corpus %s is larger than %d MiB; the rest is left out", root, MAX_BYTES >> 20)
            break
    if size < SMALLEST:
        raise DataError(
            f"corpus {root} holds {size:,} bytes of text in {len(documents)} text files, fewer than the "
            f"{SMALLEST:,} needed; name a folder with more text"
        )
    train, calibration, evaluation = (Text.of(side) for side in _split(documents))
    digests = [hashlib.sha256(text.tokens.tobytes()).digest() for text in (train, calibration, evaluation)]
    return Corpus(name, train, calibration, evaluation, hashlib.sha256(b"".join(digests)).hexdigest())


def _split(documents: dict[bytes, bytes]) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Keep whole documents from training by the hash of their content; a corpus of a few large ones is cut instead."""
    sides: tuple[list[bytes], list[bytes], list[bytes]] = [], [], []
    for key, document in documents.items():
        place = int.from_bytes(key[:4], "big") / 2**32
        sides[2 if place < EVALUATION else 1 if place < EVALUATION + CALIBRATION else 0].append(document)
    sizes = [sum(map(len, side)) for side in sides]
    wanted = (CALIBRATION, EVALUATION)
    if all(w / 4 < size / sum(sizes) < 4 * w for w, size in zip(wanted, sizes[1:], strict=True)):
        return sides
    whole = b"\n".join(documents.values())
    first, second = (int(len(whole) * (1 - share)) for share in (EVALUATION + CALIBRATION, EVALUATION))
    return [whole[:first]], [whole[first:second]], [whole[second:]]


def _documents(root: Path, only_python: bool) -> Iterator[bytes]:
    """Yield the text files below a root in a fixed order; binary and unreadable files are passed over."""
    if root.is_file():
        files = [root]
    else:
        skip = {"site-packages", "dist-packages", "test", "tests", "__pycache__"} if only_python else {".git"}
        pattern = "*.py" if only_python else "*"
        files = sorted(p for p in root.rglob(pattern) if not skip & set(p.relative_to(root).parts))
    for file in files:
        try:
            with file.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1) if file.is_file() else b""
            data.decode("utf-8", errors="ignore" if len(data) > MAX_BYTES else "strict")
        except (OSError, UnicodeDecodeError):
            continue
        if data and b"\0" not in data:
            yield data
