"""How long answers of the planner take, with 1,000 draws behind each. Times are CPU seconds, of the second asking.

    python benchmarks/plan.py            # about a minute on one core, most of it the fits

The law is that of all parts in training and after it, fitted to 465 synthetic runs; the plain one is fitted to 100.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np

import bitlaw as bl
from bitlaw import Runs
from bitlaw.laws import published

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from conftest import synthetic_sweep  # the truth of the tests

QUESTIONS: dict[str, dict] = {
    "budget": {"budget": 1e21},
    "budget, one format": {"budget": 1e21, "bits": "int8"},
    "budget, any format": {"budget": 1e21, "bits": "any"},
    "budget, each part's bits": {"budget": 1e21, "bits": "each"},
    "budget, size given": {"budget": 1e21, "params": "1B"},
    "budget, tokens given": {"budget": 1e21, "tokens": "20B"},
    "budget, then any bits": {"budget": 1e21, "quantize_to": "any"},
    "budget and served": {"budget": 1e21, "served": "1T"},
    "budget and served, any then any": {
        "budget": 1e21,
        "served": "1T",
        "bits": ["int6", "int8", "bf16"],
        "quantize_to": ["int3", "int4", "int5", "int6"],
    },
    "critical tokens": {"params": "1B", "quantize_to": "int4"},
    "critical tokens of many": {"params": "1B", "quantize_to": ["int3", "int4", "int5", "int6"]},
    "fewest safe bits": {"params": "1B", "tokens": "100B", "quantize_to": "lowest"},
    "gap normal?": {"params": "1B", "tokens": "20B", "quantize_to": "int4", "measured_gap": 0.03},
    "memory, tokens given": {"memory": "16 GB", "tokens": "1T", "context": 8192, "sequences": 8},
    "memory, then any bits": {"memory": "16 GB", "quantize_to": "any"},
    "speed on hardware": {"speed": 100.0, "tokens": "1T", "hardware": "h100", "bits": ["e4m3", "bf16"]},
    "hours on hardware": {"hours": 1000.0, "hardware": "h100", "devices": 64, "achieved": 0.4},
    "loss": {"loss": 3.0},
    "loss, size given": {"loss": 3.0, "params": "1B"},
    "loss and served": {"loss": 3.0, "served": "1T"},
    "loss and served, then any bits": {"loss": 3.0, "served": "1T", "quantize_to": "any"},
}
PLAIN: dict[str, dict] = {
    "plain law: budget": {"budget": 1e21},
    "plain law: loss and served": {"loss": 2.4, "served": "1T"},
    "plain law: memory, most tokens": {"memory": "16 GB", "max_tokens": "1T", "budget": 1e23},
}


def plain_rows() -> Runs:
    """A hundred runs of Chinchilla's law with 0.3 % noise."""
    rng, law = np.random.default_rng(0), published("chinchilla-2024")
    cells = [(n, d) for n in np.geomspace(2e7, 2e9, 10) for d in np.geomspace(4e8, 4e10, 10)]
    return Runs.from_rows(
        {
            "params": n,
            "tokens": d,
            "loss": float(law.law.predict(law.values, params=n, tokens=d))
            * math.exp(0.003 * rng.standard_normal()),
        }
        for n, d in cells
    )


def seconds(fit: bl.Fit, question: dict) -> float:
    """CPU seconds of an answer, once everything is compiled."""
    bl.plan(fit, **question)
    began = time.process_time()
    bl.plan(fit, **question)
    return time.process_time() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=1000)
    draws = parser.parse_args().draws
    began = time.process_time()
    full = bl.fit("kumar-unified", synthetic_sweep(0), draws=draws)
    plain = bl.fit("chinchilla", plain_rows(), draws=draws)
    print(f"two fits with {draws} draws: {time.process_time() - began:.1f} s")
    for fit, questions in ((full, QUESTIONS), (plain, PLAIN)):
        for name, question in questions.items():
            print(f"{name:34s} {seconds(fit, question):6.2f} s", flush=True)
