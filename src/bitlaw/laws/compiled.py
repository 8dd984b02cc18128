"""From a symbolic law to NumPy: values, exact derivatives, and the linear part.

Parameters come as one vector, or as a stack of vectors (S, p) that is evaluated against all rows at once,
so that many starting points or many resamples cost one call. The last axis of a value is the rows.
A law may give its loss by an equation, L = f(L); that is solved to rounding, and differentiated exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from .terms import LOSS

if TYPE_CHECKING:
    from .law import Law

Array = NDArray[np.float64]


class Together:
    """Several expressions as one NumPy function of parameters and inputs, compiled at its first call."""

    def __init__(
        self, expressions: Sequence[sp.Expr], parameters: Sequence[sp.Symbol], inputs: Mapping[str, sp.Symbol]
    ) -> None:
        self._expressions = list(expressions)
        self._parameters = list(parameters)
        self._inputs = dict(inputs)
        self._function: Any = None

    def __call__(self, theta: Array, data: Mapping[str, Array]) -> list[Array]:
        """Evaluate at theta (..., p) for rows (n,); returns an array (..., n) for each expression."""
        if self._function is None:
            arguments = [*self._parameters, *self._inputs.values()]
            # Dummies, so that no name from a file stands in the code that sympy writes.
            self._function = sp.lambdify(
                arguments, self._expressions, [{"erfinv": _erfinv}, "numpy"], cse=True, dummify=True
            )
        theta = np.asarray(theta, dtype=float)
        rows = [data[name] for name in self._inputs]
        stacked = theta.ndim > 1
        parameters = [theta[..., k, None] if stacked else theta[k] for k in range(len(self._parameters))]
        shape = np.broadcast_shapes(
            (*theta.shape[:-1], 1) if stacked else (), *(np.shape(row) for row in rows)
        )
        with np.errstate(all="ignore"):  # trial points outside the domain become NaN, which callers look for
            out = self._function(*parameters, *rows)
        arrays = [np.asarray(value, dtype=float) for value in out]  # constants come out as Python integers
        return [array if array.shape == shape else np.broadcast_to(array, shape) for array in arrays]


class Function:
    """One expression as a NumPy function of parameters and inputs, with its exact Jacobian."""

    def __init__(
        self, expression: sp.Expr, parameters: Sequence[sp.Symbol], inputs: Mapping[str, sp.Symbol]
    ) -> None:
        self.linear = _linear(expression, parameters)
        linear = [parameters[k] for k in self.linear]
        rest = expression.subs({c: 0 for c in linear})
        slopes = [sp.diff(expression, p) for p in parameters]
        self._value = Together([expression], parameters, inputs)
        self._jacobian = Together([expression, *slopes], parameters, inputs)
        self._basis = Together([rest, *(slopes[k] for k in self.linear)], parameters, inputs)

    def __call__(self, theta: Array, data: Mapping[str, Array]) -> Array:
        """Evaluate at theta (..., p) for rows (n,); returns (..., n)."""
        return self._value(theta, data)[0]

    def slopes(self, theta: Array, data: Mapping[str, Array]) -> tuple[Array, list[Array]]:
        """Return values (..., n) and, for every parameter, derivatives (..., n)."""
        value, *slopes = self._jacobian(theta, data)
        return value, slopes

    def jacobian(self, theta: Array, data: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return values (..., n) and derivatives by every parameter (..., n, p)."""
        value, slopes = self.slopes(theta, data)
        return value, np.stack(slopes, axis=-1)

    def basis(self, theta: Array, data: Mapping[str, Array]) -> tuple[Array, Array]:
        """Split the expression as f0 + sum_k c_k f_k over its linear parameters c.

        Returns:
            f0 (..., n) and the basis (..., n, K), neither of which depends on the linear parameters.
        """
        rest, *columns = self._basis(theta, data)
        return rest, np.stack(columns, axis=-1) if columns else np.empty((*rest.shape, 0))


class Implicit(Function):
    """The root L of L = f(L), where f is positive and falls with L, with its exact Jacobian.

    Then any L and f(L) have the root between them, and in x = log L the slope of x - log f is at least one:
    Newton's step never leaves that bracket, and halving it is only needed against older, tighter ones.
    By the implicit function theorem, dL/dtheta = (df/dtheta) / (1 - df/dL).
    """

    def __init__(
        self,
        expression: sp.Expr,
        unknown: sp.Symbol,
        parameters: Sequence[sp.Symbol],
        inputs: Mapping[str, sp.Symbol],
    ) -> None:
        self.linear = ()
        slope = sp.diff(expression, unknown)
        inputs = {**inputs, _ROOT: unknown}
        self._equation = Together([expression, slope], parameters, inputs)
        self._derivatives = Together(
            [slope, *(sp.diff(expression, p) for p in parameters)], parameters, inputs
        )

    def __call__(self, theta: Array, data: Mapping[str, Array]) -> Array:
        """Solve at theta (..., p) for rows (n,); returns (..., n), NaN where there is no root."""
        x = np.zeros_like(self._equation(theta, {**data, _ROOT: np.ones(())})[0])
        low, high = np.full_like(x, -np.inf), np.full_like(x, np.inf)
        with np.errstate(all="ignore"):
            for _ in range(_ROUNDS):
                right, slope = self._equation(theta, {**data, _ROOT: np.exp(x)})
                beyond = np.log(right)
                low = np.maximum(low, np.minimum(x, beyond))
                high = np.minimum(high, np.maximum(x, beyond))
                new = x - (x - beyond) / (1 - slope * np.exp(x) / right)
                new = np.where((new >= low) & (new <= high), new, (low + high) / 2)
                moved, x = np.abs(new - x), new
                if not (moved > _CLOSE).any():
                    break
        return np.where(moved <= _CLOSE, np.exp(x), np.nan)

    def slopes(self, theta: Array, data: Mapping[str, Array]) -> tuple[Array, list[Array]]:
        """Return values (..., n) and, for every parameter, derivatives (..., n)."""
        value = self(theta, data)
        own, *others = self._derivatives(theta, {**data, _ROOT: value})
        return value, [other / (1 - own) for other in others]

    def basis(self, theta: Array, data: Mapping[str, Array]) -> tuple[Array, Array]:
        """The values (..., n) and an empty basis: no parameter enters linearly."""
        value = self(theta, data)
        return value, np.empty((*value.shape, 0))


_ROOT = ""  # the name under which the unknown stands among the inputs
_ROUNDS = 100  # six are enough for any law we know
_CLOSE = 1e-14  # a last step of this relative size leaves rounding errors only


class Compiled:
    """The functions of a law."""

    def __init__(self, law: Law) -> None:
        symbols = [p.symbol for p in law.parameters]
        inputs = {i.column: i.symbol for i in law.inputs}
        self.total = (
            Implicit(law.loss, LOSS, symbols, inputs)
            if law.implicit
            else Function(law.loss + law.gap, symbols, inputs)
        )
        self.gap = Function(law.gap, symbols, inputs)
        self.n_eff = Function(law.n_eff, symbols, inputs)
        self._conditions = Together([c.expression for c in law.conditions], symbols, inputs)
        self._guarded = {
            "total": Together([law.loss + law.gap, *(c.expression for c in law.conditions)], symbols, inputs),
            "gap": Together([law.gap, *(c.expression for c in law.conditions)], symbols, inputs),
        }
        self._implicit = law.implicit

    def holds(self, theta: Array, data: Mapping[str, Array]) -> list[NDArray[np.bool_]]:
        """For each condition of the law, where it holds."""
        return [np.asarray(value > 0) for value in self.margins(theta, data)]

    def margins(self, theta: Array, data: Mapping[str, Array]) -> list[Array]:
        """For each condition of the law, its expression, which must be positive."""
        return self._conditions(theta, data)

    def guarded(self, what: str, theta: Array, data: Mapping[str, Array]) -> Array:
        """The `total` loss or the `gap`; infinite where a condition of the law fails."""
        if self._implicit and what == "total":
            value, conditions = self.total(theta, data), self.margins(theta, data)
        else:
            value, *conditions = self._guarded[what](theta, data)
        inside = np.isfinite(value)
        for condition in conditions:
            inside = inside & (condition > 0)
        return np.where(inside, value, np.inf)


def _erfinv(share: Array) -> Array:
    """The inverse of the error function, which NumPy has not."""
    from scipy.special import erfinv

    inverse: Array = erfinv(share)
    return inverse


def _linear(expression: sp.Expr, parameters: Sequence[sp.Symbol]) -> tuple[int, ...]:
    """Indices of parameters that enter the expression jointly linearly."""
    chosen: list[int] = []
    for k, p in enumerate(parameters):
        slope = sp.diff(expression, p)
        if slope != 0 and not slope.has(p) and all(not slope.has(parameters[j]) for j in chosen):
            chosen.append(k)
    return tuple(chosen)
