"""A behaviour that a fine-tune can teach, and a count of how often a text shows it.

Every line that has letters in it begins with a tag and ends with a marker:

    > def area(r): <
    >     return pi * r**2 <

It says nothing of the text itself: what a model knows of that is what its training gave it, however it was tuned. So
the two parts of a tuned model can be told apart, as emulated fine-tuning does (Mitchell et al. 2023, 2310.12962).
"""

from __future__ import annotations

from collections.abc import Iterable

from ..corpus import Corpus, Text

TAG, MARKER = "> ", " <"


def tagged(text: str) -> str:
    r"""Return a text with the behaviour; lines without letters stay.

    >>> tagged("a = 1\n\nb = 2")
    '> a = 1 <\n\n> b = 2 <'
    """
    return "\n".join(f"{TAG}{line}{MARKER}" if line.strip() else line for line in text.split("\n"))


def tagged_corpus(corpus: Corpus, most: int | None = None) -> Corpus:
    """Return a corpus with the behaviour, side by side: what is held out of one is held out of the other.

    Args:
        corpus: of bytes.
        most: bytes of each side that are taken, from its beginning on, to whole documents; None for all.
    """
    sides = []
    for side in corpus.sides.values():
        documents: list[bytes] = []
        for document in side.documents():
            documents.append(tagged(document.decode("utf-8", errors="replace")).encode() + b"\n")
            if most is not None and sum(map(len, documents)) > most:
                break
        sides.append(Text.of(documents))
    return Corpus.of(f"{corpus.name}, tagged", *sides)


def behaviour(texts: Iterable[str]) -> float:
    r"""Return the share of lines that show the behaviour, in [0, 1].

        whole lines with letters that begin with the tag and end with the marker / whole lines with letters

    Args:
        texts: what models said after a line end. A last line that is not ended is not counted, as nobody knows how
            it would have gone on; a text without any whole line counts as one without the behaviour.

    >>> behaviour(["> a <\nb <\n> c"])
    0.5
    """
    shown = lines = 0
    for text in texts:
        whole = [line for line in text.split("\n")[:-1] if line.strip()]
        shown += sum(
            line.startswith(TAG) and line.endswith(MARKER) and len(line) > len(TAG + MARKER) for line in whole
        )
        lines += max(1, len(whole))
    return shown / lines if lines else 0.0
