"""What a law is: a symbolic loss, its inputs and parameters, where it holds, and who published it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError, LawError, nearest
from .arrange import arrange, constants, told
from .spec import LawSpec
from .terms import (
    GAP,
    LOSS,
    PRECISION,
    TARGETS,
    TRAINED_PARTS,
    Condition,
    Input,
    Parameter,
    Source,
    Term,
    look_up,
)

if TYPE_CHECKING:
    from .compiled import Compiled

Array = NDArray[np.float64]
N, D = sp.symbols("N D")


@dataclass(frozen=True)
class Law:
    """A scaling law as a value.

    `loss` is the loss after training as a function of inputs and parameters; `gap` is what quantising
    after training adds. From these two expressions come the NumPy functions, their exact derivatives and
    the typeset equations; nothing is written twice. A loss in which the symbol L stands itself is an
    equation, L = loss(L), whose right side must fall with L. What is predicted may also be another
    `target` than the loss; it takes the loss's place everywhere.
    """

    name: str
    loss: sp.Expr
    inputs: tuple[Input, ...]
    parameters: tuple[Parameter, ...]
    source: Source
    spec: LawSpec
    gap: sp.Expr = field(default_factory=lambda: sp.Integer(0))
    n_eff: sp.Expr = N
    d_eff: sp.Expr = D
    conditions: tuple[Condition, ...] = ()
    target: str = "loss"

    # ---- building laws from laws

    def named(self, name: str, source: Source | None = None) -> Law:
        """Return the same law under a name of its own.

        Args:
            name: the new name.
            source: where it comes from, if that is new too.

        Returns:
            The law, which is the same but for these.

        >>> from bitlaw.laws import chinchilla
        >>> chinchilla.named("mine").name
        'mine'
        """
        return replace(self, name=name, source=source or self.source)

    def with_precision(self, **parts: str) -> Law:
        """Say what low precision in training does: N becomes N_eff, D becomes D_eff, or terms are added.

        Args:
            **parts: the form for each part, like `w="kumar"`.

        Returns:
            The law with these terms; its name says so.

        Raises:
            ConfigError: an unknown part or form, a form that does not fit the law, or a law that has
                precision terms already.

        >>> from bitlaw.laws import chinchilla
        >>> chinchilla.with_precision(w="kumar-without-offset").n_eff
        N*(1 - exp(-P_w/gamma_w))
        """
        if self.spec.precision or self.gap != 0:
            raise ConfigError(f"{self.name} has precision or gap terms already; start from its base law")
        terms = []
        for part, form in parts.items():
            if part not in TRAINED_PARTS:
                raise ConfigError(f"unknown part {part!r}; {nearest(part, TRAINED_PARTS)}")
            terms.append(look_up(PRECISION, form, "precision form").term(form, self, part))
        n_eff = self.n_eff * sp.Mul(*(term.n_factor for term in terms))
        d_eff = self.d_eff * sp.Mul(*(term.d_factor for term in terms))
        loss = self.loss.subs({N: n_eff, D: d_eff}, simultaneous=True) + sp.Add(
            *(term.added for term in terms)
        )
        law = replace(
            self,
            name=f"{self.name} with precision of {', '.join(parts)}",
            loss=loss,
            n_eff=n_eff,
            d_eff=d_eff,
            spec=replace(self.spec, precision=tuple(parts.items())),
        )
        for term in terms:
            law = law._taking(term)
        return law

    def with_gap(self, form: str) -> Law:
        """Add what quantising the weights after training costs.

        Args:
            form: its name, like "kumar".

        Returns:
            The law with this gap.

        Raises:
            ConfigError: an unknown form, one that does not fit the law, or a law that has a gap already.

        >>> from bitlaw.laws import chinchilla
        >>> chinchilla.with_gap("kumar").gap
        C_T*D**gamma_D*exp(-P_post/gamma_post + b)/N**gamma_N
        """
        if self.gap != 0:
            raise ConfigError(f"{self.name} has a gap already; start from the law without it")
        term = look_up(GAP, form, "gap form").term(form, self)
        law = replace(self, name=f"{self.name} and gap", gap=term.added, spec=replace(self.spec, gap=form))
        return law._taking(term)

    def _taking(self, term: Term) -> Law:
        """Take over a term's inputs, parameters and conditions; what several parts share stands once."""
        known = {p.name: p for p in self.parameters}
        for p in term.parameters:
            if known.get(p.name, p) != p:
                raise ConfigError(f"two terms mean different things by {p.name}; give these parts one form")
        return replace(
            self,
            inputs=self.inputs + tuple(i for i in term.inputs if i.column not in self.columns),
            parameters=self.parameters + tuple(p for p in term.parameters if p.name not in known),
            conditions=self.conditions + term.conditions,
        )

    def tie(self, **ties: str) -> Law:
        """Make parameters equal to others.

        Args:
            **ties: for each parameter that goes, the one that takes its place.

        Returns:
            The law without the parameters that went.

        Raises:
            ConfigError: an unknown parameter, one tied to itself, or to one that goes too.

        >>> from bitlaw.laws import chinchilla
        >>> chinchilla.tie(beta="alpha").names
        ('E', 'A', 'B', 'alpha')
        """
        for name, other in ties.items():
            for each in (name, other):
                if each not in self.names:
                    raise ConfigError(
                        f"{self.name} has no parameter {each!r}; {nearest(str(each), self.names)}"
                    )
            if other in ties:
                what = "itself" if other == name else f"{other!r}, which is tied itself"
                raise ConfigError(f"{name!r} cannot be tied to {what}; tie it to a parameter that stays")
        law = self._substituted({sp.Symbol(name): sp.Symbol(other) for name, other in ties.items()})
        earlier = tuple((name, ties.get(other, other)) for name, other in self.spec.ties)
        return replace(
            law,
            parameters=tuple(p for p in self.parameters if p.name not in ties),
            spec=replace(self.spec, ties=earlier + tuple(ties.items())),
        )

    def for_labels(self, labels: Mapping[str, tuple[str, ...] | list[str]]) -> Law:
        """Give parameters that have one value per label a parameter for each label of their column.

        `eff` of column `w_format` with labels int2 and int4 becomes `eff[int2]` and `eff[int4]`. Rows with
        another label, or none, have the neutral value that the parameter declares.

        >>> from bitlaw.laws import chinchilla
        >>> law = chinchilla.with_precision(w="efficiency").for_labels({"w_format": ["int2", "int4"]})
        >>> law.names[-2:]
        ('eff_w[int2]', 'eff_w[int4]')
        """
        if not self.label_columns:  # compiled already, as likely as not
            return self
        swap: dict[sp.Symbol, sp.Expr] = {}
        inputs: dict[str, Input] = {i.column: i for i in self.inputs}
        parameters: list[Parameter] = []
        for p in self.parameters:
            if p.per is None:
                parameters.append(p)
                continue
            value: sp.Expr = (
                sp.Float(p.neutral) if p.neutral != int(p.neutral) else sp.Integer(int(p.neutral))
            )
            for label in labels.get(p.per, ()):
                own = replace(p, symbol=sp.Symbol(f"{p.name}[{label}]"), per=None)
                marker = f"{p.per}={label}"
                if marker not in inputs:  # a law of one's own may read it already, under a symbol of its own
                    meaning = f"whether {p.per} is {label}"
                    inputs[marker] = Input(sp.Symbol(marker), marker, meaning, default=0.0)
                value = value + inputs[marker].symbol * (own.symbol - p.neutral)
                parameters.append(own)
            swap[p.symbol] = value
        law = self._substituted(swap)
        used = {column: tuple(names) for column, names in labels.items() if column in self.label_columns}
        return replace(
            law,
            inputs=tuple(inputs.values()),
            parameters=tuple(parameters),
            spec=replace(self.spec, labels=tuple(used.items())),
        )

    def _substituted(self, swap: Mapping[sp.Symbol, sp.Expr]) -> Law:
        def new(expression: sp.Expr) -> sp.Expr:
            return expression.subs(swap, simultaneous=True)

        return replace(
            self,
            loss=new(self.loss),
            gap=new(self.gap),
            n_eff=new(self.n_eff),
            d_eff=new(self.d_eff),
            conditions=tuple(Condition(new(c.expression), c.sentence) for c in self.conditions),
        )

    # ---- reading them

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in order."""
        return tuple(p.name for p in self.parameters)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the law reads, in order."""
        return tuple(i.column for i in self.inputs)

    @property
    def implicit(self) -> bool:
        """Whether the loss stands in its own equation."""
        declared = {i.symbol for i in self.inputs} | {p.symbol for p in self.parameters}
        return LOSS in self.loss.free_symbols - declared

    @property
    def reads_bits(self) -> bool:
        """Whether the loss is a function of the number of bits in training, and not only the law's domain."""
        bits = {i.symbol for i in self.inputs if i.column in [f"{part}_bits" for part in TRAINED_PARTS]}
        return bool(bits & self.loss.free_symbols)

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts whose training precision the law knows: by forms, or because a law of one's own reads them."""
        own = {column.partition("_")[0] for column in self.columns} if self.spec.own else set()
        return tuple(
            dict.fromkeys([p for p, _ in self.spec.precision] + [p for p in TRAINED_PARTS if p in own])
        )

    @cached_property
    def floors(self) -> tuple[str, ...]:
        """Names of the parameters that are what is left of the loss with unlimited size and data.

        These are the ones that are a term of the loss by themselves, and L_inf of the saturating law, whose terms
        stand in a power.

        >>> from bitlaw.laws import chinchilla, saturating
        >>> chinchilla.floors, saturating.floors
        (('E',), ('L_inf',))
        """
        if self.spec.base == "saturating":
            return ("L_inf",)
        if self.implicit or self.target != "loss":
            return ()
        alone = set(sp.Add.make_args(self.loss))
        rest = self.loss - sum(alone & {p.symbol for p in self.parameters})
        return tuple(p.name for p in self.parameters if p.symbol in alone and not rest.has(p.symbol))

    @property
    def label_columns(self) -> set[str]:
        """Columns whose labels have parameters of their own, not given yet."""
        return {p.per for p in self.parameters if p.per is not None}

    @cached_property
    def compiled(self) -> Compiled:
        """The NumPy functions, made when they are first needed.

        Raises:
            ConfigError: parameters with one value per label have no labels yet.
        """
        from .compiled import Compiled

        if self.label_columns:
            raise ConfigError(
                f"{self.name} has parameters for each label of {', '.join(sorted(self.label_columns))}; "
                "give the labels with for_labels({column: [...]})"
            )
        return Compiled(self)

    def vector(self, values: Mapping[str, float]) -> Array:
        """Put named parameter values in order; as the function `constants`."""
        return constants(self, values)

    def predict(self, values: Mapping[str, float] | Array, **inputs: ArrayLike) -> Array:
        """Predict the loss, quantisation after training included, in nats per token, or the law's other target.

        Args:
            values: a value for every parameter, by name or in order.
            **inputs: what the law reads: `params`, `tokens` and, where the law has them, `w_bits`, `a_bits`, `kv_bits`,
                `post_bits`, or labels like `w_format="int4"`; arrays broadcast; what is left out is
                unquantised.

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
        """Predict only what quantisation after training adds, in nats per token.

        Args:
            values: as `predict` takes them.
            **inputs: as `predict` takes them.

        Returns:
            The gap, zero where nothing was quantised after training.

        Raises:
            LawError: somewhere outside the law's domain.
            ConfigError: an input that the law does not know, or one it needs and was not given.

        >>> from bitlaw.laws import published
        >>> kumar = published("kumar-2024")
        >>> round(float(kumar.law.predict_gap(kumar.values, params=30e6, tokens=26e9, post_bits=4)), 4)
        0.1078
        """
        return self._evaluate("gap", values, inputs)

    def _evaluate(
        self, what: str, values: Mapping[str, float] | Array, inputs: Mapping[str, ArrayLike]
    ) -> Array:
        compiled = self.compiled
        theta = constants(self, values)
        data = self.arrange(inputs)
        for condition, holds in zip(self.conditions, compiled.holds(theta, data), strict=True):
            if not holds.all():
                raise LawError(condition.sentence)
        told(self, inputs, data, TRAINED_PARTS)
        function = compiled.total if what == "total" else compiled.gap
        return function(theta, data)

    def arrange(self, inputs: Mapping[str, ArrayLike]) -> dict[str, Array]:
        """Broadcast inputs by column name, with defaults for those left out; as the function `arrange`."""
        return arrange(self, inputs)

    def display(self) -> dict[str, sp.Expr]:
        """The law as people write it: the loss, or the gap alone, and the effective quantities it abbreviates."""
        shorts = {
            name: full
            for name, plain, full in (("N_eff", N, self.n_eff), ("D_eff", D, self.d_eff))
            if full != plain
        }
        loss = self.loss + self.gap
        for name, full in shorts.items():
            loss = loss.subs(full, sp.Symbol(name))
        return {TARGETS[self.target][0] if self.loss != 0 else "gap": loss, **shorts}
