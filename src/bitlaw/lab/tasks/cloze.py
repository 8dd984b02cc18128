"""Cloze over word lists: which of some words was left out of a text?"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ...errors import ConfigError, DataError
from ..corpus import Text
from ..model import Loaded
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
    """

    before: str
    choices: tuple[str, ...]
    gold: int


@dataclass(frozen=True)
class Cloze:
    """Gaps in held-out text, each with a list of words that may fill it.

    A model chooses the word that makes word and rest of the text likeliest. All words of a list have one length and
    are frequent in other text of the domain, so that neither length nor rarity gives the answer away; the text before,
    and 32 bytes after, do.

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
        lists = _words(other, choices)
        known = {word for words in lists.values() for word in words}
        documents = list(text.documents())
        places = [
            (number, m.start(), m.end())
            for number, document in enumerate(documents)
            for m in WORD.finditer(document)
            if m.group() in known and m.start() >= LEAST
        ]
        if len(places) < FEWEST:
            raise DataError(
                f"the text has {len(places)} places where one of {len(known)} frequent words may be left out, fewer "
                f"than {FEWEST}; use more text, or fewer choices"
            )
        rng = np.random.default_rng(seed)
        drawn = np.sort(rng.permutation(len(places))[:count])
        return cls(
            tuple(_gap(documents[n], a, b, lists, choices, rng) for n, a, b in (places[k] for k in drawn))
        )

    @property
    def digest(self) -> str:
        """Of all gaps."""
        return hashlib.sha256(json.dumps([asdict(gap) for gap in self.gaps]).encode()).hexdigest()

    def judge(self, loaded: Loaded) -> Judged:
        """Choose for each gap; the standard error is over gaps, taken as independent."""
        pairs = [split(loaded, gap.before, choice) for gap in self.gaps for choice in gap.choices]
        scores = [total for total, _ in continuations(loaded, pairs)]
        hits, start = [], 0
        for gap in self.gaps:
            own = scores[start : start + len(gap.choices)]
            hits.append(int(np.argmax(own)) == gap.gold)
            start += len(own)
        acc, chance = float(np.mean(hits)), float(np.mean([1 / len(gap.choices) for gap in self.gaps]))
        se = float(np.std(hits, ddof=1) / np.sqrt(len(hits))) if len(hits) > 1 else float("nan")
        return Judged(1 - acc, chance, {"cloze": {"acc,none": acc, "acc_stderr,none": se, "gaps": len(hits)}})

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


def _words(text: Text, choices: int) -> dict[int, list[bytes]]:
    """Frequent words by their length, where there are enough of one."""
    counts = Counter(WORD.findall(text.tokens[:LOOKED_AT].tobytes()))
    long = sorted((w for w in counts if len(w) >= SHORTEST), key=lambda w: (-counts[w], w))[:FREQUENT]
    lists: dict[int, list[bytes]] = {}
    for word in sorted(long):
        lists.setdefault(len(word), []).append(word)
    return {length: words for length, words in lists.items() if len(words) >= choices}


def _gap(
    document: bytes,
    start: int,
    end: int,
    lists: dict[int, list[bytes]],
    choices: int,
    rng: np.random.Generator,
) -> Gap:
    """The gap where a word stands, with others of its length in an order of chance."""
    right = document[start:end]
    others = [word for word in lists[len(right)] if word != right]
    words = [right, *(others[k] for k in rng.choice(len(others), choices - 1, replace=False))]
    order = rng.permutation(choices)
    before = document[max(0, start - BEFORE) : start].decode("utf-8", errors="ignore")
    after = document[end : end + AFTER].decode("utf-8", errors="ignore")
    return Gap(before, tuple(words[k].decode() + after for k in order), int(np.flatnonzero(order == 0)[0]))
