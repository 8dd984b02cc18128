"""What a budget buys: the best size, tokens and bits, and the size of a file."""

from __future__ import annotations

import numpy as np

from ...fitting import Fit
from ...planning import frontier, plan
from ...runs import Runs
from ...units import format_quantity
from ..chart import Axis, Band, Chart, Line, Mark, NothingToDraw, Rule
from ..view import View
from .base import Figure, evidence, interval


@Figure
def compute_optimal(fit: Fit, runs: Runs | View) -> Chart:
    """Best parameters, tokens and bits against the budget, with intervals.

    Args:
        fit: of a law of size and tokens.
        runs: the rows it was fitted to; budgets reach from a tenth of the dearest to ten times it.

    Raises:
        NothingToDraw: a law without a size and tokens.
    """
    largest = View.of(runs, fit).largest_cost()
    budgets = np.geomspace(largest / 10, largest * 10, 5)
    best = frontier(fit, budgets.tolist(), fit.level)
    marks: list[Mark] = [Rule(x=largest, text="dearest run")]
    for k, name in enumerate(("params", "tokens")):
        value, low, high = best[name].T
        marks += [
            Band(budgets, low, high, name, k),
            Line(budgets, value, name, k, marker=k),
        ]
    second, title = None, "Compute-optimal parameters and tokens"
    if fit.law.reads_bits:
        value, low, high = best["bits"].T
        marks += [
            Band(budgets, low, high, "bits", 2, second=True),
            Line(budgets, value, "bits", 2, marker=2, dash=True, second=True),
        ]
        second, title = Axis("best bits", low=0, high=16), f"{title}, and bits"
    return Chart(
        "compute-optimal",
        title,
        f"Under C = (6/16) N D P with all parts at P bits. Bands: {interval(fit)}. {evidence(fit)}.",
        Axis("budget, 16-bit FLOPs", "log", "power"),
        Axis("best parameters, tokens", "log", "prefix"),
        tuple(marks),
        second,
    )


@Figure
def loss_against_bits(fit: Fit, runs: Runs | View, budget: float | None = None) -> Chart:
    """The best loss a budget buys against bits: where the optimum is, and how flat.

    Args:
        fit: of a law of bits in training.
        runs: the rows it was fitted to.
        budget: in 16-bit FLOPs; None for the cost of the dearest row.

    Raises:
        NothingToDraw: a law without bits.
    """
    view = View.of(runs, fit)
    view.need("params", "tokens")
    if not fit.law.reads_bits:
        raise NothingToDraw(f"{fit.law.name} does not read bits; take a law like kumar")
    flops = view.largest_cost() if budget is None else budget
    answer = plan(fit, budget=flops, interval=fit.level)
    options = sorted(answer.options, key=lambda o: o.bits)
    best = answer["bits"]
    bits = [o.bits for o in options]
    return Chart(
        "loss-against-bits",
        f"What {format_quantity(flops, 'flops')} buys, by bits (shaded: near-optimal)",
        f"The best size and tokens at each number of bits, by the point estimates; the best is {best.value:.1f} bits, "
        f"{best.low:.1f} to {best.high:.1f} ({interval(fit)}); shaded: within {answer.tolerance:.0%} of the reducible "
        f"loss. {evidence(fit)}.",
        Axis("bits of all parts in training", ticks=tuple(bits)),
        Axis("best loss, nats per token"),
        (
            Rule(x=(best.near_low, best.near_high)),
            Rule(x=best.value, text="best"),
            Line(bits, [o.loss for o in options], marker=0),
        ),
    )
