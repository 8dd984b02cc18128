"""Integers of 2 to 16 bits with a symmetric absmax scale, and the native floats that count as unquantised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

Granularity: TypeAlias = Literal["tensor", "channel"]

#: The bits that laws read for an unquantised part. The laws want infinity, whose derivatives are NaN;
#: at a million bits `exp(-P / gamma)` underflows to exactly zero for every gamma below a thousand, and so
#: does its derivative.
UNQUANTIZED = 1e6


@dataclass(frozen=True)
class Integer:
    """A signed integer grid, symmetric around zero: value = level / scale.

    The scale maps the largest magnitude of the group to `q_max`, so the lowest level `q_min` is never
    reached and 2^bits - 1 levels are in use (Kumar et al. 2024, appendix D.1).

    >>> Integer(4).q_min, Integer(4).q_max, Integer(4).name
    (-8, 7, 'int4')
    """

    bits: int

    def __post_init__(self) -> None:
        if not isinstance(self.bits, int) or isinstance(self.bits, bool) or not 2 <= self.bits <= 16:
            raise ConfigError(
                f"integer formats have 2 to 16 bits, not {self.bits!r}; try 'int4', or 'bf16' for no quantisation"
            )

    @property
    def name(self) -> str:
        """The name that `parse_format` reads."""
        return f"int{self.bits}"

    @property
    def q_max(self) -> int:
        """The highest level, to which the absolute maximum is mapped."""
        return int(2 ** (self.bits - 1) - 1)

    @property
    def q_min(self) -> int:
        """The lowest level of the two's complement grid."""
        return int(-(2 ** (self.bits - 1)))

    def levels(self) -> NDArray[np.float64]:
        """All levels in rising order; a value is a level divided by the scale of its group."""
        return np.arange(self.q_min, self.q_max + 1, dtype=np.float64)


@dataclass(frozen=True)
class Native:
    """A float format that models are normally trained in; the laws count it as unquantised."""

    name: str
    bits: int


Format: TypeAlias = Integer | Native

_NATIVE = {f.name: f for f in (Native("bf16", 16), Native("fp16", 16), Native("fp32", 32))}


def parse_format(name: str | int | Format) -> Format:
    """Read a format: "int2" to "int16", "bf16", "fp16", "fp32"; a bare number of bits means an integer.

    Raises:
        ConfigError: an unknown name or an impossible number of bits.

    >>> parse_format("int4"), parse_format(4) == parse_format("4"), parse_format("bf16").name
    (Integer(bits=4), True, 'bf16')
    """
    if isinstance(name, (Integer, Native)):
        return name
    if isinstance(name, int) and not isinstance(name, bool):
        return Integer(name)
    if isinstance(name, str):
        text = name.strip().lower()
        if text in _NATIVE:
            return _NATIVE[text]
        digits = text.removeprefix("int")
        if digits.isascii() and digits.isdigit() and len(digits) < 6:
            return Integer(int(digits))
    raise ConfigError(f"unknown format {name!r}; known: int2 to int16, {', '.join(_NATIVE)}")


def law_bits(fmt: Format) -> float:
    """The bits that a law reads for a format: its own for integers, `UNQUANTIZED` for native floats.

    >>> law_bits(Integer(4)), law_bits(parse_format("bf16")) == UNQUANTIZED
    (4.0, True)
    """
    return float(fmt.bits) if isinstance(fmt, Integer) else UNQUANTIZED


def bits_per_weight(
    fmt: Format, shape: tuple[int, int], granularity: Granularity = "channel", scale_bits: int = 16
) -> float:
    """Effective bits per weight of an (outputs, inputs) matrix, its scales included.

    Args:
        fmt: the number format.
        shape: (outputs, inputs); a channel is one output.
        granularity: one scale per `tensor` or per output `channel`.
        scale_bits: bits that one scale is stored in.

    >>> bits_per_weight(Integer(4), (64, 128)), bits_per_weight(Integer(4), (64, 128), "tensor")
    (4.125, 4.001953125)
    """
    if not isinstance(fmt, Integer):
        return float(fmt.bits)
    outputs, inputs = shape
    scales = outputs if granularity == "channel" else 1
    return fmt.bits + scale_bits * scales / (outputs * inputs)
