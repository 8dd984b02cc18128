"""What low precision costs a training step, beside the plain step and torchao's fake quantisers. Times are CPU seconds.

    python benchmarks/step.py                       # ten minutes on one core
    python benchmarks/step.py --sizes 1e6 --compile

A step is forward, backward, clipping and AdamW on 8 x 256 tokens. The ways take turns in every round, and a ratio is
the middle one over rounds of a way's time over the plain step's of the same round. torchao quantises weights and
activations only, ours keys and values too.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings

import torch
import torch.nn.functional as F
from torch import nn

from bitlaw import Scheme
from bitlaw.lab.model import Transformer
from bitlaw.lab.precision import apply_scheme
from bitlaw.shapes import ladder_shape

OURS = {
    "weights": "w4",
    "activations": "a4",
    "keys and values": "kv4",
    "all three, absmax": "w4a4kv4",
    "all three, groups of 32": "w=int4 group32, a=int4 group32, kv=int4 group16",
    "all three, nvfp4": "w=nvfp4, a=nvfp4, kv=nvfp4",
    "all three, mxfp4": "w=mxfp4, a=mxfp4, kv=mxfp4",
    "all three, e4m3": "w=e4m3, a=e4m3, kv=e4m3",
    "all three, learned": "w=int4 learned, a=int4 learned, kv=int4 learned",
}


def theirs(model: nn.Module) -> nn.Module:
    """Weights of 4 bits a channel and activations of 8 bits a token, by torchao."""
    from torchao.quantization import quantize_
    from torchao.quantization.granularity import PerAxis
    from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

    weights = IntxFakeQuantizeConfig(torch.int4, granularity=PerAxis(0), is_symmetric=True)
    activations = IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_(
            model.blocks, QATConfig(activation_config=activations, weight_config=weights, step="prepare")
        )
    return model


class Way:
    """A model that takes training steps, and how long they took."""

    def __init__(self, model: nn.Module, compiled: bool) -> None:
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        self.parameters = list(model.parameters())
        self.run = torch.compile(model, dynamic=False) if compiled else model
        self.seconds: list[float] = []

    def step(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Take one step."""
        F.cross_entropy(self.run(x).flatten(0, 1), y.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def timed(self, x: torch.Tensor, y: torch.Tensor, steps: int) -> None:
        """Take some steps, and note the time of one."""
        began = time.process_time()
        for _ in range(steps):
            self.step(x, y)
        self.seconds.append((time.process_time() - began) / steps)


def main() -> None:
    """Print a table of ratios for each size."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--sizes", default="5e4,2e5,1e6,3e6,1e7")
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--ways", help="only those that contain one of these words, commas between")
    arguments.add_argument("--compile", action="store_true", help="compile every way")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    for size in map(float, given.sizes.split(",")):
        plain = Transformer(ladder_shape(size), seed=0)
        models = {"plain": copy.deepcopy(plain)}
        models |= {
            name: apply_scheme(copy.deepcopy(plain), Scheme.parse(text)) for name, text in OURS.items()
        }
        models["torchao, weights and activations"] = theirs(copy.deepcopy(plain))
        if given.ways:
            words = ("plain", *given.ways.split(","))
            models = {name: m for name, m in models.items() if any(word in name for word in words)}
        ways = {name: Way(model, given.compile) for name, model in models.items()}
        x, y = torch.randint(0, 256, (2, 8, 256), generator=torch.Generator().manual_seed(0))
        for way in ways.values():
            way.step(x, y)
        steps = min(40, max(1, round(2e6 / size)))
        for _ in range(given.rounds):
            for way in ways.values():
                way.timed(x, y, steps)
        base = ways["plain"].seconds
        kind = "compiled" if given.compile else "eager"
        print(f"\n{plain.shape.counts().non_embedding:,} parameters, {kind}, {1e3 * min(base):.1f} ms a step")
        for name, way in ways.items():
            ratios = [a / b for a, b in zip(way.seconds, base, strict=True)]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(f"  {name:34} {statistics.median(ratios):5.2f}   ({spread})", flush=True)


if __name__ == "__main__":
    main()
