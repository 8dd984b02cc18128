"""Tasks that cost nothing beside the loss: places of the evaluation text at which the top-1 next byte is judged."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..corpus import Text, Windows

FEWEST = 100  # places below which an error says too little
CONTEXT = 8  # bytes that must have been seen before for the next to be copied
VARIED = 4  # different bytes among them and the next: indentation and rulers need no copying
BEGUN, NAMED = 3, 2  # bytes of a word, and of a keyword, that are in view
KEYWORDS, LONG = 200, 6  # frequent words, and letters that each has at least
LOOKED_AT = 2**22  # bytes of text that keywords are chosen from
CLOSES = {ord(")"): ord("("), ord("]"): ord("["), ord("}"): ord("{")}
WORD = re.compile(rb"[A-Za-z]+")


def task_masks(windows: Windows, text: Text) -> dict[str, Tensor]:
    """Return for each task which tokens of some windows are judged (W, T); one of fewer than 100 is left out.

    * `next`: every token.
    * `bracket`: a bracket that closes one opened in the window.
    * `copy`: a byte that followed the same eight bytes earlier in the window, at least four of the nine different.
    * `word`: letters of a word after its third.
    * `keyword`: bytes after the second of a long word that is frequent in the domain.

    All but the first are of bytes; other tokens have that one alone. `copy` and `bracket` are judged only where copying
    and closing are right, so they are errors of omission.

    Args:
        windows: of the evaluation text.
        text: of the same domain and in the same tokens, not evaluated on; keywords are its 200 most frequent words of
            six letters or more.
    """
    masks = {"next": torch.ones(windows.targets.shape, dtype=torch.bool)}
    if text.tokens.dtype == np.uint8:
        frequent = keywords(text)
        places: dict[str, Callable[[bytes], list[int]]] = {
            "bracket": closed,
            "copy": copied,
            "word": lambda seen: [k for m in WORD.finditer(seen) for k in range(m.start() + BEGUN, m.end())],
            "keyword": lambda seen: [
                k
                for m in WORD.finditer(seen)
                if m.group() in frequent
                for k in range(m.start() + NAMED, m.end())
            ],
        }
        seen = torch.cat([windows.inputs, windows.targets[:, -1:]], dim=1).to(torch.uint8).numpy()
        masks |= {task: torch.zeros_like(masks["next"]) for task in places}
        for row, bytes_ in enumerate(map(bytes, seen)):
            for task, find in places.items():
                masks[task][row, [k - 1 for k in find(bytes_)]] = True  # the first byte is no target
    return {task: mask for task, mask in masks.items() if mask.sum() >= FEWEST}


def keywords(text: Text) -> set[bytes]:
    """The most frequent long words of a text of bytes, the first of the alphabet where words are as frequent.

    >>> from bitlaw.lab.corpus.text import Text
    >>> keywords(Text(np.frombuffer(b"return a return; if", np.uint8), np.zeros(1, np.int64)))
    {b'return'}
    """
    counts = Counter(word for word in WORD.findall(text.tokens[:LOOKED_AT].tobytes()) if len(word) >= LONG)
    return set(sorted(counts, key=lambda word: (-counts[word], word))[:KEYWORDS])


def closed(seen: bytes) -> list[int]:
    """Places of the brackets that close the one opened last.

    >>> closed(b") f(a[0)]) {")
    [8, 9]
    """
    found, open_ = [], []
    for place, byte in enumerate(seen):
        if byte in CLOSES.values():
            open_.append(byte)
        elif byte in CLOSES and open_ and open_[-1] == CLOSES[byte]:
            open_.pop()
            found.append(place)
    return found


def copied(seen: bytes) -> list[int]:
    """Places of the bytes that followed the same eight bytes before.

    >>> copied(b"one window; a window; b"), copied(b"a window; a window?"), copied(b" " * 20)
    ([21], [], [])
    """
    before: set[bytes] = set()
    found = []
    for place in range(CONTEXT, len(seen)):
        gram = seen[place - CONTEXT : place + 1]
        if gram in before and len(set(gram)) >= VARIED:
            found.append(place)
        before.add(gram)
    return found
