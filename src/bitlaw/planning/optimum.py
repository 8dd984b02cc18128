"""The best size, tokens and bits under limits: one numerical optimiser for every law and every question.

Whatever is free becomes an axis: bits where they are a number, the size, and tokens where more of them may hurt. For
each choice of formats and each draw of the constants the lowest loss is searched along all axes at once; tokens that
always help are what the budget leaves. Closed forms exist for some laws; they are used in the tests, against this.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..units import format_quantity
from .choice import Choice
from .limits import Array, Limits, column
from .search import FINE, QUICK, minimise
from .source import Source

SIZES = (
    70.0  # sizes are searched down to exp(-70) of the largest there can be, or to the least that makes sense
)
AMOUNTS = 90.0  # and tokens likewise; where they are endless, within exp(+-45) of the parameters
AMOUNTS_STEPS, HALVINGS = 181, 40  # of the search for tokens of a gap
MIDDLE = 35.0  # the largest size considered under a budget: exp(35) times its square root
SMALLEST = 1.0  # parameter, and token
LAST = 12  # choices that are optimised in every draw; the rest are compared at the estimate's sizes
MIN_BITS = 2.0
ANY = 1e9  # a size and tokens at which it is asked what a law says of formats

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Best:
    """Optima of several problems (S,); where there is none the loss is infinite, and bits, size and tokens NaN."""

    bits: Array
    params: Array
    tokens: Array
    loss: Array
    choice: Index
    place: Array  # on the axes that were searched (S, d)

    def at(self, rows: Index | slice) -> Best:
        """Some of them."""
        return Best(*(part[rows] for part in vars(self).values()))


@dataclass(frozen=True)
class Search:
    """A law, choices of formats, limits, and what is free.

    Attributes:
        source: the law and its constants.
        choices: of formats; where bits are searched, one whose columns they replace.
        limits: what there is to spend.
        free_bits: `bits` of all parts in training, `post_bits` of the weights after it, or nothing.
        max_bits: most bits where they are free.
    """

    source: Source
    choices: tuple[Choice, ...]
    limits: Limits
    free_bits: str = ""
    max_bits: float = 16.0

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """What is searched, in order."""
        axes = [self.free_bits] if self.free_bits else []
        limits = self.limits
        if limits.params is None and limits.tokens is None:
            axes.append("params")
        if limits.tokens is None and (limits.endless or self.turns):
            axes.append("tokens")
        return tuple(axes)

    @cached_property
    def turns(self) -> bool:
        """Whether more tokens may hurt."""
        after = self.free_bits == "post_bits" or any(c.post is not None for c in self.choices)
        return self.source.turns or (after and self.source.law.gap != 0)

    # ---- finding optima

    def best(
        self,
        theta: Array,
        which: Index,
        rounds: int = FINE,
        bits: Array | None = None,
        start: Array | None = None,
        reach: float = 1.0,
    ) -> Best:
        """The optimum of each pair of constants (S, p) and choice (S,).

        Args:
            theta: constants.
            which: choices.
            rounds: as `minimise` takes it.
            bits: at which free bits are held (S,).
            start: as `minimise` takes it.
            reach: as `minimise` takes it.
        """
        low, high = self._box(len(theta))
        if bits is not None:
            low[:, 0] = high[:, 0] = bits
        at, loss = minimise(lambda x: self._loss(theta, which, x), low, high, rounds, start, reach)
        found = np.where(np.isfinite(loss), [part[:, 0] for part in self._point(which, at[:, None])], np.nan)
        return Best(found[0], found[1], found[2], loss, which, at)

    def each(self) -> Best:
        """The best that every choice can do, at the estimate."""
        which = np.arange(len(self.choices))
        return self.at_estimate().best(np.repeat(self.source.theta[:1], len(which), axis=0), which)

    def with_budget(self, flops: float | Array) -> Search:
        """The same with a budget, or one for the estimate and each draw."""
        return replace(self, limits=replace(self.limits, flops=flops))

    def at_estimate(self) -> Search:
        """The same with the estimate's budget alone, where every draw has its own."""
        if self.limits.flops is None or not np.ndim(self.limits.flops):
            return self
        return self.with_budget(float(np.asarray(self.limits.flops)[0]))

    def in_draws(self, each: Best) -> Best:
        """The best of all choices in every draw of the constants.

        Draws begin where the estimate ends, with a step as wide as the grid's. Where there are many choices, those that
        come first in no draw at the estimate's sizes and tokens are passed over: near an optimum, the loss hardly
        depends on them.
        """
        draws = self.source.theta[1:]
        able = np.flatnonzero(np.isfinite(each.loss))
        if len(able) > LAST:
            there = [self._at(each.params[k], each.tokens[k], draws, int(k)) for k in able]
            wins = np.bincount(np.argmin(there, axis=0), minlength=len(able))
            able = able[np.sort(np.argsort(-wins)[:LAST])]
        pairs, start = np.repeat(able, len(draws)), np.repeat(each.place[able], len(draws), axis=0)
        found = self._funded(len(able)).best(np.tile(draws, (len(able), 1)), pairs, QUICK, start=start)
        winner = np.argmin(found.loss.reshape(len(able), -1), axis=0)
        return found.at(winner * len(draws) + np.arange(len(draws)))

    def _funded(self, choices: int) -> Search:
        """The same where every draw has a budget of its own, for some choices one after the other."""
        flops = np.asarray(self.limits.flops if self.limits.flops is not None else 0.0)
        if not flops.ndim:
            return self
        return self.with_budget(np.tile(flops[1:], choices))

    def _at(self, params: float, tokens: float, theta: Array, k: int) -> Array:
        """Losses (S,) of one choice at a size and tokens, whatever they cost."""
        bits, size, data = (np.full((len(theta), 1), x) for x in (self.choices[k].bits, params, tokens))
        return self.source.loss(theta, self.read(np.full(len(theta), k), bits, size, data))[:, 0]

    def without_tokens(self) -> Search:
        """The same with tokens free and without end."""
        return replace(self, limits=replace(self.limits, tokens=None, flops=None, most_tokens=None))

    def profile(self, k: int, name: str, values: Array) -> Best:
        """The optima of one choice, at the estimate, where one quantity is given each of some values (S,)."""
        theta, which = np.repeat(self.source.theta[:1], len(values), axis=0), np.full(len(values), k)
        if name == self.free_bits:
            return self.at_estimate().best(theta, which, bits=values)
        given = {"params": self.limits.params, "tokens": self.limits.tokens, name: values}
        limits = replace(self.limits, params=given["params"], tokens=given["tokens"])
        return replace(self, limits=limits).at_estimate().best(theta, which)

    # ---- where there is none

    def why_not(self) -> str:
        """What the law says against every choice, or that the limits leave no room for any."""
        bits = [self.max_bits if self.free_bits else c.bits for c in self.choices]
        said = [self.against(k, b) for k, b in enumerate(bits)]
        if all(said):
            return said[int(np.argmax(bits))]
        if self.limits.bytes is not None:
            room = format_quantity(float(np.ravel(self.limits.bytes)[0]), "bytes")
            return (
                f"the limits leave no room: weights and cache have to fit into {room} (the memory that was given, or "
                "that of the hardware), and all into what there is to spend; raise a limit, or give less"
            )
        return "the limits leave no room: what is given costs more than there is to spend; raise a limit, or give less"

    def against(self, k: int, bits: float) -> str:
        """What the law says against a choice; empty where it gives a loss."""
        places = (np.full((1, 1), value) for value in (bits, ANY, ANY))
        alone = replace(self, choices=self.choices[k : k + 1])
        return self.source.why_not(alone.read(np.array([0]), *places))

    # ---- what is minimised

    def _box(self, count: int) -> tuple[Array, Array]:
        ends = {
            "bits": (MIN_BITS, self.max_bits),
            "post_bits": (MIN_BITS, self.max_bits),
            "params": (0.0, 1.0),
            "tokens": (-AMOUNTS, 0.0),
        }
        pairs = np.array([ends[name] for name in self.axes]).reshape(-1, 2)
        return np.tile(pairs[:, 0], (count, 1)), np.tile(pairs[:, 1], (count, 1))

    def costs(self, which: Index, bits: Array | None) -> tuple[Array, Array, Array, Array]:
        """What a FLOP of training and of serving costs, bits of a weight and of the cache, at points (S, K)."""
        own = [
            np.array([getattr(c, name) for c in self.choices])[which][:, None]
            for name in ("train", "serve", "bpw", "kv_bits")
        ]
        if bits is not None and self.free_bits == "bits":
            return bits / 16, bits / 16, bits, bits
        if bits is not None and self.free_bits:
            return own[0], bits / 16, bits, own[3]
        return own[0], own[1], own[2], own[3]

    def _point(self, which: Index, x: Array) -> tuple[Array, Array, Array]:
        """Bits, size and tokens at places on the axes (S, K, d)."""
        place = {name: x[..., k] for k, name in enumerate(self.axes)}
        bits = place.get(self.free_bits)
        train, serve, bpw, kv_bits = self.costs(which, bits)
        limits, shape = self.limits, x.shape[:2]
        largest = limits.log_largest(train, serve, bpw, kv_bits)
        if limits.params is not None:
            params = np.broadcast_to(column(limits.params), shape)
            params = np.where(np.log(params) <= largest + 1e-9, params, np.nan)  # too large to be had
        elif "params" in place:
            if limits.flops is not None:
                largest = np.minimum(largest, MIDDLE + 0.5 * np.log(column(limits.flops)))
            least = np.clip(limits.log_least(train, serve), largest - SIZES, largest)
            params = np.exp(np.broadcast_to(limits.log_within(largest, least, serve, place["params"]), shape))
        else:
            params = np.exp(np.broadcast_to(largest, shape))
        most = limits.log_most_tokens(params, train, serve)
        if "tokens" in place:
            most = np.where(np.isposinf(most), np.log(params) + AMOUNTS / 2, most) + place["tokens"]
        tokens = np.exp(most)
        shown = np.broadcast_to(
            bits if bits is not None else np.array([c.bits for c in self.choices])[which][:, None], shape
        )
        return shown, params, np.broadcast_to(tokens, shape)

    def _loss(self, theta: Array, which: Index, x: Array) -> Array:
        bits, params, tokens = self._point(which, x)
        loss = self.source.loss(theta, self.read(which, bits, params, tokens))
        usable = (params >= SMALLEST) & (tokens >= SMALLEST) & np.isfinite(params) & np.isfinite(tokens)
        return np.where(usable, loss, np.inf)

    def read(self, which: Index, bits: Array, params: Array, tokens: Array) -> dict[str, Array]:
        """What the law reads at points (S, K) of some choices (S,)."""
        names = self.choices[0].columns
        columns = {name: np.array([c.columns[name] for c in self.choices])[which][:, None] for name in names}
        if self.free_bits == "bits":
            columns |= {f"{part}_bits": bits for part in self.source.law.parts}
        elif self.free_bits:
            columns["post_bits"] = bits
        unique = tokens if self.limits.unique is None else np.minimum(tokens, self.limits.unique)
        return columns | {"params": params, "tokens": tokens, "unique_tokens": unique}

    def tokens_of_gap(self, theta: Array, best: Best, most: float) -> Array:
        """The fewest tokens at which quantising models of optima's sizes (S,) costs more; infinite where none do."""
        low = np.log(best.params) - AMOUNTS / 2
        steps = np.linspace(0, AMOUNTS, AMOUNTS_STEPS)
        grid = low[:, None] + steps

        def above(logs: Array) -> NDArray[np.bool_]:
            bits, params = (np.broadcast_to(part[:, None], logs.shape) for part in (best.bits, best.params))
            gaps = self.source.gaps(theta, self.read(best.choice, bits, params, np.exp(logs)))
            over: NDArray[np.bool_] = gaps > most
            return over

        over = above(grid)
        first = over.argmax(axis=1)
        high = grid[np.arange(len(grid)), first]
        low = grid[np.arange(len(grid)), np.maximum(first - 1, 0)]
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            beyond = above(middle[:, None])[:, 0]
            low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
        found = np.where(first == 0, 0.0, np.exp(high))
        return np.where(over.any(axis=1), found, np.inf)

    def gap(self, theta: Array, best: Best) -> Array:
        """What quantisation after training costs at optima (S,)."""
        places = (part[:, None] for part in (best.bits, best.params, best.tokens))
        return self.source.gap(theta, self.read(best.choice, *places))
