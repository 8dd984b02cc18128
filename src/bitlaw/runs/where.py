"""Which rows of a table are meant: conditions written as text, read strictly, and never run as code.

A condition is a column, a sign and a value: `params >= 30M`, `w_format in int4,int8`, `corpus contains wiki`. Numbers
may also be compared with another column, or a multiple of it: `tokens >= 20*params`.
The word `none` stands for an empty cell. What holds commas, or is itself the word none, is put in double quotes.
An empty cell is what the schema says that it means: `status = ok` holds of it, and so does `w_format = bf16`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import polars as pl

from ..errors import ConfigError, DataError, nearest
from ..formats import parse_format
from ..units import parse_quantity
from .schema import COLUMN, Column
from .table import Runs

SIGNS = ("<=", ">=", "!=", "=", "<", ">", "not in", "in", "contains")
ORDER = ("<", "<=", ">", ">=")
ANY = "any"  # in place of a column: every column of text
MAX_TEXT = 65_536
_SHAPE = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=|!=|=|<|>|not\s+in\b|in\b|contains\b)(.*)", re.DOTALL)
_ITEM = re.compile(r'\s*+("(?:[^"\\]|\\.)*+"|[^",]++)\s*+(,|\Z)', re.DOTALL)  # nothing is tried twice
_COLUMN = re.compile(r"(?:([^*\s]+)\s*\*\s*)?([A-Za-z_]\w*)")  # 20*params
_WRITE = 'write it like "params>=1e6" or "w_format in int4,int8"'
_UNITS = {"parameters": "params", "tokens": "tokens", "flops": "flops", "bytes": "bytes"}
_MEANT = {"status": "ok", "unit": "tokens", "objective": "cross-entropy"}

Value = str | float | None


@dataclass(frozen=True)
class Condition:
    """One condition on a column.

    Attributes:
        column: its name, or `any` for every column of text.
        sign: one of `SIGNS`.
        values: what it is compared with, one for all signs but `in` and `not in`; None is an empty cell.
        other: a column that it is compared with instead, times the one value.
    """

    column: str
    sign: str
    values: tuple[Value, ...]
    other: str = ""

    def __str__(self) -> str:
        if self.other:
            factor = "" if self.values[0] == 1.0 else f"{_written(self.values[0])}*"
            return f"{self.column} {self.sign} {factor}{self.other}"
        return f"{self.column} {self.sign} {','.join(map(_written, self.values))}"

    def expression(self) -> pl.Expr:
        """What holds of the rows that are meant; it is true or false, never null."""
        if self.column == ANY:
            return pl.any_horizontal(
                _contains(pl.col(c.name), self.values[0]) for c in COLUMN.values() if _is_text(c)
            )
        cell, empty = pl.col(self.column), empty_means(self.column)
        meant = cell if empty is None else cell.fill_null(empty)
        if self.sign == "contains":
            return _contains(meant, self.values[0])
        if self.sign in ORDER or self.other:
            value = pl.col(self.other).cast(pl.Float64) * self.values[0] if self.other else self.values[0]
            compared = {"<": cell < value, "<=": cell <= value, ">": cell > value, ">=": cell >= value}
            if self.sign == "!=":  # as with a value, an empty cell is not the same
                return ~(cell == value).fill_null(False)
            compared["="] = cell == value
            return compared[self.sign].fill_null(False)
        if COLUMN[self.column].kind in ("integer", "number"):
            meant = meant.cast(pl.Float64)
        given = [value for value in self.values if value is not None]
        found = meant.is_in(given).fill_null(False) if given else pl.lit(False)
        if None in self.values:
            found = found | cell.is_null()
        return found if self.sign in ("=", "in") else ~found


def empty_means(column: str) -> str | None:
    """What an empty cell of a column says; None where it says nothing.

    >>> empty_means("w_format"), empty_means("post_format")
    ('bf16', None)
    """
    trained = COLUMN[column].kind == "format" and not column.startswith("post")
    return "bf16" if trained else _MEANT.get(column)


def parse_where(text: str) -> Condition:
    """Read one condition.

    Args:
        text: like `params >= 30M`.

    Raises:
        ConfigError: an unknown column or sign, or a value that the column cannot have.

    >>> parse_where("w_format in int4, e4m3"), str(parse_where("params>=30M"))
    (Condition(column='w_format', sign='in', values=('int4', 'e4m3'), other=''), 'params >= 3e+07')
    """
    found = _SHAPE.fullmatch(text) if len(text) <= MAX_TEXT else None
    if found is None:
        raise ConfigError(f"cannot read the condition {text[:60]!r}; {_WRITE}")
    name, sign, rest = found[1], " ".join(found[2].split()), found[3].strip()
    if name != ANY and name not in COLUMN:
        raise ConfigError(f"a condition is on an unknown column {name!r}; {nearest(name, COLUMN)}")
    column = COLUMN.get(name)
    if (column is None or not _is_text(column)) and sign == "contains" and name != ANY:
        raise ConfigError(f"{name} holds numbers, which contain nothing; compare it with < <= > >= or =")
    if name == ANY and sign != "contains":
        raise ConfigError(f"`any` is for text that some column contains, not for {sign!r}; name a column")
    if column is not None and _is_text(column) and sign in ORDER:
        raise ConfigError(f"{name} holds text, which has no order; use = != in, not in, or contains")
    if column is not None and not _is_text(column) and sign not in ("in", "not in"):
        factor, other = _column(rest)
        if other:
            return Condition(name, sign, (factor,), other)
    words = _items(rest, text) if sign in ("in", "not in") else [_one(rest, text)]
    values = tuple(_value(column, sign, word, quoted) for word, quoted in words)
    if None in values and sign in (*ORDER, "contains"):
        raise ConfigError(f"an empty cell is compared with = or !=, not with {sign!r}, in {text[:60]!r}")
    return Condition(name, sign, values)


def where(runs: Runs, conditions: Iterable[str | Condition]) -> Runs:
    """The rows of which all conditions hold.

    Args:
        runs: the table.
        conditions: read already, or as text.

    Raises:
        ConfigError: a condition that cannot be read.
        DataError: no row is left; which condition left none is said.

    >>> runs = Runs.from_rows([{"params": n, "tokens": 2e7, "loss": 3.1} for n in (1e6, 2e6, 4e6)])
    >>> len(where(runs, ["params >= 2M", "w_format = bf16"]))
    2
    """
    read = [parse_where(c) if isinstance(c, str) else c for c in conditions]
    left = matching(runs, read)
    if read and not len(left):
        alone = [str(c) for c in read if not len(matching(runs, [c]))]
        why = f"none has {alone[0][:80]}" if alone else "none meets all of " + "; ".join(map(str, read))[:200]
        raise DataError(f"no row is left of {len(runs)}: {why}; loosen --where")
    return left


def matching(runs: Runs, conditions: Sequence[Condition]) -> Runs:
    """The same of conditions that are read, where it is no error that no row is left."""
    holds = reduce(lambda a, b: a & b, (c.expression() for c in conditions), pl.lit(True))
    return runs.filter(holds) if conditions else runs


def _is_text(column: Column) -> bool:
    return column.kind in ("text", "format")


def _contains(cell: pl.Expr, value: Value) -> pl.Expr:
    """Whether a cell contains a text, in small or capital letters."""
    wanted = str(value).lower()
    return cell.str.to_lowercase().str.contains(wanted, literal=True).fill_null(False)


def _column(rest: str) -> tuple[float, str]:
    """A column of numbers that is named in place of a value, and what it is multiplied with; else no name."""
    found = _COLUMN.fullmatch(rest)
    if found is None or found[2] not in COLUMN:
        return 1.0, ""
    if _is_text(COLUMN[found[2]]):
        raise ConfigError(f"{found[2]} holds text, with which no number is compared")
    factor = 1.0 if found[1] is None else _value(COLUMN["gap"], "=", found[1], False)
    if not isinstance(factor, float):
        raise ConfigError(f"{rest[:60]!r} has no number before the column; write it like 20*params")
    return factor, found[2]


def _one(rest: str, text: str) -> tuple[str, bool]:
    if rest.startswith('"'):
        items = _items(rest, text)
        if len(items) == 1:
            return items[0]
        raise ConfigError(f"a comparison takes one value in {text[:60]!r}; for several use in, or not in")
    if not rest:
        raise ConfigError(f"the condition {text[:60]!r} has no value; {_WRITE}, and none for empty cells")
    return rest, False


def _items(rest: str, text: str) -> list[tuple[str, bool]]:
    """The values of a list, and whether each was quoted."""
    items, place = [], 0
    while place <= len(rest):
        found = _ITEM.match(rest, place)
        if found is None:
            raise ConfigError(f"cannot read the values of {text[:60]!r}; put commas between them, {_WRITE}")
        quoted = found[1].startswith('"')
        try:
            word = json.loads(found[1]) if quoted else found[1].strip()
            word.encode()  # half of a pair of surrogates is no text
            items.append((word, quoted))
        except ValueError:
            raise ConfigError(f"cannot read {found[1][:40]} in a condition; quote it as JSON does") from None
        place = found.end()
        if not found[2]:
            return items
    return items


def _value(column: Column | None, sign: str, word: str, quoted: bool) -> Value:
    """A value of a column, checked."""
    if word == "none" and not quoted:
        return None
    if column is None or sign == "contains":
        return word
    if column.kind == "format":
        if problem := column.problem(word):
            raise ConfigError(problem)
        return parse_format(word).name
    if column.kind == "text":
        if column.choices and word not in column.choices:
            raise ConfigError(f"{column.name} is never {word!r}; {nearest(word, column.choices)}")
        return word
    if column.unit in _UNITS and re.search(r"[A-Za-z]$", word):
        return parse_quantity(word, _UNITS[column.unit])
    try:
        number = float(word) if word.isascii() and "_" not in word else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{word[:40]!r} is not a number that {column.name} can be compared with")
    return number


def _written(value: Value) -> str:
    """A value as a condition holds it: plain where that reads back as the same."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    plain = re.fullmatch(r"[\w.:/+-]+(?: [\w.:/+-]+)*", value, re.ASCII) and value != "none"
    return value if plain else json.dumps(value)
