"""A law with its constants, as the planner evaluates it: the point estimate first, then the draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..fitting import Fit
from ..fitting.rows import PRODUCT, RATIO
from ..fitting.tell import draws_text
from ..laws import Law, Published, published
from ..laws.law import D
from ..laws.terms import PRECISION
from ..units import format_quantity
from .answer import Answer
from .cost import train_flops

Array = NDArray[np.float64]
SENSIBLE = 10  # times the largest size on the most tokens: what is planned for where nobody said
FAR = 100  # times the compute of the rows: an interval of the constants is no longer all the doubt


@dataclass(frozen=True)
class Source:
    """A law with its constants: the point estimate first, then the draws, and the noise of single runs."""

    name: str
    law: Law
    theta: Array
    drawn: bool
    ranges: dict[str, tuple[float, float]]
    notes: tuple[str, ...]
    method: str = ""
    noise: Mapping[str, float] = field(default_factory=dict)
    df: int = 0
    raw: bool = False  # noise of losses is in nats per token, and not relative
    count: str = ""  # what N counts, where it is not the parameters without embeddings

    @classmethod
    def of(cls, law: Fit | Published | str, interval: float) -> Source:
        """Read a fit, published constants or their name.

        Raises:
            ConfigError: an impossible level, or unknown constants.
        """
        if not isinstance(interval, int | float) or not 0 < interval < 1:
            raise ConfigError(f"the interval's level must lie between 0 and 1, not {interval}; try 0.9")
        if isinstance(law, str):
            law = published(law)
        if not isinstance(law, Fit | Published):
            raise ConfigError(
                f"plans are made with a fit, or with published constants or their name, not {law!r}"
            )
        if {"steps", "batch_tokens"} - set(law.law.columns):
            plannable(law.law)
        if isinstance(law, Published):
            theta = law.law.vector(law.values)[None]
            note = f"published constants carry no intervals; fitted on {law.regime}"
            name = f"{law.name} ({law.source})"
            return cls(name, law.law.named(law.name), theta, False, dict(law.fitted), (note,))
        point = law.law.vector(law.values)[None]
        drawn = law.df > 0
        weak = [e.parameter.name for e in law.estimates if e.status in ("at bound", "not identified")]
        notes = [f"the rows do not pin down {', '.join(weak)}; see the fit"] if weak else []
        if not drawn:
            notes.append(
                "the fit has no intervals, so nothing here has one; its notes say why, or it was made with draws=0"
            )
        theta = np.concatenate([point, law.draws]) if drawn else point
        return cls(
            f"{law.law.name}, fitted to {sum(law.rows.values())} rows",
            law.law,
            theta,
            drawn,
            dict(law.ranges),
            tuple(notes),
            draws_text(law) if drawn else "",
            {kind: noise * law.tails.get(kind, 1.0) for kind, noise in law.noise.items()},
            law.df,
            law.objective == "squares",
            "" if law.count in ("non_embedding", "not stated") else law.count,
        )

    def noting(self, *notes: str) -> Source:
        """The same with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def at_estimate(self) -> Source:
        """The same without draws."""
        return replace(self, theta=self.theta[:1], drawn=False)

    def loss(self, theta: Array, columns: Mapping[str, Array]) -> Array:
        """Loss at points (S, K) for each vector of constants (S, p); infinite outside the law's domain."""
        return self._evaluate("total", theta, columns)

    def gap(self, theta: Array, columns: Mapping[str, Array]) -> Array:
        """Gap at points (S, 1) for each vector of constants (S, p), as (S,)."""
        return self.gaps(theta, columns)[:, 0]

    def gaps(self, theta: Array, columns: Mapping[str, Array]) -> Array:
        """Gap at points (S, K) for each vector of constants (S, p)."""
        return self._evaluate("gap", theta, columns)

    def _evaluate(self, what: str, theta: Array, columns: Mapping[str, Array]) -> Array:
        return self.law.compiled.guarded(what, theta, {i.column: columns[i.column] for i in self.law.inputs})

    def floor(self, theta: Array) -> Array:
        """The irreducible loss of each vector of constants."""
        floor: Array = theta[:, [self.law.names.index(name) for name in self.law.floors]].sum(axis=1)
        return floor

    @property
    def reads_bits(self) -> bool:
        """Whether the law says what bits in training do, as a function of their number."""
        return self.law.reads_bits

    @cached_property
    def turns(self) -> bool:
        """Whether the loss in training may rise with tokens, as where a penalty of low precision grows with them."""
        law = self.law
        return bool(law.spec.own) or any(
            PRECISION[form].make(part, law).added.has(D) for part, form in law.spec.precision
        )

    def why_not(self, columns: Mapping[str, Array]) -> str:
        """Say which condition of the law fails at a point (1, 1); empty where the law gives a loss."""
        rows = {i.column: columns[i.column][0] for i in self.law.inputs}
        for condition, holds in zip(
            self.law.conditions, self.law.compiled.holds(self.theta[0], rows), strict=True
        ):
            if not holds.all():
                return condition.sentence
        if np.isfinite(self.loss(self.theta[:1], columns)).all():
            return ""
        return f"{self.name} gives no finite loss for this question; use more bits, or another law"

    def extrapolation(self, params: float, tokens: float, bits: Mapping[str, float]) -> list[str]:
        """Say how far a point lies beyond the rows."""
        notes = []
        for name, value in bits.items():
            if name in self.ranges and value < self.ranges[name][0] - 1e-6:
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
        low, high = self.ranges.get(RATIO, (0.0, math.inf))
        ratio = tokens / params
        for factor, where in ((ratio / high, "above the most"), (low / ratio, "below the fewest")):
            if factor > 1.5:
                notes.append(
                    f"{ratio:,.3g} tokens a parameter are {factor:,.3g} times {where} the law was fitted on"
                )
        largest = math.prod(self.ranges[name][1] for name in ("params", "tokens") if name in self.ranges)
        costliest = (
            "the largest size on the most tokens" if PRODUCT not in self.ranges else "the costliest run"
        )
        largest = self.ranges.get(PRODUCT, (0.0, largest))[1]
        if {"params", "tokens"} <= self.ranges.keys() and params * tokens > FAR * largest:
            doubt = "nothing tells whether the law holds so far out"
            if self.drawn:
                doubt = "intervals tell how well constants are known, not whether the law holds so far out"
            notes.append(
                f"this takes {params * tokens / largest:,.3g} times the compute of {costliest} that was fitted: "
                f"{doubt}"
            )
        return notes


def sensible_budget(ranges: Mapping[str, tuple[float, float]]) -> float:
    """FLOPs to plan for where nobody said: ten times those of the largest size on the most tokens of the rows.

    >>> sensible_budget({"params": (1e6, 2e6), "tokens": (1e8, 4e8)})
    4.8e+16
    """
    if not {"params", "tokens"} <= ranges.keys():
        return 1e21
    return float(f"{SENSIBLE * train_flops(ranges['params'][1], ranges['tokens'][1], 16.0):.3g}")


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
    if unknown:
        return f"it reads {', '.join(unknown)}"
    missing = [name for name in ("params", "tokens") if name not in law.columns]
    return f"it does not read {' and '.join(missing)}" if missing else ""


def answer(
    name: str,
    values: Array,
    drawn: bool,
    interval: float,
    near: tuple[float, float] | None,
    given: bool,
    endless: bool = False,
) -> Answer:
    """Put a quantity's values, the estimate first and the draws after it, into an answer.

    Draws that are not finite are left out; where `endless`, those at infinity count, as more than any number.
    """
    low = high = math.nan
    if drawn:
        tail = (1 - interval) / 2
        draws = values[1:][~np.isnan(values[1:]) if endless else np.isfinite(values[1:])]
        if len(draws) and np.isfinite(draws).all():
            low, high = (float(q) for q in np.quantile(draws, [tail, 1 - tail]))
        elif len(draws):  # nothing lies between two draws of which one has no end
            low = float(np.quantile(draws, tail, method="lower"))
            high = float(np.quantile(draws, 1 - tail, method="higher"))
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
