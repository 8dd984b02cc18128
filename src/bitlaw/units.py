"""The one place that reads and writes quantities: "1e21 flops", "20M", "16 MB", "1.69B".

Prefixes are decimal (k, M, B or G, T, P); bytes also take Ki, Mi, Gi. A quantity is a positive finite
number: anything else is refused here, so that no later room has to ask again.
"""

from __future__ import annotations

import math
import re

from .errors import ConfigError

LARGEST = 1e60  # nobody means more than this, and the arithmetic of planning stays finite below it
_PREFIX = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_WORDS = {
    "flops": ("flops", "flop"),
    "tokens": ("tokens", "token", "tok"),
    "params": ("params", "param", "parameters"),
    "bytes": ("bytes", "byte", "B"),
}
_NUMBER = re.compile(r"^([0-9]+(?:[_,][0-9]{3})*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)\s*(.*)$")


def parse_quantity(value: str | int | float, unit: str) -> float:
    """Read a quantity of a unit (`flops`, `tokens`, `params` or `bytes`).

    Args:
        value: a number, or text such as "1e22", "20M", "8B params", "1.5e9 tokens", "16 MB".
        unit: which unit the number must have; other units are refused.

    Returns:
        The quantity in the bare unit.

    Raises:
        ConfigError: not a number, not positive, not finite, or of another unit.

    >>> parse_quantity("1e22 flops", "flops"), parse_quantity("8B", "params"), parse_quantity("16 MB", "bytes")
    (1e+22, 8000000000.0, 16000000.0)
    """
    example = {"flops": "1e21 flops", "tokens": "20B tokens", "params": "8B", "bytes": "16 MB"}[unit]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ConfigError(f"{value!r} is not a number of {unit}; write it like {example!r}")
    try:
        number = _parse_text(value.strip(), unit) if isinstance(value, str) else float(value)
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf
    shown = repr(value) if len(str(value)) < 50 else f"a number of {len(str(value))} digits"
    if number is None:
        raise ConfigError(f"cannot read {shown} as {unit}; write it like {example!r}")
    if not 0 < number < LARGEST:
        raise ConfigError(
            f"{unit} must be positive and below {LARGEST:g}, not {shown}; write it like {example!r}"
        )
    return number


def _parse_text(text: str, unit: str) -> float | None:
    match = _NUMBER.match(text) if text.isascii() else None
    if match is None:
        return None
    number, suffix = float(match[1].replace("_", "").replace(",", "")), match[2].strip()
    for word in (*_WORDS[unit], ""):
        if not suffix.lower().endswith(word.lower()) if word != "B" else not suffix.endswith("B"):
            continue
        prefix = suffix[: len(suffix) - len(word)].strip()
        scale = _PREFIX.get(prefix) or (_BINARY.get(prefix) if unit == "bytes" else None)
        if scale is not None:
            return number * scale
    return None


def format_quantity(value: float, unit: str = "") -> str:
    """Write a quantity with three significant digits and a prefix, or as a power of ten for flops.

    >>> format_quantity(1.69e9, "params"), format_quantity(1e22, "flops"), format_quantity(204_800, "tokens")
    ('1.69B params', '1e+22 flops', '205k tokens')
    >>> format_quantity(16e9, "bytes")
    '16 GB'
    """
    if unit == "bytes" and abs(value) >= 999.5:
        number = format_quantity(value)
        return f"{number[:-1]} {number[-1].replace('B', 'G')}B"
    tail = f" {unit}" if unit else ""
    if unit == "flops":
        return f"{value:.3g}{tail}"
    for scale, prefix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * scale:
            digits = value / scale
            return (f"{digits:.3g}" if abs(digits) < 999.5 else f"{digits:,.0f}") + prefix + tail
    return f"{value:.3g}{tail}"


def percent(level: float) -> str:
    """Write the level of an interval.

    >>> percent(0.9), percent(0.995)
    ('90%', '99.5%')
    """
    return f"{100 * level:.6g}%"
