"""Precision of training: what low-bit parts do to the loss.

Most forms shrink the number of parameters that count, N_eff = N * phi_w * phi_a * phi_kv; some shrink the
data, and some add a term of their own. A part that is not quantised has a factor of exactly one.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from ..formats.gaussian import LOSSLESS
from .law import D, Law, N
from .terms import (
    FORWARD,
    PRECISION,
    TRAINED_PARTS,
    Condition,
    Form,
    Input,
    Parameter,
    Term,
    at_least_two,
    bits_input,
    group_input,
    only_quantized,
)


def _exponential(
    part: str, tag: str = "", offset: bool = True, what: str = "parameters"
) -> tuple[sp.Expr, tuple[Parameter, ...], Condition]:
    """1 - exp(-P / gamma + n), its parameters, and the condition that it be positive."""
    P, gamma, n = sp.symbols(f"P_{part} gamma_{part}{tag} n_{part}{tag}")
    phi = 1 - sp.exp(-P / gamma + (n if offset else 0))
    of, also = TRAINED_PARTS[part], "" if what == "parameters" else f", in their factor on {what}"
    parameters: tuple[Parameter, ...] = (
        Parameter(gamma, 0.05, 20, (0.3, 6), "bits", f"bits of {of} that divide the lost share by e{also}"),
    )
    if offset:
        meaning = f"offset of {of}: the factor is zero at gamma * n bits{also}"
        parameters += (Parameter(n, -5, 8, (-1, 2.5), "", meaning),)
    exponent, end = (f" + {n}", f"{gamma} * {n}") if offset else ("", "zero")
    sentence = (
        f"the {of} have too few bits for this law: its factor 1 - exp(-P/{gamma}{exponent}) is not "
        f"positive at or below {end} bits; use more bits"
    )
    return phi, parameters, Condition(phi, sentence)


def _bits(part: str) -> Input:
    return bits_input(part, f"bits of the {TRAINED_PARTS[part]} in training")


def kumar(part: str, law: Law) -> Term:
    """N_eff = N (1 - exp(-P / gamma + n)), with its offset (Kumar et al. 2024, appendix K).

    The main text prints the form without `n`; without it the published constants give an optimum of 3.5
    bits, with it 7.0 as the paper says. Below `gamma * n` bits the factor is negative: the law says
    nothing there, and we refuse rather than clamp.
    """
    phi, parameters, condition = _exponential(part)
    return Term((_bits(part),), parameters, (condition,), n_factor=phi)


def kumar_without_offset(part: str, law: Law) -> Term:
    """N_eff = N (1 - exp(-P / gamma)), as the main text of Kumar et al. prints it (equations 3 and 4)."""
    phi, parameters, condition = _exponential(part, offset=False)
    return Term((_bits(part),), parameters, (condition,), n_factor=phi)


def effective_data(part: str, law: Law) -> Term:
    """D_eff = D (1 - exp(-P / gamma + n)): tried and rejected by Kumar et al. (table 1)."""
    phi, parameters, condition = _exponential(part, what="tokens")
    return Term((_bits(part),), parameters, (condition,), d_factor=phi)


def effective_both(part: str, law: Law) -> Term:
    """N and D shrink by one factor: tried and rejected by Kumar et al. (table 1)."""
    phi, parameters, condition = _exponential(part, what="parameters and tokens")
    return Term((_bits(part),), parameters, (condition,), n_factor=phi, d_factor=phi)


def effective_both_untied(part: str, law: Law) -> Term:
    """N and D shrink by factors of their own: the best of table 1, rejected for its extra parameters."""
    size, of_size, condition_n = _exponential(part)
    data, of_data, condition_d = _exponential(part, tag="_D", what="tokens")
    conditions = (condition_n, condition_d)
    return Term((_bits(part),), of_size + of_data, conditions, n_factor=size, d_factor=data)


def _power(part: str, unit: str) -> tuple[sp.Symbol, sp.Expr, tuple[Parameter, ...]]:
    P, K, kappa = sp.symbols(f"P_{part} K_{part} kappa_{part}")
    what = TRAINED_PARTS[part]
    parameters = (
        Parameter(K, 1e-6, 1e6, (1e-2, 1e2), unit, f"cost of one-bit {what}"),
        Parameter(kappa, 0.05, 20, (0.5, 6), "", f"how fast bits of {what} help"),
    )
    return P, K * P**-kappa, parameters


def additive_power(part: str, law: Law) -> Term:
    """L + K P^-kappa: tried and rejected by Kumar et al. (table 1)."""
    P, term, parameters = _power(part, "nats/token")
    return Term((_bits(part),), parameters, added=only_quantized(P, term))


def multiplicative_power(part: str, law: Law) -> Term:
    """A N^-alpha (1 + K P^-kappa): tried and rejected by Kumar et al. (table 1).

    Written as a factor (1 + K P^-kappa)^(-1/alpha) on N, so that it composes like the others.
    """
    P, term, parameters = _power(part, "")  # a share of A N^-alpha, which has the unit
    factor = only_quantized(P, (1 + term) ** (-1 / sp.Symbol("alpha")), otherwise=1)
    return Term((_bits(part),), parameters, n_factor=factor)


def efficiency(part: str, law: Law) -> Term:
    """N_eff = N * eff[format]; for gradients D_eff = D * eff[format].

    One number per format, whatever the size and tokens (Frantar et al. 2025, 2502.16440; QuEST,
    2502.05003); forward formats act on N, backward ones on D (Quartet, 2505.14669).
    """
    eff = sp.Symbol(f"eff_{part}")
    what = "tokens" if part == "grad" else "parameters"
    parameter = Parameter(
        eff, 1e-3, 5, (0.05, 1.1), "", f"share of {what} that count, by format of {TRAINED_PARTS[part]}",
        per=f"{part}_format",
    )  # fmt: skip
    return Term((), (parameter,), **{"d_factor" if part == "grad" else "n_factor": eff})


def capacity(part: str, law: Law) -> Term:
    """N_eff = N tanh(F x)^C with x the effective bits of the format on Gaussian data.

    One curve for all formats, shared by all parts (Panferov et al. 2025, 2506.01863, table 4); x is
    log_{1/4} of the format's smallest mean squared error on N(0, 1).
    """
    x, F, C = sp.symbols(f"x_{part} F C")
    return Term(
        inputs=(
            Input(x, f"{part}_capacity", f"effective bits of the {TRAINED_PARTS[part]}", default=LOSSLESS),
        ),
        parameters=(
            Parameter(F, 0.02, 5, (0.1, 1.5), "1/bit", "how fast effective bits give capacity"),
            Parameter(C, 0.1, 10, (0.5, 3), "", "how late capacity comes"),
        ),
        n_factor=sp.tanh(F * x) ** C,
    )


def capacity_sparse(part: str, law: Law) -> Term:
    """N_eff = N Lm tanh(F x)^C tanh(F x_s)^C: capacity where weights are quantised, sparse, or both.

    Factors multiply (Panferov et al. 2025, 2506.01863): x is of the format, as in `capacity`, and x_s =
    log_{1/4} of what is lost of N(0, 1) when its smallest values, a share s, are set to zero. That is
    s - 2 y exp(-y^2) / sqrt(pi) with y = erfinv(s). Lm is of quantised weights: below one for biased ways
    of training, like LSQ; one in the paper's default, at which fits hold it.
    """
    quantised = capacity(part, law)
    x, s, F, C, Lm = sp.symbols(f"x_{part} s_{part} F C Lm")
    y = sp.erfinv(s)
    lost = s - 2 * y * sp.exp(-(y**2)) / sp.sqrt(sp.pi)
    kept = sp.Piecewise(
        (sp.tanh(F * sp.log(lost) / sp.log(sp.Rational(1, 4))) ** C, s > 0), (sp.Integer(1), True)
    )
    prefactor = sp.Piecewise((Lm, x < LOSSLESS / 2), (sp.Integer(1), True))
    return Term(
        inputs=(
            *quantised.inputs,
            Input(s, f"{part}_sparsity", f"share of the {TRAINED_PARTS[part]} that is zero", 0.0, zero=True),
        ),
        parameters=(
            *quantised.parameters,
            Parameter(Lm, 0.01, 2, (0.5, 1), "", "capacity at many bits; the paper's default", 1.0),
        ),
        conditions=(Condition(1 - s, "a share of zeros lies between 0 and 1; use 0.5 for half of them"),),
        n_factor=quantised.n_factor * prefactor * kept,
    )


def additive_granular(part: str, law: Law) -> Term:
    """L + k D^gamma_D (log2 G)^gamma_G / N^gamma_N, by format, with G elements to a scale (Chen et al. 2025).

    The gap grows with tokens and with the group, which a constant effective N cannot hold (2505.14302,
    equations 4 and 5). The paper's setting W4A4 is fitted by itself; with terms for both parts the sum of
    theirs stands for it, of which the paper finds 0.906. For per-channel scales G is the row's width.
    """
    k, gamma_N, gamma_D, gamma_G, G = sp.symbols(
        f"k_{part} gamma_N_{part} gamma_D_{part} gamma_G_{part} G_{part}"
    )
    per: dict[str, Any] = {"per": f"{part}_format", "neutral": 0.0}
    scale = f"cost of low-bit {TRAINED_PARTS[part]}, at D = N = 1 and G = 2"
    parameters = (
        Parameter(k, 1e-12, 1e9, (1e-4, 10), "nats/token", scale, **per),
        Parameter(gamma_N, -2, 4, (0, 0.8), "", "how fast it falls with parameters", **per),
        Parameter(gamma_D, -2, 4, (0, 0.5), "", "how fast it grows with tokens", **per),
        Parameter(gamma_G, -2, 8, (0, 1.5), "", "how fast it grows with log2 of the group", **per),
    )
    added = k * D**gamma_D / N**gamma_N * sp.log(G, 2) ** gamma_G
    return Term((group_input(part),), parameters, (at_least_two(G),), added=added)


PRECISION |= {
    "kumar": Form(kumar, parts=FORWARD),
    "kumar-without-offset": Form(kumar_without_offset, parts=FORWARD),
    "effective-data": Form(effective_data, parts=FORWARD),
    "effective-both": Form(effective_both, parts=FORWARD),
    "effective-both-untied": Form(effective_both_untied, parts=FORWARD),
    "additive-power": Form(additive_power, parts=FORWARD),
    "multiplicative-power": Form(
        multiplicative_power, bases=("chinchilla", "outer", "data-constrained"), parts=FORWARD
    ),
    "efficiency": Form(efficiency),
    "capacity": Form(capacity, parts=FORWARD),
    "capacity-sparse": Form(capacity_sparse, parts=("w",)),
    "additive-granular": Form(additive_granular, parts=("w", "a")),
}
