"""Did the law shift between two arms: another optimiser, another format, another corpus?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from ..errors import FitError
from ..laws import Law
from ..laws.terms import TRAINED_PARTS
from ..runs import Count, read_runs
from ..units import format_quantity, percent
from .diagnose import MISFIT
from .estimate import fit
from .result import Fit, plain
from .rows import PRODUCT
from .tell import draws_text, number, render


@dataclass(frozen=True)
class Change:
    """A quantity in both arms and its change from a to b, with its interval."""

    name: str
    a: float
    b: float
    change: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Shift:
    """Two fits of one law compared.

    Attributes:
        fits: of arm a and arm b.
        losses: relative change of the predicted loss in the middle and at the far end of what both arms cover (no
            costlier than the costliest run of either), and there with each part, and the weights after training, in
            the fewest bits or each format that both arms have.
        parameters: change of each parameter; of positive ones the change of the logarithm.
        level: of the intervals; those of `losses` hold all at once.
    """

    fits: tuple[Fit, Fit]
    losses: tuple[Change, ...]
    parameters: tuple[Change, ...]
    level: float

    @property
    def verdict(self) -> str:
        """Whether the law shifted."""
        clear = [c for c in self.losses if c.clear]
        if not clear:
            width = max(max(abs(c.low), abs(c.high)) for c in self.losses)
            return (
                f"No shift is seen at {percent(self.level)}: the predicted losses of the arms differ by less than "
                f"{width:.2%} wherever they were compared."
            )
        worst = max(clear, key=lambda c: abs(c.change))
        which = "higher" if worst.change > 0 else "lower"
        doubt = " The law misfits, so that part of it may be no shift; see the notes." if self.misfits else ""
        return (
            f"The law shifted: at {worst.name} arm b is {abs(worst.change):.2%} {which} "
            f"({percent(self.level)}: {worst.low:+.2%} to {worst.high:+.2%}).{doubt}"
        )

    @property
    def misfits(self) -> list[str]:
        """Where the residuals of an arm are not noise, in sentences."""
        return [
            f"arm {arm}: {note}"
            for arm, fitted in zip("ab", self.fits, strict=True)
            for note in fitted.notes
            if note.startswith(MISFIT)
        ]

    def as_json(self) -> dict[str, Any]:
        """Plain data; NaN becomes None."""
        return plain(
            {
                "interval": {"level": self.level, "method": self.fits[0].drawn_by, "kind": "confidence"},
                "verdict": self.verdict,
                "misfits": self.misfits,
                "losses": [vars(c) for c in self.losses],
                "parameters": [vars(c) for c in self.parameters],
            }
        )

    def __str__(self) -> str:
        return _text(self)


def shift(
    law: Law | str,
    a: Any,
    b: Any,
    *,
    count: Count = "as_given",
    interval: float = 0.90,
    draws: int = 400,
    seed: int = 0,
) -> Shift:
    """Fit a law to two arms and say whether it shifted between them.

    The arms are taken as independent. Parameters that trade off against each other may each look unchanged, or
    changed, when the law as a whole is not; the predicted losses decide.

    Args:
        law: a law, or the name of one.
        a: the first arm's runs; whatever `read_runs` reads.
        b: the second arm's runs.
        count: how N is counted.
        interval: level of the intervals.
        draws: behind the intervals, of each arm.
        seed: of starting points and draws.

    Raises:
        FitError: an arm that cannot be fitted, or arms with no sizes or tokens in common.

    >>> from bitlaw import Runs
    >>> def arm(E):
    ...     rows = [(n, d, E + 480 * n**-0.35 + 2100 * d**-0.37) for n in (1e7, 3e7, 9e7) for d in (2e8, 1e9, 5e9)]
    ...     return Runs.from_rows([{"params": n, "tokens": d, "loss": loss} for n, d, loss in rows])
    >>> shift("chinchilla", arm(1.8), arm(1.9), draws=50).verdict[:17]
    'The law shifted: '
    """
    if draws < 20:
        raise FitError(f"a comparison of arms needs draws, at least 20, not {draws}")
    fits = tuple(
        fit(law, read_runs(arm), count=count, interval=interval, draws=draws, seed=seed + k)
        for k, arm in enumerate((a, b))
    )
    first, second = fits
    if first.law.names != second.law.names:
        raise FitError(
            f"the arms do not carry the same law: {', '.join(first.law.names)} against {', '.join(second.law.names)}; "
            "compare arms that vary the same things"
        )
    return Shift(
        (first, second), _losses(first, second, interval), _parameters(first, second, interval), interval
    )


def _losses(a: Fit, b: Fit, level: float) -> tuple[Change, ...]:
    places = {}
    for column in ("params", "tokens"):
        if column in a.ranges:
            low = max(f.ranges[column][0] for f in (a, b))
            high = min(f.ranges[column][1] for f in (a, b))
            if low > high * (1 + 1e-9):
                raise FitError(
                    f"the arms have no {column} in common; their laws cannot be compared in one place"
                )
            places[column] = (np.sqrt(low * high), high)
    if len(places) == 2 and all(PRODUCT in f.ranges for f in (a, b)):
        # No run may have been of the largest size on the most tokens: the far end costs what both arms have seen.
        (n, most_n), (d, most_d) = places["params"], places["tokens"]
        excess = most_n * most_d / min(f.ranges[PRODUCT][1] for f in (a, b))
        if excess > 1:
            shrink = np.sqrt(excess)
            places = {"params": (n, max(n, most_n / shrink)), "tokens": (d, max(d, most_d / shrink))}
    points = {
        "the middle": {column: ends[0] for column, ends in places.items()},
        "the far end": {column: ends[1] for column, ends in places.items()},
    }
    points |= {
        f"the far end, {words}": {**points["the far end"], **setting} for words, setting in _settings(a, b)
    }
    if a.law.loss == 0:  # without quantisation after training there is no gap
        points = {name: p for name, p in points.items() if any(c.startswith("post_") for c in p)}
        if not points:
            raise FitError(
                "the arms have no bits after training in common; gaps are compared where both have some"
            )
    tail = (1 - level) / 2 / len(points)
    out = []
    for name, point in points.items():
        losses = [np.asarray(f.law.compiled.total(f.draws, _row(f, point)))[:, 0] for f in (a, b)]
        values = [float(f.predict(**{c: v for c, v in point.items()})) for f in (a, b)]
        ratio = np.log(losses[1]) - np.log(losses[0])
        low, high = np.nanquantile(ratio, [tail, 1 - tail])
        units = (("params", "parameters"), ("tokens", "tokens"))
        where = ", ".join(f"{format_quantity(point[c])} {unit}" for c, unit in units if c in point)
        change = np.log(values[1] / values[0])
        out.append(Change(f"{name} ({where})", values[0], values[1], float(change), float(low), float(high)))
    return tuple(out)


def _settings(a: Fit, b: Fit) -> list[tuple[str, dict[str, Any]]]:
    """Low precision that both arms have: in words, and as inputs of the law."""
    found: list[tuple[str, dict[str, Any]]] = []
    for i in a.law.inputs:
        column, _, label = i.column.partition("=")
        part = {**TRAINED_PARTS, "post": "weights after training"}.get(column.rpartition("_")[0], column)
        if label:
            found.append((f"{part} in {label}", {column: label}))
        elif column.endswith("_bits") and all(column in f.ranges for f in (a, b)):
            bits = max(f.ranges[column][0] for f in (a, b))
            if bits <= min(f.ranges[column][1] for f in (a, b)):
                found.append((f"{part} in {bits:g} bits", {column: bits}))
    return found


def _row(fit: Fit, point: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.atleast_1d(column) for name, column in fit.law.arrange(point).items()}


def _parameters(a: Fit, b: Fit, level: float) -> tuple[Change, ...]:
    tail = (1 - level) / 2
    out = []
    for k, (x, y) in enumerate(zip(a.estimates, b.estimates, strict=True)):
        if x.status == "fixed":
            continue
        one, two = a.draws[:, k], b.draws[:, k]
        change = y.value - x.value
        if x.parameter.positive:
            one, two, change = np.log(one), np.log(two), np.log(y.value / x.value)
        low, high = np.quantile(two - one, [tail, 1 - tail])
        out.append(Change(x.parameter.name, x.value, y.value, float(change), float(low), float(high)))
    return tuple(out)


def _text(shift: Shift) -> str:
    losses = Table(title="Predicted losses", title_justify="left")
    parameters = Table(title="Parameters", title_justify="left")
    for table, first in ((losses, "at"), (parameters, "parameter")):
        for name in (first, "arm a", "arm b", f"change ({percent(shift.level)} interval)"):
            table.add_column(name, justify="left" if name == first else "right")
    for c in shift.losses:
        losses.add_row(
            escape(c.name), f"{c.a:.4f}", f"{c.b:.4f}", f"{c.change:+.2%} ({c.low:+.2%} to {c.high:+.2%})"
        )
    for c in shift.parameters:
        cells = f"{c.change:+.3f} ({c.low:+.3f} to {c.high:+.3f})"
        parameters.add_row(escape(c.name), number(c.a), number(c.b), cells)
    note = (
        f"Intervals: confidence, {draws_text(shift.fits[0])} of each arm; those of losses hold all at once, those of "
        "parameters one at a time. Changes of positive parameters are of their logarithms."
    )
    return render(losses, parameters, note, *(f"Note: {misfit}." for misfit in shift.misfits), shift.verdict)
