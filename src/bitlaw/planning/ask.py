"""The front door of the planner: read a question, and hand it to the room that answers it."""

from __future__ import annotations

from ..errors import ConfigError, LawError
from ..fitting import Fit
from ..formats import UNQUANTIZED, Format, Native, law_bits, parse_format
from ..laws import Published
from ..units import parse_quantity
from .answer import Plan
from .gap import critical
from .optimum import Search
from .source import Source


def plan(
    law: Fit | Published | str,
    *,
    budget: str | float | None = None,
    params: str | float | None = None,
    tokens: str | float | None = None,
    bits: str | int | None = None,
    quantize_to: str | int | None = None,
    max_bits: float = 16.0,
    interval: float = 0.90,
    tolerance: float = 0.01,
) -> Plan:
    """Answer how many parameters, tokens and bits.

    * `budget` alone: the best (N, D, bits) under C = (6/16) N D P, all parts at P bits.
    * `budget` with `bits`, `params` or `tokens`: the best of the others with that one given.
    * `params` with `quantize_to`: the tokens beyond which more training hurts the quantised model.
    * `budget` with `quantize_to`: the best (N, D) of a model trained at 16 bits and quantised after.

    Args:
        law: a fit, published constants, or the name of published constants.
        budget: training cost, like "1e22 flops" of 16-bit arithmetic.
        params: model size, like "8B".
        tokens: training tokens, like "200B".
        bits: format of all parts in training, like "int8" or 8; "bf16" or 16 means unquantised.
        quantize_to: format of the weights after training, like "int4".
        max_bits: most bits considered where bits are free.
        interval: level of the intervals, for laws with draws.
        tolerance: share of the reducible loss (L - E) that counts as near-optimal.

    Returns:
        The decision with intervals and near-optimal ranges.

    Raises:
        ConfigError: a question that is contradictory, incomplete or cannot be read.
        LawError: a question outside the law's domain.

    >>> answer = plan("kumar-2024", budget="1e22 flops")
    >>> round(answer["bits"].value, 2)
    7.0
    """
    source = Source.of(law, interval)
    flops = None if budget is None else parse_quantity(budget, "flops")
    size = None if params is None else parse_quantity(params, "params")
    data = None if tokens is None else parse_quantity(tokens, "tokens")
    fixed_bits = None if bits is None else _training_bits(bits)
    post = None if quantize_to is None else _post_bits(quantize_to)
    if not 0 < tolerance < 1:
        raise ConfigError(f"tolerance must lie between 0 and 1, not {tolerance}; try 0.01")
    if post is not None and source.law.gap == 0:
        raise LawError(f"{source.name} says nothing about quantisation after training; use a law with a gap")
    source = source.told(
        None if bits is None else _training_format(bits).name,
        None if quantize_to is None else parse_format(quantize_to).name,
    )
    if flops is None:
        if size is None or post is None:
            raise ConfigError(
                "say what there is to spend (budget), or which size will be quantised to what "
                "(params with quantize_to)"
            )
        if data is not None or fixed_bits is not None:
            raise ConfigError(
                "with params and quantize_to the tokens are what is sought; drop tokens and bits"
            )
        return critical(source, size, post, interval, tolerance)
    if size is not None and data is not None:
        raise ConfigError("a budget with both params and tokens leaves nothing to choose; drop one of them")
    if post is not None and fixed_bits is None:
        fixed_bits = (UNQUANTIZED, 16.0)
    if not source.reads_bits and fixed_bits is None:
        fixed_bits = (UNQUANTIZED, 16.0)
        source = source.noting(_unread(source))
    elif fixed_bits is not None and fixed_bits[0] < UNQUANTIZED and not source.law.parts:
        source = source.noting(
            "the law has no precision terms: bits count in the cost, and lose nothing by it"
        )
    return Search(source, flops, size, data, fixed_bits, post, max_bits).plan(interval, tolerance)


def _unread(source: Source) -> str:
    known = dict.fromkeys(name for _, labels in source.law.spec.labels for name in labels)
    if not source.law.parts or not known:
        return "the law has no precision terms, so training at 16 bits is assumed"
    return f"training at 16 bits is assumed: the law has constants for {', '.join(known)}; name one with bits"


def _training_format(bits: str | int) -> Format:
    return parse_format("bf16" if str(bits).strip() == "16" else bits)


def _training_bits(bits: str | int) -> tuple[float, float]:
    """Bits as the law reads them, and as the cost counts them; a plain 16 means unquantised."""
    fmt = _training_format(bits)
    return law_bits(fmt), float(fmt.bits)


def _post_bits(name: str | int) -> float:
    fmt = parse_format(name)
    if isinstance(fmt, Native):
        raise ConfigError(f"quantize_to {name!r} does not quantise anything; try int4")
    return float(fmt.bits)
