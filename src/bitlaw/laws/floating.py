"""Training in floating-point formats: what exponent bits, mantissa bits and blocks cost, and what follows.

    L = E + A / N^alpha + B / D^beta + k (D^beta / N^alpha) log2(G) / [ (e + 1/2)^delta (m + 1/2)^nu ]

e and m are bits of exponent and mantissa, one more bit holds the sign, and G elements share one scale
(Sun et al. 2025, 2501.02423; k is 1 / gamma of the paper). The format is that of the inputs of matrix
products, which the weights' format stands for. The penalty grows with tokens, so that there is a number of
tokens beyond which more of them hurt; and the best number of bits rises with tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from ..errors import LawError
from ..formats import UNQUANTIZED
from .checks import constants as named
from .checks import numbers, positive
from .law import D, Law, N
from .terms import PRECISION, Form, Input, Parameter, Term, at_least_two, group_input, only_quantized

Array = NDArray[np.float64]


def floating_point(part: str, law: Law) -> Term:
    """L + k (D^beta / N^alpha) log2(G) / [(e + 1/2)^delta (m + 1/2)^nu], by bits of exponent and mantissa.

    (Sun et al. 2025, 2501.02423.) Integers have neither: rows that hold any are not read.
    """
    e, m, G, k, delta, nu = sp.symbols(f"e_{part} m_{part} G_{part} k_{part} delta_{part} nu_{part}")
    penalty = k * D ** sp.Symbol("beta") / N ** sp.Symbol("alpha") * sp.log(G, 2)
    return Term(
        inputs=(
            Input(e, f"{part}_exponent", "bits of the format's exponent", UNQUANTIZED, zero=True),
            Input(m, f"{part}_mantissa", "bits of the format's mantissa", UNQUANTIZED, zero=True),
            group_input(part),
        ),
        parameters=(
            Parameter(k, 1e-15, 1e9, (1e-6, 1), "nats/token", "cost of a format of half-bits, at D = N = 1 and G = 2"),
            Parameter(delta, 0.1, 20, (1, 6), "", "how fast bits of the exponent help"),
            Parameter(nu, 0.1, 20, (1, 6), "", "how fast bits of the mantissa help"),
        ),
        conditions=(at_least_two(G),),
        added=only_quantized(e, penalty / ((e + 0.5) ** delta * (m + 0.5) ** nu)),
    )  # fmt: skip


PRECISION["floating-point"] = Form(floating_point, bases=("chinchilla",), parts=("w",))


def best_layout(bits: ArrayLike, constants: Mapping[str, float]) -> tuple[Array, Array]:
    """How to split the bits of a float between exponent and mantissa.

        e = delta P / (delta + nu) - 1/2,    m = nu P / (delta + nu) - 1/2

    Args:
        bits: all bits of the format, P, the sign's included; two at least.
        constants: values of the law's parameters.

    Returns:
        Bits of exponent and of mantissa, not rounded; they sum to P - 1.

    Raises:
        LawError: too few bits for both to be zero or more.
        ConfigError: numbers that mean nothing, or constants of another law.

    Source: Sun et al. 2025 (2501.02423), as quoted by a secondary source.

    >>> from bitlaw.laws import published
    >>> e, m = best_layout([4, 8, 16], published("sun-2025").values)
    >>> e.round(2).tolist(), m.round(2).tolist()
    ([1.58, 3.66, 7.81], [1.42, 3.34, 7.19])
    """
    delta, nu = named(constants, "delta_w", "nu_w")
    (P,) = positive(bits=bits)
    e, m = delta * P / (delta + nu) - 0.5, nu * P / (delta + nu) - 0.5
    if not ((e >= 0) & (m >= 0)).all():
        raise LawError("these are too few bits for a sign, an exponent and a mantissa; ask for two or more")
    return e, m


def critical_tokens(
    params: ArrayLike,
    exponent: ArrayLike,
    mantissa: ArrayLike,
    group: ArrayLike,
    constants: Mapping[str, float],
) -> Array:
    """Tokens beyond which more of them raise the loss of a model trained in a float.

        D_crit = [ B N^alpha (e + 1/2)^delta (m + 1/2)^nu / (k log2 G) ]^(1 / (2 beta))

    Args:
        params: model size without embeddings.
        exponent: bits of the exponent.
        mantissa: bits of the mantissa.
        group: elements that share one scale, above one.
        constants: values of the law's parameters.

    Returns:
        Training tokens.

    Raises:
        LawError: a group of one element.
        ConfigError: numbers that mean nothing, or constants of another law.

    Source: Sun et al. 2025 (2501.02423), as quoted by a secondary source; derived again from the law.

    >>> from bitlaw.laws import published
    >>> f"{critical_tokens(1e9, 4, 3, 128, published('sun-2025').values):.2g}"
    '2.7e+13'
    """
    B, alpha, beta, k, delta, nu = named(constants, "B", "alpha", "beta", "k_w", "delta_w", "nu_w")
    size, G = positive(params=params, group=group)
    e, m = numbers("exponent", exponent), numbers("mantissa", mantissa)
    if not (G > 1).all():
        raise LawError("a group of one element costs nothing by this law; ask for two or more")
    square = B * size**alpha * (e + 0.5) ** delta * (m + 0.5) ** nu / (k * np.log2(G))
    tokens: Array = square ** (1 / (2 * beta))
    return tokens


def best_bits(tokens: ArrayLike, group: ArrayLike, constants: Mapping[str, float]) -> Array:
    """Bits, best laid out, at which a cost of N D P buys the lowest loss for given tokens.

        P* = [ (delta + nu - alpha) k D^beta log2(G) / (alpha A c) ]^(1 / (delta + nu))
        c = delta^delta nu^nu / (delta + nu)^(delta + nu)

    Args:
        tokens: training tokens.
        group: elements that share one scale, above one.
        constants: values of the law's parameters.

    Returns:
        Bits, the sign's included, not rounded.

    Raises:
        LawError: a group of one element.
        ConfigError: numbers that mean nothing, or constants of another law.

    Source: derived by us from the law of Sun et al. 2025 (2501.02423); it gives their 4 to 8 bits for 0.1T
    to 100T tokens.

    >>> from bitlaw.laws import published
    >>> best_bits([1e11, 1e14], 128, published("sun-2025").values).round(2).tolist()
    [4.27, 7.62]
    """
    A, alpha, beta, k, delta, nu = named(constants, "A", "alpha", "beta", "k_w", "delta_w", "nu_w")
    data, G = positive(tokens=tokens, group=group)
    if not (G > 1).all():
        raise LawError("a group of one element costs nothing by this law; ask for two or more")
    split = (delta / (delta + nu)) ** delta * (nu / (delta + nu)) ** nu
    power = (delta + nu - alpha) * k * data**beta * np.log2(G) / (alpha * A * split)
    bits: Array = power ** (1 / (delta + nu))
    return bits
