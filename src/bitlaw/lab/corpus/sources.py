"""Real text without a download: any folder or file, or the standard library's own source files.

A document is a file. Documents are split, whole, into training and held-out text by a hash of their
content, so that the split does not depend on names, order or the rest of the corpus. Tokens are bytes.
"""

from __future__ import annotations

import hashlib
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


@dataclass(frozen=True)
class Corpus:
    """Text as bytes, split by document.

    Attributes:
        name: where it came from, for people.
        train: training bytes, documents one after the other.
        held_out: bytes of the held-out documents.
        sha256: of the training and held-out text; part of every cell's identity.
        documents: how many files were read.
        truncated: whether files were left out because the corpus was too large.
    """

    name: str
    train: NDArray[np.uint8]
    held_out: NDArray[np.uint8]
    sha256: str
    documents: int
    truncated: bool


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
    if not root.exists():
        raise DataError(f"corpus {root} does not exist; name a folder or file of text")
    documents, size, truncated = [], 0, False
    for document in _documents(root, only_python=path is None):
        if size + len(document) > MAX_BYTES:
            truncated = True
            break
        documents.append(document)
        size += len(document)
    if size < SMALLEST:
        raise DataError(
            f"corpus {root} holds {size:,} bytes of text in {len(documents)} text files, fewer than the "
            f"{SMALLEST:,} needed; name a folder with more text"
        )
    if len(documents) == 1:  # one file: cut it, so that its last part can be held out
        cut = int(size * (1 - HELD_OUT))
        documents = [documents[0][:cut], documents[0][cut:]]
        held_out = [False, True]
    else:
        draws = [int.from_bytes(hashlib.sha256(d).digest()[:4], "big") / 2**32 for d in documents]
        held_out = [draw < HELD_OUT for draw in draws]
        if not any(held_out) or all(held_out):  # few documents: hold out the one nearest to the line
            held_out = [draw == min(draws) for draw in draws]
    train = b"\n".join(d for d, out in zip(documents, held_out, strict=True) if not out)
    held = b"\n".join(d for d, out in zip(documents, held_out, strict=True) if out)
    digest = hashlib.sha256(hashlib.sha256(train).digest() + hashlib.sha256(held).digest()).hexdigest()
    return Corpus(
        name=name,
        train=np.frombuffer(train, np.uint8),
        held_out=np.frombuffer(held, np.uint8),
        sha256=digest,
        documents=len(documents),
        truncated=truncated,
    )


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
            data = file.read_bytes() if file.is_file() and file.stat().st_size <= MAX_BYTES else b""
            data.decode("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if data and b"\0" not in data:
            yield data
