"""Formats as a table, for people and for pages: what each is, what it costs, and how well it holds Gaussian data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .catalogue import FAMILIES, KUMAR_FLOATS, NAMED, Status, parse_format
from .gaussian import effective_bits, relative_error
from .grid import Native
from .recipe import Recipe

SHAPE = (4096, 4096)  # of the weight that bits are counted for, one scale an output
_SIZES = {
    "int4": ("int2", "int3", "int4", "int5", "int6", "int8"),
    "uint4": ("uint1", "uint2", "uint4", "uint8"),
    "e4m3": ("e4m3", "e5m2", "e2m3", "e2m1", *KUMAR_FLOATS.values()),
    "midrise2": ("midrise1", "midrise2", "midrise3", "midrise4"),
}


@dataclass(frozen=True)
class Line:
    """One format of the list.

    Attributes:
        name: as `parse_format` reads it.
        bits: nominal, as laws read them.
        bpw: of a packed 4096 x 4096 weight, scales included.
        error: mean squared error on N(0, 1) at the best scale; of blocks, with their own.
        effective: log_{1/4} of it.
        status: `stable`, or `experimental`: its numbers may still change.
        meaning: in words.
        source: where it is defined.
    """

    name: str
    bits: float
    bpw: float
    error: float
    effective: float
    status: Status
    meaning: str
    source: str


def listing() -> Iterator[Line]:
    """Yield the formats with names of their own, and of each family some members.

    >>> next(line for line in listing() if line.name == "nvfp4").effective > 3.3
    True
    """
    for family in FAMILIES:
        for name in dict.fromkeys(_SIZES[family.example]):
            yield _line(name, family.status, family.meaning, family.source)
    for name, entry in NAMED.items():
        yield _line(name, entry.status, entry.meaning, entry.source)


def _line(name: str, status: Status, meaning: str, source: str) -> Line:
    fmt = parse_format(name)
    bpw = Recipe.parse(name, "channel").bits_per_weight(SHAPE)
    effective = fmt.bits if isinstance(fmt, Native) else effective_bits(fmt)
    return Line(name, fmt.bits, bpw, relative_error(fmt), effective, status, meaning, source)
