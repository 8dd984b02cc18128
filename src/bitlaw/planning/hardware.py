"""Hardware as data: how fast each number format is multiplied, how much is held and read, what an hour costs.

Profiles lie in `hardware.toml` beside this file; one's own TOML file may hold others in the same form. What is not
known is None there, and said where it is asked for.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import ConfigError, nearest
from ..files import read_toml
from ..formats import Float, Format, Microscaled, Native, Uniform, parse_format

MAX_BYTES = 64_000
MOST = 40  # profiles in a file, and speed-ups in a profile
#: Kinds of arithmetic by the narrowest operands they take, narrowest first. `bf16` is 16-bit floats of any kind.
Unit: TypeAlias = Literal["fp4", "int4", "fp8", "int8", "bf16", "tf32", "fp32"]
UNITS: tuple[Unit, ...] = get_args(Unit)
_FLOATS: tuple[Unit, ...] = ("bf16", "tf32", "fp32")
#: Units that hold every number that another unit takes.
_HOLDS: dict[Unit, tuple[Unit, ...]] = {
    "fp4": ("fp4", "fp8", *_FLOATS),
    "int4": ("int4", "int8", *_FLOATS),
    "fp8": ("fp8", *_FLOATS),
    "int8": ("int8", *_FLOATS),
    "bf16": _FLOATS,
    "tf32": ("tf32", "fp32"),
    "fp32": ("fp32",),
}
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be text that can be printed")
    return text


Text: TypeAlias = Annotated[str, Field(max_length=300), AfterValidator(_printable)]
Amount: TypeAlias = Annotated[float, Field(gt=0, lt=1e30)]
Date: TypeAlias = Annotated[str, Field(pattern=r"^[0-9]{4}(-[0-9]{2}){0,2}$")]
_CONFIG = ConfigDict(frozen=True, extra="forbid", strict=True)


class Peak(BaseModel):
    """FLOP/s of dense matrix products by the format of both operands; None where it is not known."""

    model_config = _CONFIG
    fp4: Amount | None = None
    int4: Amount | None = None
    fp8: Amount | None = None
    int8: Amount | None = None
    bf16: Amount | None = None
    tf32: Amount | None = None
    fp32: Amount | None = None

    def known(self) -> dict[Unit, float]:
        """What is known, narrowest operands first."""
        return {unit: flops for unit in UNITS if (flops := getattr(self, unit)) is not None}


class Measured(BaseModel):
    """A published speed-up of real work, which is less than peaks promise: `factor` over the same in another format."""

    model_config = _CONFIG
    formats: Unit
    over: Unit
    what: Literal["forward", "training"]
    factor: Amount
    source: Text


@dataclass(frozen=True)
class Rate:
    """How fast products of some operands run: `flops` a second, on which `units`, and a `note` if these are wider."""

    flops: float
    units: Unit
    note: str = ""


class Hardware(BaseModel):
    """One device, as its maker describes it or as it was measured.

    Attributes:
        name: as `hardware` reads it.
        label: in words.
        peak: FLOP/s of dense matrix products by format.
        source, date: of these figures.
        memory: bytes; None where unknown.
        bandwidth: of the memory, bytes/s; None where unknown.
        note: what else should be known.
        price, price_source, price_date: USD for one device and hour; None where unknown.
        measured: published speed-ups of real work.
    """

    model_config = _CONFIG
    name: str
    label: Text
    peak: Peak
    source: Text
    date: Date
    memory: Amount | None = None
    bandwidth: Amount | None = None
    note: Text = ""
    price: Amount | None = None
    price_source: Text = ""
    price_date: Date | None = None
    measured: Annotated[tuple[Measured, ...], Field(strict=False, max_length=MOST)] = ()

    @model_validator(mode="after")
    def _complete(self) -> Hardware:
        if not self.peak.known():
            raise ValueError("peak must hold one rate at least, like bf16 = 312e12")
        if not (self.price is None) == (self.price_source == "") == (self.price_date is None):
            raise ValueError("price, price_source and price_date come together, or not at all")
        return self

    def rate(self, *formats: str | int | Format) -> Rate:
        """How fast matrix products of these operands run at best.

        The narrowest unit that holds every operand exactly but for its scales: integers of up to 4 and 8 bits are held
        by int4 and int8, floats of the size of E2M1 by fp4, of E4M3 or E5M2 by fp8; all of them, and any mix of
        integers and floats, by 16-bit floats. Where that unit does not exist or its rate is not known, the next wider.

        Args:
            formats: of the operands, like "int4", "bf16".

        Returns:
            FLOP/s, the units, and a note where an operand is narrower than they are.

        Raises:
            ConfigError: an unknown format, or operands that no unit of known rate holds.

        >>> hardware("h100").rate("e4m3", "e4m3").flops / hardware("h100").rate("bf16").flops > 1.99
        True
        >>> hardware("h100").rate("int4", "int4").note
        'int4 x int4 runs on the int8 units of h100'
        """
        operands = [parse_format(fmt) for fmt in formats or ("bf16",)]
        wanted = [_unit(fmt) for fmt in operands]
        words = " x ".join(fmt.name for fmt in operands)
        for unit, flops in self.peak.known().items():
            if all(unit in _HOLDS[need] for need in wanted):
                wide = any(need != unit for need in wanted)
                return Rate(flops, unit, f"{words} runs on the {unit} units of {self.name}" if wide else "")
        raise ConfigError(
            f"{self.name} has no known rate for {words}; known: {', '.join(self.peak.known())}. Give its rate in a "
            "TOML file of your own, or a measured throughput"
        )

    def with_speedups(self, speedups: Mapping[str, float]) -> Hardware:
        """The same device with speed-ups over 16-bit floats in place of peak rates.

        Args:
            speedups: by unit, like {"fp8": 1.4, "fp4": 1.7}; narrow units that are not named are not used.

        Raises:
            ConfigError: an unknown unit, or a factor that is not positive.

        >>> faster = hardware("b200").with_speedups({"fp8": 1.4})
        >>> faster.rate("e4m3").flops / faster.rate("bf16").flops, faster.rate("int8").units
        (1.4, 'bf16')
        """
        if not isinstance(speedups, Mapping):
            raise ConfigError(f"speedups are named by format, like {{'fp8': 1.4}}, not {speedups!r}")
        narrow = [unit for unit in UNITS if unit not in _FLOATS]
        base = self.rate("bf16").flops
        peak: dict[str, float] = {u: flops for u, flops in self.peak.known().items() if u in _FLOATS}
        for unit, factor in speedups.items():
            if unit not in narrow:
                raise ConfigError(
                    f"no speed-up over 16 bits can be given for {unit!r}; {nearest(str(unit), narrow)}"
                )
            if not (isinstance(factor, (int, float)) and 0 < factor < 1e6):
                raise ConfigError(
                    f"the speed-up of {unit} must be a positive number like 1.4, not {factor!r}"
                )
            peak[unit] = base * factor
        return self.model_copy(update={"peak": Peak(**peak)})

    def dollars(self, seconds: float, devices: float = 1) -> float:
        """What some time costs: seconds x devices x price / 3600; NaN where the price is not known.

        >>> round(hardware("a100-80g").dollars(3600, devices=8), 2), hardware("tpu-v6e").dollars(3600)
        (14.32, nan)
        """
        return math.nan if self.price is None else seconds * devices * self.price / 3600


def _unit(fmt: Format) -> Unit:
    """The narrowest unit that holds a format's numbers."""
    if isinstance(fmt, Native):
        return "bf16" if fmt.bits <= 16 else "fp32"
    element = fmt.element if isinstance(fmt, Microscaled) else fmt
    if isinstance(element, Uniform):  # steps and zero points are taken out of the product
        bits = element.bits
        return "int4" if bits <= 4 else "int8" if bits <= 8 else "bf16" if bits <= 11 else "fp32"
    if isinstance(element, Float):
        e, m = element.exponent, element.mantissa
        if e <= 2 and m <= 1:
            return "fp4"
        if (e <= 4 and m <= 3) or (e <= 5 and m <= 2):
            return "fp8"
        return "bf16" if m <= 7 or (e <= 5 and m <= 10) else "tf32" if m <= 10 else "fp32"
    return "bf16"  # a codebook's values are looked up before they are multiplied


@cache
def profiles() -> Mapping[str, Hardware]:
    """All profiles that come with bitlaw, by name.

    >>> list(profiles())[:3]
    ['a100-80g', 'h100', 'h200']
    """
    text = (files("bitlaw.planning") / "hardware.toml").read_text(encoding="utf-8")
    return {name: _profile(name, table) for name, table in tomllib.loads(text).items()}


def hardware(name: str | os.PathLike[str] | Hardware) -> Hardware:
    """Look a profile up by name, or read one of one's own from a TOML file.

    Args:
        name: like "h100"; or the path of a .toml file in the form of `bitlaw/planning/hardware.toml`, with "#NAME"
            after it where the file holds more than one profile.

    Raises:
        ConfigError: an unknown name, no such file, or one that is no description of hardware, naming the place.

    >>> hardware("mi300x").bandwidth
    5300000000000.0
    """
    if isinstance(name, Hardware):
        return name
    if not isinstance(name, str | os.PathLike):
        raise ConfigError(f"hardware is named by text, like 'h100', or a .toml file, not {name!r}")
    path, _, wanted = os.fspath(name).partition("#")
    if not path.endswith(".toml"):
        known = profiles()
        if path.lower() not in known or wanted:
            hint = nearest(path[:60].lower(), known)
            raise ConfigError(f"unknown hardware {ascii(path[:60])}, and no .toml file; {hint}")
        return known[path.lower()]
    shown = ascii(os.path.basename(path))[1:-1][:60]
    found = dict(_read(path, shown))
    if not wanted and len(found) == 1:
        return next(iter(found.values()))
    if wanted not in found:
        what = f"no hardware {ascii(wanted[:60])}" if wanted else f"{len(found)} kinds of hardware"
        raise ConfigError(
            f"{shown} describes {what}; write {shown}#NAME with one of {', '.join(found) or 'them'}"
        )
    return found[wanted]


def _read(path: str, shown: str) -> Iterator[tuple[str, Hardware]]:
    """The profiles of a file that a stranger may have written."""
    tables = read_toml(path, MAX_BYTES, f"name a TOML file, or one of {', '.join(profiles())}")
    if len(tables) > MOST:
        raise ConfigError(f"{shown} has more than {MOST} tables; split it")
    for name, table in tables.items():
        if not _NAME.fullmatch(name):
            short = ascii(name[:60])
            raise ConfigError(f"{shown}: {short} is no name; use lower-case letters, digits, '-' and '.'")
        try:
            yield name, _profile(name, table)
        except ConfigError as error:
            raise ConfigError(f"{shown}: {error}") from error


def _profile(name: str, table: Any) -> Hardware:
    """Check one table; errors name the place."""
    if not isinstance(table, dict):
        raise ConfigError(f"{name}: this must be a table, [{name}], with label, peak, source and date")
    if "name" in table:
        raise ConfigError(f"{name}: unknown key 'name'; the name stands in the header, [{name}]")
    try:
        return Hardware.model_validate({**table, "name": name})
    except (ValidationError, OverflowError) as error:
        if isinstance(error, OverflowError):  # a whole number of hundreds of digits
            raise ConfigError(f"{name}: a number is too large; write it like 80e9") from error
        first = error.errors(include_url=False, include_input=False)[0]
        path = [str(part) for part in first["loc"]]
        place = ascii(".".join([name, *path]))[1:-1][:100]
        message = str(first["msg"]).removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            kinds: dict[str, type[BaseModel]] = {"peak": Peak, "measured": Measured}
            kind = kinds[path[0]] if len(path) > 1 else Hardware
            fields = [key for key in kind.model_fields if key != "name"]
            message = f"unknown key; {nearest(path[-1][:60], fields)}"
        raise ConfigError(f"{place}: {message[:200]}") from error
