"""From text to a symbolic expression, through a list of what is allowed; nothing in the text is run.

Python's parser is used for its grammar only: it makes a tree, and the tree is walked here, node by node. What
is not on the list is refused. Numbers are worked out here too, as floats, which overflow where sympy's integers
would fill the memory with 9**9**9**9; and those that sympy multiplies out are kept small.
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import sympy as sp
from sympy.printing.precedence import PRECEDENCE

from ..errors import ConfigError, nearest
from .terms import WHOLE

MAX_TEXT, MAX_NODES, MAX_DEPTH = 2000, 300, 20
LARGEST = 1e12  # of a number in the text, or computed from such numbers alone
MAX_EXPONENT = 100  # of a number that is a power's exponent
EXACT = 1000  # larger whole numbers, and all ratios, become floats: exact powers of them grow, and roots never end
WIDEST = 1e100  # of a number that sympy makes by multiplying out

Value: TypeAlias = Any  # a Python float where it is known, else a sympy expression


class Plain(sp.Function):  # type: ignore[misc]
    """A function that stands as it was written.

    Of its own functions sympy asks, at every step, whether they are real, or can be written otherwise; for a
    hyperbolic tangent in another that takes it minutes, and for the larger of three numbers it finds a
    derivative that cannot be compiled. Of these it knows the derivative and the NumPy function, no more.
    """

    nargs = 1
    numpy = ""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        """The derivative by an argument."""
        return _SLOPES[type(self)](*self.args)[argindex - 1]

    def _numpycode(self, printer: Any) -> str:
        return f"{printer._module_format('numpy.' + self.numpy)}({', '.join(map(printer._print, self.args))})"

    def _javascript(self, printer: Any) -> str:
        name = {"maximum": "max", "minimum": "min", "power": "pow"}.get(self.numpy, self.numpy)
        return f"Math.{name}({', '.join(map(printer._print, self.args))})"


class Quantized(Plain):
    """1 where a column of bits says that a part is quantised, 0 elsewhere."""

    def _numpycode(self, printer: Any) -> str:
        step, bits = printer._module_format("numpy.heaviside"), printer._print(self.args[0])
        return f"{step}({WHOLE!r} - {bits}, 0.0)"

    def _javascript(self, printer: Any) -> str:
        return f"({printer._print(self.args[0])} < {WHOLE!r} ? 1 : 0)"


class Power(Plain):
    """A power of more than a symbol, which sympy's own would try to spread over what it is made of."""

    nargs, numpy, precedence = 2, "power", PRECEDENCE["Pow"]

    def _sympystr(self, printer: Any, *_: Any) -> Any:
        return printer._print(sp.Pow(*self.args, evaluate=False))

    _mathml_presentation = _sympystr

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        """LaTeX; `exp` is a power that this one is raised to."""
        whole = printer._print(sp.Pow(*self.args, evaluate=False))
        return whole if exp is None else rf"\left({whole}\right)^{{{exp}}}"


def _plain(name: str, numpy: str, nargs: int = 1) -> Any:
    return type(name, (Plain,), {"numpy": numpy, "nargs": nargs, "__module__": __name__})


#: Functions by the name that they print; `Step` is the slope of the larger of two: 1/2 where they are equal.
Exp, Log, Log2, Sqrt, Tanh = (_plain(name, name) for name in ("exp", "log", "log2", "sqrt", "tanh"))
Larger, Smaller, Step = (
    _plain("Max", "maximum", 2),
    _plain("Min", "minimum", 2),
    _plain("step", "heaviside", 2),
)
Quantized.__name__ = QUANTIZED = "quantized"
_HALF, _ZERO = sp.Rational(1, 2), sp.Integer(0)
_SLOPES: dict[Any, Callable[..., tuple[sp.Expr, ...]]] = {
    Exp: lambda x: (Exp(x),),
    Log: lambda x: (1 / x,),
    Log2: lambda x: (sp.Float(repr(1 / math.log(2))) / x,),
    Sqrt: lambda x: (0.5 / Sqrt(x),),
    Tanh: lambda x: (1 - Tanh(x) ** 2,),
    Power: lambda a, b: (b * Power(a, b - 1), Log(a) * Power(a, b)),
    Larger: lambda a, b: (Step(a - b, _HALF), Step(b - a, _HALF)),
    Smaller: lambda a, b: (Step(b - a, _HALF), Step(a - b, _HALF)),
    Step: lambda x, between: (_ZERO, _ZERO),
    Quantized: lambda bits: (_ZERO,),
}
#: What may be called: how it is worked out of numbers, and what it is of expressions. There is no abs, which is
#: max(x, -x), and whose derivative sympy cannot give.
FUNCTIONS: dict[str, tuple[Callable[..., float], Callable[..., sp.Expr]]] = {
    "exp": (math.exp, Exp),
    "log": (math.log, Log),
    "log2": (math.log2, Log2),
    "sqrt": (math.sqrt, Sqrt),
    "tanh": (math.tanh, Tanh),
    "min": (min, Smaller),
    "max": (max, Larger),
}
NAMES = (*FUNCTIONS, QUANTIZED)
_ALLOWED = f"numbers, names, + - * / ** and {', '.join(NAMES)}"
_FOREIGN = re.compile(r"[^A-Za-z0-9_+\-*/()., \t\r\n]")
_MADE = (sp.Symbol, sp.Number, sp.Add, sp.Mul, sp.Pow, Plain)


def read_expression(text: str, symbols: Mapping[str, sp.Symbol], bits: Collection[str] = ()) -> sp.Expr:
    """Read an expression like `E + A * N**-alpha`.

    Args:
        text: at most 2000 characters, 300 nodes and 20 levels.
        symbols: what each name stands for.
        bits: names that hold bits, of which `quantized` may be asked.

    Returns:
        The expression, which reads at least one of the symbols.

    Raises:
        ConfigError: anything that is not on the list, or too large.

    >>> names = {name: sp.Symbol(name) for name in ("E", "A", "N", "alpha")}
    >>> read_expression("E + A / N**alpha", names)
    A/N**alpha + E
    >>> read_expression("E.real", names)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    bitlaw.errors.ConfigError: 'E.real' (attribute) has no place in an expression; it may hold numbers, ...
    """
    if len(text) > MAX_TEXT:
        raise ConfigError(f"an expression may have {MAX_TEXT} characters, not {len(text)}; shorten it")
    foreign = _FOREIGN.search(text)
    if foreign:
        hint = "; write powers with **" if foreign[0] == "^" else f"; it may hold {_ALLOWED}"
        raise ConfigError(f"the character {foreign[0]!a} has no place in an expression{hint}")
    line = " ".join(text.split())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of `1if`, which is refused below with everything else
            tree = ast.parse(line, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply"
        raise ConfigError(f"{_short(line)!r} is not an expression: {reason}") from error
    count = sum(isinstance(node, ast.expr) for node in ast.walk(tree))
    if count > MAX_NODES:
        raise ConfigError(f"an expression may have {MAX_NODES} numbers, names and signs, not {count}")
    made = _Reader(line, symbols, bits).read(tree, 0)
    if isinstance(made, float):
        raise ConfigError(f"{_short(line)!r} is always {made:g}; it must depend on a parameter or an input")
    for node in sp.preorder_traversal(made):
        if not isinstance(node, _MADE):
            raise ConfigError(f"{_short(line)!r} comes to {type(node).__name__}, which is not a real number")
    return made


class _Reader:
    """Walks the tree of one expression."""

    def __init__(self, text: str, symbols: Mapping[str, sp.Symbol], bits: Collection[str]) -> None:
        self._text, self._symbols, self._bits = text, symbols, bits

    def read(self, node: ast.expr, depth: int) -> Value:
        """The value of a node; a chain like a + b + c counts as one level."""
        if depth > MAX_DEPTH:
            raise ConfigError(f"an expression may be nested {MAX_DEPTH} levels deep; write it flatter")
        try:
            return _tamed(self._made(node, depth))
        except (ArithmeticError, ValueError, TypeError, NotImplementedError, RecursionError) as error:
            raise ConfigError(f"{self._source(node)!r} is not a number that can be computed") from error

    def _made(self, node: ast.expr, depth: int) -> Value:
        number = node.value if isinstance(node, ast.Constant) else None
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            return _literal(number)
        if isinstance(node, ast.Name):
            if node.id not in self._symbols:
                raise ConfigError(f"{node.id!r} is declared nowhere; {nearest(node.id, self._symbols)}")
            return self._symbols[node.id]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
            value = self.read(node.operand, depth + 1)
            return -value if isinstance(node.op, ast.USub) else value
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div)):
            left, right = self.read(node.left, depth), self.read(node.right, depth + 1)
            return _combined(node.op, left, right)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            return _power(self.read(node.left, depth + 1), self.read(node.right, depth + 1))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self._called(node.func.id, node, depth)
        kind = type(node.op if isinstance(node, (ast.BinOp, ast.UnaryOp)) else node).__name__.lower()
        raise ConfigError(
            f"{self._source(node)!r} ({kind}) has no place in an expression; it may hold {_ALLOWED}"
        )

    def _called(self, name: str, node: ast.Call, depth: int) -> Value:
        if name not in NAMES:
            raise ConfigError(f"there is no function {name!r}; {nearest(name, NAMES)}")
        wanted = 2 if name in ("min", "max") else 1
        if len(node.args) != wanted:
            raise ConfigError(f"{name} takes {wanted} argument{'s' * (wanted > 1)}, not {len(node.args)}")
        if name == QUANTIZED:
            (part,) = node.args
            if not isinstance(part, ast.Name) or part.id not in self._bits:
                asked, known = self._source(part), ", ".join(self._bits) or "none is declared"
                raise ConfigError(f"{QUANTIZED} is asked of a name that holds bits ({known}), not {asked!r}")
            return Quantized(self._symbols[part.id])
        values = [self.read(argument, depth + 1) for argument in node.args]
        on_numbers, on_symbols = FUNCTIONS[name]
        if all(isinstance(value, float) for value in values):
            return on_numbers(*values)
        return on_symbols(*map(_symbolic, values))

    def _source(self, node: ast.expr) -> str:
        return _short(self._text[node.col_offset : node.end_col_offset])


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _literal(value: int | float) -> float:
    if not abs(value) <= LARGEST:
        raise ConfigError(
            f"a number may be as large as {LARGEST:g}; use a larger unit, or make it a parameter"
        )
    return float(value)


def _symbolic(value: Value) -> sp.Expr:
    if not isinstance(value, float):
        return value
    whole = value.is_integer() and abs(value) <= EXACT
    return sp.Integer(int(value)) if whole else sp.Float(repr(value))


def _combined(op: ast.operator, left: Value, right: Value) -> Value:
    if not (isinstance(left, float) and isinstance(right, float)):
        left, right = _symbolic(left), _symbolic(right)
    if isinstance(op, ast.Add):
        return left + right
    if isinstance(op, ast.Sub):
        return left - right
    if isinstance(op, ast.Mult):
        return left * right
    if right == 0:  # of sympy's numbers, too, for which division by zero is no error
        raise ZeroDivisionError
    return left / right


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(base, float) and isinstance(exponent, float):
        return math.pow(base, exponent)  # where ** would give a complex number, this is an error
    if isinstance(base, float) and base <= 0:
        raise ConfigError(f"a power of {base:g} is no real number for every exponent; use a positive base")
    if isinstance(exponent, float) and abs(exponent) > MAX_EXPONENT:
        raise ConfigError(f"the exponent {exponent:g} is too large; {MAX_EXPONENT} is the most")
    base, exponent = _symbolic(base), _symbolic(exponent)
    plain = isinstance(base, (sp.Symbol, sp.Number)) or exponent.is_Integer
    return sp.Pow(base, exponent) if plain else Power(base, exponent)


def _tamed(value: Value) -> Value:
    """Keep what sympy makes of numbers small, so that no later step can be long."""
    if not isinstance(value, float):
        if value.free_symbols:
            wide = {n: sp.Float(n) for n in value.atoms(sp.Rational) if n.q > 1 or abs(n.p) > EXACT}
            value = value.xreplace(wide) if wide else value
            if not all(n == 0 or 1 / WIDEST < abs(n) < WIDEST for n in value.atoms(sp.Number)):
                raise ConfigError("a number in the expression grows out of all bounds; use larger units")
            return value
        value = float(value)
    if not math.isfinite(value):
        raise ValueError(value)
    return _literal(value)
