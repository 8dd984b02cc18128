"""What has to be said with an optimum: where it lies, what the law knows of it, what bits of each part are worth."""

from __future__ import annotations

import math

import numpy as np

from ..formats import UNQUANTIZED
from ..laws.terms import PARTS, TRAINED_PARTS
from .choice import Choice
from .optimum import AMOUNTS, MIDDLE, MIN_BITS, Best, Search


def remarks(search: Search, found: Best, choice: Choice, loss: float | None = None) -> list[str]:
    """Warnings and remarks, in sentences.

    Args:
        search: what was asked.
        found: the optimum at the estimate, and in every draw.
        choice: the best one.
        loss: that was to be reached, if one was.
    """
    best = found.at(slice(1))
    columns = {name: float(v[0, 0]) for name, v in search.read(best.choice, *_places(best)).items()}
    bits = {name: columns[name] for name in columns if name.endswith("_bits")}
    params, tokens = float(best.params[0]), float(best.tokens[0])
    return [
        *search.source.extrapolation(params, tokens, bits),
        *_at_an_edge(search, best),
        *_unspent(search, best),
        *_in_draws(search, found, loss),
        *_silent(search, choice),
        *_worth(search, best),
    ]


def _places(best: Best) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return best.bits[:, None], best.params[:, None], best.tokens[:, None]


def _at_an_edge(search: Search, best: Best) -> list[str]:
    bits, notes = float(best.bits[0]), []
    if search.free_bits == "post_bits":
        notes.append("bits are of the weights after training")
    if search.free_bits and bits > search.max_bits - 1e-3:
        notes.append(f"the optimum lies at the most bits considered, {search.max_bits:g}")
    if search.free_bits and bits < MIN_BITS + 1e-3:
        notes.append(f"the optimum lies at the fewest bits considered, {MIN_BITS:g}")
    if _at_most_tokens(search, best):
        notes.append("more tokens would help, but there are no more by max_tokens or unique_tokens")
    if "params" in search.axes and search.limits.flops is not None:
        middle = 0.5 * math.log(float(np.ravel(search.limits.flops)[0]))
        if abs(math.log(float(best.params[0])) - middle) > MIDDLE - 0.1:
            notes.append("the law has no best size: it lies at the edge of what was searched")
    return notes


def _at_most_tokens(search: Search, best: Best) -> bool:
    most = search.limits.most_tokens
    return "tokens" in search.axes and most is not None and bool(best.tokens[0] > 0.999 * most)


def _unspent(search: Search, best: Best) -> list[str]:
    """Say when limits on size and tokens leave budget over."""
    if search.limits.flops is None:
        return []
    train, serve, _, _ = (c[0, 0] for c in search.costs(best.choice, best.bits[:, None]))
    params, tokens = float(best.params[0]), float(best.tokens[0])
    spent = 6 * params * tokens * train + 2 * params * search.limits.served * serve
    left = 1 - spent / float(np.ravel(search.limits.flops)[0])
    if left < 0.01:
        return []
    free = "tokens" in search.axes and not _at_most_tokens(search, best)
    why = "more tokens would hurt" if free else "size and tokens are as large as may be"
    return [f"{left:.0%} of the budget is left: {why}"]


def _in_draws(search: Search, found: Best, loss: float | None) -> list[str]:
    count, notes = len(found.loss) - 1, []
    lost = int((~np.isfinite(found.loss)).sum())
    if lost and loss is not None:
        notes.append(
            f"in {lost / count:.0%} of draws no budget reaches the loss: costs have no end there, and other intervals "
            "leave them out"
        )
    elif lost:
        notes.append(f"{lost} of {count} draws have no optimum in the law's domain and are left out")
    if "tokens" in search.axes and search.limits.endless:
        never = np.log(found.tokens / found.params) > AMOUNTS / 2 - 1e-6
        if never[0]:
            notes.append("more training always helps, as far as was searched")
        elif some := int(never[1:].sum()):
            notes.append(f"in {some / count:.0%} of draws more training always helps")
    return notes


def _silent(search: Search, choice: Choice) -> list[str]:
    """What the law says nothing of."""
    notes = []
    idle = [what for part, what in PARTS.items() if part not in search.source.law.parts]
    if search.free_bits == "bits" and idle:
        notes.append(
            f"the law says nothing of {' and '.join(idle)}: they are taken to lose nothing at any bits, although "
            "the cost counts all parts at the same bits; the best bits may be far too low"
        )
    return notes + choice.notes


def _worth(search: Search, best: Best) -> list[str]:
    """What one bit fewer of each part costs at the optimum's size and tokens: which part should keep its bits."""
    source = search.source
    if not source.reads_bits or not (search.free_bits == "bits" or len(search.choices) > 1):
        return []
    columns = search.read(best.choice, *_places(best))
    costs = {}
    for part in source.law.parts:
        bits = columns.get(f"{part}_bits", np.full((1, 1), UNQUANTIZED))
        if float(bits[0, 0]) < UNQUANTIZED:
            lower = source.loss(source.theta[:1], columns | {f"{part}_bits": bits - 1})[0, 0]
            costs[TRAINED_PARTS[part]] = float(lower - best.loss[0])
    if len(costs) < 2:
        return []
    ranked = sorted(costs.items(), key=lambda item: -item[1])
    words = [f"{cost:.4f} of {what}" if cost < math.inf else f"too much of {what}" for what, cost in ranked]
    return [f"one bit fewer costs, in nats per token at this size and these tokens, {', '.join(words)}"]
