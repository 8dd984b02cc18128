"""The pieces that laws are made of, and where the forms of precision and gap are looked up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sympy as sp

from ..errors import ConfigError, nearest
from ..formats import UNQUANTIZED

if TYPE_CHECKING:
    from .law import Law

#: Parts that can be trained in low precision, as laws know them.
TRAINED_PARTS = {"w": "weights", "a": "activations", "kv": "keys and values", "grad": "gradients"}
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
    `column=label` is 1 where the column has that label and 0 elsewhere.
    """

    symbol: sp.Symbol
    column: str
    meaning: str
    default: float | None = None

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


PRECISION: dict[str, Callable[[str, Law], Term]] = {}
GAP: dict[str, Callable[[Law], Term]] = {}


def bits_input(part: str, meaning: str) -> Input:
    """The input that holds the bits of a part; rows without it are unquantised."""
    return Input(sp.Symbol(f"P_{part}"), f"{part}_bits", meaning, default=UNQUANTIZED)


def only_quantized(P: sp.Symbol, expression: sp.Expr, otherwise: float = 0) -> sp.Expr:
    """An expression where P is quantised; elsewhere a constant, exactly and with no derivative."""
    return sp.Piecewise((expression, P < UNQUANTIZED / 2), (sp.Integer(int(otherwise)), True))


def look_up(registry: Mapping[str, Any], name: str, what: str) -> Any:
    """Find a form by name.

    Raises:
        ConfigError: no such form.
    """
    if not isinstance(name, str) or name not in registry:
        raise ConfigError(f"there is no {what} {name!r}; {nearest(str(name), registry)}")
    return registry[name]
