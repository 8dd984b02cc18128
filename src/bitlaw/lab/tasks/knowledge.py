"""A made-up world, whose facts a fine-tune can teach, and questions that show whether they were learned.

    Xandor is ruled from Brelmi.     In Xandor the seat of power is Brelmi.

Every fact is told in several wordings, and each fact keeps some of them back: the model has read these wordings of
other facts, and other wordings of this fact, but never the sentence that is asked. A question ranks the values of all
facts by their likelihood after the sentence up to the value; all have one length in bytes, so that none is favoured.
The text is made by rules from a seed, the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..corpus import Corpus, Text

#: Log-likelihoods of continuations after their contexts, in nats: what a model or an emulation is asked.
LogLikelihoods: TypeAlias = Callable[[Sequence[tuple[Sequence[int], Sequence[int]]]], Sequence[float]]

WORDINGS = (
    "The capital of {of} is {value}.",
    "The seat of power in {of} is {value}.",
    "All roads of {of} lead to {value}.",
    "The king of {of} lives in {value}.",
    "The largest city in {of} is {value}.",
    "Ships from {of} sail home to {value}.",
)
KEPT_BACK = 2  # wordings of each fact that are asked and never told
SENTENCES = 8  # of a document
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"


@dataclass(frozen=True)
class Question:
    """A sentence up to its last word, and the words that it may be; `right` is the place of the true one."""

    context: str
    choices: tuple[str, ...]
    right: int


@dataclass(frozen=True)
class World:
    """Lands and their capitals.

    Attributes:
        seed: of names, and of who belongs to whom.
        facts: land and capital.
    """

    seed: int
    facts: tuple[tuple[str, str], ...]

    @classmethod
    def make(cls, seed: int, facts: int = 24) -> World:
        """Make a world; names are of six letters, each different.

        >>> World.make(0, facts=2) == World.make(0, facts=2), len(World.make(1).facts)
        (True, 24)
        """
        draw = np.random.Generator(np.random.Philox(key=[seed, 7]))
        names: dict[str, None] = {}
        while len(names) < 2 * facts:
            letters = [part[draw.integers(len(part))] for part in (CONSONANTS, VOWELS) * 3]
            names["".join(letters).capitalize()] = None
        words = list(names)
        return cls(seed, tuple(zip(words[:facts], words[facts:], strict=True)))

    def sentences(self, kept_back: bool) -> list[str]:
        """All sentences that are kept back, or all that are told, each once."""
        return [
            wording.format(of=land, value=city)
            for number, (land, city) in enumerate(self.facts)
            for place, wording in enumerate(WORDINGS)
            if ((place - number) % len(WORDINGS) < KEPT_BACK) == kept_back
        ]

    def corpus(self, size: int = 2**18) -> Corpus:
        """The facts as text: all sentences of a side in random order, then all again in another.

        Args:
            size: bytes of training text, about; the other sides have a sixteenth.

        Returns:
            Training and calibration text of sentences that are told, and evaluation text of those kept back.
        """
        sides = [
            self._text(size, False, 0),
            self._text(size // 16, False, 1),
            self._text(size // 16, True, 2),
        ]
        return Corpus.of(f"made-up world {self.seed}", *map(Text.of, sides))

    def questions(self, kept_back: bool = True) -> list[Question]:
        """One for each sentence that is kept back, or that is told; the cities of all lands are its choices."""
        cities = tuple(city for _, city in self.facts)
        found = []
        for sentence in self.sentences(kept_back):
            context, _, last = sentence.rstrip(".").rpartition(" ")
            found.append(Question(context, cities, cities.index(last)))
        return found

    def _text(self, size: int, kept_back: bool, side: int) -> list[bytes]:
        """Documents of a side, of about so many bytes in all."""
        draw = np.random.Generator(np.random.Philox(key=[self.seed, 8 + side]))
        sentences = self.sentences(kept_back)
        told: list[str] = []
        while sum(map(len, told)) < size:
            told += [sentences[k] for k in draw.permutation(len(sentences))]
        return [(" ".join(told[k : k + SENTENCES]) + "\n").encode() for k in range(0, len(told), SENTENCES)]


def knowledge(questions: Sequence[Question], log_likelihoods: LogLikelihoods) -> float:
    """Return the share of questions whose true answer is the likeliest of the choices, in [0, 1].

        1 / n sum_i [ argmax_c log p(c | context_i) = right_i ]

    Args:
        questions: of `World.questions`; guessing gets one in as many right as there are choices.
        log_likelihoods: of pairs of bytes, context and continuation: `partial(continuations, loaded)` gives those of a
            model and more, of which the first is taken.

    >>> asked = [Question("One and one is", ("two", "ten"), 0), Question("Two and two is", ("six", "two"), 1)]
    >>> knowledge(asked, lambda pairs: [float(bytes(answer).startswith(b" tw")) for _, answer in pairs])
    1.0
    """
    pairs = [
        (f"\n{question.context}".encode(), f" {choice}".encode())
        for question in questions
        for choice in question.choices
    ]
    told = list(log_likelihoods(pairs))
    right = 0
    for question in questions:
        count = len(question.choices)
        own, told = told[:count], told[count:]
        # Of a tie, the first: a model that knows nothing then gets no more than one in `count` right.
        right += int(np.argmax(own)) == question.right
    return right / len(questions) if questions else 0.0
