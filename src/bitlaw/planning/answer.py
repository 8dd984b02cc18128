"""What a plan says: the decision, how sure it is, and how much room there is around it."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from ..units import format_quantity


@dataclass(frozen=True)
class Answer:
    """One quantity of the decision.

    Attributes:
        name: `params`, `tokens`, `bits`, `loss`, ...
        value: at the optimum.
        low, high: confidence interval; NaN where the law came without draws.
        near_low, near_high: the near-optimal range; NaN where it has none.
        given: whether it was given rather than found.
    """

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    near_low: float = math.nan
    near_high: float = math.nan
    given: bool = False


@dataclass(frozen=True)
class Option:
    """The best that one whole number of bits can do.

    `chance` is the share of draws in which it is the best of all; NaN without draws.
    """

    bits: float
    params: float
    tokens: float
    loss: float
    near_optimal: bool
    chance: float


@dataclass(frozen=True)
class Plan:
    """An answer to one question.

    Attributes:
        question: in words.
        law: name of the law, and where its constants come from.
        answers: the quantities.
        options: whole numbers of bits compared; empty where bits were not free.
        level: of the intervals; NaN without draws.
        tolerance: share of the reducible loss that the near-optimal range may cost.
        notes: extrapolation and other warnings.
    """

    question: str
    law: str
    answers: tuple[Answer, ...]
    options: tuple[Option, ...]
    level: float
    tolerance: float
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> Answer:
        return next(a for a in self.answers if a.name == name)

    def as_json(self) -> dict[str, Any]:
        """Plain data; NaN becomes None."""
        return {
            key: [{k: _null(v) for k, v in item.items()} for item in value]
            if isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping)
            else _null(value)
            for key, value in asdict(self).items()
        }

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=110, no_color=True, highlight=False)
        console.print(f"{self.question}\nLaw: {self.law}", markup=False)
        table = Table()
        table.add_column("")
        table.add_column("best", justify="right")
        if not math.isnan(self.level):
            table.add_column(f"{self.level:.0%} interval")
        ranged = any(not math.isnan(a.near_low) for a in self.answers)
        if ranged:
            table.add_column(f"within {self.tolerance:.0%} of the reducible loss")
        for a in self.answers:
            cells = [a.name, quantity(a.name, a.value) + (" (given)" if a.given else "")]
            if not math.isnan(self.level):
                cells.append("" if a.given else span(a.name, a.low, a.high))
            if ranged:
                cells.append(span(a.name, a.near_low, a.near_high))
            table.add_row(*cells)
        console.print(table)
        if self.options:
            console.print(options_table(self))
        for note in self.notes:
            console.print(f"Note: {note}.", markup=False)
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        return "\n".join(line.rstrip() for line in text.splitlines())


def options_table(plan: Plan) -> Table:
    """Whole numbers of bits side by side."""
    table = Table(title="Whole numbers of bits", title_justify="left")
    for name in ("bits", "params", "tokens", "loss", "near-optimal"):
        table.add_column(name, justify="right")
    chances = not all(math.isnan(o.chance) for o in plan.options)
    if chances:
        table.add_column("best in", justify="right")
    for o in plan.options:
        cells = [
            f"{o.bits:g}",
            quantity("params", o.params),
            quantity("tokens", o.tokens),
            f"{o.loss:.4f}",
            "yes" if o.near_optimal else "",
        ]
        table.add_row(*cells, *([f"{o.chance:.0%} of draws"] if chances else []))
    return table


def quantity(name: str, value: float) -> str:
    """A value as people read it."""
    if math.isnan(value):
        return "-"
    if name in ("params", "tokens"):
        return format_quantity(value)
    if name in ("loss", "gap"):
        return f"{value:.4f}"
    return f"{value:.2f}" if name == "bits" else f"{value:.3g}"


def span(name: str, low: float, high: float) -> str:
    """A range as people read it."""
    return "" if math.isnan(low) else f"{quantity(name, low)} to {quantity(name, high)}"


def _null(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
