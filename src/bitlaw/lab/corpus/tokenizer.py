"""Tokens: bytes, or pairs of bytes merged by what is frequent in the training text alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, DataError, LabError
from ...files import whole
from .text import Text

SMALLEST, LARGEST = 257, 65_536  # tokens; every byte is one, and 16 bits hold their numbers


def cache() -> Path:
    """Folder of what can be made or fetched again: `$BITLAW_CACHE`, or one in the user's home."""
    return Path(os.environ.get("BITLAW_CACHE") or "~/.cache/bitlaw").expanduser()


def parse_tokenizer(name: str) -> int | None:
    """Return the vocabulary that `bpe:VOCAB` asks for, or None for `bytes`.

    Raises:
        ConfigError: neither, or a vocabulary that cannot be.

    >>> parse_tokenizer("bpe:512")
    512
    """
    if name == "bytes":
        return None
    kind, _, size = name.partition(":")
    if kind != "bpe" or not size.isascii() or not size.isdigit() or size.startswith("0") or len(size) > 5:
        raise ConfigError(f"unknown tokenizer {name[:40]!r}; use bytes, or bpe:512 for 512 tokens")
    if not SMALLEST <= int(size) <= LARGEST:
        raise ConfigError(f"tokenizer {name}: the vocabulary must be {SMALLEST} to {LARGEST:,} tokens")
    return int(size)


def train_bpe(text: Text, vocab: int) -> Any:
    """Return a byte-level BPE tokenizer (Sennrich et al. 2016, over bytes) trained on a text.

    One that was trained on the same text before is read from the cache.

    Raises:
        LabError: the library `tokenizers` is not installed, or the text is too plain for so many tokens.
    """
    try:
        import tokenizers
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError as error:
        raise LabError('BPE needs the library tokenizers: pip install "bitlaw[hf]"') from error
    key = hashlib.sha256(f"{text.sha256} {vocab} {tokenizers.__version__}".encode()).hexdigest()
    path = cache() / "tokenizers" / f"{key}.json"
    try:
        return Tokenizer.from_file(str(path))
    except Exception:  # the library has no class of its own for a missing or damaged file
        pass
    coder = Tokenizer(models.BPE())
    coder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    coder.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocab, initial_alphabet=alphabet, show_progress=False)
    coder.train_from_iterator((piece for _, piece in text.pieces()), trainer)
    if coder.get_vocab_size() < vocab:
        raise LabError(
            f"the training text is too plain for {vocab} tokens: {coder.get_vocab_size()} are all it has; "
            f"use bpe:{coder.get_vocab_size()} or less, or more text"
        )
    with suppress(OSError, DataError):  # a cache that cannot be written costs time alone
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as temporary:
            temporary.write_text(coder.to_str(), encoding="utf-8")
    return coder


def byte_lengths(coder: Any) -> NDArray[np.uint16]:
    """Bytes that each token of a byte-level tokenizer stands for: one a letter of how it is written."""
    return np.array([len(coder.id_to_token(k)) for k in range(coder.get_vocab_size())], np.uint16)


def sides(texts: tuple[Text, Text, Text], coder: Any) -> Iterator[Text]:
    """Yield texts in the tokens of a byte-level tokenizer of up to 65,536."""
    lengths = byte_lengths(coder)
    for text in texts:
        yield text.encode(coder, np.uint16, lengths)
