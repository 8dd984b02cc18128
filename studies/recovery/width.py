"""The error of predicted steps against width, of networks as they are first drawn and of trained ones with a new head.

    python studies/recovery/width.py        # about ten minutes of one core; rows go to width.csv beside this file

Inputs are eight bytes of Python's standard library, each as a fixed random vector. What is learned is the kind of the
next byte (letter, digit, space, newline, other) of 100 examples, by gradient descent on all of them. `fresh` networks
begin as torch draws them; `trained` ones have learned the kind of the last byte before, and their head is drawn anew
with a standard deviation of .01.
"""

from __future__ import annotations

import math
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from read import area, right
from scipy.stats import t as student
from torch import Tensor, nn

from bitlaw.lab.corpus import Corpus, read_corpus
from bitlaw.lab.dynamics import linearise
from bitlaw.planning import read_record, recovery
from bitlaw.planning.descent import Part
from bitlaw.planning.recovery import LAZY

WIDTHS = (64, 192, 576)
SEEDS = range(4)
BEGIN = ("fresh", "trained")
LEFT = (0.75, 0.5, 0.25, 0.1)  # of the first loss
WAYS = ((0.5, 0.0), (0.05, 0.9))  # share of 1 / largest curvature, momentum
CONTEXT, VECTOR, EXAMPLES, STEPS, KINDS = 8, 16, 100, 600, 5
TABLE = Path(__file__).with_name("width.csv")


def kinds(tokens: Tensor) -> Tensor:
    """Letter, digit, space, newline, other."""
    letter = ((tokens | 32) >= 97) & ((tokens | 32) <= 122)
    digit = (tokens >= 48) & (tokens <= 57)
    out = torch.full_like(tokens, 4)
    for kind, where in enumerate((letter, digit, tokens == 32, tokens == 10)):
        out[where] = kind
    return out


def examples(corpus: Corpus, count: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, the kind of the last byte, and that of the next one."""
    text = torch.from_numpy(corpus.train.tokens.astype(np.int64))
    starts = torch.randint(len(text) - CONTEXT - 1, (count,), generator=draw)
    bytes_ = text[starts[:, None] + torch.arange(CONTEXT + 1)]
    vectors = torch.randn(256, VECTOR, generator=torch.Generator().manual_seed(0)) / VECTOR**0.5
    return vectors[bytes_[:, :-1]].flatten(1), kinds(bytes_[:, -2]), kinds(bytes_[:, -1])


def network(corpus: Corpus, begin: str, width: int, seed: int, draw: torch.Generator) -> nn.Sequential:
    """A network that is yet to learn."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(CONTEXT * VECTOR, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, KINDS),
    )
    if begin == "fresh":
        return model
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(300):
        x, y, _ = examples(corpus, 128, draw)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        model[4].weight.normal_(0, 0.01)
        model[4].bias.zero_()
    return model


def rows(corpus: Corpus, begin: str, width: int, seed: int) -> list[dict[str, object]]:
    """Predicted and real steps of one network."""
    draw = torch.Generator().manual_seed(seed)
    model = network(corpus, begin, width, seed, draw)
    x, _, y = examples(corpus, EXAMPLES, draw)
    with tempfile.TemporaryDirectory() as folder:
        linearise(model, x, y, directions=64).save(Path(folder) / "record")
        record = read_record(Path(folder) / "record")
    sharpest = float(np.linalg.eigvalsh(Part(record, slice(0, EXAMPLES), 64).curvature())[-1])
    state, start = {k: v.clone() for k, v in model.state_dict().items()}, F.cross_entropy(model(x), y).item()
    out = []
    for share, momentum in WAYS:
        model.load_state_dict(state)
        optimizer = torch.optim.SGD(model.parameters(), share / sharpest, momentum)
        real = dict.fromkeys(LEFT, math.inf)
        for step in range(STEPS + 1):
            loss = F.cross_entropy(model(x), y)
            real = {left: min(old, step if loss <= left * start else math.inf) for left, old in real.items()}
            if math.isfinite(max(real.values())):
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for left in LEFT:
            answer = recovery(
                record,
                learning_rate=share / sharpest,
                momentum=momentum,
                target=left * start,
                steps=STEPS,
                draws=0,
                lazy=math.inf,
            )
            how = {
                "begin": begin,
                "width": width,
                "seed": seed,
                "share": share,
                "momentum": momentum,
                "left": left,
            }
            out.append(
                how | {"predicted": answer.steps, "real": float(real[left]), "drift": round(answer.drift, 4)}
            )
    return out


def main() -> None:
    """Measure, and print error by width."""
    torch.set_num_threads(1)
    done = pl.read_csv(TABLE).to_dicts() if TABLE.exists() else []
    have = {(row["seed"], row["begin"], row["width"]) for row in done}
    corpus = read_corpus(None)
    for seed, begin, width in product(SEEDS, BEGIN, WIDTHS):
        if (seed, begin, width) not in have:
            done += rows(corpus, begin, width, seed)
            pl.DataFrame(done, infer_schema_length=None).write_csv(TABLE)
    frame = pl.read_csv(TABLE)
    for begin, left, width in product(BEGIN, LEFT, WIDTHS):
        some = frame.filter(begin=begin, left=left, width=width)
        both = some.filter(pl.col("predicted").is_finite() & pl.col("real").is_finite())
        logs = np.log(both["predicted"].to_numpy() / both["real"].to_numpy())
        if both["seed"].n_unique() < 2:
            print(f"{begin}, {left} L0, width {width}: reached by both in {len(both)} of {len(some)}")
            continue
        seeds = np.array(
            [np.abs(logs[both["seed"].to_numpy() == s]).mean() for s in both["seed"].unique().to_list()]
        )
        half = student.ppf(0.95, len(seeds) - 1) * seeds.std(ddof=1) / len(seeds) ** 0.5
        print(
            f"{begin}, {left} L0, width {width}: |log(predicted / real)| {seeds.mean():.3f} +- {half:.3f} (90 %, "
            f"{len(seeds)} networks), median ratio {np.exp(np.median(logs)):.3f}, {len(both)} of {len(some)} reached "
            f"by both, drift {some['drift'].median():.2f}"
        )
    wrong, refused = ~right(frame, 1.2), frame["drift"].to_numpy() > LAZY
    print(
        f"refused {refused.sum()} of {len(frame)}, {(refused & wrong).sum()} of them wrong; of the others "
        f"{(~refused & wrong).sum()} wrong; area under drift {area(frame['drift'].to_numpy(), wrong):.3f}"
    )


if __name__ == "__main__":
    main()
