"""Checks of what strangers give, in files or as arguments; each error names the place and shows the value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError, nearest

LARGEST = 1e100
MAX_TEXT = 300


def table(value: Any, place: str, needed: Mapping[str, str], other: Mapping[str, str]) -> Mapping[str, Any]:
    """Check a table's keys, which are mapped to what they hold: `number`, `text` or anything else.

    Raises:
        ConfigError: not a table, an unknown key, a missing one, or a value of the wrong kind.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{place}: this must be a table, not {shown(value)}")
    known = {**needed, **other}
    for key, item in value.items():
        if not isinstance(key, str) or key not in known:
            raise ConfigError(f"{place}: unknown key {shown(key)}; {nearest(str(key)[:60], known)}")
        if known[key] == "number":
            number(item, f"{place}.{key}")
        if known[key] == "text":
            text(item, f"{place}.{key}")
    for key in needed:
        if key not in value:
            raise ConfigError(f"{place}: {key!r} is missing")
    return value


def name(value: Any, place: str, pattern: re.Pattern[str], words: str) -> str:
    """Check a name.

    Raises:
        ConfigError: it does not match the pattern, which `words` describes.
    """
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ConfigError(f"{place}: {shown(value)} is no name; names are short, and made of {words}")
    return value


def number(value: Any, place: str) -> float:
    """Check a number; True is none.

    Raises:
        ConfigError: something else, or one that is not finite or beyond 1e100.
    """
    if type(value) not in (int, float) or not abs(value) <= LARGEST:
        raise ConfigError(
            f"{place}: this must be a number, of {LARGEST:g} at most, as 0.5 is; not {shown(value)}"
        )
    return float(value)


def text(value: Any, place: str) -> str:
    """Check text that will be printed: control characters could rewrite a terminal.

    Raises:
        ConfigError: something else, or text that is too long or cannot be printed.
    """
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        raise ConfigError(
            f"{place}: this must be printable text of {MAX_TEXT} characters at most, not {shown(value)}"
        )
    return value


def shown(value: Any) -> str:
    """A value as an error shows it: short, and in ASCII."""
    if isinstance(value, (list, tuple, Mapping)) or (isinstance(value, int) and abs(value) > LARGEST):
        return f"a{'n' * isinstance(value, int)} {type(value).__name__}"
    short = ascii(value[:60] if isinstance(value, str) else value)
    return short if len(short) <= 60 else short[:57] + "..."


def positive(**values: ArrayLike) -> list[NDArray[np.float64]]:
    """Read arguments as arrays of positive numbers, in their order.

    Raises:
        ConfigError: one that is no number, not finite, or not positive.
    """
    return [numbers(name, value, above=0.0) for name, value in values.items()]


def numbers(name: str, value: ArrayLike, above: float | None = None) -> NDArray[np.float64]:
    """Read an argument as an array of finite numbers, zero or more, or `above` a bound.

    Raises:
        ConfigError: one that is no number, not finite, or too small.
    """
    given = array(name, value)
    inside = np.isfinite(given) & (given >= 0 if above is None else given > above)
    if not inside.all():
        limit = "zero or more" if above is None else f"above {above:g}" if above else "positive"
        raise ConfigError(f"{name} must be {limit}, and finite, not {given[~inside].flat[0]:g}")
    return given


def array(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """Read an argument as an array of numbers.

    Raises:
        ConfigError: one that is no number.
    """
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} must be a number or an array of them, not {shown(value)}; write 8B as 8e9"
        ) from error


def constants(given: Mapping[str, float], *names: str) -> list[float]:
    """Read a law's constants by name.

    Raises:
        ConfigError: one is missing: these are constants of another law.
    """
    if not isinstance(given, Mapping) or (missing := [name for name in names if name not in given]):
        lack = ", ".join(names if not isinstance(given, Mapping) else missing)
        raise ConfigError(f"these constants lack {lack}; give those of the law that this function is of")
    return [float(given[name]) for name in names]
