"""Bases and what they were tuned to, small enough to be made where a test needs them.

The fixture `pairs` (in conftest.py) has two, once a session: bases of 4k and 10k parameters that were trained on real
text, each tuned to the behaviour of `bitlaw.lab.tasks.behaviour`. They take 12 seconds of one core.
"""

from __future__ import annotations

import argparse
import inspect
import os
import subprocess
import tarfile
import typing
from dataclasses import dataclass
from pathlib import Path

import torch

from bitlaw.formats import Scheme
from bitlaw.lab.corpus import Corpus, Text
from bitlaw.lab.model import Loaded, load_model, save_model
from bitlaw.lab.sweep import tune_folder
from bitlaw.lab.tasks import tagged_corpus
from bitlaw.lab.train import TrunkConfig, train_trunk
from bitlaw.shapes import ladder_shape

SEQ = 128


@dataclass(frozen=True)
class Pair:
    """Folders of a base and of what it was tuned to, and the text of the tuning."""

    base: Path
    tuned: Path
    text: Corpus

    def load(self) -> tuple[Loaded, Loaded]:
        """Both models."""
        return load_model(self.base), load_model(self.tuned)


def real_text() -> Corpus:
    """Some modules of the running Python; what is held out is one of them."""
    trained, looked_at, held = (
        Text.of(Path(module.__file__).read_bytes() for module in modules)
        for modules in ((argparse, inspect, os, tarfile), (subprocess,), (typing,))
    )
    return Corpus("modules", trained, looked_at, held, trained.sha256 + held.sha256)


def make_base(folder: Path, size: int, tokens: int, text: Corpus, scheme: str = "16", seed: int = 0) -> Path:
    """Train a base, and keep it."""
    shape = ladder_shape(size)
    config = TrunkConfig(
        shape=shape,
        scheme=scheme,
        seed=seed,
        corpus_sha256=text.sha256,
        budgets=(tokens,),
        batch_size=8,
        seq_len=SEQ,
        learning_rate=0.5 / shape.width,
        warmup_steps=5,
        eval_tokens=4096,
    )
    (end,) = train_trunk(config, text, folder.with_name(folder.name + ".work"))
    row = {
        "id": folder.name,
        "trunk": config.trunk_id(),
        "learning_rate": config.learning_rate,
        "tokens": tokens,
    }
    save_model(Loaded(folder.name, "", end.model, None, 256, SEQ, Scheme.parse(scheme), row), folder)
    return folder


def make_pair(folder: Path, size: int, tokens: int, text: Corpus) -> Pair:
    """Train a base, and tune it to the behaviour."""
    base, behaved = make_base(folder / "base", size, tokens, text), tagged_corpus(text)
    tune_folder(
        base, behaved, folder / "tuned", tokens=tokens, rate=0.5 / ladder_shape(size).width, batch_size=8
    )
    return Pair(base, folder / "tuned", behaved)


def make_pairs(folder: Path) -> tuple[Pair, Pair]:
    """A small pair and a larger one, of one tokenizer and one text; tuned, they tag 0.8 to 0.9 of their lines."""
    torch.set_num_threads(1)
    text = real_text()
    return make_pair(folder / "small", 4_000, 120_000, text), make_pair(
        folder / "large", 10_000, 200_000, text
    )
