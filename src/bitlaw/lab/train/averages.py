"""Averages of weights over the last steps, kept beside the weights in float32.

    S <- d S + W,   n <- d n + 1,   average = S / n

`swa:WINDOW:EVERY` has d = 1, takes every EVERYth step, and begins anew at every multiple of WINDOW, where it keeps
the window that is over (Izmailov et al. 2018, 1803.05407; fixed windows: Hagele et al. 2024, 2405.18392). An end is
the mean over that window and what has been seen of the next: of the last WINDOW steps if it lies at a multiple, of
less than twice as many elsewhere. `ema:DECAY` has d = DECAY, takes every step, and has no window; n makes up for its
beginning at zero. Both depend on steps alone, never on budgets, so that ends of one trunk do not depend on each other.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ..model import Transformer
from ..precision import StoredTensor, StoredWeights
from .distributed import whole


@dataclass(frozen=True)
class Average:
    """Which steps are averaged: every so many, in windows of so many (0: one without end), with which decay."""

    window: int
    every: int
    decay: float

    @classmethod
    def parse(cls, text: str) -> Average | None:
        """Read `none`, `swa:WINDOW:EVERY` or `ema:DECAY`.

        Raises:
            ConfigError: anything else.

        >>> Average.parse("swa:500:5")
        Average(window=500, every=5, decay=1.0)
        """
        if text == "none":
            return None
        try:
            match text.split(":"):
                case ["swa", window, every]:
                    found = cls(int(window), int(every), 1.0)
                    if 0 < found.every <= found.window and found.window % found.every == 0:
                        return found
                case ["ema", decay]:
                    found = cls(0, 1, float(decay))
                    if 0 < found.decay < 1:
                        return found
        except ValueError:
            pass
        raise ConfigError(
            f"cannot read the average {text!r}; write 'none', 'swa:500:5' (windows of 500 steps, every fifth of them), "
            "or 'ema:0.999'"
        )


class Averages:
    """The running average of a model's weights, as they are in effect: stored weights are read from their codes."""

    def __init__(self, way: Average, named: dict[str, nn.Parameter], stored: StoredWeights) -> None:
        self.way, self.named = way, named
        self.held = {id(p): table for p, table in stored.pairs}
        device = next(iter(self.weights().values())).device
        # n, of this window and of the one before.
        self.steps = torch.zeros(2, dtype=torch.float64, device=device)
        self.sums = [{n: torch.zeros_like(w) for n, w in self.weights().items()} for _ in range(2)]

    def weights(self) -> dict[str, Tensor]:
        """The weights now, in float32."""
        return {
            name: (self.held[id(p)].read() if id(p) in self.held else p.detach()).float()
            for name, p in self.named.items()
        }

    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        if step % self.way.every:
            return
        for name, weight in self.weights().items():
            self.sums[0][name].mul_(self.way.decay).add_(weight)
        self.steps[0] = self.steps[0] * self.way.decay + 1
        if self.way.window and step % self.way.window == 0:
            self.sums.reverse()
            self.steps.copy_(self.steps.flip(0))
            self.steps[0] = 0
            for total in self.sums[0].values():
                total.zero_()

    def forget(self) -> None:
        """Begin anew."""
        self.steps.zero_()
        for sums in self.sums:
            for total in sums.values():
                total.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        out = {f"{k}.{name}": total for k, sums in enumerate(self.sums) for name, total in sums.items()}
        return {"steps": self.steps, **out}

    def mean(self) -> dict[str, Tensor]:
        """The average of every weight, in float32; the weights themselves where no step was taken in yet."""
        count = float(self.steps.sum())
        if not count:
            return self.weights()
        return {name: (self.sums[0][name] + self.sums[1][name]) / count for name in self.named}

    def model(self, model: Transformer) -> Transformer:
        """A copy of the model with the average in it; what is stored in few bits is put on its grid, to nearest."""
        averaged, mean = copy.deepcopy(model), self.mean()
        held = {id(p): table for p, table in StoredWeights(averaged).pairs}
        for name, p in averaged.named_parameters():
            value = whole(mean[name])
            if (table := held.get(id(p))) is not None:
                table.codes.copy_(StoredTensor(value, table.grid, table.step).codes)
                value = table.read()
            p.data = value.to(p.dtype)
        return averaged
