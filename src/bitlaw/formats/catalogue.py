"""Formats by name: families that any number of bits makes, and the ones with names of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..errors import ConfigError, nearest
from .grid import Codebook, Float, Format, Microscaled, Native, Uniform, floating, integer, midrise, unsigned

Status: TypeAlias = Literal["stable", "experimental"]

#: The bits that laws read for an unquantised part. The laws want infinity, whose derivatives are NaN;
#: at a million bits `exp(-P / gamma)` underflows to exactly zero for every gamma below a thousand, and so
#: does its derivative.
UNQUANTIZED = 1e6


@dataclass(frozen=True)
class Entry:
    """A format in the list: what it is for, where it is from, and whether its numbers may still change."""

    format: Format
    meaning: str
    source: str
    status: Status = "stable"


NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
_MX = "OCP Microscaling Formats 1.0 (2023)"
NAMED: dict[str, Entry] = {
    entry.format.name: entry
    for entry in (
        Entry(Native("fp32", 32), "single precision", "IEEE 754"),
        Entry(
            Native("bf16", 16), "what models are trained in; unquantised", "Kalamkar et al. 2019, 1905.12322"
        ),
        Entry(Native("fp16", 16), "half precision; unquantised", "IEEE 754"),
        Entry(Uniform("ternary", -1, 1, 1.58), "-1, 0, 1", "Ma et al. 2024, 2402.17764"),
        Entry(Uniform("binary", -0.5, 0.5, 1), "-1/2, 1/2", "Wang et al. 2023, 2310.11453"),
        Entry(
            Codebook("nf4", NF4),
            "16 quantiles of normal data; `nf4 group64` is QLoRA's, before its scales are quantised",
            "Dettmers et al. 2023, 2305.14314, appendix E",
        ),
        Entry(Microscaled("mxfp8_e4m3", floating(4, 3), 32, "e8m0"), "blocks of 32 E4M3", _MX),
        Entry(Microscaled("mxfp8_e5m2", floating(5, 2), 32, "e8m0"), "blocks of 32 E5M2", _MX),
        Entry(Microscaled("mxfp6_e2m3", floating(2, 3), 32, "e8m0"), "blocks of 32 E2M3", _MX),
        Entry(Microscaled("mxfp6_e3m2", floating(3, 2), 32, "e8m0"), "blocks of 32 E3M2", _MX),
        Entry(Microscaled("mxfp4", floating(2, 1), 32, "e8m0"), "blocks of 32 E2M1", _MX),
        Entry(Microscaled("mxint8", integer(8), 32, "e8m0", 1 / 64), "blocks of 32 integers over 64", _MX),
        Entry(
            Microscaled("nvfp4", floating(2, 1), 16, floating(4, 3)),
            "blocks of 16 E2M1, E4M3 scales, one scale a tensor",
            "NVIDIA 2025, 2509.25149",
        ),
    )
}


@dataclass(frozen=True)
class Family:
    """Formats of any size: what their names look like, and how one is made from the numbers in it."""

    pattern: str
    make: Callable[..., Format]
    example: str
    meaning: str
    source: str
    status: Status = "stable"


FAMILIES = (
    Family(r"int(\d{1,2})", integer, "int4", "2 to 16 bits, symmetric", "Kumar et al. 2024, 2411.04330, D.1"),
    Family(
        r"uint(\d{1,2})", unsigned, "uint4", "1 to 16 bits with a zero point", "Jacob et al. 2018, 1712.05877"
    ),
    Family(
        r"e(\d{1,2})m(\d{1,2})",
        floating,
        "e4m3",
        "floats of X exponent and Y mantissa bits; FP8 is e4m3 and e5m2, FP6 e2m3 and e3m2, FP4 e2m1",
        "Micikevicius et al. 2022, 2209.05433",
    ),
    Family(
        r"midrise(\d{1,2})",
        midrise,
        "midrise2",
        "1 to 16 bits, half-integers without a zero",
        "Panferov et al. 2025, 2502.05003",
        "experimental",
    ),
)
#: The floats of Kumar et al. 2024 (appendix D.2) by bits in all, where E3M1 stands in for the printed E4M1, which
#: with its sign has six bits and not five.
KUMAR_FLOATS = {3: "e2m0", 4: "e3m0", 5: "e3m1", 6: "e3m2", 7: "e4m2", 8: "e5m2", 12: "e5m6"}

#: What people call them where they do not say which.
SEVERAL = {
    "fp8": ("e4m3", "e5m2", "mxfp8_e4m3"),
    "fp6": ("e2m3", "e3m2", "mxfp6_e2m3"),
    "fp4": ("e2m1", "mxfp4", "nvfp4"),
}


def parse_format(name: str | int | Format) -> Format:
    """Read a format's name; a bare number of bits means a symmetric integer.

    Raises:
        ConfigError: an unknown name or an impossible number of bits.

    >>> parse_format("int4").name, parse_format(4) == parse_format("4"), parse_format("nvfp4").block
    ('int4', True, 16)
    """
    if isinstance(name, Format):
        return name
    if isinstance(name, int) and not isinstance(name, bool):
        return integer(name)
    if isinstance(name, str):
        text = name.strip().lower()
        if text in NAMED:
            return NAMED[text].format
        if text in SEVERAL:
            raise ConfigError(f"{name!r} is several formats; name one of {', '.join(SEVERAL[text])}")
        if re.fullmatch("[0-9]{1,2}", text):
            return integer(int(text))
        for family in FAMILIES:
            match = re.fullmatch(family.pattern, text, re.ASCII)
            if match:
                return family.make(*map(int, match.groups()))
    known = [*NAMED, *(family.example for family in FAMILIES)]
    short = str(name)[:80]
    raise ConfigError(f"unknown format {short!r}; {nearest(short, known)}; `bitlaw formats` lists them")


def law_bits(fmt: Format) -> float:
    """The bits that a law reads for a format: its nominal ones, `UNQUANTIZED` for native floats.

    >>> law_bits(integer(4)), law_bits(parse_format("bf16")) == UNQUANTIZED
    (4.0, True)
    """
    return UNQUANTIZED if isinstance(fmt, Native) else float(fmt.bits)


def layout(fmt: Format) -> tuple[float, float]:
    """Bits of exponent and mantissa; NaN where there are none, `UNQUANTIZED` for native floats.

    >>> layout(parse_format("mxfp4")), layout(integer(4))
    ((2.0, 1.0), (nan, nan))
    """
    if isinstance(fmt, Native):
        return UNQUANTIZED, UNQUANTIZED
    element = fmt.element if isinstance(fmt, Microscaled) else fmt
    if isinstance(element, Float):
        return float(element.exponent), float(element.mantissa)
    return float("nan"), float("nan")
