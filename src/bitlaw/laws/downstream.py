"""From loss to what people measure: error on tasks, accuracy after quantisation, bits per byte."""

from __future__ import annotations

import math

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from .checks import positive
from .law import Law, N
from .spec import BASE, LawSpec
from .terms import LOSS, WHOLE, Condition, Input, Parameter, Source

epsilon, k, gamma = sp.symbols("epsilon k gamma")
A, P_post, G_post, C_b = sp.symbols("A P_post G_post C_b")
alpha, beta, delta = sp.symbols("alpha beta delta")
Err_0, slope = sp.symbols("Err_0 slope")

#: A link: mean top-1 error over tasks, from loss. Use `chain` to put it after a law of the loss.
gadre_error = Law(
    "gadre-error",
    epsilon - k * sp.exp(-gamma * LOSS),
    (Input(LOSS, "loss", "cross-entropy, nats per token"),),
    (
        Parameter(epsilon, 1e-3, 1, (0.3, 1), "share", "error of a model that has learnt nothing"),
        Parameter(k, 1e-6, 1e6, (0.1, 10), "share", "what learning could gain, at a loss of 0"),
        Parameter(gamma, 0.01, 20, (0.2, 2), "token/nat", "how fast error falls with loss"),
    ),
    Source("Gadre et al. 2024", "2403.08540", "error from loss; a power law in perplexity"),
    LawSpec(base="gadre-error"),
    target="error",
)

#: The rival of the link above: as much error for each nat, whatever the loss.
error_line = Law(
    "error-line",
    Err_0 + slope * LOSS,
    (Input(LOSS, "loss", "cross-entropy, nats per token"),),
    (
        Parameter(Err_0, -100, 100, (-1, 1), "share", "error at a loss of 0, where the line has no business"),
        Parameter(slope, 1e-6, 1e3, (0.01, 1), "share per nat/token", "how much error a nat is"),
    ),
    Source("a straight line", "", "what a curve must beat to be worth its third parameter"),
    LawSpec(base="error-line"),
    target="error",
)

#: Accuracy after quantising the weights, by task family: every kind of task has constants of its own. A is not
#: published, so there are no constants to plan with; the exponents stand in `incomplete.INCOMPLETE`.
task_accuracy = Law(
    "task-accuracy",
    A * N**alpha * sp.log(P_post, 2) ** beta * sp.log(C_b, 2) ** gamma * G_post**delta,
    (
        Input(N, "params", "model size, parameters"),
        Input(P_post, "post_bits", "bits of the weights after quantisation"),
        Input(C_b, "calibration_samples", "texts that the quantiser was calibrated on"),
        Input(G_post, "post_group", "elements of the weights after training that share one scale"),
    ),
    (
        Parameter(A, 1e-9, 1e15, (1e-2, 1e6), "", "scale"),
        Parameter(alpha, -3, 3, (-0.8, 0), "", "how size counts"),
        Parameter(beta, -10, 10, (-2, 0), "", "how log2 of the bits counts"),
        Parameter(gamma, -3, 3, (-0.2, 0.1), "", "how log2 of the calibration texts counts"),
        Parameter(delta, -3, 3, (-0.1, 0.2), "", "how the group counts"),
    ),
    Source("Zhou et al. 2025, task-stratified scaling laws of quantisation after training", "2508.18609",
           "as quoted by a secondary source"),
    LawSpec(base="task-accuracy"),
    conditions=(
        Condition(WHOLE - P_post, "this law is of models whose weights were quantised after training"),
        Condition(P_post - 1, "this law needs more than one bit: log2 of one is zero"),
        Condition(C_b - 1.5, "this law needs two calibration texts or more: log2 of one is zero"),
    ),
    target="neg_log_accuracy",
)  # fmt: skip

BASE |= {law.name: law for law in (gadre_error, error_line, task_accuracy)}


def bits_per_byte(loss: ArrayLike, bytes_per_token: ArrayLike) -> NDArray[np.float64]:
    """Turn loss into bits per byte, which models with different tokenisers share.

        bpb = L / (ln 2 * bytes per token)

    Args:
        loss: nats per token.
        bytes_per_token: mean bytes of the evaluation text that one token stands for.

    Returns:
        Bits per byte.

    Raises:
        ConfigError: a loss or bytes a token that are not positive.

    Source: the definition of the units.

    >>> round(float(bits_per_byte(2.7726, 4)), 3)
    1.0
    """
    loss, per = positive(loss=loss, bytes_per_token=bytes_per_token)
    bits: NDArray[np.float64] = loss / (math.log(2) * per)
    return bits
