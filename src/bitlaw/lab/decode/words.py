"""Text to tokens and back, as a model from a folder spells it."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from ...errors import ConfigError, DataError
from ..model import Loaded
from ..model.pretrained import Pretrained

LETTERS = 20  # of a text that an error shows


def encode(loaded: Loaded, text: str, special: bool = True) -> list[int]:
    """Return the tokens of a text.

    Args:
        loaded: a model with its tokenizer.
        text: the prompt.
        special: add what the tokenizer begins every text with, as Llama's does.

    Raises:
        ConfigError: the text is empty.
        DataError: the tokenizer has no token for a letter of it, or one that the model does not know.
    """
    if not text:
        raise ConfigError("the prompt is empty, and a model goes on from a token; give it one letter or more")
    escapes = "\udc80", "\udcff"  # of bytes that are no UTF-8, which a model of bytes reads all the same
    strange = [letter for letter in text if "\ud800" <= letter <= "\udfff"]
    if any(loaded.tokenizer is not None or not escapes[0] <= letter <= escapes[1] for letter in strange):
        raise DataError(
            f"the prompt {text[:LETTERS]!r} is not UTF-8, which {loaded.name or 'the model'} reads"
        )
    if loaded.tokenizer is None:
        found, covered = list(text.encode("utf-8", errors="surrogateescape")), set(range(len(text)))
    else:
        encoding = loaded.tokenizer.encode(text, add_special_tokens=special)
        found = encoding.ids
        unknown = getattr(loaded.tokenizer.model, "unk_token", None)
        pairs = zip(encoding.tokens, encoding.offsets, strict=True)
        covered = {place for token, (start, end) in pairs if token != unknown for place in range(start, end)}
    missing = [place for place, letter in enumerate(text) if place not in covered and not letter.isspace()]
    if missing or not found:
        place = missing[0] if missing else 0
        raise DataError(
            f"the tokenizer of {loaded.name} has no token for {text[place]!r}, letter {place + 1} of the prompt "
            f"{text[:LETTERS]!r}; leave it out, or use a model that was trained on such text"
        )
    if max(found) >= loaded.vocab:
        raise DataError(
            f"{loaded.name} knows {loaded.vocab:,} tokens, and the prompt {text[:LETTERS]!r} has number "
            f"{max(found):,}; model and tokenizer are not of one folder"
        )
    return list(found)


def number_of(loaded: Loaded, text: str) -> int:
    """Return the one token that a text is.

    Raises:
        ConfigError: it is several.
    """
    known = None if loaded.tokenizer is None else loaded.tokenizer.token_to_id(text)
    found = encode(loaded, text, special=False) if known is None else [known]
    if len(found) != 1:
        raise ConfigError(
            f"{text[:LETTERS]!r} is {len(found)} tokens of {loaded.name}, and a text stops at one; give a shorter one"
        )
    return int(found[0])


def ends_of(loaded: Loaded) -> frozenset[int]:
    """Tokens by which a model says that a text is over: those that a folder of Hugging Face names; ours has none."""
    if not isinstance(loaded.model, Pretrained):
        return frozenset()
    places = (getattr(loaded.model.model, "generation_config", None), loaded.model.model.config)
    said = next((e for p in places if (e := getattr(p, "eos_token_id", None)) is not None), None)
    return frozenset(said if isinstance(said, (list, tuple)) else () if said is None else (said,))


class Spelling:
    """Spells tokens as they come behind those before, and keeps back what may be half a letter.

    >>> from types import SimpleNamespace
    >>> spelling = Spelling(SimpleNamespace(tokenizer=None))
    >>> [spelling.add(token) for token in "né".encode()], spelling.rest()
    (['n', '', 'é'], '')
    """

    def __init__(self, loaded: Loaded, before: Sequence[int] = ()) -> None:
        self.tokenizer = loaded.tokenizer
        self.bytes = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.tokens = list(before)
        # Tokens are spelled from `start` on, and told up to `told`.
        self.start, self.told = 0, len(self.tokens)

    def add(self, token: int) -> str:
        """Return the letters that a token adds."""
        if self.tokenizer is None:
            return self.bytes.decode(bytes([token])) if token < 256 else "\ufffd"
        self.tokens.append(token)
        new = self._new()
        if not new or new.endswith("\ufffd"):
            return ""
        self.start, self.told = self.told, len(self.tokens)
        return new

    def rest(self) -> str:
        """Return what was kept back, at the end."""
        if self.tokenizer is None:
            return self.bytes.decode(b"", final=True)
        return self._new()

    def _new(self) -> str:
        """What tokens that are not told add to those before, without which some tokenizers drop a first space."""
        known = str(self.tokenizer.decode(self.tokens[self.start : self.told]))
        return str(self.tokenizer.decode(self.tokens[self.start :]))[len(known) :]
