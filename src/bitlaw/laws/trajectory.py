"""Loss along a run, at any batch size: the trajectory law, and the planner's questions that it answers.

    L = (N_c / N)^alpha_N + [ (S_c / S) (1 + B_star / (B L^(1/alpha_B))) ]^alpha_S

Kaplan et al. (2020) found the forms and Su et al. (2024) that they hold to 33B parameters. A small batch B
wastes no tokens and needs more steps S; a large one wastes tokens. Between them lies the critical batch
B_crit(L) = B_star / L^(1/alpha_B), which grows as the loss falls. The loss stands on both sides.

N leaves embeddings out, and the constants are of one setup (tokeniser, context, data, schedule): refit them
on your own, on steps after the warm-up and at one learning rate. There is no floor, so do not
extrapolate to losses where one matters; nor mix constants of two fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from ..errors import LawError
from .checks import constants as named
from .checks import numbers, positive
from .law import Law, N
from .spec import BASE, LawSpec
from .terms import LOSS, Input, Parameter, Source

Array = NDArray[np.float64]
Constants: TypeAlias = Mapping[str, float]

S, B, N_c, S_c, B_star, alpha_N, alpha_S, alpha_B = sp.symbols("S B N_c S_c B_star alpha_N alpha_S alpha_B")

law = Law(
    "trajectory",
    (N_c / N) ** alpha_N + (S_c / S * (1 + B_star / (B * LOSS ** (1 / alpha_B)))) ** alpha_S,
    (
        Input(N, "params", "model size, parameters without embeddings"),
        Input(S, "steps", "optimiser steps so far"),
        Input(B, "batch_tokens", "tokens a step"),
    ),
    (
        Parameter(N_c, 1e-6, 1e30, (10, 1e12), "parameters", "scale of size", scale_of="params"),
        Parameter(alpha_N, 0.005, 3, (0.03, 0.5), "", "exponent of parameters"),
        Parameter(S_c, 1e-3, 1e12, (10, 1e5), "steps", "scale of steps"),
        Parameter(alpha_S, 0.02, 5, (0.2, 1.5), "", "exponent of steps"),
        Parameter(B_star, 1e-3, 1e20, (1e4, 1e10), "tokens", "critical batch at a loss of one"),
        Parameter(alpha_B, 0.02, 5, (0.1, 1), "", "1 / alpha_B: how fast the critical batch grows as the loss falls"),
    ),
    Source("Kaplan et al. 2020; Su et al. 2024, Unraveling the Mystery of Scaling Laws", "2001.08361; 2403.06563"),
    LawSpec(base="trajectory"),
)  # fmt: skip
BASE[law.name] = law


def critical_batch(loss: ArrayLike, constants: Constants) -> Array:
    """Batch at which steps and tokens are both twice the least that reaches a loss.

        B_crit = B_star / L^(1/alpha_B)

    Args:
        loss: nats per token.
        constants: values of `B_star` and `alpha_B`, like those of published constants or of a fit.

    Returns:
        Tokens a step.

    Raises:
        LawError: a loss that is not positive.
        ConfigError: numbers that mean nothing, or constants of another law.

    Source: Kaplan et al. 2020 (2001.08361), after McCandlish et al. 2018.

    >>> from bitlaw.laws import published
    >>> f"{critical_batch(2.5, published('kaplan-2020-trajectory').values):.3g}"
    '2.55e+06'
    """
    B_star, alpha_B = named(constants, "B_star", "alpha_B")
    L = numbers("loss", loss, above=-np.inf)
    if not (L > 0).all():
        raise LawError("a loss must be positive to have a critical batch")
    critical: Array = B_star * L ** (-1 / alpha_B)
    return critical


def least_steps(loss: ArrayLike, params: ArrayLike, constants: Constants) -> Array:
    """Steps to a loss with batches far above the critical one.

        S_min = S_c (L - (N_c / N)^alpha_N)^(-1/alpha_S)

    Args:
        loss: nats per token.
        params: model size without embeddings.
        constants: values of the law's parameters.

    Returns:
        Optimiser steps.

    Raises:
        LawError: a loss that a model of this size never reaches.
        ConfigError: numbers that mean nothing, or constants of another law.

    Source: Kaplan et al. 2020 (2001.08361), solved for S_min.

    >>> from bitlaw.laws import published
    >>> f"{least_steps(2.5, 1e9, published('kaplan-2020-trajectory').values):.0f}"
    '24925'
    """
    N_c, alpha_N, S_c, alpha_S = named(constants, "N_c", "alpha_N", "S_c", "alpha_S")
    (size,) = positive(params=params)
    end = (N_c / size) ** alpha_N
    left = numbers("loss", loss, above=-np.inf) - end
    if not (left > 0).all():
        raise LawError(
            f"a model of this size ends at a loss of {float(np.max(end)):.4g} by this law, however long it is "
            "trained; ask for a higher loss, or a larger model"
        )
    steps: Array = S_c * left ** (-1 / alpha_S)
    return steps


def least_tokens(loss: ArrayLike, params: ArrayLike, constants: Constants) -> Array:
    """Tokens to a loss with batches far below the critical one.

        E_min = B_crit(L) S_min

    Args:
        loss: nats per token.
        params: model size without embeddings.
        constants: values of the law's parameters.

    Returns:
        Training tokens.

    Raises:
        LawError: a loss that a model of this size never reaches.
        ConfigError: numbers that mean nothing, or constants of another law.

    Source: Kaplan et al. 2020 (2001.08361).

    >>> from bitlaw.laws import published
    >>> f"{least_tokens(2.5, 1e9, published('kaplan-2020-trajectory').values):.3g}"
    '6.35e+10'
    """
    return critical_batch(loss, constants) * least_steps(loss, params, constants)


def steps_to(loss: ArrayLike, params: ArrayLike, batch_tokens: ArrayLike, constants: Constants) -> Array:
    """Steps to a loss at a batch.

        S = S_min (1 + B_crit / B)

    They and the tokens E obey (S / S_min - 1)(E / E_min - 1) = 1.

    Args:
        loss: nats per token.
        params: model size without embeddings.
        batch_tokens: tokens a step.
        constants: values of the law's parameters.

    Returns:
        Optimiser steps.

    Raises:
        LawError: a loss that a model of this size never reaches.
        ConfigError: numbers that mean nothing, or constants of another law.

    Source: Kaplan et al. 2020 (2001.08361).

    >>> from bitlaw.laws import published
    >>> k = published("kaplan-2020-trajectory").values
    >>> steps = steps_to(2.5, 1e9, 5e5, k)
    >>> f"{law.predict(k, params=1e9, steps=steps, batch_tokens=5e5):.6f}"
    '2.500000'
    """
    (batch,) = positive(batch_tokens=batch_tokens)
    share = critical_batch(loss, constants) / batch
    steps: Array = least_steps(loss, params, constants) * (1 + share)
    return steps


def tokens_to(loss: ArrayLike, params: ArrayLike, batch_tokens: ArrayLike, constants: Constants) -> Array:
    """Tokens to a loss at a batch.

        E = E_min (1 + B / B_crit)

    Args:
        loss: nats per token.
        params: model size without embeddings.
        batch_tokens: tokens a step.
        constants: values of the law's parameters.

    Returns:
        Training tokens.

    Raises:
        LawError: a loss that a model of this size never reaches.
        ConfigError: numbers that mean nothing, or constants of another law.

    Source: Kaplan et al. 2020 (2001.08361).

    >>> from bitlaw.laws import published
    >>> f"{tokens_to(2.5, 1e9, 5e5, published('kaplan-2020-trajectory').values):.3g}"
    '7.6e+10'
    """
    tokens: Array = steps_to(loss, params, batch_tokens, constants) * np.asarray(batch_tokens, dtype=float)
    return tokens
