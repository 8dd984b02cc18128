"""Units of other people's columns, and what turns them into ours.

A unit is data, not code: one of the names below, or a number to multiply by.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import polars as pl

from ..errors import BitlawError, ConfigError, nearest
from ..units import parse_quantity
from .check import Flaw, comparable, number, numbers, parse_cell
from .raw import shown
from .schema import COLUMN

FACTORS = {
    "k": 1e3,
    "M": 1e6,
    "B": 1e9,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
    "bits": math.log(2),
    "percent": 0.01,
    "ms": 1e-3,
    "minutes": 60.0,
    "hours": 3600.0,
    "days": 86400.0,
}
_DECIMAL = ("k", "M", "B", "G", "T", "P")
#: The units that are not factors, with what they mean.
MEANINGS = {
    "bits": "bits per token, to nats",
    "ppl": "perplexity, to its logarithm",
    "percent": "per cent, to a share",
    "accuracy": "share that is right, to the error",
    "accuracy%": "per cent that is right, to the error",
    "quantity": 'text like "7B" or "20,000,000"',
    "int": "bits of an integer format: 4 to int4; 16 is bf16, 32 is fp32",
    "fp": "bits of a float format: 4 to e2m1, 6 to e3m2, 8 to e4m3; 16 and 32 as with `int`",
    "dtype": "names like torch's: bfloat16, float8_e4m3fn, int8",
    "gguf": "llama.cpp's types by their bits: Q4_K_M to int4; F16, BF16 and F32 are not quantised",
    "state": "a tracker's: finished to ok; crashed, failed, killed, running and others to failed",
}
UNITS = (*FACTORS, *(name for name in MEANINGS if name not in FACTORS))
QUANTITIES = {"parameters": "params", "tokens": "tokens", "flops": "flops", "bytes": "bytes"}
_FLOATS = {4: "e2m1", 6: "e3m2", 8: "e4m3"}
_NATIVE = {16: "bf16", 32: "fp32"}
_DTYPES = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "float": "fp32",
    "float8_e4m3fn": "e4m3",
    "float8_e5m2": "e5m2",
    "float4_e2m1fn": "e2m1",
}


def check_unit(unit: str, ours: str) -> None:
    """Refuse a unit that there is not, or that the column cannot have.

    Raises:
        ConfigError: naming what there is.
    """
    column = COLUMN[ours]
    if unit in ("int", "fp", "dtype", "gguf"):
        fits = column.kind == "format"
    elif unit == "state":
        fits = ours == "status"
    elif unit == "quantity":
        fits = column.unit in QUANTITIES
    elif unit == "ppl":  # the logarithm of a ratio of perplexities is a gap, that of one is none
        fits = ours in ("loss", "loss_scaled")
    elif unit in FACTORS or unit in MEANINGS:
        fits = column.kind in ("integer", "number")
    else:
        factor = _factor(unit)
        if factor is None:
            raise ConfigError(
                f"there is no unit {unit[:40]!r} for {ours}; {nearest(unit, UNITS)}; or a factor like 1e9"
            )
        fits = column.kind in ("integer", "number")
    if not fits:
        raise ConfigError(f"{ours} is of the kind `{column.kind}`, which cannot be in {unit!r}")


def _factor(unit: str) -> float | None:
    if unit in FACTORS:
        return FACTORS[unit]
    try:
        factor = number(unit)
    except ValueError:
        return None
    return factor if math.isfinite(factor) and factor > 0 else None


def convert(
    series: pl.Series, ours: str, unit: str, values: Mapping[str, str] | None = None
) -> tuple[pl.Series, list[Flaw]]:
    """Turn a column of theirs into one of ours, not yet checked against its bounds.

    Args:
        series: their cells.
        ours: name of our column.
        unit: what theirs is in; an empty text changes nothing.
        values: our text for each of theirs, in place of a unit; cells of any other text are flaws.

    Returns:
        The column under our name, null where a cell could not be turned, and these cells as flaws.

    >>> convert(pl.Series(["1.5", "x"]), "params", "B")[0].to_list()
    [1500000000.0, None]
    >>> convert(pl.Series([4, 16]), "w_format", "int")[0].to_list()
    ['int4', 'bf16']
    """
    if values is not None:
        return _each(series, ours, lambda cell: _listed(cell, values))
    if not unit:
        return series.alias(ours), []
    if unit == "quantity":
        kind = QUANTITIES[COLUMN[ours].unit]
        return _each(series, ours, lambda cell: float(f"{parse_quantity(cell, kind):.15g}"))
    if unit in _TURNS:
        turn = _TURNS[unit]
        return _each(series, ours, turn)
    found, flaws = numbers(series)
    flaws = [Flaw(flaw.row, ours, flaw.reason) for flaw in flaws]
    if unit == "ppl":
        low = (found < 1).fill_null(False)
        flaws += [
            Flaw(row, ours, f"{found[row]:g} is no perplexity, which is at least 1") for row in low.arg_true()
        ]
        return found.set(low, None).log().alias(ours), flaws
    if unit.startswith("accuracy"):
        return (1 - found * (0.01 if unit.endswith("%") else 1)).alias(ours), flaws
    product = found * (_factor(unit) or 1.0)
    if unit in _DECIMAL:  # 8.03 billion is a whole number of parameters
        product = product.round_sig_figs(15)
    return product.alias(ours), flaws


def difference(after: pl.Series, before: pl.Series, unit: str) -> tuple[pl.Series, list[Flaw]]:
    """The gap between two columns of losses, each in a unit; null, and flaws, where one of them is no number.

    >>> difference(pl.Series([10.5]), pl.Series(["10"]), "ppl")[0].round(4).to_list()
    [0.0488]
    """
    sides, flaws = [], []
    for series, which in ((after, ""), (before, f" (of {shown(before.name)})")):
        turned, found = convert(series, "loss", unit)
        turned, more = numbers(turned)
        sides.append(turned.cast(pl.Float64))
        flaws += [Flaw(flaw.row, "gap", flaw.reason + which) for flaw in found + more]
    return (sides[0] - sides[1]).alias("gap"), flaws


def _each(series: pl.Series, ours: str, turn: Any) -> tuple[pl.Series, list[Flaw]]:
    """Turn every different cell once."""
    turned: dict[Any, Any] = {}
    reasons: dict[Any, str] = {}
    series = comparable(series)
    for cell in series.unique().to_list():
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            turned[cell] = None
            continue
        try:
            turned[cell] = turn(cell.strip() if isinstance(cell, str) else cell)
        except (ValueError, BitlawError) as error:
            reasons[cell] = str(error)
    cells = series.to_list()
    kind = pl.String if COLUMN[ours].kind in ("text", "format") else pl.Float64
    values = [turned.get(cell) for cell in cells]
    if kind == pl.Float64 and any(isinstance(value, str) for value in values):
        kind = pl.String
    column = pl.Series(ours, values, dtype=kind)
    return column, [Flaw(row, ours, reasons[c]) for row, c in enumerate(cells) if c in reasons]


def _listed(cell: Any, values: Mapping[str, str]) -> str | None:
    text = parse_cell(COLUMN["id"], cell) if not isinstance(cell, bool) else str(cell).lower()
    if text not in values:
        raise ValueError(
            f"{text[:40]!r} is not among the values of the mapping; {nearest(text[:40], values)}"
        )
    return values[text] or None


def _bits(cell: Any) -> int:
    bits = number(cell) if isinstance(cell, str) else cell
    if (
        isinstance(bits, bool)
        or not isinstance(bits, (int, float))
        or bits != bits
        or bits not in range(1, 33)
    ):
        raise ValueError(f"{cell!r} is not a number of bits from 1 to 32")
    return int(bits)


def _integer(cell: Any) -> str:
    bits = _bits(cell)
    return _NATIVE.get(bits, f"int{bits}")


def _float(cell: Any) -> str:
    bits = _bits(cell)
    name = _NATIVE.get(bits) or _FLOATS.get(bits)
    if name is None:
        raise ValueError(f"there is no usual float of {bits} bits; list the values in a mapping file")
    return name


def _dtype(cell: Any) -> str:
    name = str(cell).lower().removeprefix("torch.")
    return _DTYPES.get(name, name)


def _gguf(cell: Any) -> str | None:
    name = str(cell).upper()
    if name in ("F16", "BF16", "F32", "FP16", "FP32"):
        return None
    if re.fullmatch(r"TQ[12]_0", name):
        return "ternary"
    if name.startswith("MXFP4"):
        return "mxfp4"
    match = re.fullmatch(r"I?Q([1-8])_[A-Z0-9_]+", name, re.ASCII)
    if match is None:
        raise ValueError(
            f"{str(cell)[:40]!r} is no type of llama.cpp that bitlaw knows; list the values in a mapping file"
        )
    return "binary" if match[1] == "1" else f"int{match[1]}"


def _state(cell: Any) -> str:
    return "ok" if str(cell).lower() in ("finished", "ok", "completed", "success", "succeeded") else "failed"


_TURNS = {"int": _integer, "fp": _float, "dtype": _dtype, "gguf": _gguf, "state": _state}
