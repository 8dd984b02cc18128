"""How few bits a trained model can be quantised to: as few as do not make its last tokens a waste.

More training hurts a model beyond its critical tokens (Kumar et al. 2024, appendix E.1), which grow with bits. So each
number of bits is asked for its critical tokens, and the fewest whose lie beyond the tokens trained on are safe.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import LawError
from .answer import Option, Plan
from .choice import chosen, within
from .limits import Array, Limits
from .optimum import Search
from .question import Question
from .search import QUICK
from .source import Source, answer


def lowest(source: Source, asked: Question) -> Plan:
    """The fewest bits after training that are safe for a model of given size and tokens.

    Safe is what the model has not yet been trained too long for and, where a largest gap is given, what costs no more.

    Args:
        source: the law.
        asked: the question, with params and tokens.

    Raises:
        ConfigError: params or tokens are missing, or the law says nothing of quantisation after training.
        LawError: no choice is safe.
    """
    params, tokens = asked.model("the fewest safe bits are")
    most_gap, interval = asked.max_gap, asked.interval
    choices = within(chosen(source.law, asked.bits, "any"), asked.max_bits)
    search = Search(source, choices, Limits(params=params, tokens=tokens))
    gaps, critical = zip(*(_of(search, k, params, tokens) for k in range(len(search.choices))), strict=True)
    gap, beyond = np.stack(gaps), np.stack(critical)  # (choices, 1 + draws)
    if not np.isfinite(gap[:, 0]).any():
        raise LawError(search.why_not())
    safe = (beyond >= tokens) & np.isfinite(gap)
    if most_gap is not None:
        safe &= gap <= most_gap
    bits = np.array([c.post_bits for c in search.choices])
    fewest = np.where(safe, bits[:, None], np.inf).min(axis=0)
    if not np.isfinite(fewest[0]):
        limit = "" if most_gap is None else f", at a gap of {most_gap:g} at most"
        raise LawError(
            f"none of {', '.join(c.name for c in search.choices)} is safe here{limit}; leave it unquantised, or ask "
            "about fewer tokens, a larger gap or more bits"
        )
    k = int(np.flatnonzero(safe[:, 0] & (bits == fewest[0]))[0])
    where = np.isfinite(fewest)
    found = {"bits": fewest, "gap": gap[k], "critical_tokens": beyond[k]}
    answers = tuple(answer(n, v, source.drawn, interval, None, False, n == "bits") for n, v in found.items())
    options = tuple(
        Option(
            formats=c.name,
            bits=c.post_bits,
            params=params,
            tokens=float(beyond[j, 0]),
            loss=float(gap[j, 0]),
            near_optimal=bool(safe[j, 0]),
            chance=float(safe[j, 1:].mean()) if source.drawn else math.nan,
        )
        for j, c in enumerate(search.choices)
    )
    notes = [*source.notes, *search.choices[k].silent]
    if source.drawn and not where[1:].all():
        notes.append(f"in {1 - where[1:].mean():.0%} of draws none of these is safe")
    notes += source.extrapolation(params, tokens, {"post_bits": float(fewest[0])})
    return Plan(
        question=asked.words,
        law=source.name,
        answers=answers,
        options=options,
        level=interval if source.drawn else math.nan,
        tolerance=asked.tolerance,
        notes=tuple(dict.fromkeys(notes)),
        method=source.method,
        formats=search.choices[k].name,
        columns=("params", "critical tokens", "gap", "safe", "safe in"),
    )


def _of(search: Search, k: int, params: float, tokens: float) -> tuple[Array, Array]:
    """Gap at the tokens trained on, and critical tokens, of one choice at the estimate and in all draws."""
    theta = search.source.theta
    which = np.full(len(theta), k)
    places = (np.full((len(theta), 1), x) for x in (0.0, params, tokens))
    gap = search.source.gap(theta, search.read(which, *places))
    return gap, search.without_tokens().best(theta, which, QUICK).tokens
