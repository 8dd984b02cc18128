"""The pieces that laws are made of, and where the forms of precision and gap are looked up.

A form says what it asks of a law, so that a pair that means nothing is refused: most of that is read off
its term (one that scales N needs a law of N), and only the rest is declared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sympy as sp

from ..errors import ConfigError, nearest
from ..formats import UNQUANTIZED

if TYPE_CHECKING:
    from .law import Law

#: The loss itself, in laws that give it by an equation L = f(L).
LOSS = sp.Symbol("L")
#: Parts that can be trained in low precision, as laws know them.
TRAINED_PARTS = {
    "w": "weights",
    "a": "activations",
    "kv": "keys and values",
    "emb": "embeddings",
    "grad": "gradients",
}
#: What laws may predict: its symbol and unit.
TARGETS = {
    "loss": ("L", "nats/token"),
    "error": ("Err", "share of answers that are wrong"),
    "rejection": ("1 - Acc", "share of tokens drafted by this copy that the model before would reject"),
    "neg_log_accuracy": ("-ln Acc", "of accuracy above chance, (Acc - chance) / (1 - chance)"),
}
#: Those of the forward pass, for which most forms are stated.
FORWARD = ("w", "a", "kv", "emb")
#: Parts of the forward pass, whose bits a plan chooses.
PARTS = {part: TRAINED_PARTS[part] for part in ("w", "a", "kv")}


@dataclass(frozen=True)
class Source:
    """Where a law or its constants come from."""

    title: str
    arxiv: str = ""
    where: str = ""

    def __str__(self) -> str:
        return ", ".join(
            p for p in (self.title, f"arXiv {self.arxiv}" if self.arxiv else "", self.where) if p
        )


@dataclass(frozen=True)
class Input:
    """A quantity that a law reads from each row.

    `default` is the value of rows that do not have it: for bits, unquantised. A column written
    `column=label` is 1 where the column has that label and 0 elsewhere. Values are positive, or at least
    zero where `zero` says so.
    """

    symbol: sp.Symbol
    column: str
    meaning: str
    default: float | None = None
    zero: bool = False

    @property
    def label(self) -> str | None:
        """The label that the input stands for, if it does."""
        return self.column.partition("=")[2] or None


@dataclass(frozen=True)
class Parameter:
    """A constant to be fitted.

    Attributes:
        symbol: as it stands in the expression.
        low, high: bounds; a parameter that is positive by its bounds is fitted on a log scale.
        start: range that starting points are drawn from (linear parameters are solved for instead).
        unit: of the constant.
        meaning: in words.
        fixed: value that fits hold it at unless told otherwise, with the reason in `meaning`.
        scale_of: a column in whose unit the parameter is; bounds and start are multiples of the middle of
            that column, so that they fit models of any size.
        per: a column of which each label has a value of its own.
        neutral: the value of rows that have no such label.
    """

    symbol: sp.Symbol
    low: float
    high: float
    start: tuple[float, float]
    unit: str
    meaning: str
    fixed: float | None = None
    scale_of: str | None = None
    per: str | None = None
    neutral: float = 1.0

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.symbol.name)

    @property
    def positive(self) -> bool:
        """Whether it lives on a log scale."""
        return self.low > 0


@dataclass(frozen=True)
class Condition:
    """An expression that must be positive for the law to say anything, and the sentence when it is not."""

    expression: sp.Expr
    sentence: str


@dataclass(frozen=True)
class Term:
    """What a form does to a law: factors on N and D, an addition, and what these need."""

    inputs: tuple[Input, ...]
    parameters: tuple[Parameter, ...]
    conditions: tuple[Condition, ...] = ()
    n_factor: sp.Expr = sp.Integer(1)
    d_factor: sp.Expr = sp.Integer(1)
    added: sp.Expr = sp.Integer(0)


def _no_reason(law: Law) -> str:
    return ""


@dataclass(frozen=True)
class Form:
    """How low precision or a gap enters a law, and what it asks of that law.

    Attributes:
        make: from a part and a law (precision), or from a law (gap), to the term.
        bases: the bases it is stated on, whose letters it shares; empty for any.
        parts: the parts it is stated for; empty for any.
        asks: what is wrong with a law that has its precision terms already, in words; empty for nothing.
    """

    make: Callable[..., Term]
    bases: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    asks: Callable[[Law], str] = _no_reason

    def term(self, name: str, law: Law, *part: str) -> Term:
        """Make the term for a law.

        Raises:
            ConfigError: the two do not fit together, and why.
        """
        reason = self._declared(law, *part)
        term = None if reason else self.make(*part, law)
        reason = reason if term is None else _read_off(term, law)
        if term is None or reason:
            raise ConfigError(f"the form {name!r} does not go with {law.name}: {reason}")
        return term

    def _declared(self, law: Law, *part: str) -> str:
        if law.target != "loss":
            return f"that law predicts {law.target}, not loss"
        if part and law.loss == 0:
            return "that law is of the gap alone, and has no loss in training"
        if self.bases and law.spec.base not in self.bases:
            return f"it is stated on {' and '.join(self.bases)}"
        if part and self.parts and part[0] not in self.parts:
            return f"it is stated for {' and '.join(TRAINED_PARTS[p] for p in self.parts)} only"
        return self.asks(law)


def _read_off(term: Term, law: Law) -> str:
    """Why a term does not fit a law, as far as its expressions tell; empty if it does."""
    if term.added != 0 and law.implicit:
        return "it adds to a loss that its own equation gives, which leaves open at which loss that is read"
    expressions = (term.n_factor, term.d_factor, term.added, *(c.expression for c in term.conditions))
    used = set().union(*(e.free_symbols for e in expressions))
    N, D = sp.symbols("N D")
    columns = {i.column: i.symbol for i in law.inputs}
    for i in term.inputs:
        if columns.get(i.column, i.symbol) != i.symbol:
            return f"it reads {i.column} as {i.symbol}, and that law as {columns[i.column]}"
    taken = {i.symbol: i.column for i in law.inputs} | {p.symbol: "a parameter" for p in law.parameters}
    letters: tuple[Input | Parameter, ...] = (*term.inputs, *term.parameters)
    for mine in letters:  # one letter with two meanings would become one
        what = mine.column if isinstance(mine, Input) else ""
        if taken.get(mine.symbol, what) != what:
            return f"both have {mine.symbol}, which is {taken[mine.symbol]} of that law; rename it there"
    for symbol, column, factor in ((N, "params", term.n_factor), (D, "tokens", term.d_factor)):
        if column not in columns and (factor != 1 or symbol in used):
            return f"it needs {symbol}, and that law does not read {column}"
    known = {N, D, *(i.symbol for i in (*term.inputs, *law.inputs))}
    known |= {p.symbol for p in (*term.parameters, *law.parameters)}
    missing = sorted(str(s) for s in used - known)
    return f"it shares {', '.join(missing)} with the base, which that law does not have" if missing else ""


PRECISION: dict[str, Form] = {}
GAP: dict[str, Form] = {}


def bits_input(part: str, meaning: str) -> Input:
    """The input that holds the bits of a part; rows without it are unquantised."""
    return Input(sp.Symbol(f"P_{part}"), f"{part}_bits", meaning, default=UNQUANTIZED)


def group_input(part: str) -> Input:
    """The input that holds how many elements of a part share one scale."""
    what = TRAINED_PARTS.get(part, "weights after training")
    return Input(
        sp.Symbol(f"G_{part}"), f"{part}_group", f"elements of the {what} that share one scale", default=2.0
    )


def at_least_two(G: sp.Symbol) -> Condition:
    """Groups of one element have no scale to share, and log2 of one is zero."""
    return Condition(G - 1.5, "a group that shares one scale has two elements or more")


#: More bits than this are unquantised: half-way, on a scale of such numbers, to what unquantised rows read.
WHOLE = UNQUANTIZED / 2


def only_quantized(P: sp.Symbol, expression: sp.Expr, otherwise: float = 0) -> sp.Expr:
    """An expression where P is quantised; elsewhere a constant, exactly and with no derivative."""
    return sp.Piecewise((expression, P < WHOLE), (sp.Integer(int(otherwise)), True))


def look_up(registry: Mapping[str, Any], name: str, what: str) -> Any:
    """Find a form by name.

    Raises:
        ConfigError: no such form.
    """
    if not isinstance(name, str) or name not in registry:
        raise ConfigError(f"there is no {what} {name!r}; {nearest(str(name), registry)}")
    return registry[name]
