"""The planner: minimise a law's loss under a budget, over whatever is left free.

One numerical optimiser answers every question for every law: for each draw of the constants it searches
bits outside and size inside, and tokens follow from the budget. Closed forms exist for some laws; they
are used in the tests, against this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import LawError
from ..fitting import Fit
from ..formats import UNQUANTIZED
from ..laws import Published
from ..laws.terms import PARTS
from ..units import format_quantity
from .answer import Option, Plan
from .cost import tokens_for
from .search import minimise
from .source import Array, Source, answer, stretch

WINDOW = 35.0  # sizes are searched within exp(+-35), a factor of 1e15, of the square root of the budget
MIN_BITS = 2.0
FINE = (33, 40)  # points of the grid, and golden-section steps after it
QUICK = (25, 22)  # for draws: sizes to 1e-4 of their value, bits to 1e-4
OPTION_BITS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16)


def frontier(
    law: Fit | Published | str, budgets: Sequence[float], interval: float = 0.90
) -> dict[str, Array]:
    """The best params, tokens, bits and loss for each of many budgets, for figures.

    Returns:
        For each name an array (budgets, 3): the best value, and its interval's ends (NaN without draws).
    """
    source = Source.of(law, interval)
    tail = (1 - interval) / 2
    fixed = None if source.reads_bits else (UNQUANTIZED, 16.0)
    out: dict[str, list[list[float]]] = {"bits": [], "params": [], "tokens": [], "loss": []}
    for flops in budgets:
        found = Search(source, flops, None, None, fixed, None, 16.0).best(source.theta, QUICK)
        for name, values in zip(out, found, strict=True):
            ends = np.nanquantile(values[1:], [tail, 1 - tail]).tolist() if source.drawn else [math.nan] * 2
            out[name].append([float(values[0]), *ends])
    return {name: np.array(rows) for name, rows in out.items()}


@dataclass(frozen=True)
class Search:
    """A budget, and what is given."""

    source: Source
    flops: float
    params: float | None
    tokens: float | None
    bits: tuple[float, float] | None
    post: float | None
    max_bits: float

    def plan(self, interval: float, tolerance: float) -> Plan:
        """Find the optimum, its interval and what lies near it."""
        theta = self.source.theta
        bits, params, tokens, loss = self.best_of_all()
        if not np.isfinite(loss[0]):
            raise LawError(self.source.why_not(params, tokens, bits, self.post))
        point = (bits[0], params[0], tokens[0])
        notes = list(self.source.notes)
        if self.source.drawn and (lost := int((~np.isfinite(loss)).sum())):
            notes.append(
                f"{lost} of {len(theta) - 1} draws have no optimum in the law's domain and are left out"
            )
        near = self._near(theta[:1], loss[0], point, tolerance)
        found = {"params": params, "tokens": tokens, "bits": bits, "loss": loss}
        given = {
            "params": self.params is not None,
            "tokens": self.tokens is not None,
            "bits": self.bits is not None,
        }
        if self.bits is not None:
            found["bits"] = np.full(len(theta), self.bits[1])
        if self.post is not None:
            found["gap"] = self.source.gap(theta, params, tokens, bits, self.post)
        answers = tuple(
            answer(name, values, self.source.drawn, interval, near.get(name), given.get(name, False))
            for name, values in found.items()
        )
        if self.bits is None and point[0] > self.max_bits - 1e-3:
            notes.append(f"the optimum lies at the most bits considered, {self.max_bits:g}")
        if self.bits is None and point[0] < MIN_BITS + 1e-3:
            notes.append(f"the optimum lies at the fewest bits considered, {MIN_BITS:g}")
        middle = 0.5 * math.log(self.flops)
        if self.params is None and self.tokens is None and abs(math.log(point[1]) - middle) > WINDOW - 0.1:
            notes.append("the law has no best size: it lies at the edge of what was searched")
        if self.bits is None and (
            idle := [what for part, what in PARTS.items() if part not in self.source.law.parts]
        ):
            notes.append(
                f"the law says nothing of {' and '.join(idle)}: they are taken to lose nothing at any bits, although "
                "the cost counts all parts at the same bits; the best bits may be far too low"
            )
        trained_at = None if self.bits is not None and self.bits[0] == UNQUANTIZED else point[0]
        notes += self.source.extrapolation(point[1], point[2], trained_at, self.post)
        options = self._options(theta, loss, tolerance) if self.bits is None else ()
        drawn = self.source.drawn
        return Plan(
            self._question(),
            self.source.name,
            answers,
            options,
            interval if drawn else math.nan,
            tolerance,
            tuple(notes),
        )

    def best_of_all(self) -> tuple[Array, Array, Array, Array]:
        """Bits, params, tokens and loss of the optimum: at the point estimate exactly, in draws quickly."""
        point = self.best(self.source.theta[:1], FINE)
        if not self.source.drawn:
            return point
        draws = self.best(self.source.theta[1:], QUICK)
        bits, params, tokens, loss = (np.concatenate(pair) for pair in zip(point, draws, strict=True))
        return bits, params, tokens, loss

    def best(self, theta: Array, effort: tuple[int, int]) -> tuple[Array, Array, Array, Array]:
        """Bits, params, tokens and loss of the optimum, for each vector of constants."""
        count = len(theta)
        if self.bits is not None:
            bits = np.full(count, self.bits[0])
        else:
            low, high = np.full(count, MIN_BITS), np.full(count, self.max_bits)
            bits, _ = minimise(lambda p: self.at_bits(theta, p, effort)[1], low, high, *effort)
        params, loss = self.at_bits(theta, bits, effort)
        return bits, params, self._tokens(params, bits), loss

    def at_bits(self, theta: Array, bits: Array, effort: tuple[int, int]) -> tuple[Array, Array]:
        """The best size at given bits, and its loss."""
        if self.params is not None:
            params = np.full(len(theta), self.params)
        elif self.tokens is not None:
            params = tokens_for(self.flops, np.full(len(theta), self.tokens), self._cost_bits(bits))
        else:
            middle = 0.5 * math.log(self.flops)
            ends = np.full(len(theta), middle - WINDOW), np.full(len(theta), middle + WINDOW)
            x, loss = minimise(lambda x: self._loss(theta, np.exp(x), bits), *ends, *effort)
            return np.exp(x), loss
        return params, self._loss(theta, params, bits)

    def _loss(self, theta: Array, params: Array, bits: Array) -> Array:
        return self.source.loss(theta, params, self._tokens(params, bits), bits, self.post)

    def _tokens(self, params: Array, bits: Array) -> Array:
        if self.tokens is not None:
            return np.full(len(params), self.tokens)
        return tokens_for(self.flops, params, self._cost_bits(bits))

    def _cost_bits(self, bits: Array) -> Array:
        return bits if self.bits is None else np.full(len(bits), self.bits[1])

    def _near(
        self, theta: Array, loss: float, point: tuple[float, float, float], tolerance: float
    ) -> dict[str, tuple[float, float]]:
        """Ranges of each free quantity over which the best choice of the others stays near-optimal."""
        limit = loss + tolerance * (loss - float(self.source.floor(theta)[0]))
        out: dict[str, tuple[float, float]] = {}
        if self.bits is None:
            grid = np.linspace(MIN_BITS, self.max_bits, 561)
            losses = self.at_bits(np.repeat(theta, len(grid), axis=0), grid, FINE)[1]
            out["bits"] = stretch(grid, losses, limit)
            if self.params is not None:  # tokens follow from bits
                tokens = self._tokens(np.full(2, self.params), np.array(out["bits"]))
                out["tokens"] = (float(tokens.min()), float(tokens.max()))
        if self.params is None and self.tokens is None:
            grid = point[1] * np.exp(np.linspace(-4, 4, 401))
            many = np.repeat(theta, len(grid), axis=0)
            if self.bits is None:
                ends = np.full(len(grid), MIN_BITS), np.full(len(grid), self.max_bits)
                bits, losses = minimise(lambda p: self._loss(many, grid, p), *ends)
            else:
                bits = np.full(len(grid), self.bits[0])
                losses = self._loss(many, grid, bits)
            out["params"] = stretch(grid, losses, limit)
            inside = losses <= limit
            tokens = self._tokens(grid, bits)[inside]
            out["tokens"] = (float(tokens.min()), float(tokens.max()))
        return out

    def _options(self, theta: Array, best: Array, tolerance: float) -> tuple[Option, ...]:
        """The best that each whole number of bits can do, and how often it is the best of them."""
        choices = [b for b in OPTION_BITS if MIN_BITS <= b <= self.max_bits]
        results = [self.at_bits(theta, np.full(len(theta), float(b)), QUICK) for b in choices]
        losses = np.stack([loss for _, loss in results])
        winner = np.argmin(losses[:, 1:], axis=0) if self.source.drawn else None
        limit = best[0] + tolerance * (best[0] - self.source.floor(theta[:1])[0])
        options = []
        for k, b in enumerate(choices):
            if not np.isfinite(losses[k, 0]):
                continue
            params = results[k][0][:1]
            options.append(
                Option(
                    bits=float(b),
                    params=float(params[0]),
                    tokens=float(self._tokens(params, np.array([float(b)]))[0]),
                    loss=float(losses[k, 0]),
                    near_optimal=bool(losses[k, 0] <= limit),
                    chance=math.nan if winner is None else float((winner == k).mean()),
                )
            )
        return tuple(options)

    def _question(self) -> str:
        given = []
        if self.params is not None:
            given.append(format_quantity(self.params, "params"))
        if self.tokens is not None:
            given.append(format_quantity(self.tokens, "tokens"))
        if self.bits is not None and self.post is None:
            given.append(f"{self.bits[1]:g} bits")
        if self.post is not None:
            given.append(
                f"weights quantised to {self.post:g} bits after training at {self.bits[1] if self.bits else 16:g}"
            )
        text = f"The best model for {format_quantity(self.flops, 'flops')}"
        return f"{text}, given {' and '.join(given)}" if given else text
