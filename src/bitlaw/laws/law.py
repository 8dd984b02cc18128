"""What a law is: a symbolic loss, its inputs and parameters, where it holds, and who published it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError, LawError, nearest
from ..formats import UNQUANTIZED

if TYPE_CHECKING:
    from .compiled import Compiled

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Source:
    """Where a law or its constants come from."""

    title: str
    arxiv: str = ""
    where: str = ""

    def __str__(self) -> str:
        return ", ".join(
            part for part in (self.title, f"arXiv {self.arxiv}" * bool(self.arxiv), self.where) if part
        )


@dataclass(frozen=True)
class Input:
    """A quantity that a law reads from each row.

    `default` is the value of rows that do not have it: for bits, unquantised.
    """

    symbol: sp.Symbol
    column: str
    meaning: str
    default: float | None = None


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
    """

    symbol: sp.Symbol
    low: float
    high: float
    start: tuple[float, float]
    unit: str
    meaning: str
    fixed: float | None = None

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
class LawSpec:
    """How a law was put together; enough to make it again, and safe to read from a file."""

    base: str
    precision: tuple[tuple[str, str], ...] = ()
    gap: str | None = None
    ties: tuple[tuple[str, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        return {
            "base": self.base,
            "precision": dict(self.precision),
            "gap": self.gap,
            "ties": dict(self.ties),
        }


@dataclass(frozen=True)
class Law:
    """A scaling law as a value.

    `loss` is the loss after training as a function of inputs and parameters; `gap` is what quantising
    after training adds. From these two expressions come the NumPy functions, their exact derivatives and
    the typeset equations; nothing is written twice.
    """

    name: str
    loss: sp.Expr
    inputs: tuple[Input, ...]
    parameters: tuple[Parameter, ...]
    source: Source
    spec: LawSpec
    gap: sp.Expr = field(default_factory=lambda: sp.Integer(0))
    n_eff: sp.Expr = field(default_factory=lambda: sp.Symbol("N"))
    conditions: tuple[Condition, ...] = ()

    # ---- building laws from laws

    def named(self, name: str, source: Source | None = None) -> Law:
        """Return the same law under a name of its own."""
        return replace(self, name=name, source=source or self.source)

    def with_precision(self, **parts: str) -> Law:
        """Replace N by effective parameters, N * phi_w * phi_a * phi_kv, for the parts named.

        Args:
            **parts: the form of each part's factor, like `w="kumar"`.

        Raises:
            ConfigError: an unknown part or form, or a law that has precision terms already.
        """
        if self.spec.precision or self.spec.gap:
            raise ConfigError(f"{self.name} has precision or gap terms already; start from its base law")
        terms = []
        for part, form in parts.items():
            if part not in PARTS:
                raise ConfigError(f"unknown part {part!r}; {nearest(part, PARTS)}")
            terms.append(_lookup(PRECISION, form, "precision form")(part))
        n_eff = self.n_eff * sp.Mul(*(term.factor for term in terms))
        return replace(
            self,
            name=f"{self.name} with precision of {', '.join(parts)}",
            loss=self.loss.subs({sp.Symbol("N"): n_eff}, simultaneous=True),
            n_eff=n_eff,
            inputs=self.inputs + tuple(term.input for term in terms),
            parameters=self.parameters + tuple(p for term in terms for p in term.parameters),
            conditions=self.conditions + tuple(term.condition for term in terms),
            spec=replace(self.spec, precision=tuple(parts.items())),
        )

    def with_gap(self, form: str) -> Law:
        """Add what quantising the weights after training costs.

        Raises:
            ConfigError: an unknown form, or a law that has a gap already.
        """
        if self.spec.gap:
            raise ConfigError(f"{self.name} has a gap already; start from the law without it")
        term = _lookup(GAP, form, "gap form")(self)
        return replace(
            self,
            name=f"{self.name} and gap",
            gap=term.expression,
            inputs=(*self.inputs, term.input),
            parameters=self.parameters + term.parameters,
            conditions=self.conditions + term.conditions,
            spec=replace(self.spec, gap=form),
        )

    def tie(self, **ties: str) -> Law:
        """Make parameters equal to others: `tie(beta="alpha")` leaves one exponent.

        Raises:
            ConfigError: an unknown parameter.
        """
        law = self
        for name, other in ties.items():
            for each in (name, other):
                if each not in law.names:
                    raise ConfigError(f"{self.name} has no parameter {each!r}; {nearest(each, law.names)}")
            swap = {sp.Symbol(name): sp.Symbol(other)}
            law = replace(
                law,
                loss=law.loss.subs(swap),
                gap=law.gap.subs(swap),
                n_eff=law.n_eff.subs(swap),
                parameters=tuple(p for p in law.parameters if p.name != name),
                conditions=tuple(Condition(c.expression.subs(swap), c.sentence) for c in law.conditions),
            )
        return replace(law, spec=replace(self.spec, ties=self.spec.ties + tuple(ties.items())))

    # ---- reading them

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in order."""
        return tuple(p.name for p in self.parameters)

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts whose training precision the law knows."""
        return tuple(part for part, _ in self.spec.precision)

    @cached_property
    def compiled(self) -> Compiled:
        """The NumPy functions, made when they are first needed."""
        from .compiled import Compiled

        return Compiled(self)

    def vector(self, values: Mapping[str, float]) -> Array:
        """Put named parameter values in order.

        Raises:
            ConfigError: a value is missing, not finite, or of an unknown parameter.
        """
        for name in values:
            if name not in self.names:
                raise ConfigError(f"{self.name} has no parameter {name!r}; {nearest(name, self.names)}")
        missing = [name for name in self.names if name not in values]
        if missing:
            raise ConfigError(f"{self.name} needs a value for {', '.join(missing)}")
        vector = np.array([float(values[name]) for name in self.names])
        if not np.isfinite(vector).all():
            raise ConfigError(f"the constants of {self.name} must be finite")
        return vector

    def predict(self, values: Mapping[str, float] | Array, **inputs: ArrayLike) -> Array:
        """Predict the loss, quantisation after training included, in nats a token.

        Args:
            values: a value for every parameter, by name or in order.
            **inputs: `params`, `tokens` and, where the law has them, `w_bits`, `a_bits`, `kv_bits`,
                `post_bits`; arrays broadcast; bits left out mean unquantised.

        Raises:
            LawError: somewhere outside the law's domain.
            ConfigError: an input that the law does not know, or one it needs and was not given.

        >>> from bitlaw.laws import published
        >>> kumar = published("kumar-2024")
        >>> round(float(kumar.law.predict(kumar.values, params=30e6, tokens=1.5e9)), 4)
        4.1005
        """
        return self._evaluate("total", values, inputs)

    def predict_gap(self, values: Mapping[str, float] | Array, **inputs: ArrayLike) -> Array:
        """Predict only what quantisation after training adds, in nats a token; as `predict`."""
        return self._evaluate("gap", values, inputs)

    def _evaluate(
        self, what: str, values: Mapping[str, float] | Array, inputs: Mapping[str, ArrayLike]
    ) -> Array:
        theta = values if isinstance(values, np.ndarray) else self.vector(values)
        data = self.arrange(inputs)
        for condition, holds in zip(self.conditions, self.compiled.holds(theta, data), strict=True):
            if not holds.all():
                raise LawError(condition.sentence)
        function = self.compiled.total if what == "total" else self.compiled.gap
        return function(theta, data)

    def arrange(self, inputs: Mapping[str, ArrayLike]) -> dict[str, Array]:
        """Broadcast inputs by column name, with defaults for those left out.

        Raises:
            ConfigError: an unknown input, or one missing that has no default.
        """
        columns = {i.column: i for i in self.inputs}
        for name in inputs:
            if name not in columns:
                raise ConfigError(f"{self.name} does not read {name!r}; {nearest(name, columns)}")
        given = {}
        for name, item in columns.items():
            value = inputs.get(name, item.default)
            if value is None:
                raise ConfigError(f"{self.name} needs {name}: {item.meaning}")
            given[name] = np.asarray(value, dtype=float)
            if not (given[name] > 0).all():
                raise ConfigError(f"{name} must be positive")
        arrays = np.broadcast_arrays(*given.values())
        return dict(zip(given, arrays, strict=True))

    def display(self) -> sp.Expr:
        """The expression as people write it, with effective parameters abbreviated."""
        short = sp.Symbol("N_eff")
        if self.n_eff == sp.Symbol("N"):
            return self.loss + self.gap
        return (self.loss + self.gap).subs(self.n_eff, short)


# ---- terms that laws are made of, and where they are looked up

PARTS = {"w": "weights", "a": "activations", "kv": "keys and values"}


@dataclass(frozen=True)
class PrecisionTerm:
    """A factor on N for one part."""

    factor: sp.Expr
    input: Input
    parameters: tuple[Parameter, ...]
    condition: Condition


@dataclass(frozen=True)
class GapTerm:
    """An additive cost of quantising after training."""

    expression: sp.Expr
    input: Input
    parameters: tuple[Parameter, ...]
    conditions: tuple[Condition, ...]


BASE: dict[str, Law] = {}
PRECISION: dict[str, Callable[[str], PrecisionTerm]] = {}
GAP: dict[str, Callable[[Law], GapTerm]] = {}


def bits_input(part: str, meaning: str) -> Input:
    """The input that holds the bits of a part; rows without it are unquantised."""
    return Input(sp.Symbol(f"P_{part}"), f"{part}_bits", meaning, default=UNQUANTIZED)


def _lookup(registry: dict[str, Any], name: str, what: str) -> Any:
    if name not in registry:
        raise ConfigError(f"there is no {what} {name!r}; {nearest(name, registry)}")
    return registry[name]


def from_spec(spec: Mapping[str, Any]) -> Law:
    """Make a law from the plain data of `LawSpec.as_json`; names are looked up, nothing is evaluated.

    Raises:
        ConfigError: a name that is not known, or data of the wrong shape.
    """
    try:
        law: Law = _lookup(BASE, spec["base"], "base law")
        if spec["precision"]:
            law = law.with_precision(**spec["precision"])
        if spec["gap"] is not None:
            law = law.with_gap(spec["gap"])
        return law.tie(**spec["ties"]) if spec["ties"] else law
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"this is not the description of a law ({error}); it may be of another version"
        ) from error
