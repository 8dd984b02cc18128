"""Embedding tables that are trained a few rows at a time, each by its own way of holding numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ...errors import ConfigError, nearest
from ...formats import Rounding
from ...formats.grid import integer
from ..precision.learned import round_by_step
from ..precision.rounding import round_values
from ..precision.stored import StoredTensor

Way: TypeAlias = Literal["float32", "lsq", "lpt", "alpt"]
LEAST_STEP = 1e-6  # a learned step stays positive


@dataclass(frozen=True)
class Method:
    """How a table is held and trained.

    Attributes:
        way: `float32`; `lsq`, floats that are rounded on the way forward by learned steps (Esser et al. 2020); `lpt`,
            integers with a fixed step; `alpt`, integers with a learned step for each row (Li et al. 2023).
        bits: of the integers; None for float32.
        rounding: of what is written back; nearest for float32 and LSQ, which write floats.
        clip: range of the first steps: they are clip / 2^(bits - 1).
        step_rate: Adam's rate for learned steps.
    """

    way: Way
    bits: int | None = None
    rounding: Rounding = "nearest"
    clip: float = 0.5
    step_rate: float = 2e-5

    def __post_init__(self) -> None:
        if self.way not in get_args(Way):
            raise ConfigError(f"unknown method {self.way!r}; {nearest(self.way, get_args(Way))}")
        if (self.bits is None) != (self.way == "float32") or self.bits not in (None, *range(2, 9)):
            raise ConfigError(
                f"{self.way} with {self.bits} bits: integers have 2 to 8 bits, and float32 names none"
            )
        if self.way in ("float32", "lsq") and self.rounding != "nearest":
            raise ConfigError(f"{self.way} keeps floats, and so has nothing to write back by chance")

    @property
    def name(self) -> str:
        """Like "alpt int4 stochastic"."""
        words = [self.way] + ([f"int{self.bits}"] if self.bits else [])
        return " ".join(words + ([self.rounding] if self.way in ("lpt", "alpt") else []))


class RowAdam:
    """Adam (Kingma & Ba 2015) on the rows that a step touches; moments of other rows stand still, as in SparseAdam."""

    def __init__(self, like: Tensor, rate: float) -> None:
        self.rate, self.steps = rate, 0
        self.mean, self.square = torch.zeros_like(like), torch.zeros_like(like)

    @property
    def bytes(self) -> int:
        """Of the moments."""
        return self.mean.nbytes + self.square.nbytes

    def moved(self, rows: Tensor, values: Tensor, gradient: Tensor | None) -> Tensor:
        """Return values of rows after a step down their gradient."""
        assert gradient is not None
        self.steps += 1
        mean = self.mean[rows].lerp(gradient, 0.1)
        square = self.square[rows].lerp(gradient.square(), 0.001)
        self.mean[rows], self.square[rows] = mean, square
        size = self.rate * math.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        return values.detach() - size * mean / (square.sqrt() + 1e-8)


class FloatTable:
    """A table of float32."""

    lost: float | None = None

    def __init__(self, values: Tensor, rate: float) -> None:
        self.values, self.adam = values.clone(), RowAdam(values, rate)

    @property
    def bytes(self) -> int:
        """Of what is kept to look rows up and train them, moments apart."""
        return self.values.nbytes

    @property
    def moment_bytes(self) -> int:
        """Of the optimiser's moments."""
        return self.adam.bytes

    def read(self, rows: Tensor) -> Tensor:
        """Return rows as a model sees them."""
        return self.values[rows]

    def learn(
        self, rows: Tensor, loss_of: Callable[[Tensor], Tensor], dense: torch.optim.Optimizer, batch: int
    ) -> None:
        """Make one step on rows, and on the dense parameters that their loss depends on.

        Args:
            rows: int64, each once.
            loss_of: mean loss of a batch as a function of these rows' vectors.
            dense: optimiser of the dense parameters.
            batch: examples of the batch.
        """
        leaf = self.values[rows].requires_grad_()
        _descend(loss_of(leaf), dense)
        self.values[rows] = self.adam.moved(rows, leaf, leaf.grad)


class LSQTable(FloatTable):
    """A table of float32 that is rounded on the way forward, with one learned step a row."""

    def __init__(self, values: Tensor, rate: float, method: Method) -> None:
        super().__init__(values, rate)
        assert method.bits is not None
        self.grid = integer(method.bits)
        self.step = torch.full((len(values), 1), method.clip / 2 ** (method.bits - 1))
        self.step_adam = RowAdam(self.step, method.step_rate)

    @property
    def bytes(self) -> int:
        """Of what is kept to look rows up and train them, moments apart."""
        return self.values.nbytes + self.step.nbytes

    @property
    def moment_bytes(self) -> int:
        """Of the optimiser's moments."""
        return self.adam.bytes + self.step_adam.bytes

    def read(self, rows: Tensor) -> Tensor:
        """Return rows as a model sees them."""
        return round_by_step(self.values[rows], self.step[rows], self.grid, self.grid.low, 1)

    def learn(
        self, rows: Tensor, loss_of: Callable[[Tensor], Tensor], dense: torch.optim.Optimizer, batch: int
    ) -> None:
        """Make one step on rows and steps together."""
        leaf, step = self.values[rows].requires_grad_(), self.step[rows].requires_grad_()
        share = 1 / math.sqrt(batch * leaf.shape[1] * self.grid.peak)
        _descend(loss_of(round_by_step(leaf, step, self.grid, self.grid.low, share)), dense)
        self.values[rows] = self.adam.moved(rows, leaf, leaf.grad)
        self.step[rows] = self.step_adam.moved(rows, step, step.grad).clamp_min(LEAST_STEP)


class StoredTable:
    """A table of which only integers and steps are kept; of a batch's rows there are floats within a step.

    One step of LPT: read rows, w = step q; w' = w - Adam's step; write q = R(clip(w' / step)). ALPT (Li et al. 2023),
    which learns steps in turn with weights, runs the model forward again before it writes, on step R_D(clip(w' / step))
    with w' held, takes LSQ's gradient of the step times 1 / sqrt(batch x width x peak), and writes by the new step.
    """

    def __init__(self, values: Tensor, rate: float, method: Method, chance: torch.Generator) -> None:
        assert method.bits is not None
        self.grid, self.chance = integer(method.bits), chance
        step = torch.full((len(values), 1), method.clip / 2 ** (method.bits - 1))
        # The first rounding is by chance whatever the method: else few bits would begin at zero everywhere.
        self.stored = StoredTensor(
            round_values(values / step, self.grid, chance) * step, self.grid, step, method.rounding
        )
        self.adam = RowAdam(values, rate)
        self.step_adam = RowAdam(step, method.step_rate) if method.way == "alpt" else None

    @property
    def bytes(self) -> int:
        """Of codes and steps."""
        return self.stored.bytes

    @property
    def moment_bytes(self) -> int:
        """Of the optimiser's moments, which are not compressed."""
        return self.adam.bytes + (self.step_adam.bytes if self.step_adam else 0)

    @property
    def lost(self) -> float:
        """Share of all updates so far that were rounded to nothing."""
        asked, lost = self.stored.updates.tolist()
        return lost / asked if asked else 0.0

    def read(self, rows: Tensor) -> Tensor:
        """Return rows as a model sees them."""
        return self.stored.read(rows)

    def learn(
        self, rows: Tensor, loss_of: Callable[[Tensor], Tensor], dense: torch.optim.Optimizer, batch: int
    ) -> None:
        """Make one step on rows, and on their steps if they are learned, and write the rows back."""
        leaf = self.stored.read(rows).requires_grad_()
        _descend(loss_of(leaf), dense)
        values, step = self.adam.moved(rows, leaf, leaf.grad), None
        if self.step_adam is not None:
            step = self.stored.step[rows].requires_grad_()
            share = 1 / math.sqrt(batch * values.shape[1] * self.grid.peak)
            loss = loss_of(round_by_step(values, step, self.grid, self.grid.low, share))
            (gradient,) = torch.autograd.grad(loss, step)
            step = self.step_adam.moved(rows, step, gradient).clamp_min(LEAST_STEP)
        self.stored.write(values, rows, step, self.chance)


def make_table(
    values: Tensor, method: Method, rate: float, chance: torch.Generator
) -> FloatTable | StoredTable:
    """Return a table that is held as a method says.

    Args:
        values: its first rows, float32 (rows, width).
        method: how it is held.
        rate: Adam's rate for the rows.
        chance: where stochastic rounding draws from.
    """
    if method.way in ("lpt", "alpt"):
        return StoredTable(values, rate, method, chance)
    return LSQTable(values, rate, method) if method.way == "lsq" else FloatTable(values, rate)


def _descend(loss: Tensor, dense: torch.optim.Optimizer) -> None:
    loss.backward()
    dense.step()
    dense.zero_grad()
