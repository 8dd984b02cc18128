"""Calibration tried: what each calibrator does under each objective, and how much of a quantisation gap comes back.

    mkdir data && cd data                                       # two Debian packages, unpacked and not installed
    apt-get download dataset-fashion-mnist wordnet-base
    for p in *.deb; do dpkg-deb -x $p .; done; cd ..
    pip install -e ".[lab]" scikit-learn
    python studies/calibration/run.py data                      # about fifteen minutes of one core

Two classifiers, ten seeds each, trained on classes of unequal size with a tenth of the labels wrong, calibrated on a
small balanced set and measured on a balanced test set: a network on Fashion-MNIST (10 classes), and logistic
regressions, one class against the rest, on the words of WordNet's glosses (45 classes). And byte transformers on the
standard library's sources, three seeds, whose weights are rounded to 4, 3 and 2 bits. Writes classification.csv and
tokens.csv beside this file.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.neural_network import MLPClassifier

from bitlaw import calibration as cal
from bitlaw.calibration.fit import METHODS
from bitlaw.calibration.objective import OBJECTIVES
from bitlaw.formats import Recipe
from bitlaw.lab.corpus import Corpus, read_corpus, spread_windows
from bitlaw.lab.model import Transformer
from bitlaw.lab.quantize import logits as logits_of
from bitlaw.lab.quantize import quantize_model
from bitlaw.lab.train import TrunkConfig, train_trunk
from bitlaw.shapes import ladder_shape

HERE = Path(__file__).parent
LEVEL = 0.9
EPOCHS = 80  # of the network: enough to be too sure of itself
NOISE = 0.1  # share of training labels that are replaced by any class
MEASURES = ("ece", "classwise_ece", "nll", "accuracy", "class_loss_spread")
TOKENS, SEQ_LEN = 32_768, 128  # held-out bytes, and those of a window

CELLS = (
    ("temperature", "cross_entropy"),
    ("temperature", "class_wise"),
    ("class_temperature", "cross_entropy"),
)  # tried on tokens

Split = tuple[
    np.ndarray, np.ndarray, np.ndarray, np.ndarray
]  # calibration logits and labels, test logits and labels


def fashion(data: Path, seed: int) -> Split:
    """Class sizes from 2,000 down to 100; 50 images a class to calibrate on; all 10,000 test images."""
    folder = data / "usr/share/datasets/fashion-mnist"

    def read(name: str, offset: int) -> np.ndarray:
        return np.frombuffer(
            gzip.decompress((folder / f"{name}-ubyte.gz").read_bytes()), np.uint8, offset=offset
        )

    def images(name: str) -> np.ndarray:
        return read(f"{name}-images-idx3", 16).reshape(-1, 784) / 255.0

    x, y, test_x, test_y = (
        images("train"),
        read("train-labels-idx1", 8),
        images("t10k"),
        read("t10k-labels-idx1", 8),
    )
    rng = np.random.default_rng(seed)
    sizes = rng.permutation(np.geomspace(2000, 100, 10).round().astype(int))
    order = [rng.permutation(np.flatnonzero(y == k)) for k in range(10)]
    train = np.concatenate([rows[:size] for rows, size in zip(order, sizes, strict=True)])
    held = np.concatenate([rows[-50:] for rows in order])
    net, labels = MLPClassifier((64,), random_state=seed), noisy(y[train], 10, rng)
    for _ in range(EPOCHS):
        net.partial_fit(x[train], labels, classes=np.arange(10))

    def logits(x: np.ndarray) -> np.ndarray:
        hidden = np.maximum(x @ net.coefs_[0] + net.intercepts_[0], 0)
        return hidden @ net.coefs_[1] + net.intercepts_[1]

    return logits(x[held]), y[held].astype(int), logits(test_x), test_y.astype(int)


def glosses(data: Path, seed: int) -> Split:
    """20,000 glosses as they come; 15 of each lexicographer file to calibrate on, 30 to test."""
    lines = [
        line
        for file in sorted((data / "usr/share/wordnet").glob("data.*"))
        for line in file.read_text("latin1").splitlines()
        if not line.startswith(" ")
    ]
    y = np.array([int(line.split(" ", 2)[1]) for line in lines])
    rng = np.random.default_rng(seed)
    order = [rng.permutation(np.flatnonzero(y == k)) for k in range(45)]
    held, test = np.concatenate([r[:15] for r in order]), np.concatenate([r[15:45] for r in order])
    train = rng.permutation(np.concatenate([r[45:] for r in order]))[:20_000]
    words = HashingVectorizer(n_features=2**14, alternate_sign=False)
    x = words.transform(line.split("| ", 1)[1] for line in lines)
    model = SGDClassifier(loss="log_loss", alpha=1e-5, max_iter=20, tol=None, random_state=seed)
    model.fit(x[train], noisy(y[train], 45, rng))
    return model.decision_function(x[held]), y[held], model.decision_function(x[test]), y[test]


def noisy(y: np.ndarray, classes: int, rng: np.random.Generator) -> np.ndarray:
    """Labels, a tenth of which are drawn at random."""
    return np.where(rng.random(len(y)) < NOISE, rng.integers(0, classes, len(y)), y)


def classification(data: Path, seeds: int) -> Iterator[dict[str, object]]:
    """Every calibrator under every objective: means over seeds, and paired differences from cross-entropy."""
    for name, make in (("fashion-mnist", fashion), ("wordnet glosses", glosses)):
        found: dict[tuple[str, str], list[list[float]]] = {}
        for seed in range(seeds):
            z, y, test_z, test_y = make(data, seed)
            cells = {("none", "none"): test_z}
            for method in METHODS:
                for objective in OBJECTIVES:
                    scaled = cal.calibrate(z, y, method, objective).apply(test_z)
                    cells[method, objective] = scaled
            for cell, logits in cells.items():
                values = [getattr(cal, m)(logits, test_y) for m in MEASURES]
                found.setdefault(cell, []).append(values)
            print(f"{name}: seed {seed} done", flush=True)
        for (method, objective), values in found.items():
            here = np.array(values)
            off = here - np.array(found[method, "cross_entropy" if method != "none" else "none"])
            for k, measure in enumerate(MEASURES):
                yield {
                    "data": name,
                    "calibrator": method,
                    "objective": objective,
                    "measure": measure,
                    "seeds": seeds,
                    "mean": f"{here[:, k].mean():.5f}",
                    "half_width": f"{half_width(here[:, k]):.5f}",
                    "difference": f"{off[:, k].mean():.5f}",
                    "difference_half_width": f"{half_width(off[:, k]):.5f}",
                    "seeds_below_cross_entropy": int((off[:, k] < 0).sum()),
                    "interval": f"Student's t over seeds, {LEVEL:.0%}, confidence",
                }


def half_width(values: np.ndarray) -> float:
    """Of Student's interval of a mean."""
    return float(student.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)


def train(corpus: Corpus, seed: int) -> Transformer:
    """64k parameters on 1M bytes."""
    shape = ladder_shape(64_000)
    config = TrunkConfig(
        shape=shape,
        scheme="16",
        seed=seed,
        corpus_sha256=corpus.sha256,
        budgets=(1_000_000,),
        batch_size=8,
        seq_len=SEQ_LEN,
        learning_rate=0.5 / shape.width,
        warmup_steps=20,
        eval_tokens=TOKENS,
    )
    with tempfile.TemporaryDirectory() as folder:
        (end,) = train_trunk(config, corpus, Path(folder))
    assert end.model is not None, end.reason
    return end.model


def tokens(seeds: int) -> Iterator[dict[str, object]]:
    """Next-byte predictions by bits: confidence before and after calibration, and the split of the gap."""
    corpus = read_corpus()
    text = spread_windows(corpus.evaluation, TOKENS, SEQ_LEN)
    labels, clusters = text.targets.numpy().ravel(), text.documents.numpy().ravel()
    deciles = cal.frequency_groups(np.bincount(corpus.train.tokens, minlength=256))

    def logits(model: Transformer) -> np.ndarray:
        return torch.cat(list(logits_of(model, text))).flatten(0, 1).numpy()

    def row(interval: cal.Interval, quantity: str, **cell: object) -> dict[str, object]:
        ends = {k: f"{getattr(interval, k):.5f}" for k in ("value", "low", "high")}
        text = f"{interval.method}, {interval.level:.0%}, {interval.kind}"
        return {**cell, "quantity": quantity, **ends, "interval": text}

    for seed in range(seeds):
        model = train(corpus, seed)
        before = logits(model)
        for bits in (4, 3, 2):
            after = logits(quantize_model(model, Recipe.parse(f"int{bits} channel")))
            for method, objective in CELLS:
                split = cal.split_gap(
                    before, after, labels, clusters, method=method, objective=objective, groups=deciles,
                    validation=0.25, level=LEVEL, seed=seed,
                )  # fmt: skip
                cell = {"seed": seed, "bits": bits, "calibrator": method, "objective": objective}
                for quantity in ("gap", "recoverable", "remaining", "one_sided", "share"):
                    yield row(getattr(split, quantity), quantity, **cell)
                on, none = split.measured, {**cell, "calibrator": "none", "objective": "none"}
                sides = {("16 bits", "calibrated"): (split.before.apply(before[on]), cell)}
                sides["quantised", "calibrated"] = split.after.apply(after[on]), cell
                if (method, objective) == CELLS[0]:
                    sides |= {
                        ("16 bits", "as it is"): (before[on], none),
                        ("quantised", "as it is"): (after[on], none),
                    }
                for side, (z, of) in sides.items():
                    measured = cal.measure(
                        z, labels[on], ("ece", "classwise_ece", "nll", "class_loss_spread"),
                        groups=deciles, clusters=clusters[on], level=LEVEL, seed=seed,
                    )  # fmt: skip
                    for name, interval in measured.items():
                        yield row(interval, f"{name}, {', '.join(side)}", **of)
            print(f"tokens: seed {seed}, {bits} bits done", flush=True)


def write(name: str, rows: Iterator[dict[str, object]]) -> None:
    """Write rows as CSV beside this file."""
    table = list(rows)
    with (HERE / name).open("w", newline="") as stream:
        out = csv.DictWriter(stream, list(table[0]), lineterminator="\n")
        out.writeheader()
        out.writerows(table)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder that holds usr/share of the two packages")
    parser.add_argument("--seeds", type=int, default=10, help="of each classifier")
    parser.add_argument("--models", type=int, default=3, help="seeds of the transformer")
    parser.add_argument("--only", choices=("classification", "tokens"))
    args = parser.parse_args()
    if args.only != "tokens":
        for part in ("datasets/fashion-mnist", "wordnet"):
            if not (args.data / "usr/share" / part).is_dir():
                parser.error(f"{args.data}/usr/share/{part} does not exist; see above how to get it")
        write("classification.csv", classification(args.data, args.seeds))
    if args.only != "classification":
        write("tokens.csv", tokens(args.models))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
