"""Bases of two sizes, each tuned to a behaviour and to facts of a made-up world: what emulated fine-tuning needs.

    python studies/emulation/pairs.py    # half an hour of one core; goes on where it was stopped

Bases are 16-bit ends of the thousandth study at 13M tokens, one of each size and seed (`studies/thousandth/models`).
Behaviour is taught on 1.1 MB of their own corpus, its lines tagged; knowledge is 24 facts in 4 wordings each, and
is asked in the 2 others. All weights are tuned. Models go to bitlaw-emulation in the folder for temporary files, where
`shares.py` and `bits.py` find them: BASE-TASK-SEED.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from bitlaw.lab.corpus import Corpus, read_corpus
from bitlaw.lab.model import load_model
from bitlaw.lab.sweep import tune_folder
from bitlaw.lab.tasks import World, tagged_corpus

MODELS = Path(__file__).parents[1] / "thousandth" / "models"
FOLDER = Path(tempfile.gettempdir()) / "bitlaw-emulation"
CORPUS, TOKENS = "package:rfc", 13_000_000  # of the bases
SMALL, LARGE = 30_000, 220_000  # parameters
TASKS = ("behaviour", "knowledge")
TUNING = {"behaviour": 1_000_000, "knowledge": 800_000}  # tokens
SHARE = {"behaviour": 0.1, "knowledge": 0.5}  # of the peak rate of the base; see docs/log.md
TAGGED = 1_100_000  # bytes of text with the behaviour


@dataclass(frozen=True)
class Pair:
    """A small base and a large one, and the seed of what both are tuned to."""

    seed: int
    small: Path
    large: Path

    @property
    def folders(self) -> dict[int, Path]:
        """Folders of both bases by size."""
        return {SMALL: self.small, LARGE: self.large}

    def tuned(self, size: int, task: str) -> Path:
        """Where the model is that was tuned to a task; named after its base, whichever pair that is in."""
        return FOLDER / f"{self.folders[size].name}-{task}-{self.seed}"


def pairs() -> list[Pair]:
    """Bases of both sizes, put together in the order of their names: seeds of theirs have nothing in common."""
    found: dict[int, list[Path]] = {SMALL: [], LARGE: []}
    for folder in sorted(MODELS.glob("*")):
        row = load_model(folder).row
        for size, some in found.items():
            alike = abs(row["tokens"] / TOKENS - 1) < 0.01 and abs(row["params"] / size - 1) < 0.1
            if alike and row["corpus"] == CORPUS and row["schedule"] == "constant":
                some.append(folder)
    both = zip(found[SMALL], found[LARGE], strict=False)
    made = [Pair(seed, small, large) for seed, (small, large) in enumerate(both)]
    if not made:
        raise SystemExit(f"there are no bases of both sizes in {MODELS}; make them with thousandth/run.py")
    return made


def text_of(task: str, seed: int, corpus: Corpus) -> Corpus:
    """What a task is taught with, and whose evaluation side it is measured on."""
    return tagged_corpus(corpus, TAGGED) if task == "behaviour" else World.make(seed).corpus()


def main() -> None:
    """Tune what is not tuned yet."""
    torch.set_num_threads(1)
    corpus = read_corpus(CORPUS)
    for pair in pairs():
        for task in TASKS:
            text = text_of(task, pair.seed, corpus)
            for size, base in pair.folders.items():
                out = pair.tuned(size, task)
                if out.exists():
                    continue
                out.parent.mkdir(parents=True, exist_ok=True)
                rate = SHARE[task] * load_model(base).row["learning_rate"]
                tuned = tune_folder(
                    base, text, out, tokens=TUNING[task], rate=rate, seed=pair.seed, device="cpu"
                )
                print(f"{size:,}, seed {pair.seed}, {task}: {tuned.gain.value:.3f} nats a byte", flush=True)


if __name__ == "__main__":
    main()
