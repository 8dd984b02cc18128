"""From a symbolic law to NumPy: values, exact derivatives, and the linear part.

Parameters come as one vector, or as a stack of vectors (S, p) that is evaluated against all rows at once,
so that many starting points or many resamples cost one call. The last axis of a value is the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp
from numpy.typing import NDArray

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
            self._function = sp.lambdify(arguments, self._expressions, "numpy", cse=True)
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

    def jacobian(self, theta: Array, data: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return values (..., n) and derivatives by every parameter (..., n, p)."""
        value, *columns = self._jacobian(theta, data)
        return value, np.stack(columns, axis=-1)

    def basis(self, theta: Array, data: Mapping[str, Array]) -> tuple[Array, Array]:
        """Split the expression as f0 + sum_k c_k f_k over its linear parameters c.

        Returns:
            f0 (..., n) and the basis (..., n, K), neither of which depends on the linear parameters.
        """
        rest, *columns = self._basis(theta, data)
        return rest, np.stack(columns, axis=-1) if columns else np.empty((*rest.shape, 0))


class Compiled:
    """The functions of a law."""

    def __init__(self, law: Law) -> None:
        symbols = [p.symbol for p in law.parameters]
        inputs = {i.column: i.symbol for i in law.inputs}
        self.total = Function(law.loss + law.gap, symbols, inputs)
        self.gap = Function(law.gap, symbols, inputs)
        self.n_eff = Function(law.n_eff, symbols, inputs)
        self._conditions = Together([c.expression for c in law.conditions], symbols, inputs)
        self._guarded = {
            "total": Together([law.loss + law.gap, *(c.expression for c in law.conditions)], symbols, inputs),
            "gap": Together([law.gap, *(c.expression for c in law.conditions)], symbols, inputs),
        }

    def holds(self, theta: Array, data: Mapping[str, Array]) -> list[NDArray[np.bool_]]:
        """For each condition of the law, where it holds."""
        return [np.asarray(value > 0) for value in self.margins(theta, data)]

    def margins(self, theta: Array, data: Mapping[str, Array]) -> list[Array]:
        """For each condition of the law, its expression, which must be positive."""
        return self._conditions(theta, data)

    def guarded(self, what: str, theta: Array, data: Mapping[str, Array]) -> Array:
        """The `total` loss or the `gap`; infinite where a condition of the law fails."""
        value, *conditions = self._guarded[what](theta, data)
        inside = np.isfinite(value)
        for condition in conditions:
            inside = inside & (condition > 0)
        return np.where(inside, value, np.inf)


def _linear(expression: sp.Expr, parameters: Sequence[sp.Symbol]) -> tuple[int, ...]:
    """Indices of parameters that enter the expression jointly linearly."""
    chosen: list[int] = []
    for k, p in enumerate(parameters):
        slope = sp.diff(expression, p)
        if slope != 0 and not slope.has(p) and all(not slope.has(parameters[j]) for j in chosen):
            chosen.append(k)
    return tuple(chosen)
