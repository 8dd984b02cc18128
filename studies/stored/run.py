"""A tiny transformer whose linear weights are stored without a float master copy: which range, and what it costs.

    python studies/stored/run.py

24k non-embedding parameters, 200k tokens of the default corpus, at the ladder's rate, and at an eighth of it, where
rounding to nearest loses more. Three seeds, each of initialisation, data order and rounding. Losses on held-out text
go to losses.csv beside this file.
"""

import csv
import tempfile
from itertools import product
from pathlib import Path

import torch

from bitlaw.lab.corpus import read_corpus, spread_windows
from bitlaw.lab.precision import stored
from bitlaw.lab.quantize import logits, token_losses
from bitlaw.lab.train import TrunkConfig, train_trunk
from bitlaw.shapes import ladder_shape

torch.set_num_threads(1)
corpus = read_corpus(None)
text = spread_windows(corpus.evaluation, 65_536, 128)
shape = ladder_shape(24_000)
CHANCE, NEAREST = " stored stochastic", " stored"
runs = [("16", 1, 1), ("w8", 1, 1), ("w4", 1, 1), ("w8", 1, 8)]  # scheme, range, rate under the ladder's
runs += [(f"w=int{bits}{way}", 2, 1) for bits, way in product((8, 4), (CHANCE, NEAREST))]
runs += [(f"w=int{bits}{CHANCE}", headroom, 1) for bits, headroom in product((8, 4), (1, 4))]
runs += [(f"w=int8{way}", 2, 8) for way in (CHANCE, NEAREST)]

with Path(__file__).with_name("losses.csv").open("w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["scheme", "headroom", "rate", "seed", "loss", "lost_updates"])
    for seed, (scheme, headroom, slower) in product(range(3), runs):
        stored.HEADROOM = headroom
        config = TrunkConfig(
            shape=shape,
            scheme=scheme,
            seed=seed,
            corpus_sha256=corpus.sha256,
            budgets=(200_000,),
            batch_size=8,
            seq_len=128,
            learning_rate=0.5 / shape.width / slower,
            warmup_steps=20,
            eval_tokens=65_536,
        )
        with tempfile.TemporaryDirectory() as folder:
            (end,) = train_trunk(config, corpus, Path(folder))
        loss = None
        if end.model is not None:
            loss = round(token_losses(logits(end.model, text), text).mean().item(), 5)
        lost = None if end.lost_updates is None else round(end.lost_updates, 5)
        writer.writerow([scheme, headroom, config.learning_rate, seed, loss, lost])
        file.flush()
