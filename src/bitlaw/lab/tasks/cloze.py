"""Cloze over word lists: which of some words was left out of a text?"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ...errors import ConfigError, DataError
from ..corpus import Text
from ..model import Loaded
from ..quantize.means import clustered_mean
from .likelihood import Judged, continuations, split

WORD = re.compile(rb"(?<![A-Za-z])[A-Za-z]+(?![A-Za-z])")
FREQUENT, SHORTEST = 2000, 4  # words that are asked for, and letters that each has at least
LOOKED_AT = 2**22  # bytes of text that they are chosen from
LEAST, BEFORE, AFTER = 64, 192, 32  # bytes before a gap, at least and at most, and after it
FEWEST = 100  # gaps below which an error says too little

YAML = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {name}.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{before}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


@dataclass(frozen=True)
class Gap:
    """A place where a word is left out.

    Attributes:
        before: the text up to it.
        choices: for each candidate, the word and the text after it.
        gold: place of the right one.
        document: number of the document that it is in.
    """

    before: str
    choices: tuple[str, ...]
    gold: int
    document: int


@dataclass(frozen=True)
class Cloze:
    """Gaps in held-out text, each with a list of words that may fill it.

    A model chooses the word that makes word and rest of the text likeliest. The words of a list are of one length and
    neighbours by frequency in other text of the domain, and each of them is the right one equally often, so that
    neither length nor frequency gives the answer away; the text before, and 32 bytes after, do.

    >>> text = Text(np.frombuffer(b"the long road and the wide road. " * 40, np.uint8), np.zeros(1, np.int64))
    >>> cloze = Cloze.of(text, text, count=100, choices=3)
    >>> gap = cloze.gaps[0]
    >>> sorted(choice[:4] for choice in gap.choices), gap.choices[gap.gold][:4] in ("long", "road", "wide")
    (['long', 'road', 'wide'], True)
    """

    gaps: tuple[Gap, ...]

    @classmethod
    def of(cls, text: Text, other: Text, count: int = 500, choices: int = 4, seed: int = 0) -> Cloze:
        """Leave words out of a text.

        Args:
            text: of bytes, held out from training.
            other: of the same domain, not held out beside it; its 2,000 most frequent words of four letters or more
                are those that are left out, and the candidates.
            count: gaps, drawn without replacement; all that there are where these are fewer.
            choices: words in each list.
            seed: of places and lists.

        Raises:
            ConfigError: fewer than two choices, or no gaps.
            DataError: texts of other tokens than bytes, or with too few such words.
        """
        if choices < 2 or count < 1:
            raise ConfigError(f"a cloze has two choices or more, and a gap; not {choices} and {count}")
        if text.tokens.dtype != np.uint8 or other.tokens.dtype != np.uint8:
            raise DataError(
                "words are left out of a text of bytes; read the corpus with the tokenizer 'bytes'"
            )
        documents = list(text.documents())
        found: dict[bytes, list[tuple[int, int]]] = {word: [] for word in _words(other)}
        for number, document in enumerate(documents):
            for m in WORD.finditer(document):
                if m.group() in found and m.start() >= LEAST:
                    found[m.group()].append((number, m.start()))
        rng = np.random.default_rng(seed)
        places = []
        for words in _lists([word for word in found if found[word]], choices):
            times = min(len(found[word]) for word in words)  # each is right as often as the others
            for word in words:
                chosen = rng.choice(len(found[word]), times, replace=False)
                places += [(*found[word][k], word, words) for k in chosen]
        if len(places) < FEWEST:
            raise DataError(
                f"the text has {len(places)} places where one of {len(found)} frequent words may be left out, fewer "
                f"than {FEWEST}; use more text, or fewer choices"
            )
        drawn = np.sort(rng.permutation(len(places))[:count])
        return cls(
            tuple(
                _gap(documents[n], n, a, word, words, rng) for n, a, word, words in (places[k] for k in drawn)
            )
        )

    @property
    def digest(self) -> str:
        """Of all gaps."""
        return hashlib.sha256(json.dumps([asdict(gap) for gap in self.gaps]).encode()).hexdigest()

    def judge(self, loaded: Loaded) -> Judged:
        """Choose for each gap; the standard error is over documents, or over gaps where these are few."""
        pairs = [split(loaded, gap.before, choice) for gap in self.gaps for choice in gap.choices]
        scores = [total for total, _ in continuations(loaded, pairs)]
        hits: list[bool] = []
        start = 0
        for gap in self.gaps:
            own = scores[start : start + len(gap.choices)]
            hits.append(int(np.argmax(own)) == gap.gold)
            start += len(own)
        right = clustered_mean(
            torch.tensor(hits).double()[:, None], torch.tensor([[gap.document] for gap in self.gaps])
        )
        acc, chance = right.value, float(np.mean([1 / len(gap.choices) for gap in self.gaps]))
        said = {"acc,none": acc, "acc_stderr,none": right.se, "gaps": len(hits)}
        return Judged(1 - acc, chance, {"cloze": said})

    def write(self, folder: str | Path, name: str = "cloze") -> Path:
        """Write the gaps as a task of lm-evaluation-harness: a YAML file, and a line of JSON a gap beside it.

        Raises:
            DataError: the folder cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = "".join(json.dumps(asdict(gap)) + "\n" for gap in self.gaps)
            (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
            (folder / f"{name}.yaml").write_text(YAML.format(name=name), encoding="utf-8")
        except OSError as error:
            raise DataError(f"cannot write {folder}: {error.strerror or error}") from error
        return folder / f"{name}.yaml"


def _words(text: Text) -> list[bytes]:
    """Frequent words, most frequent first."""
    counts = Counter(WORD.findall(text.tokens[:LOOKED_AT].tobytes()))
    return sorted((w for w in counts if len(w) >= SHORTEST), key=lambda w: (-counts[w], w))[:FREQUENT]


def _lists(words: list[bytes], choices: int) -> list[list[bytes]]:
    """Words of one length in lists of neighbours; those that fill none are left out."""
    by_length: dict[int, list[bytes]] = {}
    for word in words:
        by_length.setdefault(len(word), []).append(word)
    return [
        some[k : k + choices]
        for some in by_length.values()
        for k in range(0, len(some) - choices + 1, choices)
    ]


def _gap(
    document: bytes, number: int, start: int, right: bytes, words: list[bytes], rng: np.random.Generator
) -> Gap:
    """The gap where a word stands, with the others of its list in an order of chance."""
    order = [words[k] for k in rng.permutation(len(words))]
    end = start + len(right)
    before = document[max(0, start - BEFORE) : start].decode("utf-8", errors="ignore")
    after = document[end : end + AFTER].decode("utf-8", errors="ignore")
    return Gap(before, tuple(word.decode() + after for word in order), order.index(right), number)
