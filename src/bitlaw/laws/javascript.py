"""From a symbolic law to JavaScript, so that a page can recompute what Python said.

It is written from the same expressions as the NumPy functions, and agrees with them to rounding. Parameters and
inputs are places of two arrays, so no name from a file stands in the code. What a browser's `Math` does not have
(the inverse of the error function, the root of a law that gives its loss by an equation) is in `runtime.js`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files

import sympy as sp
from sympy.printing.jscode import JavascriptCodePrinter

from ..errors import ConfigError
from .law import Law
from .terms import LOSS


def javascript(law: Law) -> str:
    """Write a law as a JavaScript expression: a function of the runtime that returns the law's functions.

    Each takes the parameters `t`, in the order of `law.names`, and the inputs `x`, in the order of `law.columns`:
    `total`, `gap` and `nEff` return numbers, and `conditions` those that must be positive. `runtime.guarded(law,
    "total", t, x)` is null where the law says nothing.

    Args:
        law: any law whose parameters by label have their labels.

    Returns:
        The source of one expression, like `(runtime) => ({...})`.

    Raises:
        ConfigError: parameters with one value per label have no labels yet.

    >>> from bitlaw.laws import chinchilla
    >>> "t[1]*Math.pow(x[0], -t[3])" in javascript(chinchilla)  # A N^-alpha; the order of terms is sympy's own
    True
    """
    if law.label_columns:
        raise ConfigError(
            f"{law.name} has parameters for each label of {', '.join(sorted(law.label_columns))}; "
            "give the labels with for_labels({column: [...]})"
        )
    places = {p.symbol: f"t[{k}]" for k, p in enumerate(law.parameters)}
    places |= {i.symbol: f"x[{k}]" for k, i in enumerate(law.inputs)}
    if law.implicit:
        sides = _function("(L)", [law.loss, sp.diff(law.loss, LOSS)], places | {LOSS: "L"})
        total = f"(t, x) => runtime.root({sides})"
    else:
        total = _function("(t, x)", [law.loss + law.gap], places, alone=True)
    conditions = [c.expression for c in law.conditions]
    size = law.n_eff if law.n_eff.free_symbols <= places.keys() else sp.nan  # a law may read no size
    return "\n".join(
        (
            "(runtime) => ({",
            f"  total: {total},",
            f"  gap: {_function('(t, x)', [law.gap], places, alone=True)},",
            f"  nEff: {_function('(t, x)', [size], places, alone=True)},",
            f"  conditions: {_function('(t, x)', conditions, places)},",
            "})",
        )
    )


def runtime() -> str:
    """The JavaScript that laws call, which defines `bitlaw.runtime`."""
    return files("bitlaw.laws").joinpath("runtime.js").read_text(encoding="utf-8")


def _function(
    arguments: str, expressions: Sequence[sp.Expr], places: Mapping[sp.Symbol, str], alone: bool = False
) -> str:
    """An arrow function that returns the values, or the only one; what they share is worked out once."""
    shared, reduced = sp.cse(expressions, symbols=sp.numbered_symbols(cls=sp.Dummy))
    printer = _Printer({**places, **{symbol: f"c{k}" for k, (symbol, _) in enumerate(shared)}})
    lines = [f"const {printer.doprint(symbol)} = {printer.doprint(value)};" for symbol, value in shared]
    values = [printer.doprint(value) for value in reduced]
    lines.append(f"return {values[0]};" if alone else f"return [{', '.join(values)}];")
    return f"{arguments} => {{ {' '.join(lines)} }}"


class _Printer(JavascriptCodePrinter):  # type: ignore[misc]
    """Sympy's printer, with places for symbols, on one line, and with the functions of the runtime."""

    def __init__(self, places: Mapping[sp.Symbol, str]) -> None:
        super().__init__({"precision": 17})
        self._places = places

    def doprint(self, expr: sp.Expr) -> str:
        """The code of an expression."""
        return " ".join(str(self._print(expr)).split())

    def _print_Symbol(self, symbol: sp.Symbol) -> str:
        return self._places[symbol]  # whatever has no place cannot be printed

    _print_Dummy = _print_Symbol

    def _print_NaN(self, expr: sp.Expr) -> str:
        return "NaN"

    def _print_Piecewise(self, expr: sp.Piecewise) -> str:
        text = "NaN"
        for value, condition in reversed(expr.args):
            if condition == sp.true:
                text = self._print(value)
            else:
                text = f"({self._print(condition)} ? {self._print(value)} : {text})"
        return text if text.startswith("(") else f"({text})"

    def _print_erfinv(self, expr: sp.Expr) -> str:
        return f"runtime.erfinv({self._print(expr.args[0])})"
