"""A question put to a law: the formats to choose among, the limits, what is free; or why it cannot be answered."""

from __future__ import annotations

from dataclasses import replace

from ..errors import ConfigError
from ..laws import Law
from ..units import format_quantity
from .choice import Choice, chosen, tied, within
from .optimum import Search
from .question import Question
from .source import Source
from .target import budget_for

#: Formats that hardware may have units for, among which a plan on it chooses.
NATIVE = ("bf16", "e4m3", "int8", "nvfp4", "mxfp4", "int4")


def pose(source: Source, asked: Question) -> tuple[Search, Question]:
    """Put a question of sizes, tokens and bits to a law.

    Args:
        source: the law.
        asked: the question.

    Returns:
        The search whose optimum answers it, and the question with the machine's speed settled.

    Raises:
        ConfigError: a question that is contradictory, incomplete, or in formats that the law does not know.
        LawError: a loss that no budget reaches.
    """
    choices, free, notes = _choices(source, asked)
    asked = asked.timed(choices)
    limits = asked.limits(repeats="unique_tokens" in source.law.columns)
    search = Search(source.noting(*notes), choices, limits, free, asked.max_bits)
    _check(asked, search)
    if asked.unique_tokens is not None and "unique_tokens" not in source.law.columns:
        search = replace(
            search,
            source=search.source.noting(
                f"{source.law.name} does not know what repeated tokens are worth, so that no more than "
                f"{format_quantity(asked.unique_tokens)} are considered, once each; muennighoff-2023 repeats them"
            ),
        )
    if asked.loss is not None:
        search = search.with_budget(budget_for(search, asked.loss))
    return search, asked


def _choices(source: Source, asked: Question) -> tuple[tuple[Choice, ...], str, list[str]]:
    """The formats to choose among, which bits are free, and what has to be said of them."""
    law, bits, post = source.law, asked.bits, asked.quantize_to
    told = dict.fromkeys(name for _, labels in law.spec.labels for name in labels)
    if "max_bits" in asked.said and bits not in (None, "any", "each") and post != "any":
        raise ConfigError("max_bits plays no part where formats are named; drop it")
    one = bits is None or (isinstance(bits, str | int) and bits not in ("any", "each"))
    notes: list[str] = []
    if asked.machine is None and bits is None and post is None and source.reads_bits:
        if asked.kv is None:
            return tied(law, [16.0]), "bits", notes
        bits = "any"  # keys and values have a format of their own, so that bits are not all the same
    if asked.machine is None and one and post == "any" and _reads_post_bits(law):
        return chosen(law, bits, 8, asked.kv), "post_bits", notes
    if bits is None and post is None and source.reads_bits:  # costs go by hardware's own formats
        native = [name for name in NATIVE if asked.machine is not None and asked.machine.has(name)]
        notes.append(f"formats considered: {', '.join(native)}; name others with bits")
        bits = native
    elif bits is None and post is None:
        known = f"the law has constants for {', '.join(told)}" if told else "the law reads formats by name"
        assumed = f"training at 16 bits is assumed: {known}; name one with bits"
        plain = "the law has no precision terms, so training at 16 bits is assumed"
        notes.append(assumed if law.parts else plain)
    elif bits is not None and not law.parts:
        notes.append("the law has no precision terms: bits count in the cost, and lose nothing by it")
    limited = "max_bits" in asked.said and (bits is not None or post is not None)
    found = chosen(law, bits, post, asked.kv, asked.pace)
    return within(found, asked.max_bits) if limited else found, "", notes


def _reads_post_bits(law: Law) -> bool:
    return "post_bits" in law.columns and "post_format" not in dict(law.spec.labels)


def _check(asked: Question, search: Search) -> None:
    """Refuse what leaves nothing to choose, or what nothing limits.

    Raises:
        ConfigError: a question that is contradictory or incomplete.
    """
    limits = search.limits
    given = limits.params is not None, limits.tokens is not None
    if asked.tokens and limits.most_tokens and asked.tokens > limits.most_tokens:
        raise ConfigError(
            f"{search.source.law.name} does not know what repeated tokens are worth, and there are only "
            f"{format_quantity(limits.most_tokens)} unique_tokens; give fewer tokens, or ask muennighoff-2023"
        )
    if limits.flops is not None and all(given):
        raise ConfigError("a budget with both params and tokens leaves nothing to choose; drop one of them")
    if asked.loss is not None:
        if limits.flops is not None or limits.tokens is not None:
            raise ConfigError(
                "a loss to be reached takes the place of budget and tokens; drop these, or the loss"
            )
        return
    if asked.served and limits.flops is None:
        raise ConfigError(
            "tokens served cost as training does; give the budget of both, or the loss to be reached"
        )
    sized = limits.flops or limits.bytes or limits.token_flops or limits.most_params or given[0]
    if not sized or (limits.endless and not search.turns):
        raise ConfigError(
            "say what there is to spend (budget, hours or money), how many tokens, or which size will be quantised to "
            "what (params with quantize_to): without end, larger and longer is always better"
        )
