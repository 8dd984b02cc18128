"""Which of their columns is which of ours, in which unit: what a person says, in words or in a file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ..errors import ConfigError, nearest
from ..files import read_toml
from .check import check_column
from .convert import QUANTITIES, check_unit, convert
from .schema import COLUMN

MAX_BYTES = 256_000
_EXAMPLE = '--map "params=size in B"'


@dataclass(frozen=True)
class Rule:
    """One of our columns, and what it is made of.

    Attributes:
        ours: our column.
        theirs: the source's column; empty for a constant.
        unit: what theirs is in, see `convert`; empty where nothing changes.
        values: our text for each of theirs, in place of a unit.
        constant: the same in every row, where there is no column.
        minus: a column of theirs that is taken off, for a gap.
        why: how it came about; `guess: ...` must be confirmed.
        exact: whether `theirs` is a name to the letter; else it may end in ` in UNIT`.
    """

    ours: str
    theirs: str = ""
    unit: str = ""
    values: Mapping[str, str] | None = None
    constant: str = ""
    minus: str = ""
    why: str = "given"
    exact: bool = False

    @property
    def guessed(self) -> bool:
        """Whether a person must confirm it."""
        return self.why.startswith("guess")

    def __str__(self) -> str:
        less = f" minus {self.minus}" if self.minus else ""
        return f"{self.ours}={self.theirs}{less}" + (f" in {self.unit}" if self.unit else "")


@dataclass(frozen=True)
class Said:
    """What a person said: rules, constants, columns to leave.

    Attributes:
        rules: given ones, constants among them.
        refused: our columns that shall be empty, whatever may be guessed.
        ignored: their columns that shall not be asked about.
    """

    rules: tuple[Rule, ...] = ()
    refused: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()


def read_mapping(
    columns: Mapping[str, Any] | Iterable[str] | str | os.PathLike[str] | None = None,
    constants: Mapping[str, Any] | Iterable[str] = (),
    ignore: Iterable[str] = (),
) -> Said:
    """Read what a person says about columns.

    Args:
        columns: `{"params": "size in B"}`, or texts like `params=size in B`, or the name of a TOML file with tables
            `[columns]` and `[constants]` and a list `ignore`; texts may name such files too. An empty right side
            leaves our column empty; a gap may be `theirs minus another of theirs`. In a file a column may also be
            `{ column = "bits", values = { "4" = "int4" } }` or `{ column = "size in inches", unit = "1e6" }`.
        constants: `{"count": "total"}`, or texts like `count=total`: the same in every row.
        ignore: their columns that decide nothing.

    Raises:
        ConfigError: it cannot mean anything.
    """
    said = [columns] if isinstance(columns, (str, os.PathLike)) else columns or ()
    pairs: list[tuple[str, Any]] = list(said.items()) if isinstance(said, Mapping) else []
    fixed = list(constants.items() if isinstance(constants, Mapping) else map(_pair, constants))
    ignored = set(ignore)
    for text in () if isinstance(said, Mapping) else said:
        if str(text).endswith(".toml") and "=" not in Path(text).name:
            file = _file(text)
            pairs += file.get("columns", {}).items()
            fixed = [*file.get("constants", {}).items(), *fixed]
            names = file.get("ignore", [])
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ConfigError(f"{text}: ignore is a list of names of columns, like ['notes']")
            ignored |= set(names)
        else:
            pairs.append(_pair(str(text)))
    rules = {ours: _rule(_known(ours), value) for ours, value in pairs}  # what is said last counts
    for ours, value in fixed:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if rules.get(_known(ours)):
            raise ConfigError(f"{ours} is given a column and a constant; leave one out")
        rules[ours] = Rule(ours, constant=_constant(ours, text), why="constant")
    given = tuple(rule for rule in rules.values() if rule is not None)
    return Said(given, frozenset(ours for ours, rule in rules.items() if rule is None), frozenset(ignored))


def _pair(text: str) -> tuple[str, str]:
    ours, sign, theirs = text.partition("=")
    if not sign:
        raise ConfigError(
            f"cannot read {text[:80]!r}; write OURS=THEIRS, like {_EXAMPLE}, or name a .toml file"
        )
    return ours.strip(), theirs.strip()


def _known(ours: str) -> str:
    if ours not in COLUMN:
        raise ConfigError(
            f"there is no column {ours[:80]!r} of ours; {nearest(ours[:80], COLUMN)}; "
            "write OURS=THEIRS; `bitlaw runs schema` lists ours"
        )
    return ours


def _rule(ours: str, value: Any) -> Rule | None:
    if isinstance(value, str):
        return Rule(ours, value) if value else None  # ` in UNIT` is split off when the columns are known
    if (
        isinstance(value, Mapping)
        and isinstance(value.get("column"), str)
        and set(value) <= {"column", "minus", "unit", "values"}
        and isinstance(value.get("minus", ""), str)
    ):
        values = value.get("values")
        if isinstance(values, Mapping):
            values = {str(theirs): meant for theirs, meant in values.items()}
        if values is not None and not (
            isinstance(values, dict) and all(isinstance(v, str) for v in values.values())
        ):
            raise ConfigError(f"the values of {ours} must be texts, like {{ '4' = 'int4' }}")
        unit = str(value.get("unit", ""))
        if unit and values is not None:
            raise ConfigError(f"{ours} has a unit and values; leave one out")
        minus = value.get("minus", "")
        check_minus(ours, minus, values is not None)
        if unit:
            check_unit(unit, "loss" if minus else ours)
        return Rule(ours, value["column"], unit, values, minus=minus, exact=True)
    raise ConfigError(
        f"cannot read what {ours} is; write {ours} = 'their column in UNIT', or "
        f"{ours} = {{ column = 'theirs', unit = 'B' }}"
    )


def check_minus(ours: str, minus: str, listed: bool = False) -> None:
    """Refuse a difference where there is none.

    Raises:
        ConfigError: it is of no gap, or of listed values.
    """
    if minus and (ours != "gap" or listed):
        raise ConfigError(
            f"only a gap is one column minus another, not {ours}{' of listed values' if listed else ''}"
        )


def _constant(ours: str, text: str) -> str:
    """A value for all rows, checked; quantities may be written like 8B."""
    cells, column = pl.Series([text], dtype=pl.String), COLUMN[ours]
    flaws = check_column(column, cells)[1]
    if flaws and column.unit in QUANTITIES:
        turned, other = convert(cells, ours, "quantity")
        if not other:
            return f"{turned[0]:.17g}"
    if flaws or not text.strip():
        raise ConfigError(f"--set {ours}={text[:60]}: {flaws[0].reason if flaws else 'a value is missing'}")
    return text


def _file(path: str | os.PathLike[str]) -> dict[str, Any]:
    found = read_toml(path, MAX_BYTES, "write one, or use --save-map to have one written")
    for key, kind in (("columns", dict), ("constants", dict), ("ignore", list)):
        if not isinstance(found.get(key, kind()), kind):
            raise ConfigError(f"{path}: {key} must be a {'table' if kind is dict else 'list'}")
    for key in found:
        if key not in ("columns", "constants", "ignore"):
            raise ConfigError(
                f"{path}: unknown key {key[:80]!r}; {nearest(key[:80], ('columns', 'constants', 'ignore'))}"
            )
    return found


def as_toml(rules: Iterable[Rule], ignored: Iterable[str] = (), refused: Iterable[str] = ()) -> str:
    """Rules as a file that `read_mapping` reads.

    >>> print(as_toml([Rule("params", "size", "B"), Rule("count", constant="total")]), end="")
    ignore = []
    <BLANKLINE>
    [columns]
    params = { column = "size", unit = "B" }
    <BLANKLINE>
    [constants]
    count = "total"
    """
    rules = list(rules)
    lines = [f"ignore = [{', '.join(map(quoted, sorted(ignored)))}]", "", "[columns]"]
    for rule in (r for r in rules if r.theirs):
        extra = f", unit = {quoted(rule.unit)}" if rule.unit else ""
        extra += f", minus = {quoted(rule.minus)}" if rule.minus else ""
        if rule.values is not None:
            pairs = ", ".join(f"{quoted(k)} = {quoted(v)}" for k, v in rule.values.items())
            extra = f", values = {{ {pairs} }}"
        lines.append(f"{rule.ours} = {{ column = {quoted(rule.theirs)}{extra} }}")
    lines += [f'{ours} = ""' for ours in sorted(refused)]  # to stay empty, whatever may be guessed
    lines += ["", "[constants]", *(f"{r.ours} = {quoted(r.constant)}" for r in rules if not r.theirs)]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A TOML string: a character that could end it or the line is written by its number."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'
