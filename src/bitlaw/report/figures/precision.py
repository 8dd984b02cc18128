"""What low precision in training costs: the share of parameters that count."""

from __future__ import annotations

import numpy as np
import polars as pl
import sympy as sp

from ...fitting import Fit
from ...formats import UNQUANTIZED
from ...laws.law import Law, N
from ...laws.terms import PARTS, TRAINED_PARTS
from ...runs import Runs
from ..chart import Axis, Band, Chart, Line, Mark, NothingToDraw, Rule
from ..view import Array, View, but
from .base import CURVE, Figure, evidence, interval, points_of

MOST = 1.6  # effective / actual parameters that are shown


@Figure
def effective_parameters(fit: Fit, runs: Runs | View) -> Chart:
    """Share of parameters that count, against bits, for each part; dots are single runs.

    A run's dot compares it with the fitted 16-bit loss at its own size and tokens (Kumar et al. 2024,
    equation 30): f = [ (L - L_16) / A + N^-alpha ]^(-1/alpha) / N.

    Args:
        fit: of a law with effective parameters.
        runs: the rows it was fitted to.

    Raises:
        NothingToDraw: the law has no such factor, or no row a part of low precision alone.
    """
    law, view = fit.law, View.of(runs, fit)
    if not by_size_alone(law):
        raise NothingToDraw(f"{law.name} has no effective parameters by bits; take a law like kumar")
    beyond = 0
    marks: list[Mark] = [Rule(y=1.0)]
    for k, part in enumerate(part for part in PARTS if f"{part}_bits" in law.columns):
        rows = view.trained.filter(but(part) & (pl.col(f"{part}_bits") < UNQUANTIZED))
        if not rows.height:
            continue
        bits, dots = rows[f"{part}_bits"].to_numpy(), measured_factors(view, rows)
        beyond += int((~(dots <= MOST)).sum())
        told = [f"effective / actual {dot:.3f}" for dot in dots]
        grid = np.linspace(max(min(1.5, bits.min()), bits.min() - 0.5), 16, 4 * CURVE)
        curve, low, high = law_factor(view, part, grid)
        marks += [
            Band(grid, low, high, PARTS[part], k),
            Line(grid, curve, PARTS[part], k, dash=k == 1),
            points_of(rows, bits + 0.06 * (k - 1), dots, PARTS[part], k, told, faint=True),
        ]
    if len(marks) == 1:
        raise NothingToDraw("no row has one part of low precision alone; train some, or add them")
    return Chart(
        "effective-parameters",
        "Effective parameters by part",
        f"Dots: single runs against the fitted 16-bit loss, parts set a little apart.{unseen(beyond)} "
        f"Lines and bands: the fitted law, {interval(fit)}. {evidence(view)}.",
        Axis("bits in training", ticks=(2, 3, 4, 6, 8, 12, 16)),
        Axis("effective / actual parameters", low=0, high=MOST),
        tuple(marks),
        legend="part",
    )


def measured_factors(view: View, rows: pl.DataFrame) -> Array:
    """Effective over actual parameters of rows (n,), against the fitted 16-bit loss at their own size and tokens.

        f = [ (L - L_16) / A + N^-alpha ]^(-1/alpha) / N

    (Kumar et al. 2024, equation 30.) NaN where the loss is below any that a size comes to.
    """
    values, sizes = view.fit.values, rows["params"].to_numpy()
    full = view.predicted(
        rows.with_columns(pl.lit(UNQUANTIZED).alias(f"{part}_bits") for part in TRAINED_PARTS)
    )
    excess = (rows["measured"].to_numpy() - full) / values["A"]
    with np.errstate(invalid="ignore"):
        found: Array = (excess + sizes ** -values["alpha"]) ** (-1 / values["alpha"]) / sizes
    return found


def by_size_alone(law: Law) -> bool:
    """Whether bits in training change N alone, in A / N_eff^alpha: then a run's loss tells its effective parameters."""
    term = sp.Symbol("A") * law.n_eff ** -sp.Symbol("alpha")
    bits = {i.symbol for i in law.inputs if i.column in [f"{part}_bits" for part in TRAINED_PARTS]}
    others = law.loss - term
    return (
        bool((law.n_eff / N).free_symbols & bits)
        and not (law.n_eff / N).has(N)
        and not others.free_symbols & (bits | {N})
    )


def unseen(count: int) -> str:
    """A sentence about dots that the figure cannot hold; empty where there are none."""
    return f" {count} runs lie above the frame, or below any loss that a size comes to." if count else ""


def law_factor(view: View, part: str, bits: Array) -> tuple[Array, Array, Array]:
    """The factor of a part, and its interval."""
    law = view.fit.law
    theta = np.concatenate([law.vector(view.fit.values)[None], view.fit.draws])
    curves = law.compiled.n_eff(theta, law.arrange({"params": 1.0, "tokens": 1.0, f"{part}_bits": bits}))
    low = high = np.full(len(bits), np.nan)
    if view.fit.df:
        low, high = view.ends(curves[1:])
    return curves[0], low, high
