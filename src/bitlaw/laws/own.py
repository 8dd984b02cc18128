"""A law of the user's own, from a TOML file: read strictly, kept in full in its fits, and never run.

    name = "my-law"
    loss = "E + A * N**-alpha + K * exp(-w_bits / gamma)"

    [inputs]  # symbol = column of the run table; N = params and D = tokens are there by default
    w_bits = "w_bits"

    [parameters.E]
    low = 1e-4
    high = 20
    start = [0.1, 5]

Files may come from strangers. So every key, type, size and name is checked here, and expressions go through
`read_expression`, which knows a list of operations and no other.
"""

from __future__ import annotations

import json
import keyword
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import sympy as sp

from ..errors import ConfigError, nearest
from ..files import read_toml
from ..formats import UNQUANTIZED
from ..formats.gaussian import LOSSLESS
from . import checks
from .catalogue import LAWS
from .expression import NAMES, read_expression
from .law import Law
from .published import PUBLISHED
from .spec import BASE, READERS, LawSpec
from .terms import LOSS, TRAINED_PARTS, Condition, Input, Parameter, Source, only_quantized

MAX_BYTES = 64_000
MOST = {"parameters": 40, "inputs": 40, "conditions": 20}
PARTS = (*TRAINED_PARTS, "post")
#: Read without being declared.
DEFAULT = {
    "N": Input(sp.Symbol("N"), "params", "model size, parameters"),
    "D": Input(sp.Symbol("D"), "tokens", "training data, tokens"),
}
#: What rows without a format have, by the end of the column's name.
_UNQUANTISED = dict.fromkeys(("bits", "exponent", "mantissa"), UNQUANTIZED)
_UNQUANTISED |= {"capacity": LOSSLESS, "group": 2.0}
_PREDICTED = ("loss", "loss_se", "gap", "gap_se")
_SYMBOL = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
_COLUMN = re.compile(r"[a-z][a-z0-9_]{0,39}(=[A-Za-z0-9._-]{1,40})?")
_TITLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
#: The keys of each table, and what they hold.
_LAW = (
    {"name": "", "loss": "", "parameters": ""},
    {"gap": "", "source": "text", "inputs": "", "conditions": ""},
)
_OF_PARAMETER = (
    {"low": "number", "high": "number", "start": ""},
    {"unit": "text", "meaning": "text", "fixed": "number"},
)
_OF_CONDITION = ({"expression": ""}, {"sentence": "text"})


def read_law(path: str | os.PathLike[str]) -> Law:
    r"""Read a law of one's own from a TOML file.

    Args:
        path: the file; `law_from_data` says what stands in it.

    Returns:
        The law, which can be fitted, compared, planned with and saved like any other.

    Raises:
        ConfigError: no such file, not TOML, or not the description of a law, naming the place.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> text = 'name = "floor"\nloss = "E / N"\n[parameters.E]\nlow = 0.1\nhigh = 9\nstart = [1, 2]'
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "floor.toml"
    ...     _ = path.write_text(text)
    ...     read_law(path).loss
    E/N
    """
    plain = read_toml(path, MAX_BYTES, "name the TOML file of a law")
    try:
        return law_from_data(plain)
    except ConfigError as error:
        raise ConfigError(f"{ascii(Path(path).name)[1:-1][:60]}: {error}") from error


def law_from_data(data: Mapping[str, Any]) -> Law:
    """Make a law from plain data, as TOML and JSON give it.

    Args:
        data: `name` and `loss`; `parameters`, each a table with `low`, `high` and `start`, and if wanted
            `unit`, `meaning` and `fixed`; if wanted `gap`, what quantising after training adds; `source`;
            `inputs`, from symbol to column; and `conditions`, tables with an `expression` that must be
            positive and a `sentence` for when it is not.

    Returns:
        The law; its `spec` holds the data, so that a saved fit needs no other file.

    Raises:
        ConfigError: naming the place, what is wrong with it, and what to try.

    >>> law = law_from_data({
    ...     "name": "power", "loss": "A * D**-beta",
    ...     "parameters": {
    ...         "A": {"low": 1e-6, "high": 1e15, "start": [1, 1e6]},
    ...         "beta": {"low": 0.01, "high": 3, "start": [0.1, 1]},
    ...     },
    ... })
    >>> float(law.predict({"A": 8.0, "beta": 1.0}, tokens=4.0))
    2.0
    """
    checks.table(data, "the law", *_LAW)
    name = checks.name(data["name"], "name", _TITLE, "letters, digits, '.', '-' and '_'")
    if name.lower() in {*LAWS, *BASE, *PUBLISHED}:
        raise ConfigError(f"name: {name!r} is a law of bitlaw itself; choose another name")
    given = {key: _few(data, key, list if key == "conditions" else Mapping) for key in MOST}
    inputs = DEFAULT | {key: _input(key, column) for key, column in given["inputs"].items()}
    parameters = {key: _parameter(key, table, inputs) for key, table in given["parameters"].items()}
    symbols = {key: item.symbol for key, item in (*inputs.items(), *parameters.items())}
    columns: dict[str, str] = {}
    for key, item in inputs.items():
        if columns.setdefault(item.column, key) != key:
            raise ConfigError(
                f"inputs.{key}: {item.column} is {columns[item.column]} already; use that symbol for both"
            )
    bits = {key for key, item in inputs.items() if item.column.endswith("_bits")}

    def expression(text: Any, place: str) -> sp.Expr:
        if not isinstance(text, str):
            raise ConfigError(f"{place}: an expression is text, not {checks.shown(text)}")
        try:
            return read_expression(text, symbols, bits)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from error

    loss = expression(data["loss"], "loss")
    gap = _gap(expression(data["gap"], "gap"), inputs) if "gap" in data else sp.Integer(0)
    conditions = []
    for k, table in enumerate(given["conditions"]):
        place = f"conditions[{k}]"
        made = expression(checks.table(table, place, *_OF_CONDITION)["expression"], f"{place}.expression")
        said = table.get("sentence") or f"the law says nothing where {str(made)[:100]} is not positive"
        conditions.append(Condition(made, said))
    fitted = loss.free_symbols | gap.free_symbols
    read = fitted.union(*(c.expression.free_symbols for c in conditions))
    for kind, used in (("parameters", fitted), ("inputs", read)):
        for key in given[kind]:
            if symbols[key] not in used:
                raise ConfigError(f"{kind}.{key}: the loss does not depend on it; use it, or leave it out")
    if not parameters or not any(item.symbol in fitted for item in inputs.values()):
        raise ConfigError("loss: a law depends on one parameter and one input at least; name them in it")
    return Law(
        name=name,
        loss=loss,
        gap=gap,
        inputs=tuple(item for item in inputs.values() if item.symbol in read),
        parameters=tuple(parameters.values()),
        conditions=tuple(conditions),
        source=Source(data.get("source") or "a law of one's own"),
        spec=LawSpec(base=name, own=json.dumps(data, allow_nan=False, default=dict)),
    )


READERS["own"] = law_from_data


def _few(data: Mapping[str, Any], key: str, kind: Any) -> Any:
    value: Any = data.get(key, [] if kind is list else {})
    if not isinstance(value, kind) or len(value) > MOST[key]:
        form = f"tables, [[{key}]]" if kind is list else f"a table, [{key}]"
        raise ConfigError(f"{key}: this must be {form}, of {MOST[key]} at most; not {checks.shown(value)}")
    return value


def _symbol(key: Any, place: str) -> sp.Symbol:
    name = checks.name(key, place, _SYMBOL, "ASCII letters, digits and '_', with a letter first")
    if name in NAMES or keyword.iskeyword(name):
        raise ConfigError(f"{place}: {name!r} is a word of expressions; add a letter to it")
    if name == LOSS.name:
        raise ConfigError(f"{place}: {name!r} stands for the loss itself; choose another letter")
    return sp.Symbol(name)


def _input(key: Any, column: Any) -> Input:
    symbol = _symbol(key, "inputs")
    place = f"inputs.{key}"
    if key in DEFAULT:
        raise ConfigError(f"{place}: {key} is {DEFAULT[key].column} already; choose another symbol")
    column = checks.name(column, place, _COLUMN, "lower-case letters, digits and '_', or column=label")
    head, _, label = column.partition("=")
    part, _, kind = head.rpartition("_")
    if head in _PREDICTED:
        raise ConfigError(f"{place}: {head!r} is what laws predict, so none can read it; leave it out")
    if kind == "format" and not label:
        raise ConfigError(f"{place}: {head!r} holds names; read '{part}_bits', or one name as '{head}=int4'")
    if kind == "bits" and part not in PARTS:
        raise ConfigError(f"{place}: there is no part {part!r}; {nearest(part, PARTS)}")
    if label:
        return Input(symbol, column, f"whether {head} is {label}", default=0.0)
    default = _UNQUANTISED.get(kind) if part in PARTS else None
    positive = kind == "bits" or head in ("params", "tokens", "unique_tokens")
    return Input(symbol, column, f"{head} of each row", default, zero=not positive)


def _parameter(key: Any, table: Any, inputs: Collection[str]) -> Parameter:
    symbol = _symbol(key, "parameters")
    place = f"parameters.{key}"
    if key in inputs:
        raise ConfigError(f"{place}: {key} is an input; give one of them another name")
    low, high, ends = (checks.table(table, place, *_OF_PARAMETER)[word] for word in ("low", "high", "start"))
    if not isinstance(ends, (list, tuple)) or len(ends) != 2:
        raise ConfigError(f"{place}.start: this must be two numbers like [0.1, 5], not {checks.shown(ends)}")
    first, last = (checks.number(end, f"{place}.start") for end in ends)
    fixed = table.get("fixed", first)
    if not (low < high and low <= first <= last <= high and low <= fixed <= high):
        raise ConfigError(
            f"{place}: low must lie below high, and start and fixed between them, but they are {low:g}, "
            f"{high:g}, [{first:g}, {last:g}] and {fixed:g}"
        )
    return Parameter(
        symbol,
        float(low),
        float(high),
        (first, last),
        table.get("unit", ""),
        table.get("meaning", ""),
        float(fixed) if "fixed" in table else None,
    )


def _gap(gap: sp.Expr, inputs: Mapping[str, Input]) -> sp.Expr:
    """A gap is zero, exactly, where nothing was quantised after training."""
    read = {i.column: i.symbol for i in inputs.values() if i.symbol in gap.free_symbols}
    if "post_bits" in read:
        return only_quantized(read["post_bits"], gap)
    if any(column.startswith("post_format=") for column in read):
        return gap
    raise ConfigError("gap: it must read post_bits or one post_format, what quantising left; see [inputs]")
