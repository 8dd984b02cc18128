"""Real text without a download: any folder or file, or the standard library's own source files.

A document is a file. Documents are split, whole, into training and held-out text by a hash of their
content, so that the split does not depend on names or order; only a corpus of a few large files, which no
hash divides well, is cut in two instead. Tokens are bytes.
"""

from __future__ import annotations

import hashlib
import logging
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError

HELD_OUT = 0.04  # share of documents kept for evaluation
MAX_BYTES = 256 * 2**20  # what is read at most; the rest of a larger folder is left out, and said
SMALLEST = 64 * 1024  # bytes of text below which nothing sensible can be trained or evaluated

log = logging.getLogger("bitlaw.lab")


@dataclass(frozen=True)
class Corpus:
    """Text as bytes, split by document.

    Attributes:
        name: where it came from, for people.
        train: training bytes, documents one after the other.
        held_out: bytes of the held-out documents.
        sha256: of the training and held-out text; part of every cell's identity.
    """

    name: str
    train: NDArray[np.uint8]
    held_out: NDArray[np.uint8]
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
    train, held = _split(documents)
    digest = hashlib.sha256(hashlib.sha256(train).digest() + hashlib.sha256(held).digest()).hexdigest()
    return Corpus(
        name=name,
        train=np.frombuffer(train, np.uint8),
        held_out=np.frombuffer(held, np.uint8),
        sha256=digest,
    )


def _split(documents: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """Hold out whole documents by the hash of their content; a corpus of a few large ones is cut instead."""
    held = [key for key in documents if int.from_bytes(key[:4], "big") / 2**32 < HELD_OUT]
    sides = (
        b"\n".join(documents[k] for k in documents if k not in held),
        b"\n".join(documents[k] for k in held),
    )
    size = len(sides[0]) + len(sides[1])
    if HELD_OUT / 4 < len(sides[1]) / size < 4 * HELD_OUT:
        return sides
    whole = b"\n".join(documents.values())
    cut = int(len(whole) * (1 - HELD_OUT))
    return whole[:cut], whole[cut:]


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
