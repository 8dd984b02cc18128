"""Forecasts of the past: the costlier runs from the cheaper ones, as if they had not been trained yet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.table import Table

from ..errors import FitError
from ..laws import Law, get
from ..runs import Count, read_runs
from .baseline import MOST, baselines
from .estimate import divide
from .intervals import degrees
from .minimize import Aim, estimate_noise, minimize
from .objective import HUBER, Array
from .result import plain, score
from .rows import Rows, select
from .split import cheapest
from .tell import render
from .valley import valley


@dataclass(frozen=True)
class Forecasted:
    """Errors on all costlier runs of a fit to the cheapest ones.

    Attributes:
        share: of the runs that was fitted.
        fitted: number of rows fitted.
        beyond: compute of the costliest run over that of the costliest fitted one.
        rows: number of rows predicted.
        error, bias: mean absolute and mean signed relative error over them.
        lowest, highest: mean absolute relative errors of the best and the worst found among the fit and others that
            fit the cheapest runs as well; where those runs identify every constant, both are `error`.
        costliest: signed relative error on the costliest run.
        guess: mean absolute relative error of the loss of the costliest fitted run.
    """

    share: float
    fitted: int
    beyond: float
    rows: int
    error: float
    bias: float
    lowest: float
    highest: float
    costliest: float
    guess: float


@dataclass(frozen=True)
class Backtest:
    """Forecasts of the past by one law, each from the runs that were cheaper."""

    law: str
    steps: tuple[Forecasted, ...]
    skipped: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return plain({"law": self.law, "steps": [vars(s) for s in self.steps], "skipped": list(self.skipped)})

    def __str__(self) -> str:
        return _text(self)


def backtest(
    law: Law | str,
    runs: Any,
    *,
    shares: Sequence[float] = (0.3, 0.5, 0.7, 0.9),
    count: Count = "as_given",
    seed: int = 0,
) -> Backtest:
    """Forecast the costlier runs from the cheaper ones, as if they had not been trained yet.

    Args:
        law: a law, or the name of one.
        runs: whatever `read_runs` reads.
        shares: of the runs, by compute, that are fitted in each step.
        count: how N is counted.
        seed: of starting points.

    Raises:
        FitError: no step has enough rows.

    >>> from bitlaw import Runs
    >>> cells = [(n, d) for n in (1e7, 2e7, 4e7, 8e7, 16e7) for d in (2e8, 4e8, 8e8, 16e8)]
    >>> rows = [{"params": n, "tokens": d, "loss": 1.8 + 480 * n**-0.35 + 2100 * d**-0.37} for n, d in cells]
    >>> max(step.error for step in backtest("chinchilla", Runs.from_rows(rows)).steps) < 1e-4
    True
    """
    law = get(law) if isinstance(law, str) else law
    rows = select(law, read_runs(runs), count)
    steps, skipped = [], []
    for share in shares:
        split = cheapest(share)
        try:
            train, test = divide(rows, split)
            thetas = _as_good(train, seed)
        except FitError as error:
            skipped.append(f"{share:.0%}: {error}")
            continue
        guesses = baselines(train, test, "loss", split.name)
        compute = rows.facts["params"] * rows.facts["tokens"]
        used = np.concatenate([b.row for b in train.blocks()])
        ahead = np.concatenate([b.row for b in test.blocks()])
        helds = [score(split.name, theta, train, test) for theta in thetas]
        held = helds[0]
        errors = [h.error for h in helds if h.index == held.index]  # others say nothing of some of the rows
        if not held.errors:
            skipped.append(f"{share:.0%}: all costlier runs lie outside the law's domain")
            continue
        steps.append(
            Forecasted(
                share=share,
                fitted=len(used),
                beyond=float(compute[ahead].max() / compute[used].max()),
                rows=held.rows,
                error=held.error,
                bias=held.bias,
                lowest=min(errors),
                highest=max(errors),
                costliest=float(held.errors[int(np.argmax(compute[list(held.index)]))]),
                guess=next((b.held_out.error for b in guesses if b.name == MOST), math.nan),
            )
        )
    if not steps:
        raise FitError("no share of the runs is enough to forecast the others: " + "; ".join(skipped))
    return Backtest(law.name, tuple(steps), tuple(skipped))


def _as_good(train: Rows, seed: int) -> Array:
    """Constants (k, p) of the fit, and of others that fit as well where the rows do not identify them all."""
    rng = np.random.default_rng(seed)
    problem, optimum = minimize(train, Aim(), rng)
    scaled = replace(estimate_noise(problem, optimum.u), delta=HUBER)
    found = valley(scaled, optimum, degrees(problem), rng)
    return problem.decentre(problem.theta(found))


def _text(found: Backtest) -> str:
    table = Table(title=f"{found.law}: costlier runs predicted from cheaper ones", title_justify="left")
    for name in (
        "cheapest",
        "rows",
        "compute",
        "predicted",
        "abs. error",
        "fits as good",
        "bias",
        "costliest run",
        "a guess",
    ):
        table.add_column(name, justify="right")
    for s in found.steps:
        table.add_row(
            f"{s.share:.0%}",
            str(s.fitted),
            f"up to {s.beyond:.1f}x",
            str(s.rows),
            f"{s.error:.2%}",
            f"{s.lowest:.2%} – {s.highest:.2%}" if s.lowest < s.highest else "the same",
            f"{s.bias:+.2%}",
            f"{s.costliest:+.2%}",
            f"{s.guess:.2%}",
        )
    notes = [
        "Compute: of the costliest run, in units of the costliest fitted one. Errors: mean absolute relative ones. "
        "A guess: the loss of the costliest fitted run, without a law."
    ]
    if any(s.lowest < s.highest for s in found.steps):
        notes.insert(
            0,
            "Fits as good: the cheaper runs do not identify every constant there; other fits within their noise were "
            "found to err by so much, and which one is called the fit is chance.",
        )
    return render(table, *notes, *(f"Not possible: {reason}." for reason in found.skipped))
