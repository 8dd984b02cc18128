"""Trunks that could be run next: sizes and tokens around those of the rows, in every scheme the law can tell of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from ..formats import Scheme
from ..laws import Law
from ..laws.terms import FORWARD
from .choice import Choice, chosen
from .limits import Array
from .purchase import COOLDOWN, Index
from .source import Source

BITS = (3, 4, 6, 8)  # of each part in training
POST_BITS = (3, 4, 6)  # of weights after it
BEYOND = (
    4.0  # factor over the largest size, and tokens, of the rows; below the smallest ones a law fails first
)
STEP = 2**0.5  # from one size, or budget, to the next, at least
COPIES = 4  # of each trunk: where runs are cheap and tell much, noise is averaged out
MANY, FEW = 500, 5  # cells in all at most, where that leaves a few sizes and budgets
OUTSIDE = 0.01  # share of draws outside the law's domain from which on a cell is left out
SMALL_GAP = 1e-3  # nats per token, below which gaps are taken to be lost in the noise of measuring them


@dataclass(frozen=True)
class Trunk:
    """A training run at a constant rate, from which a branch cools down at every budget.

    Attributes:
        params: its size.
        scheme: formats in training, as `Scheme.parse` reads them; "16" for none.
        budgets: training tokens of its ends, rising.
        copy: which of several that differ by their seeds alone.
    """

    params: float
    scheme: str
    budgets: tuple[float, ...]
    copy: int = 1

    def __post_init__(self) -> None:
        numbers = (self.params, *self.budgets)
        if not self.budgets or not all(0 < x < math.inf for x in numbers):
            raise ConfigError(
                f"a trunk has a size and budgets above zero, not {self.params} and {list(self.budgets)}"
            )
        if self.copy < 1:
            raise ConfigError(f"copies of a trunk are counted from 1, not {self.copy}")
        object.__setattr__(self, "scheme", Scheme.parse(self.scheme).name)
        object.__setattr__(self, "budgets", tuple(sorted(set(self.budgets))))

    @property
    def flops(self) -> float:
        """What it costs: C = 6 N (D_max + 0.2 sum of the smaller D), in whatever formats it is emulated.

        >>> Trunk(1e6, "w4", (1e8, 2e8)).flops
        1320000000000000.0
        """
        return 6 * self.params * (self.budgets[-1] + COOLDOWN * sum(self.budgets[:-1]))


@dataclass(frozen=True)
class Cells:
    """Ends of trunks, one beside the other (n,), and what each would measure."""

    params: Array
    scheme: tuple[str, ...]
    tokens: Array
    trunk: Index
    copy: Index
    post: tuple[str, ...]  # formats that the weights of unquantised ends are brought to after training
    measured: Array  # by draw (S, n, m): log loss, then gaps
    noise: Array  # of each (n, m)

    def trunks(self, cells: Index) -> tuple[Trunk, ...]:
        """Some of them as trunks."""
        found = []
        for number in np.unique(self.trunk[cells]):
            own = cells[self.trunk[cells] == number]
            k = int(own[0])
            budgets = tuple(float(x) for x in self.tokens[own])
            found.append(Trunk(float(self.params[k]), self.scheme[k], budgets, int(self.copy[k])))
        return tuple(sorted(found, key=lambda t: (t.scheme != "16", t.scheme, t.params, t.copy)))


def around(source: Source) -> tuple[Trunk, ...]:
    """Sizes and budgets on a grid around the rows, unquantised and with each part at several numbers of bits."""
    schemes = _schemes(source.law)
    most = max(FEW, math.isqrt(MANY // len(schemes)))
    sizes, budgets = (_steps(*source.ranges[name], most) for name in ("params", "tokens"))
    trained = {
        size: tuple(d for d in budgets if d >= size) for size in sizes
    }  # others bend the law, as fits say
    if not any(trained.values()):
        trained = dict.fromkeys(sizes, budgets)
    return tuple(
        Trunk(size, scheme, trained[size], copy)
        for copy in range(1, COPIES + 1)
        for scheme in schemes
        for size in sizes
        if trained[size]
    )


def _steps(low: float, high: float, most: int) -> tuple[float, ...]:
    """Values from the least of the rows to beyond the most, rounded to two digits."""
    high = BEYOND * high
    count = min(most, 1 + math.floor(math.log(high / low) / math.log(STEP) + 1e-9))
    return tuple(float(f"{x:.2g}") for x in np.geomspace(low, high, count))


def _schemes(law: Law) -> list[str]:
    told = {column.removesuffix("_format"): names for column, names in law.spec.labels}
    schemes = ["16"]
    for part in law.parts:
        names = told.get(part, tuple(f"int{b}" for b in BITS))
        schemes += [Scheme.parse(f"{part if part in FORWARD else f'{part}_a'}={name}").name for name in names]
    return schemes


def cells_of(source: Source, fit_noise: dict[str, float], trunks: Iterable[Trunk]) -> Cells:
    """Spread trunks out into their ends, and predict each in every draw.

    Ends that cannot be predicted at the estimate, or not in some draws, lie outside the law's domain and are left out.

    Args:
        source: the law, its estimate and draws.
        fit_noise: of a fit's rows, by kind.
        trunks: to choose among.

    Raises:
        ConfigError: no trunks, or two of one size and scheme.
    """
    listed = list(trunks)
    if not listed:
        raise ConfigError("candidates: an empty list leaves nothing to choose; give trunks, or leave it out")
    keys = [(t.params, t.scheme, t.copy) for t in listed]
    for key, count in Counter(keys).items():
        if count > 1:
            raise ConfigError(
                f"candidates: {key[0]:g} parameters at {key[1]} stand there twice; give one trunk all its "
                "budgets, or copies"
            )
    choices = {c.name: c for c in chosen(source.law, list(dict.fromkeys(t.scheme for t in listed)), None)}
    ends = [(k, t, d) for k, t in enumerate(listed) for d in t.budgets]
    params, tokens = (
        np.array(x, dtype=float) for x in zip(*[(t.params, d) for _, t, d in ends], strict=True)
    )
    schemes = tuple(t.scheme for _, t, _ in ends)
    for choice in choices.values():
        if choice.untold:
            raise ConfigError(
                f"candidates: {source.name} says nothing of {' and '.join(choice.untold)}, so runs at {choice.name} "
                "would tell it nothing"
            )
    own = [choices["bf16" if scheme == "16" else scheme] for scheme in schemes]
    losses = _predicted(source, "total", own, params, tokens)  # of the ends as they were trained
    measured, noise = [np.log(losses)], [np.full(len(ends), fit_noise["loss"])]
    if source.raw:
        noise[0] = noise[0] / losses[0]
    post: tuple[str, ...] = ()
    if source.law.gap != 0:
        afters = dict(source.law.spec.labels).get("post_format", tuple(f"int{b}" for b in POST_BITS))
        plain = np.array([scheme == "16" for scheme in schemes])
        for choice in chosen(source.law, None, afters):
            gaps = _predicted(source, "gap", [choice] * len(ends), params, tokens)
            if "gap" in fit_noise:
                measured.append(np.arcsinh(gaps / (2 * SMALL_GAP)))
                spread = fit_noise["gap"] / (np.hypot(gaps[0], 2 * SMALL_GAP) if source.raw else 1.0)
                noise.append(np.where(plain, spread, np.inf))
            else:  # the fit took losses after quantisation as losses
                measured.append(np.log(losses + gaps))
                noise.append(np.where(plain, noise[0], np.inf))
        post = tuple(afters)
    values, scales = np.stack(measured, axis=-1), np.stack(noise, axis=-1)
    outside = ~np.isfinite(values).all(axis=-1)
    keep = ~outside[0] & (outside.mean(axis=0) <= OUTSIDE)
    if not keep.any():
        raise ConfigError(
            "no candidate lies within the law's domain; give candidates of more bits, or other sizes"
        )
    return Cells(
        params[keep],
        tuple(s for s, k in zip(schemes, keep, strict=True) if k),
        tokens[keep],
        np.array([k for k, _, _ in ends], dtype=np.int64)[keep],
        np.array([t.copy for _, t, _ in ends], dtype=np.int64)[keep],
        post,
        values[:, keep],
        scales[keep],
    )


def _predicted(source: Source, what: str, choices: list[Choice], params: Array, tokens: Array) -> Array:
    """The `total` loss or the `gap` of each end (n,), at the estimate and in every draw (S, n)."""
    sizes = {"params": params, "tokens": tokens, "unique_tokens": tokens}
    formats = {name: np.array([c.columns[name] for c in choices]) for name in choices[0].columns}
    columns = formats | sizes
    read = {i.column: columns[i.column] for i in source.law.inputs}
    return source.law.compiled.guarded(what, source.theta, read)
