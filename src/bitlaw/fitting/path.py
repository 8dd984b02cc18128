"""What approaches 1 and 2 say: how the best size and tokens grow with compute."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from ..units import format_quantity, parse_quantity, percent
from .line import Line, Range
from .minima import OK, Valley
from .result import plain
from .tell import number, render

NAMES = {1: "envelope of training curves", 2: "isoFLOP parabolas"}


@dataclass(frozen=True)
class Minimum:
    """The best size at one budget.

    Attributes:
        flops: the budget C.
        params: N_opt, with the confidence interval that the noise of its own rows gives; what all rows
            of a budget share is not in it.
        tokens: D_opt.
        loss: at the minimum, nats per token.
        rows: number of rows behind it.
        flag: `ok`; `outside the sizes` (the parabola's minimum is not among the sizes seen) or `no minimum`
            (it bends down); `cut off` (a training curve ends before another crosses it). Only `ok` is used.
    """

    flops: float
    params: Range
    tokens: float
    loss: float
    rows: int
    flag: str


@dataclass(frozen=True)
class Allocation:
    """Size and tokens for a budget, with confidence intervals; `inside` is whether minima lie around it."""

    flops: float
    params: Range
    tokens: Range
    level: float
    inside: bool

    def __str__(self) -> str:
        parts = [
            f"{name} {format_quantity(r.value)} ({format_quantity(r.low)} to {format_quantity(r.high)})"
            for name, r in (("params", self.params), ("tokens", self.tokens))
        ]
        tail = "" if self.inside else "; extrapolated"
        return f"{format_quantity(self.flops, 'flops')}: {', '.join(parts)}, {percent(self.level)} confidence{tail}"


@dataclass(frozen=True)
class OptimalPath:
    """How the best size and the best number of tokens grow with compute.

    N_opt = G C^a and D_opt = C / (k N_opt), so that D_opt grows with b = 1 - a; k is 6 where C = 6 N D.

    Attributes:
        approach: 1 or 2.
        a: exponent of the size.
        b: exponent of the tokens.
        scale: G, the size at C = 1.
        minima: the best size of each budget (approach 2), or the budget of each best size (approach 1).
        bias: what the approach gives, on the same design without noise, on a Chinchilla law fitted to the
            same rows, minus that law's own a = beta / (alpha + beta); NaN where no law could be fitted.
        bias_params: the same for N_opt in the middle of the budgets, as a ratio.
        level: of the intervals.
        method: how they were made.
        kind: what they are for: `confidence` in the exponent and the best size, not in a new run's loss.
        df: degrees of freedom behind them.
        rows: number of rows behind the minima used.
        count: convention by which N is counted.
        flops_per: k, FLOPs per parameter and token.
        notes: what was left out or should be known.
        valleys: the parabolas of approach 2, with the losses they go through.
    """

    approach: int
    a: Range
    b: Range
    scale: float
    minima: tuple[Minimum, ...]
    bias: float
    bias_params: float
    level: float
    method: str
    kind: str
    df: int
    rows: int
    count: str
    flops_per: float
    notes: tuple[str, ...]
    line: Line = field(repr=False)
    valleys: tuple[Valley, ...] = field(default=(), repr=False)

    def optimum(self, flops: str | float) -> Allocation:
        """The best size and tokens for a budget; the intervals do not hold `bias_params`.

        Raises:
            ConfigError: a budget that cannot be read.
        """
        c = parse_quantity(flops, "flops")
        log_n = self.line.of((1.0, math.log(c) - self.line.centre), self.level)
        n, low, high = (math.exp(x) for x in (log_n.value, log_n.low, log_n.high))
        d = c / self.flops_per
        used = [m.flops for m in self.minima if m.flag == OK]
        inside = min(used) * 0.99 <= c <= max(used) * 1.01
        return Allocation(c, Range(n, low, high), Range(d / n, d / high, d / low), self.level, inside)

    def as_json(self) -> dict[str, Any]:
        """Plain data; NaN becomes None."""
        return plain({k: v for k, v in asdict(self).items() if k not in ("line", "valleys")})

    def __str__(self) -> str:
        title = (
            f"Approach {self.approach} ({NAMES[self.approach]}): {self.rows} rows, N counted as {self.count}"
        )
        head, body = Table(), Table(title="Minima", title_justify="left")
        for name in ("exponent", "estimate", f"{percent(self.level)} interval", "meaning"):
            head.add_column(name, justify="right" if name == "estimate" else "left")
        for name, r, meaning in (
            ("a", self.a, "N_opt = G C^a"),
            ("b", self.b, "D_opt = C / (k N_opt), 1 - a"),
        ):
            head.add_row(name, number(r.value), f"{number(r.low)} to {number(r.high)}", meaning)
        ranged = any(math.isfinite(m.params.low) for m in self.minima)
        noise = f"{percent(self.level)}, own noise"
        columns = [
            "flops",
            "params",
            *[noise] * ranged,
            "tokens",
            "tokens/params",
            "loss",
            "rows",
            "status",
        ]
        for name in columns:
            body.add_column(name, justify="left" if name in (noise, "status") else "right")
        for m in self.minima:
            n = m.params
            size, low, high, data = (_size(x) for x in (n.value, n.low, n.high, m.tokens))
            span = [f"{low} to {high}" if math.isfinite(n.low) else ""] * ranged
            rest = number(m.tokens / n.value), number(m.loss), str(m.rows), m.flag
            body.add_row(f"{m.flops:.3g}", size, *span, data, *rest)
        said = f"Intervals: {self.kind}, {self.method}, {self.df} degrees of freedom."
        return render(title, head, body, said, *(f"Note: {note}." for note in self.notes))


def _size(value: float) -> str:
    return "-" if math.isnan(value) else format_quantity(value)
