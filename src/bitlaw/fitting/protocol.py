"""How a family of models should be fitted and judged: the Hitchhiker's procedure.

Choshen, Zhang & Andreas 2024 (2410.11840): leave the largest model out, cut early checkpoints, measure the mean
absolute relative error on the last part of its training, beat guesses without a law, and see how few runs do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from ..errors import ConfigError, FitError
from ..laws import Law, get
from ..runs import Count, read_runs
from ..units import format_quantity, percent
from .baseline import baselines
from .minimize import Aim, minimize
from .result import HeldOut, plain, score
from .rows import Rows, select
from .split import largest
from .tell import render

CUTS = (0.0, 0.1, 0.2, 0.3, 0.5)
SHARES = (0.25, 0.5, 0.75, 1.0)
LEVELS = (0.15, 0.10, 0.05)
STEADY = 0.75  # of the costlier cells must reach a level too, for a cell to count


@dataclass(frozen=True)
class Cell:
    """Error of a fit to some sizes and a first part of their training.

    Attributes:
        sizes: number of sizes fitted, the smallest ones.
        share: of the tokens of each that was used.
        flops: what those runs cost, 6 N D of each size at its longest.
        error: mean absolute relative error on the target; infinite where no law can be fitted.
    """

    sizes: int
    share: float
    flops: float
    error: float


@dataclass(frozen=True)
class Protocol:
    """What the procedure found for one law on one family.

    Attributes:
        law: its name.
        target: size of the largest model, which is predicted.
        rows: number of its losses that are predicted, the last part of its training.
        cut: share of each run's tokens that was left out at its beginning.
        cuts: error on the second-largest model by the share cut, from which `cut` was chosen.
        error: mean absolute relative error on the target.
        bias: mean signed relative error.
        guesses: errors of guesses without a law.
        cells: errors with fewer sizes and shorter training.
        enough: for each level, the cheapest cell that reaches it and stays there; None where none does, or a guess
            without a law reaches it as well.
    """

    law: str
    target: float
    rows: int
    cut: float
    cuts: tuple[tuple[float, float], ...]
    error: float
    bias: float
    guesses: tuple[tuple[str, float], ...]
    cells: tuple[Cell, ...]
    enough: tuple[tuple[float, Cell | None], ...]

    @property
    def verdict(self) -> str:
        """Whether the law is worth its name on these rows."""
        best = min(self.guesses, key=lambda g: g[1])
        if self.error >= best[1]:
            return (
                f"{self.law} predicts the largest model to {self.error:.1%}, no better than {best[0]} "
                f"({best[1]:.1%}): it has earned no trust here."
            )
        return f"{self.law} predicts the largest model to {self.error:.1%}; {best[0]} is {best[1]:.1%} off."

    def as_json(self) -> dict[str, Any]:
        """Plain data; what is infinite becomes None."""
        cells = [vars(c) for c in self.cells]
        enough = {f"{level:g}": None if c is None else vars(c) for level, c in self.enough}
        return plain({**vars(self), "verdict": self.verdict, "cells": cells, "enough": enough})

    def __str__(self) -> str:
        return _text(self)


def protocol(
    law: Law | str,
    runs: Any,
    *,
    cut: float | None = None,
    last: float = 0.3,
    count: Count = "as_given",
    seed: int = 0,
) -> Protocol:
    """Judge a law on a family of models by the Hitchhiker's procedure.

    Checkpoints of one run and shorter runs of the same size are treated alike, as in the paper. The cut
    is chosen on the second-largest model, never on the target.

    Args:
        law: a law, or the name of one.
        runs: whatever `read_runs` reads; rows of at least four sizes, ideally several checkpoints of each.
        cut: share of each run's tokens to leave out at its beginning; None to choose it.
        last: share of the target's tokens, counted from the end, whose losses are predicted.
        count: how N is counted.
        seed: of starting points.

    Raises:
        FitError: too few sizes or rows.
        ConfigError: a share that does not lie between 0 and 1.

    >>> from bitlaw import Runs
    >>> cells = [(n, d) for n in (1e7, 2e7, 4e7, 8e7, 16e7) for d in (2e8, 4e8, 8e8, 16e8)]
    >>> rows = [{"params": n, "tokens": d, "loss": 1.8 + 480 * n**-0.35 + 2100 * d**-0.37} for n, d in cells]
    >>> protocol("chinchilla", Runs.from_rows(rows)).error < 1e-6
    True
    """
    for name, share in (("cut", 0.0 if cut is None else cut), ("last", last)):
        if not 0 <= share < 1:
            raise ConfigError(f"{name} is a share of the tokens, at least 0 and below 1, not {share}")
    law = get(law) if isinstance(law, str) else law
    rows = select(law, read_runs(runs), count)
    sizes = _sizes(rows)
    if len(sizes) < 4:
        raise FitError(
            f"the procedure needs at least 4 sizes (one to predict, one to choose the cut on), not {len(sizes)}"
        )
    cuts = tuple((c, _error(rows, sizes[:-2], sizes[-2], c, last, seed)) for c in CUTS) if cut is None else ()
    if cut is None:
        cut = min(cuts, key=lambda pair: pair[1])[0]
    held, guesses = _predict(rows, sizes[:-1], sizes[-1], cut, last, seed)
    if not math.isfinite(held.error):
        raise FitError(f"{law.name} says nothing of the largest model; it lies outside the law's domain")
    known = min((error for _, error in guesses), default=math.inf)
    cells = tuple(
        Cell(
            k,
            share,
            _cost(rows, sizes[:k], share),
            _error(rows, sizes[:k], sizes[-1], cut, last, seed, share),
        )
        for k in range(2, len(sizes))
        for share in SHARES
    )
    return Protocol(
        law=law.name,
        target=float(sizes[-1]),
        rows=held.rows,
        cut=cut,
        cuts=cuts,
        error=held.error,
        bias=held.bias,
        guesses=guesses,
        cells=cells,
        enough=tuple((level, _enough(cells, level) if level < known else None) for level in LEVELS),
    )


def _sizes(rows: Rows) -> NDArray[np.float64]:
    if rows.loss is None or not {"params", "tokens"} <= set(rows.loss.data):
        raise FitError(
            f"{rows.law.name} predicts no loss by size and tokens; the procedure needs a law that does"
        )
    return np.unique(rows.loss.data["params"])


def _only(rows: Rows, keep: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]) -> Rows:
    """The rows of which size and tokens satisfy a rule."""
    parts = [
        None if b is None else b.take(keep(b.data["params"], b.data["tokens"])) for b in (rows.loss, rows.gap)
    ]
    loss, gap = (part if part is not None and len(part) else None for part in parts)
    return replace(rows, loss=loss, gap=gap)


def _longest(rows: Rows) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """The most tokens that any row of each size has."""
    assert rows.loss is not None
    params, tokens = rows.loss.data["params"], rows.loss.data["tokens"]
    sizes = np.unique(params)
    most = np.array([tokens[params == n].max() for n in sizes])
    return lambda n: most[np.minimum(np.searchsorted(sizes, n), len(sizes) - 1)]


def _predict(
    rows: Rows,
    sizes: NDArray[np.float64],
    target: float,
    cut: float,
    last: float,
    seed: int,
    share: float = 1.0,
) -> tuple[HeldOut, tuple[tuple[str, float], ...]]:
    """Fit some sizes, without the beginning of their training, and predict the end of the target's."""
    most = _longest(rows)
    train = _only(
        rows,
        lambda n, d: np.isin(n, sizes) & (d > cut * share * most(n)) & (d <= share * most(n) * (1 + 1e-9)),
    )
    test = _only(rows, lambda n, d: (n == target) & (d >= (1 - last) * most(n)))
    if train.loss is None:
        raise FitError("no rows are left to fit after the cut")
    problem, optimum = minimize(train, Aim(), np.random.default_rng(seed))
    theta = problem.decentre(problem.theta(optimum.u[0]))
    name = largest().name
    guesses = tuple((b.name, b.held_out.error) for b in baselines(train, test, "loss", name))
    return score(name, theta, train, test), guesses


def _error(
    rows: Rows,
    sizes: NDArray[np.float64],
    target: float,
    cut: float,
    last: float,
    seed: int,
    share: float = 1.0,
) -> float:
    try:
        return _predict(rows, sizes, target, cut, last, seed, share)[0].error
    except FitError:
        return math.inf


def _cost(rows: Rows, sizes: NDArray[np.float64], share: float) -> float:
    return float((6 * sizes * share * _longest(rows)(sizes)).sum())


def _enough(cells: Sequence[Cell], level: float) -> Cell | None:
    """The cheapest cell within a level, if most of the costlier ones with as many sizes are within it too."""
    steady = []
    for cell in cells:
        costlier = [c for c in cells if c.sizes == cell.sizes and c.share > cell.share]
        share = np.mean([c.error <= level for c in costlier]) if costlier else 1.0
        if cell.error <= level and share >= STEADY:
            steady.append(cell)
    return min(steady, key=lambda c: c.flops, default=None)


def _text(found: Protocol) -> str:
    cells = Table(
        title=f"{found.law} on the largest model, {format_quantity(found.target)} parameters: mean absolute error "
        f"over its last {found.rows} losses",
        title_justify="left",
    )
    shares = sorted({c.share for c in found.cells})
    cells.add_column("sizes fitted", justify="right")
    for share in shares:
        cells.add_column(f"first {share:.0%} of training" if share < 1 else "all of it", justify="right")
    for k in sorted({c.sizes for c in found.cells}):
        row = {c.share: c.error for c in found.cells if c.sizes == k}
        cells.add_row(str(k), *(f"{row[s]:.1%}" if math.isfinite(row[s]) else "-" for s in shares))
    lines: list[Table | str] = [cells]
    if found.cuts:
        listed = ", ".join(
            f"{c:.0%} ({e:.1%})" if math.isfinite(e) else f"{c:.0%} (-)" for c, e in found.cuts
        )
        lines.append(
            f"Left out at the beginning of each run: {found.cut:.0%}, best on the second-largest model of {listed}."
        )
    for name, error in found.guesses:
        lines.append(f"Without a law: {name} is {error:.1%} off.")
    known = min(error for _, error in found.guesses)
    for level, cell in found.enough:
        lines.append(
            f"Within {percent(level)}: "
            + (
                f"no law is needed, for a guess without one is {known:.1%} off."
                if known <= level
                else f"{cell.sizes} sizes and {cell.share:.0%} of their training are enough, "
                f"{format_quantity(cell.flops, 'flops')}."
                if cell
                else "not reached by any of these cells in a steady way."
            )
        )
    if found.rows == 1:
        lines.append(
            "One loss alone is predicted, which says little of a law; give several checkpoints of each model."
        )
    return render(*lines, found.verdict)
