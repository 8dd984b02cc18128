"""How long to train a model that will be quantised: past some budget, more tokens hurt."""

from __future__ import annotations

import math

import numpy as np

from ..errors import LawError
from ..formats import UNQUANTIZED
from ..units import format_quantity
from .answer import Answer, Plan
from .search import minimise
from .source import Source, answer, stretch

WINDOW = 45.0  # tokens are searched within exp(+-45), a factor of 3e19, of the parameters


def critical(source: Source, params: float, post: float, interval: float, tolerance: float) -> Plan:
    """Tokens beyond which more training hurts a model that will be quantised.

    The minimum over D of L(N, D) + gap(N, D, P_post); in closed form for the law of Kumar et al.
    (appendix E.1, equation 13) [beta B N^gamma_N exp(P/gamma_post - b) / (gamma_D C_T)]^(1/(gamma_D + beta)).
    """
    theta = source.theta
    count = len(theta)
    size = np.full(count, params)
    bits = np.full(count, UNQUANTIZED)
    low, high = np.full(count, math.log(params) - WINDOW), np.full(count, math.log(params) + WINDOW)
    x, loss = minimise(lambda x: source.loss(theta, size, np.exp(x), bits, post), low, high, grid=129)
    tokens = np.exp(x)
    if not np.isfinite(loss[0]):
        raise LawError(source.why_not(size, tokens, bits, post))
    notes = list(source.notes)
    never = x > high - 1e-6
    if never[0]:
        notes.append("more training always helps, as far as was searched")
    elif lost := int(never[1:].sum()):
        notes.append(f"in {lost / (count - 1):.0%} of draws more training always helps")
    limit = loss[0] + tolerance * (loss[0] - source.floor(theta[:1])[0])
    grid = np.exp(np.linspace(x[0] - 6, x[0] + 6, 1201))
    many = np.repeat(theta[:1], len(grid), axis=0)
    losses = source.loss(many, np.full(len(grid), params), grid, np.full(len(grid), UNQUANTIZED), post)
    near = {"tokens": stretch(grid, losses, limit)}
    near["tokens_per_param"] = (near["tokens"][0] / params, near["tokens"][1] / params)
    found = {
        "tokens": tokens,
        "tokens_per_param": tokens / params,
        "loss": loss,
        "gap": source.gap(theta, size, tokens, bits, post),
    }
    answers = [Answer("params", params, given=True)]
    answers += [
        answer(name, values, source.drawn, interval, near.get(name), False) for name, values in found.items()
    ]
    notes += source.extrapolation(params, float(tokens[0]), None, post)
    question = (
        f"How long to train {format_quantity(params, 'params')} that will be quantised to {post:g} bits: "
        "beyond this many tokens, more training hurts"
    )
    return Plan(
        question,
        source.name,
        tuple(answers),
        (),
        interval if source.drawn else math.nan,
        tolerance,
        tuple(notes),
    )
