"""A law with its constants, as the planner evaluates it: the point estimate first, then the draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..fitting import Fit
from ..formats import UNQUANTIZED, law_bits, parse_format
from ..formats.gaussian import effective_bits
from ..laws import Law, Published, published
from ..units import format_quantity
from .answer import Answer

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Source:
    """A law with its constants: the point estimate first, then the draws."""

    name: str
    law: Law
    theta: Array
    drawn: bool
    ranges: dict[str, tuple[float, float]]
    notes: tuple[str, ...]
    formats: Mapping[str, str] = field(default_factory=dict)  # named for training, and for after it

    @classmethod
    def of(cls, law: Fit | Published | str, interval: float) -> Source:
        """Read a fit, published constants or their name.

        Raises:
            ConfigError: an impossible level, or unknown constants.
        """
        if not 0 < interval < 1:
            raise ConfigError(f"the interval's level must lie between 0 and 1, not {interval}; try 0.9")
        if isinstance(law, str):
            law = published(law)
        plannable(law.law)
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

    def noting(self, note: str) -> Source:
        """The same with one more note."""
        return replace(self, notes=(*self.notes, note))

    def told(self, training: str | None, post: str | None) -> Source:
        """The same for formats that are named in training and after it: laws read labels, or grids, of them.

        Raises:
            ConfigError: a law with constants of other formats, or one that reads what no format's name tells.
        """
        named = {part: training for part in self.law.parts} | {"post": post}
        low = {
            part: name for part, name in named.items() if name and law_bits(parse_format(name)) < UNQUANTIZED
        }
        for column, known in self.law.spec.labels:
            name = low.get(column.removesuffix("_format"))
            if name and name not in known:
                raise ConfigError(
                    f"{self.name.partition(' (')[0]} has no constants for {column} {name}; it has {', '.join(known)}"
                )
        for column in self.law.columns:
            part, _, kind = column.rpartition("_")
            known_bits = part in self.law.parts and training is None and self.reads_bits
            if kind in _UNTOLD and (part in low or known_bits):
                raise ConfigError(
                    f"{self.name.partition(' (')[0]} reads {column}, which a plan is not told; plan with it at bf16, "
                    "or ask its `predict` about each choice"
                )
        return replace(self, formats=low)

    def loss(self, theta: Array, params: Array, tokens: Array, bits: Array, post: float | None) -> Array:
        """Loss at a point for each vector of constants (S,); infinite outside the law's domain."""
        return self._evaluate("total", theta, params, tokens, bits, post)

    def gap(self, theta: Array, params: Array, tokens: Array, bits: Array, post: float | None) -> Array:
        """Gap at a point for each vector of constants (S,)."""
        return self._evaluate("gap", theta, params, tokens, bits, post)

    def _evaluate(
        self, what: str, theta: Array, params: Array, tokens: Array, bits: Array, post: float | None
    ) -> Array:
        columns = self._columns(theta, params, tokens, bits, post)
        rows = {i.column: columns[i.column][:, None] for i in self.law.inputs}
        return self.law.compiled.guarded(what, theta, rows)[:, 0]

    def _columns(
        self, theta: Array, params: Array, tokens: Array, bits: Array, post: float | None
    ) -> dict[str, Array]:
        columns = {"params": params, "tokens": tokens, "unique_tokens": tokens}
        columns |= {f"{part}_bits": bits for part in self.law.parts}
        columns["post_bits"] = np.full(len(theta), UNQUANTIZED if post is None else post)
        for i in self.law.inputs:
            head, _, label = i.column.partition("=")
            part, _, kind = head.rpartition("_")
            if label and part in self.formats and kind == "format":
                columns[i.column] = np.full(len(theta), float(self.formats[part] == label))
            if kind == "capacity" and part in self.formats:
                columns[i.column] = np.full(len(theta), effective_bits(parse_format(self.formats[part])))
        for i in self.law.inputs:  # whatever else the law reads is left unquantised
            if i.column not in columns and i.default is not None:
                columns[i.column] = np.full(len(theta), i.default)
        return columns

    def floor(self, theta: Array) -> Array:
        """The irreducible loss of each vector of constants."""
        floor: Array = theta[:, [self.law.names.index(name) for name in self.law.floors]].sum(axis=1)
        return floor

    @property
    def reads_bits(self) -> bool:
        """Whether the law says what bits in training do, as a function of their number."""
        return self.law.reads_bits

    def why_not(self, params: Array, tokens: Array, bits: Array, post: float | None) -> str:
        """Say which condition of the law fails at a point."""
        inputs = self._columns(self.theta[:1], params[:1], tokens[:1], bits[:1], post)
        rows = {i.column: inputs[i.column] for i in self.law.inputs}
        for condition, holds in zip(
            self.law.conditions, self.law.compiled.holds(self.theta[0], rows), strict=True
        ):
            if not holds.all():
                return condition.sentence
        return f"{self.name} gives no finite loss for this question; use more bits, or another law"

    def extrapolation(
        self, params: float, tokens: float, bits: float | None = None, post: float | None = None
    ) -> list[str]:
        """Say how far a point lies beyond the rows."""
        notes = []
        for name, value in [(f"{part}_bits", bits) for part in self.law.parts] + [("post_bits", post)]:
            if value is not None and name in self.ranges and value < self.ranges[name][0] - 1e-6:
                notes.append(
                    f"{value:.3g} is below the fewest {name} the law was fitted on, {self.ranges[name][0]:g}"
                )
        for name, value in (("params", params), ("tokens", tokens)):
            low, high = self.ranges.get(name, (0.0, math.inf))
            for factor, where in ((value / high, "above the largest"), (low / value, "below the smallest")):
                if factor > 1.5:
                    notes.append(
                        f"{format_quantity(value, name)} is {factor:,.3g} times {where} the law was fitted on"
                    )
        return notes


#: What a format's name does not tell of its grid, by the end of a column's name.
_UNTOLD = ("group", "exponent", "mantissa")


def plannable(law: Law) -> None:
    """Refuse laws that say nothing of the loss at a size and a number of tokens.

    Raises:
        ConfigError: such a law.
    """
    if reason := why_not_plannable(law):
        raise ConfigError(
            f"{law.name} cannot be planned with: {reason}; use a law of size and tokens, like chinchilla"
        )


def why_not_plannable(law: Law) -> str:
    """Why a law says nothing of the loss at a size and a number of tokens; empty where it does."""
    known = {"params", "tokens", "unique_tokens"}
    unknown = [i.column for i in law.inputs if i.default is None and i.column not in known]
    if law.target != "loss" or law.loss == 0:
        return f"it predicts {law.target if law.loss != 0 else 'the gap alone'}"
    return "" if known & set(law.columns) and not unknown else f"it reads {', '.join(unknown) or 'no size'}"


def answer(
    name: str, values: Array, drawn: bool, interval: float, near: tuple[float, float] | None, given: bool
) -> Answer:
    """Put a quantity's values, the estimate first and the draws after it, into an answer."""
    low = high = math.nan
    if drawn:
        tail = (1 - interval) / 2
        finite = values[1:][np.isfinite(values[1:])]
        if len(finite):
            low, high = (float(q) for q in np.quantile(finite, [tail, 1 - tail]))
    near_low, near_high = near or (math.nan, math.nan)
    return Answer(name, float(values[0]), low, high, near_low, near_high, given)


def stretch(grid: Array, losses: Sequence[float] | Array, limit: float) -> tuple[float, float]:
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
