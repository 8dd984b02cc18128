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
from numpy.typing import NDArray

from ..errors import ConfigError, LawError
from ..fitting import Fit
from ..formats import UNQUANTIZED, Integer, law_bits, parse_format
from ..laws import Law, Published, published
from ..units import format_quantity, parse_quantity
from .answer import Answer, Option, Plan
from .cost import tokens_for
from .search import minimise

Array = NDArray[np.float64]
SMALLEST, LARGEST = 1e3, 1e17  # parameters searched
FEWEST, MOST = 1e3, 1e22  # tokens searched
MIN_BITS = 2.0
FINE = (33, 40)  # points of the grid, and golden-section steps after it
QUICK = (25, 22)  # for draws: sizes to 1e-4 of their value, bits to 1e-4
OPTION_BITS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16)


def plan(
    law: Fit | Published | str,
    *,
    budget: str | float | None = None,
    params: str | float | None = None,
    tokens: str | float | None = None,
    bits: str | int | None = None,
    quantize_to: str | int | None = None,
    max_bits: float = 16.0,
    interval: float = 0.90,
    tolerance: float = 0.01,
) -> Plan:
    """Answer how many parameters, tokens and bits.

    * `budget` alone: the best (N, D, bits) under C = (6/16) N D P, all parts at P bits.
    * `budget` with `bits`, `params` or `tokens`: the best of the others with that one given.
    * `params` with `quantize_to`: the tokens beyond which more training hurts the quantised model.
    * `budget` with `quantize_to`: the best (N, D) of a model trained at 16 bits and quantised after.

    Args:
        law: a fit, published constants, or the name of published constants.
        budget: training cost, like "1e22 flops" of 16-bit arithmetic.
        params: model size, like "8B".
        tokens: training tokens, like "200B".
        bits: format of all parts in training, like "int8" or 8; "bf16" or 16 means unquantised.
        quantize_to: format of the weights after training, like "int4".
        max_bits: most bits considered where bits are free.
        interval: level of the intervals, for laws with draws.
        tolerance: share of the reducible loss (L - E) that counts as near-optimal.

    Returns:
        The decision with intervals and near-optimal ranges.

    Raises:
        ConfigError: a question that is contradictory, incomplete or cannot be read.
        LawError: a question outside the law's domain.

    >>> answer = plan("kumar-2024", budget="1e22 flops")
    >>> round(answer["bits"].value, 2)
    7.0
    """
    source = _Source.of(law, interval)
    flops = None if budget is None else parse_quantity(budget, "flops")
    size = None if params is None else parse_quantity(params, "params")
    data = None if tokens is None else parse_quantity(tokens, "tokens")
    fixed_bits = None if bits is None else _training_bits(bits)
    post = None if quantize_to is None else _post_bits(quantize_to)
    if not 0 < tolerance < 1:
        raise ConfigError(f"tolerance must lie between 0 and 1, not {tolerance}; try 0.01")
    if post is not None and source.law.gap == 0:
        raise LawError(f"{source.name} says nothing about quantisation after training; use a law with a gap")
    if flops is None:
        if size is None or post is None:
            raise ConfigError(
                "say what there is to spend (budget), or which size will be quantised to what "
                "(params with quantize_to)"
            )
        if data is not None or fixed_bits is not None:
            raise ConfigError(
                "with params and quantize_to the tokens are what is sought; drop tokens and bits"
            )
        return _critical(source, size, post, interval, tolerance)
    if size is not None and data is not None:
        raise ConfigError("a budget with both params and tokens leaves nothing to choose; drop one of them")
    if post is not None and fixed_bits is None:
        fixed_bits = (UNQUANTIZED, 16.0)
    if not source.law.parts and fixed_bits is None:
        fixed_bits = (UNQUANTIZED, 16.0)
        source = source.noting("the law has no precision terms, so training at 16 bits is assumed")
    return _Search(source, flops, size, data, fixed_bits, post, max_bits).plan(interval, tolerance)


def _training_bits(bits: str | int) -> tuple[float, float]:
    """Bits as the law reads them, and as the cost counts them; a plain 16 means unquantised."""
    fmt = parse_format("bf16" if str(bits).strip() == "16" else bits)
    return law_bits(fmt), float(fmt.bits)


def _post_bits(name: str | int) -> float:
    fmt = parse_format(name)
    if not isinstance(fmt, Integer):
        raise ConfigError(f"quantize_to {name!r} does not quantise anything; use int2 to int16")
    return float(fmt.bits)


def frontier(
    law: Fit | Published | str, budgets: Sequence[float], interval: float = 0.90
) -> dict[str, Array]:
    """The best params, tokens, bits and loss for each of many budgets, for figures.

    Returns:
        For each name an array (budgets, 3): the best value, and its interval's ends (NaN without draws).
    """
    source = _Source.of(law, interval)
    tail = (1 - interval) / 2
    fixed = None if source.law.parts else (UNQUANTIZED, 16.0)
    out: dict[str, list[list[float]]] = {"bits": [], "params": [], "tokens": [], "loss": []}
    for flops in budgets:
        found = _Search(source, flops, None, None, fixed, None, 16.0).best(source.theta, QUICK)
        for name, values in zip(out, found, strict=True):
            ends = np.nanquantile(values[1:], [tail, 1 - tail]).tolist() if source.drawn else [math.nan] * 2
            out[name].append([float(values[0]), *ends])
    return {name: np.array(rows) for name, rows in out.items()}


@dataclass(frozen=True)
class _Source:
    """A law with its constants: the point estimate first, then the draws."""

    name: str
    law: Law
    theta: Array
    drawn: bool
    ranges: dict[str, tuple[float, float]]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, law: Fit | Published | str, interval: float) -> _Source:
        if not 0 < interval < 1:
            raise ConfigError(f"the interval's level must lie between 0 and 1, not {interval}; try 0.9")
        if isinstance(law, str):
            law = published(law)
        if isinstance(law, Published):
            theta = law.law.vector(law.values)[None]
            note = f"published constants carry no intervals; fitted on {law.regime}"
            name = f"{law.name} ({law.source})"
            return cls(name, law.law, theta, False, dict(law.fitted), (note,))
        point = law.law.vector(law.values)[None]
        drawn = law.df > 0
        weak = [e.parameter.name for e in law.estimates if e.status in ("at bound", "not identified")]
        notes = (f"the rows do not pin down {', '.join(weak)}; see the fit",) if weak else ()
        theta = np.concatenate([point, law.draws]) if drawn else point
        return cls(
            f"{law.law.name}, fitted to {sum(law.rows.values())} rows",
            law.law,
            theta,
            drawn,
            dict(law.ranges),
            notes,
        )

    def noting(self, note: str) -> _Source:
        return _Source(self.name, self.law, self.theta, self.drawn, self.ranges, (*self.notes, note))

    def loss(self, theta: Array, params: Array, tokens: Array, bits: Array, post: float | None) -> Array:
        """Loss at a point for each vector of constants (S,); infinite outside the law's domain."""
        return self._evaluate("total", theta, params, tokens, bits, post)

    def gap(self, theta: Array, params: Array, tokens: Array, bits: Array, post: float | None) -> Array:
        """Gap at a point for each vector of constants (S,)."""
        return self._evaluate("gap", theta, params, tokens, bits, post)

    def _evaluate(
        self, what: str, theta: Array, params: Array, tokens: Array, bits: Array, post: float | None
    ) -> Array:
        columns = {"params": params, "tokens": tokens} | {f"{part}_bits": bits for part in self.law.parts}
        columns["post_bits"] = np.full(len(theta), UNQUANTIZED if post is None else post)
        rows = {i.column: np.broadcast_to(columns[i.column], len(theta))[:, None] for i in self.law.inputs}
        return self.law.compiled.guarded(what, theta, rows)[:, 0]

    def floor(self, theta: Array) -> Array:
        """The irreducible loss of each vector of constants."""
        return theta[:, self.law.names.index("E")] if "E" in self.law.names else np.zeros(len(theta))

    def extrapolation(self, params: float, tokens: float) -> list[str]:
        """Say how far a point lies beyond the rows."""
        notes = []
        for name, value in (("params", params), ("tokens", tokens)):
            low, high = self.ranges.get(name, (0.0, math.inf))
            for factor, where in ((value / high, "above the largest"), (low / value, "below the smallest")):
                if factor > 1.5:
                    notes.append(
                        f"{format_quantity(value, name)} is {factor:,.3g} times {where} the law was fitted on"
                    )
        return notes


@dataclass(frozen=True)
class _Search:
    """A budget, and what is given."""

    source: _Source
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
            raise LawError(
                f"{self.source.name} says nothing about this question: its conditions fail at every point searched; "
                "use more bits, or another law"
            )
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
            _answer(name, values, self.source.drawn, interval, near.get(name), given.get(name, False))
            for name, values in found.items()
        )
        if self.bits is None and point[0] > self.max_bits - 1e-3:
            notes.append(f"the optimum lies at the most bits considered, {self.max_bits:g}")
        if self.bits is None and point[0] < MIN_BITS + 1e-3:
            notes.append(f"the optimum lies at the fewest bits considered, {MIN_BITS:g}")
        notes += self.source.extrapolation(point[1], point[2])
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
            x, loss = minimise(
                lambda x: self._loss(theta, np.exp(x), bits),
                np.full(len(theta), math.log(SMALLEST)),
                np.full(len(theta), math.log(min(LARGEST, self.flops))),
                *effort,
            )
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
            out["bits"] = _range(grid, losses, limit)
        if self.params is None and self.tokens is None:
            grid = point[1] * np.exp(np.linspace(-4, 4, 401))
            many = np.repeat(theta, len(grid), axis=0)
            if self.bits is None:
                ends = np.full(len(grid), MIN_BITS), np.full(len(grid), self.max_bits)
                bits, losses = minimise(lambda p: self._loss(many, grid, p), *ends)
            else:
                bits = np.full(len(grid), self.bits[0])
                losses = self._loss(many, grid, bits)
            out["params"] = _range(grid, losses, limit)
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


def _critical(source: _Source, params: float, post: float, interval: float, tolerance: float) -> Plan:
    """Tokens beyond which more training hurts a model that will be quantised.

    The minimum over D of L(N, D) + gap(N, D, P_post); in closed form for the law of Kumar et al.
    (appendix E.1, equation 13) [beta B N^gamma_N exp(P/gamma_post - b) / (gamma_D C_T)]^(1/(gamma_D + beta)).
    """
    theta = source.theta
    count = len(theta)
    size = np.full(count, params)
    bits = np.full(count, UNQUANTIZED)
    low, high = np.full(count, math.log(FEWEST)), np.full(count, math.log(MOST))
    x, loss = minimise(lambda x: source.loss(theta, size, np.exp(x), bits, post), low, high, grid=129)
    tokens = np.exp(x)
    if not np.isfinite(loss[0]):
        raise LawError(f"{source.name} says nothing about {post:g} bits after training; use more bits")
    notes = list(source.notes)
    never = x > high - 1e-6
    if never[0]:
        notes.append(f"within {format_quantity(MOST, 'tokens')} more training always helps")
    elif lost := int(never[1:].sum()):
        notes.append(f"in {lost / (count - 1):.0%} of draws more training always helps")
    limit = loss[0] + tolerance * (loss[0] - source.floor(theta[:1])[0])
    grid = np.exp(np.linspace(x[0] - 6, x[0] + 6, 1201))
    many = np.repeat(theta[:1], len(grid), axis=0)
    losses = source.loss(many, np.full(len(grid), params), grid, np.full(len(grid), UNQUANTIZED), post)
    near = {"tokens": _range(grid, losses, limit)}
    near["tokens_per_param"] = (near["tokens"][0] / params, near["tokens"][1] / params)
    found = {
        "tokens": tokens,
        "tokens_per_param": tokens / params,
        "loss": loss,
        "gap": source.gap(theta, size, tokens, bits, post),
    }
    answers = [Answer("params", params, given=True)]
    answers += [
        _answer(name, values, source.drawn, interval, near.get(name), False) for name, values in found.items()
    ]
    notes += source.extrapolation(params, float(tokens[0]))
    question = (
        f"How long to train {format_quantity(params, 'params')} that will be quantised to {post:g} bits: "
        "beyond this many tokens, more training hurts"
    )
    return Plan(
        question,
        source.name,
        tuple(answers),
        (),
        interval if source.drawn else math.nan,
        tolerance,
        tuple(notes),
    )


def _answer(
    name: str, values: Array, drawn: bool, interval: float, near: tuple[float, float] | None, given: bool
) -> Answer:
    low = high = math.nan
    if drawn:
        tail = (1 - interval) / 2
        finite = values[1:][np.isfinite(values[1:])]
        if len(finite):
            low, high = (float(q) for q in np.quantile(finite, [tail, 1 - tail]))
    near_low, near_high = near or (math.nan, math.nan)
    return Answer(name, float(values[0]), low, high, near_low, near_high, given)


def _range(grid: Array, losses: Sequence[float] | Array, limit: float) -> tuple[float, float]:
    """Ends of the stretch of a grid where losses stay below a limit, interpolated."""
    losses = np.asarray(losses)
    inside = np.flatnonzero(losses <= limit)
    if not len(inside):
        return math.nan, math.nan

    def edge(k: int, beyond: int) -> float:
        if not 0 <= beyond < len(grid) or not np.isfinite(losses[beyond]):
            return float(grid[k])
        share = (limit - losses[k]) / (losses[beyond] - losses[k])
        return float(grid[k] + share * (grid[beyond] - grid[k]))

    return edge(int(inside[0]), int(inside[0]) - 1), edge(int(inside[-1]), int(inside[-1]) + 1)
