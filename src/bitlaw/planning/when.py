"""Steps, tokens and batch to a loss, from a law of the training trajectory.

The loss along a run, L(N, S, B), is solved for the steps S; low precision enters it as it enters any law, through N.
Between few steps of large batches and few tokens of small ones lies the critical batch, at which both are twice the
least (Kaplan et al. 2020; Su et al. 2024). Without a batch given, that is the one planned with.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import ConfigError, LawError
from ..units import format_quantity
from .answer import Plan
from .choice import Choice, chosen
from .limits import Array
from .question import Question
from .source import Source, answer

LEAST, MOST = 0.0, 60 * math.log(10)  # of the logarithm of steps
HALVINGS = 70  # of that stretch: to rounding


def steps_to(
    source: Source, choice: Choice, params: float, loss: float, batch: float | None
) -> dict[str, Array]:
    """Steps, tokens, batch, and the least steps and tokens, to a loss: at the estimate and in every draw (S,).

    Args:
        source: a law of the trajectory.
        choice: formats in training.
        params: model size.
        loss: nats per token.
        batch: tokens a step; None takes the critical batch.

    Raises:
        LawError: a loss that a model of this size never reaches.
    """
    theta = source.theta
    names = source.law.names
    constants = {name: theta[:, names.index(name)] for name in ("B_star", "alpha_B")}
    critical = constants["B_star"] * loss ** (-1 / constants["alpha_B"])
    size = np.full(len(theta), params)
    tokens_a_step = critical if batch is None else np.full(len(theta), batch)
    steps = _solve(source, choice, size, tokens_a_step, loss)
    if not np.isfinite(steps[0]):
        end = _losses(source, choice, size, np.full(len(theta), np.exp(MOST)), np.full(len(theta), 1e18))[0]
        raise LawError(
            f"a model of {format_quantity(params, 'params')} ends at a loss of {end:.4g} by this law, however long it "
            "is trained; ask for a higher loss, or a larger model"
        )
    if not (steps[0] > 1 + 1e-9 and tokens_a_step[0] >= 1):
        raise LawError(
            f"a loss of {loss:g} takes less than a step or a token by this law; ask for a lower loss, or a larger batch"
        )
    least = steps / (1 + critical / tokens_a_step)
    return {
        "steps": steps,
        "tokens": steps * tokens_a_step,
        "batch_tokens": tokens_a_step,
        "critical_batch": critical,
        "least_steps": least,
        "least_tokens": least * critical,
    }


def _losses(source: Source, choice: Choice, params: Array, steps: Array, batch: Array) -> Array:
    columns = {name: np.full((len(params), 1), value) for name, value in choice.columns.items()}
    columns |= {"params": params[:, None], "steps": steps[:, None], "batch_tokens": batch[:, None]}
    return source.loss(source.theta, columns)[:, 0]


def _solve(source: Source, choice: Choice, params: Array, batch: Array, loss: float) -> Array:
    """The steps at which the loss has fallen to a value; NaN where it never does."""
    low, high = np.full(len(params), LEAST), np.full(len(params), MOST)
    able = _losses(source, choice, params, np.exp(high), batch) < loss
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = _losses(source, choice, params, np.exp(middle), batch) > loss
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(able, np.exp((low + high) / 2), np.nan)


def is_trajectory(source: Source) -> bool:
    """Whether a law is of the loss along a run."""
    return {"steps", "batch_tokens"} <= set(source.law.columns)


def how_long(source: Source, asked: Question) -> Plan:
    """Answer how many steps and tokens, and how long, training to a loss takes.

    Args:
        source: a law of the trajectory.
        asked: the question, with params and the loss; without batch_tokens, the critical batch is taken.

    Raises:
        ConfigError: params or loss are missing.
        LawError: a loss that a model of this size never reaches.
    """
    params, loss, batch = asked.params, asked.loss, asked.batch_tokens
    if params is None or loss is None:
        raise ConfigError(f"{source.name} is of the loss along a run: give params and the loss to be reached")
    choice, *more = chosen(source.law, asked.bits, None, pace=asked.pace)
    if more:
        raise ConfigError("a run has one choice of formats; name one in bits")
    machine = asked.timed((choice,)).machine
    found = {"params": np.full(len(source.theta), params), "loss": np.full(len(source.theta), loss)}
    found |= steps_to(source, choice, params, loss, batch)
    found["training_flops"] = 6 * params * found["tokens"] * choice.train
    if machine is not None:
        found["hours"] = found["training_flops"] / machine.flops_per_second / 3600
        found["money"] = found["hours"] * machine.dollars(3600)
    notes = [*source.notes, *choice.notes, *asked.notes(choice)]
    if batch is None:
        notes.append("this is for the critical batch, with twice the least steps and tokens: none is given")
    if lost := int((~np.isfinite(found["steps"])).sum()):
        notes.append(f"in {lost / max(1, len(source.theta) - 1):.0%} of draws the loss is never reached")
    notes += source.extrapolation(params, float(found["tokens"][0]), {})
    given = {"params", "loss", "" if batch is None else "batch_tokens"}
    return Plan(
        question=asked.words,
        law=source.name,
        answers=tuple(answer(n, v, source.drawn, asked.interval, None, n in given) for n, v in found.items()),
        options=(),
        level=asked.interval if source.drawn else math.nan,
        tolerance=asked.tolerance,
        notes=tuple(dict.fromkeys(notes)),
        method=source.method,
        formats=choice.name,
    )
