"""Values from a file that anybody may have written: taken as they are, or refused; never turned into something else."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import regular

LONGEST = 10_000  # characters of a text


def read_json(path: Path, what: str, mark: str, most: int, format_: int, cure: str) -> dict[str, Any]:
    """Read a file that says under a mark which format it is in.

    Raises:
        DataError: no file, too large, no JSON, another format, or text with control characters.
    """
    try:
        raw = regular(path, most)
        if len(raw) > most:
            raise DataError(f"{path} is larger than a {what} can be; {cure}")
        data = json.loads(raw.decode("utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; {cure}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON, so it is not a {what} ({str(error)[:80]}); {cure}") from error
    if not isinstance(data, dict) or mark not in data:
        raise DataError(f"{path} is not a {what}; {cure}")
    if data[mark] != format_:
        raise DataError(
            f"{path} was written by another version of bitlaw (format {repr(data[mark])[:40]}); {cure}"
        )
    return data


def number(value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number within bounds.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    if not low <= value <= high:
        raise ValueError(f"{value!r} does not lie between {low:g} and {high:g}")
    return float(value)


def share(value: Any) -> float:
    """A number strictly between 0 and 1.

    Raises:
        ValueError: anything else.
    """
    if not 0 < number(value) < 1:
        raise ValueError(f"{value!r} does not lie between 0 and 1")
    return float(value)


def number_or_none(value: Any) -> float:
    """A finite number; null stands for NaN.

    Raises:
        ValueError: anything else.
    """
    return math.nan if value is None else number(value)


def whole(value: Any) -> int:
    """An integer of zero or more.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a whole number")
    return value


def truth(value: Any) -> bool:
    """True or false.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def text(value: Any, choices: Collection[str] = ()) -> str:
    """Text that can be printed, of a few words where they are given: no characters that move a terminal's cursor.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"{value!r} is not printable text")
    if len(value) > LONGEST:
        raise ValueError(f"a text is longer than {LONGEST:,} characters")
    if choices and value not in choices:
        raise ValueError(f"{value!r} is none of {', '.join(choices)}")
    return value


def interval(low: Any, high: Any) -> tuple[float, float]:
    """Two numbers in rising order.

    Raises:
        ValueError: anything else.
    """
    if not number(low) <= number(high):
        raise ValueError(f"{low!r} to {high!r} is no interval")
    return float(low), float(high)


def reached(name: str, low: Any, high: Any) -> tuple[float, float]:
    """The range of a column among the rows; logarithms are taken of sizes and tokens.

    Raises:
        ValueError: anything else.
    """
    if name in ("params", "tokens", "tokens_per_param", "params_tokens"):
        low, high = number(low, 1e-30, 1e60), number(high, 1e-30, 1e60)
    return interval(low, high)
