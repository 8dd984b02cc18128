"""Number grids: the values that one stored number may take, before its scale.

Everything is data. A grid lists its values in rising order; its `peak` is the value that the largest magnitude
of a group is mapped to; its `bits` are what laws read, its `stored_bits` what a packed number takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

Array: TypeAlias = NDArray[np.float64]
#: What the topmost codes of a float stand for: nothing special (OCP MX FP4, FP6), one NaN in place of the largest
#: magnitude (FP8 E4M3), or a whole exponent of infinities and NaNs (IEEE 754, FP8 E5M2).
Reserved: TypeAlias = Literal["nothing", "nan", "exponent"]


@dataclass(frozen=True)
class Uniform:
    """Equally spaced values, one apart: low, low + 1, ..., high.

    Attributes:
        name: as `parse_format` reads it.
        low, high: ends of the grid.
        bits: nominal, as laws read them.
        shifted: whether a group has a zero point beside its step, so that the grid may lie anywhere.
    """

    name: str
    low: float
    high: float
    bits: float
    shifted: bool = False

    @property
    def peak(self) -> float:
        """The value that the largest magnitude of a group is mapped to."""
        return self.high

    @property
    def code_bits(self) -> int:
        """Bits of a code that fills bytes evenly: the least of 1, 2, 4 and 8 that hold the grid."""
        return next(bits for bits in (1, 2, 4, 8) if self.bits <= bits)

    @property
    def stored_bits(self) -> float:
        """Bits of a packed number; three levels go five to a byte."""
        return 8 / 5 if self.high - self.low == 2 else self.bits

    def values(self) -> Array:
        """All values in rising order.

        >>> integer(3).values()
        array([-4., -3., -2., -1.,  0.,  1.,  2.,  3.])
        """
        return self.low + np.arange(round(self.high - self.low) + 1, dtype=np.float64)


@dataclass(frozen=True)
class Float:
    """A sign, `exponent` bits and `mantissa` bits, with subnormals.

        value = (-1)^s 2^(e - bias) (1 + m / 2^mantissa),  and 2^(1 - bias) m / 2^mantissa where e = 0

    with bias 2^(exponent - 1) - 1 (IEEE 754; Micikevicius et al. 2022; OCP MX 1.0).

    >>> Float(4, 3, "nan").peak, Float(2, 1).values().tolist()[7:]
    (448.0, [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    """

    exponent: int
    mantissa: int
    reserved: Reserved = "nothing"

    @property
    def name(self) -> str:
        """As `parse_format` reads it."""
        return f"e{self.exponent}m{self.mantissa}"

    @property
    def bits(self) -> float:
        """Sign, exponent and mantissa."""
        return 1 + self.exponent + self.mantissa

    @property
    def stored_bits(self) -> float:
        """Bits of a packed number."""
        return self.bits

    @property
    def least_exponent(self) -> int:
        """Of two, in the smallest normal number."""
        return 2 - (1 << (self.exponent - 1))

    @property
    def peak(self) -> float:
        """The largest finite value."""
        e, m = divmod(self._codes - 1, 1 << self.mantissa)
        shift = max(e, 1) - 1 + self.least_exponent - self.mantissa
        return math.ldexp(((1 << self.mantissa) if e else 0) + m, shift)

    @property
    def _codes(self) -> int:
        """Of finite magnitudes, rising from that of zero."""
        reserved = {"nothing": 0, "nan": 1, "exponent": 1 << self.mantissa}[self.reserved]
        return (1 << (self.exponent + self.mantissa)) - reserved

    def values(self) -> Array:
        """All finite values in rising order; zero once."""
        magnitudes = self._magnitudes()
        return np.concatenate([-magnitudes[:0:-1], magnitudes])

    def _magnitudes(self) -> Array:
        code = np.arange(self._codes, dtype=np.int64)
        e, m = code >> self.mantissa, code & (2**self.mantissa - 1)
        fraction = np.where(e > 0, 2**self.mantissa + m, m).astype(np.float64)
        magnitudes: Array = np.ldexp(fraction, np.maximum(e, 1) - 1 + self.least_exponent - self.mantissa)
        return magnitudes


@dataclass(frozen=True)
class Codebook:
    """Values that follow no rule a processor knows; a number is stored as the place of its value in the list."""

    name: str
    levels: tuple[float, ...]

    @property
    def bits(self) -> float:
        """Of a place in the list."""
        return math.log2(len(self.levels))

    @property
    def stored_bits(self) -> float:
        """Bits of a packed number."""
        return math.ceil(self.bits)

    @property
    def peak(self) -> float:
        """The value that the largest magnitude of a group is mapped to."""
        return max(abs(v) for v in self.levels)

    def values(self) -> Array:
        """All values in rising order."""
        return np.array(self.levels)


@dataclass(frozen=True)
class Microscaled:
    """Blocks of numbers along a row that share one scale of few bits (OCP Microscaling 1.0; NVFP4).

    Attributes:
        name: as `parse_format` reads it.
        element: grid of the numbers.
        block: numbers that share a scale.
        scale: grid of the scales: `e8m0`, a power of two, or a float, with one more float32 scale for the tensor.
        unit: factor on the element's values: MXINT8 has integers over 64.
    """

    name: str
    element: Uniform | Float
    block: int
    scale: Literal["e8m0"] | Float
    unit: float = 1.0

    @property
    def bits(self) -> float:
        """Of the element: what laws read."""
        return self.element.bits

    @property
    def stored_bits(self) -> float:
        """Bits of a packed number without its scale."""
        return self.element.stored_bits

    @property
    def scale_bits(self) -> float:
        """Of the scale of a block."""
        return 8 if self.scale == "e8m0" else self.scale.bits

    @property
    def peak(self) -> float:
        """The largest value of an element."""
        return self.element.peak * self.unit

    @property
    def top_exponent(self) -> int:
        """Of two, in the largest value of an element: the scale of a block lies so far below its maximum."""
        return math.frexp(self.peak)[1] - 1

    def values(self) -> Array:
        """All values of an element in rising order."""
        return self.element.values() * self.unit


@dataclass(frozen=True)
class Native:
    """A float format that models are normally trained in; the laws count it as unquantised."""

    name: str
    bits: float

    @property
    def stored_bits(self) -> float:
        """Bits of a stored number."""
        return self.bits


Grid: TypeAlias = Uniform | Float | Codebook | Microscaled
Format: TypeAlias = Grid | Native


def integer(bits: int) -> Uniform:
    """Signed integers -2^(bits - 1) to 2^(bits - 1) - 1 with a scale and no zero point.

    The scale maps the largest magnitude of the group to the highest level, so the lowest is never reached and
    2^bits - 1 levels are in use (Kumar et al. 2024, appendix D.1).

    Raises:
        ConfigError: fewer than 2 bits or more than 16.

    >>> integer(4).low, integer(4).peak, integer(4).name
    (-8, 7, 'int4')
    """
    if bits == 1:
        raise ConfigError(
            "int formats have 2 to 16 bits: int1 would have the levels -1 and 0, and no scale maps the largest "
            "magnitude to 0; one bit is 'binary' (-1/2 and 1/2) or 'uint1' (with a zero point)"
        )
    _check("int", bits, 2)
    return Uniform(f"int{bits}", -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, bits)


def unsigned(bits: int) -> Uniform:
    """Integers 0 to 2^bits - 1 with a scale and a zero point for each group, known as asymmetric.

    Raises:
        ConfigError: fewer than 1 bit or more than 16.
    """
    _check("uint", bits, 1)
    return Uniform(f"uint{bits}", 0, 2**bits - 1, bits, shifted=True)


def midrise(bits: int) -> Uniform:
    """Half-integers, +-1/2 to +-(2^bits - 1) / 2: symmetric with all 2^bits levels, and without a zero (QuEST).

    Raises:
        ConfigError: fewer than 1 bit or more than 16.
    """
    _check("midrise", bits, 1)
    half = (2**bits - 1) / 2
    return Uniform(f"midrise{bits}", -half, half, bits)


def floating(exponent: int, mantissa: int) -> Float:
    """A float of 1 to 7 exponent bits and up to 16 bits in all; E4M3 and E5M2 as FP8 defines them.

    Raises:
        ConfigError: other sizes.
    """
    if not (1 <= exponent <= 7 and mantissa >= 0 and 1 + exponent + mantissa <= 16):
        raise ConfigError(
            f"e{exponent}m{mantissa} is out of range: floats with a scale have 1 to 7 exponent bits and at most 16 "
            "bits, sign included; try 'e4m3', or 'bf16' for no quantisation"
        )
    if exponent == 1 and mantissa == 0:
        raise ConfigError("e1m0 has the values -2, 0 and 2 only; that is 'ternary'")
    special: dict[tuple[int, int], Reserved] = {(4, 3): "nan", (5, 2): "exponent"}
    return Float(exponent, mantissa, special.get((exponent, mantissa), "nothing"))


def _check(kind: str, bits: int, least: int) -> None:
    if not least <= bits <= 16:
        raise ConfigError(
            f"{kind} formats have {least} to 16 bits, not {bits}; try '{kind}4', or 'bf16' for no quantisation"
        )
