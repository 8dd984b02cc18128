"""What a plan says: the decision, how sure it is, and how much room there is around it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from ..errors import ConfigError
from ..fitting.result import plain
from ..fitting.tell import render
from ..html import escape, items
from ..html import table as html_table
from ..units import format_quantity, percent

ENDLESS = 1e18  # tokens that nobody has: a search that came here found no limit
SHOWN = 12  # options printed; all are in the JSON
OTHERS = "The same question by other laws and objectives"


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
    """The best that one choice of formats can do.

    Attributes:
        formats: in words.
        bits: of the weights, in training, or after it where those are what is chosen.
        params, tokens, loss: at its best.
        near_optimal: whether its loss is within the plan's tolerance of the best, for what the best costs.
        chance: the share of draws in which it is the best of all; NaN without draws.
        flops: of training and serving, where a loss is to be reached; NaN elsewhere.
        bytes: of weights and cache in serving.
        error: share of wrong answers on tasks that the loss means; NaN where no such fit was given.
        tokens_per_second: of all sequences, in serving; NaN where no hardware was named.
    """

    formats: str
    bits: float
    params: float
    tokens: float
    loss: float
    near_optimal: bool
    chance: float
    flops: float = math.nan
    bytes: float = math.nan
    error: float = math.nan
    tokens_per_second: float = math.nan


@dataclass(frozen=True)
class Other:
    """The same question answered by another law, or by the same law under another objective.

    Attributes:
        law: its name.
        values: its answers, by name.
        formats: its best choice, in words.
        held_out: its error on rows held out; NaN where it was not fitted to any.
        reason: why it cannot answer, where it cannot.
    """

    law: str
    values: Mapping[str, float]
    formats: str
    held_out: float = math.nan
    reason: str = ""


@dataclass(frozen=True)
class Hedge:
    """The choice that is expected to lose least over the draws of the constants.

    Attributes:
        formats: in words.
        bits: of the weights in training.
        params, tokens: of the model.
        regret: share of the reducible loss by which it is short of each draw's own optimum, on average.
        at_best: the same of the best choice at the estimate, which the plan names first.
    """

    formats: str
    bits: float
    params: float
    tokens: float
    regret: float
    at_best: float


@dataclass(frozen=True)
class Plan:
    """An answer to one question.

    Attributes:
        question: in words.
        law: name of the law, and where its constants come from.
        answers: the quantities.
        options: choices of formats compared, the best first; empty where formats were not free.
        level: of the intervals; NaN without draws.
        method: how the draws behind them were made; empty without.
        tolerance: share of the reducible loss that the near-optimal range may cost.
        notes: extrapolation and other warnings.
        formats: the best choice, in words.
        others: the same answer by other laws and objectives that fit about as well.
        training: the configuration of the hedge, or without draws of the best model, as TOML.
        hedge: what is expected to lose least over the draws; None without draws.
        columns: what the options' params, tokens, loss, near_optimal and chance are here.
        kind: of the intervals, `confidence` or `prediction`.
    """

    question: str
    law: str
    answers: tuple[Answer, ...]
    options: tuple[Option, ...]
    level: float
    tolerance: float
    notes: tuple[str, ...]
    method: str = ""
    formats: str = ""
    others: tuple[Other, ...] = ()
    training: str = ""
    hedge: Hedge | None = None
    columns: tuple[str, str, str, str, str] = ("params", "tokens", "loss", "near-optimal", "best in")
    kind: str = "confidence"

    def __getitem__(self, name: str) -> Answer:
        for a in self.answers:
            if a.name == name:
                return a
        raise KeyError(f"{name!r}; this plan answers {', '.join(a.name for a in self.answers)}")

    def to_toml(self) -> str:
        """The training configuration, as `bitlaw sweep` and `bitlaw train` read it.

        Raises:
            ConfigError: a plan that names no model to be trained.
        """
        if not self.training:
            raise ConfigError(
                "this plan names no model to be trained, or none of the ladder's 4,000 to 10 billion parameters, so "
                "there is no configuration of one"
            )
        return self.training

    def as_json(self) -> dict[str, Any]:
        """Plain data; NaN becomes None."""
        found = plain(asdict(self))
        return found

    def _repr_html_(self) -> str:
        parts = [f"<p><strong>{escape(self.question)}</strong><br>Law: {escape(self.law)}</p>"]
        parts.append(html_table(*answer_cells(self), numbers={1}))
        if self.options:
            header, rows = option_cells(self)
            parts.append(html_table(header, rows, range(1, len(header)), option_title(self)))
        if any(not o.reason for o in self.others):
            header, rows = other_cells(self)
            parts.append(html_table(header, rows, range(1, len(header)), OTHERS))
        return f"<div>{''.join(parts)}{items(self.remarks)}</div>"

    @property
    def remarks(self) -> tuple[str, ...]:
        """The notes, and which other laws have no answer."""
        return (*self.notes, *(f"{o.law} has no answer: {o.reason}" for o in self.others if o.reason))

    def __str__(self) -> str:
        parts: list[Table | str] = [f"{self.question}\nLaw: {self.law}", answers_table(self)]
        if self.options:
            parts.append(options_table(self))
            if len(self.options) > SHOWN:
                parts.append(f"... and {len(self.options) - SHOWN} more, which --json lists.")
        if any(not o.reason for o in self.others):
            parts.append(others_table(self))
        return render(*parts, *(f"Note: {note}." for note in self.remarks))


def answer_cells(plan: Plan) -> tuple[list[str], list[list[str]]]:
    """The quantities, with intervals and near-optimal ranges where there are any: a header, and rows."""
    drawn = not math.isnan(plan.level)
    ranged = any(not math.isnan(a.near_low) for a in plan.answers)
    header = ["", "best"]
    if drawn:
        header.append(
            f"{percent(plan.level)} {plan.kind} interval" + (f", {plan.method}" if plan.method else "")
        )
    if ranged:
        header.append(f"within {percent(plan.tolerance)} of the reducible loss")
    rows = [["formats", plan.formats, *[""] * (drawn + ranged)]] if plan.formats else []
    for a in plan.answers:
        cells = [a.name.replace("_", " "), quantity(a.name, a.value) + (" (given)" if a.given else "")]
        if drawn:
            ends = "no spread" if a.low == a.high < math.inf else span(a.name, a.low, a.high)
            cells.append("" if a.given else ends)
        if ranged:
            cells.append(span(a.name, a.near_low, a.near_high))
        rows.append(cells)
    return header, rows


def option_cells(plan: Plan) -> tuple[list[str], list[list[str]]]:
    """Choices of formats side by side: a header, and a row for each that is shown."""
    *names, chance = plan.columns
    chances = not all(math.isnan(o.chance) for o in plan.options)
    more = {
        "flops": "16-bit FLOPs",
        "error": "error",
        "bytes": "served bytes",
        "tokens_per_second": "tokens a second",
    }
    more = {
        name: head
        for name, head in more.items()
        if any(not math.isnan(getattr(o, name)) for o in plan.options)
    }
    header = ["formats", *names, *([chance] if chances else []), *more.values()]
    rows = []
    for o in plan.options[:SHOWN]:
        cells = [
            o.formats,
            quantity("params", o.params),
            quantity("tokens", o.tokens),
            f"{o.loss:.4f}",
            "yes" if o.near_optimal else "",
        ]
        cells += [f"{o.chance:.0%} of draws"] if chances else []
        rows.append(cells + [quantity(name, getattr(o, name)) for name in more])
    return header, rows


def option_title(plan: Plan) -> str:
    """What the table of options is."""
    return "Formats compared" + (", each at its best" if plan.columns[2] == "loss" else "")


def other_cells(plan: Plan) -> tuple[list[str], list[list[str]]]:
    """The same answer by other laws; their spread is the honest uncertainty."""
    told = not all(math.isnan(o.held_out) for o in plan.others)
    names = [a.name for a in plan.answers if not a.given and any(a.name in o.values for o in plan.others)]
    formats = any(o.formats for o in plan.others)
    header = ["law", *(["formats"] if formats else []), *(name.replace("_", " ") for name in names)]
    header += ["held-out error"] if told else []
    rows = []
    for o in (o for o in plan.others if not o.reason):
        cells = [quantity(name, o.values.get(name, math.nan)) for name in names]
        cells += [("-" if math.isnan(o.held_out) else f"{o.held_out:.2%}")] if told else []
        rows.append([o.law, *([o.formats or "free bits"] if formats else []), *cells])
    return header, rows


def answers_table(plan: Plan) -> Table:
    """The quantities as a table of a terminal."""
    return _table("", *answer_cells(plan), left={0, 2, 3})


def options_table(plan: Plan) -> Table:
    """Choices of formats as a table of a terminal."""
    return _table(option_title(plan), *option_cells(plan), left={0})


def others_table(plan: Plan) -> Table:
    """The answers of other laws as a table of a terminal."""
    header, rows = other_cells(plan)
    return _table(OTHERS, header, rows, left={0, header.index("formats") if "formats" in header else 0})


def _table(title: str, header: list[str], rows: list[list[str]], left: set[int]) -> Table:
    table = Table(title=title or None, title_justify="left")
    for k, name in enumerate(header):
        table.add_column(name, justify="left" if k in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def quantity(name: str, value: float) -> str:
    """A value as people read it."""
    if math.isnan(value) or value == -math.inf:
        return "-"
    if _endless(name, value):
        return "without end"
    if name == "params" or name.endswith(("tokens", "steps", "batch")):
        return format_quantity(value)
    if name in ("loss", "gap"):
        return f"{value:.4f}"
    if name.endswith("bytes"):
        return format_quantity(value, "bytes")
    if name.endswith("flops"):
        return f"{value:.3g}"
    if name == "error":
        return f"{value:.2%}"
    if name in ("money",):
        return f"{value:,.0f} USD" if value >= 100 else f"{value:.3g} USD"
    if name == "hours":
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{value:.2f}" if name.endswith("bits") else f"{value:.3g}"


def span(name: str, low: float, high: float) -> str:
    """A range as people read it.

    >>> span("tokens", 2e10, 3e12), span("tokens", 2e10, 6e20), span("loss", math.nan, math.nan)
    ('20B to 3T', '20B or more', '')
    """
    if math.isnan(low):
        return ""
    if _endless(name, high):
        return quantity(name, low) if _endless(name, low) else f"{quantity(name, low)} or more"
    return f"{quantity(name, low)} to {quantity(name, high)}"


def _endless(name: str, value: float) -> bool:
    of_tokens = name in ("tokens", "tokens_per_param", "critical_tokens", "max_gap_tokens")
    return value == math.inf or (of_tokens and value >= ENDLESS)
