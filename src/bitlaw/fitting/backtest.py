"""Forecasts of the past: the costlier runs from the cheaper ones, as if they had not been trained yet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from ..errors import FitError
from ..laws import Law, get
from ..runs import Count, read_runs
from .baseline import MOST
from .estimate import divide
from .protocol import fit_and_score
from .result import plain
from .rows import select
from .split import cheapest
from .tell import render


@dataclass(frozen=True)
class Forecasted:
    """Errors on all costlier runs of a fit to the cheapest ones.

    Attributes:
        share: of the runs that was fitted.
        fitted: number of rows fitted.
        beyond: compute of the costliest run over that of the costliest fitted one.
        rows: number of rows predicted.
        error, bias: mean absolute and mean signed relative error over them.
        costliest: signed relative error on the costliest run.
        guess: mean absolute relative error of the loss of the costliest fitted run.
    """

    share: float
    fitted: int
    beyond: float
    rows: int
    error: float
    bias: float
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
            held, guesses = fit_and_score(train, test, split.name, seed)
        except FitError as error:
            skipped.append(f"{share:.0%}: {error}")
            continue
        compute = rows.facts["params"] * rows.facts["tokens"]
        used = np.concatenate([b.row for b in train.blocks()])
        ahead = np.concatenate([b.row for b in test.blocks()])
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
                costliest=float(held.errors[int(np.argmax(compute[list(held.index)]))]),
                guess=dict(guesses).get(MOST, math.nan),
            )
        )
    if not steps:
        raise FitError("no share of the runs is enough to forecast the others: " + "; ".join(skipped))
    return Backtest(law.name, tuple(steps), tuple(skipped))


def _text(found: Backtest) -> str:
    table = Table(title=f"{found.law}: costlier runs predicted from cheaper ones", title_justify="left")
    for name in (
        "fitted",
        "rows",
        "extrapolated",
        "predicted",
        "mean abs. error",
        "bias",
        "costliest run",
        "a guess",
    ):
        table.add_column(name, justify="right")
    for s in found.steps:
        table.add_row(
            f"cheapest {s.share:.0%}",
            str(s.fitted),
            f"{s.beyond:.1f}x compute",
            str(s.rows),
            f"{s.error:.2%}",
            f"{s.bias:+.2%}",
            f"{s.costliest:+.2%}",
            f"{s.guess:.2%}",
        )
    notes = ["A guess: the loss of the costliest fitted run, without a law."]
    return render(table, *notes, *(f"Not possible: {reason}." for reason in found.skipped))
