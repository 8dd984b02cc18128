"""The front door of the planner: read a question, and hand it to the room that answers it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from ..errors import ConfigError, LawError
from ..fitting import Fit
from ..formats import UNQUANTIZED
from ..laws import Published
from ..units import format_quantity, parse_quantity
from .answer import Plan
from .choice import by_bits, chosen, tied
from .decide import Derived, decide
from .limits import Limits
from .optimum import Search
from .source import Source

Formats: TypeAlias = str | int | Sequence[str | int]


def plan(
    law: Fit | Published | str,
    *,
    budget: str | float | None = None,
    params: str | float | None = None,
    tokens: str | float | None = None,
    bits: Formats | None = None,
    quantize_to: Formats | None = None,
    max_params: str | float | None = None,
    unique_tokens: str | float | None = None,
    memory: str | float | None = None,
    context: str | float | None = None,
    served: str | float | None = None,
    max_bits: float = 16.0,
    interval: float = 0.90,
    tolerance: float = 0.01,
) -> Plan:
    source = Source.of(law, interval)
    if not 0 < tolerance < 1:
        raise ConfigError(f"tolerance must lie between 0 and 1, not {tolerance}; try 0.01")
    flops = None if budget is None else parse_quantity(budget, "flops")
    size = None if params is None else parse_quantity(params, "params")
    data = None if tokens is None else parse_quantity(tokens, "tokens")
    limits = Limits(
        flops=flops,
        served=0.0 if served is None else parse_quantity(served, "tokens"),
        params=size,
        tokens=data,
        unique=None if unique_tokens is None else parse_quantity(unique_tokens, "tokens"),
        most_params=None if max_params is None else parse_quantity(max_params, "params"),
        bytes=None if memory is None else parse_quantity(memory, "bytes"),
        cached=0.0 if context is None else parse_quantity(context, "tokens"),
    )
    free = ""
    if bits is None and quantize_to is None and source.reads_bits and flops is not None:
        choices, free = tied(source.law, [16.0]), "bits"
    elif quantize_to == "any" and not isinstance(bits, list | tuple) and bits not in ("any", "each"):
        choices, free = chosen(source.law, bits, 8), "post_bits"
    else:
        choices = chosen(source.law, bits, quantize_to)
    search = Search(source, choices, limits, free, max_bits)
    derived: dict[str, Derived] = {"tokens_per_param": lambda s, b: b.tokens / b.params}
    return decide(search, "?", interval, tolerance, derived)
