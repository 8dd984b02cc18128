"""Precision of training: what low-bit parts do to the loss.

Most forms shrink the number of parameters that count, N_eff = N * phi_w * phi_a * phi_kv; some shrink the
data, and two add a power law in bits. A part that is not quantised has a factor of exactly one.
"""

from __future__ import annotations

import sympy as sp

from ..formats.gaussian import LOSSLESS
from .law import Law
from .terms import (
    PRECISION,
    TRAINED_PARTS,
    Condition,
    Input,
    Parameter,
    Term,
    bits_input,
    only_quantized,
)


def _exponential(
    part: str, tag: str = "", offset: bool = True
) -> tuple[sp.Expr, tuple[Parameter, ...], Condition]:
    """1 - exp(-P / gamma + n), its parameters, and the condition that it be positive."""
    P, gamma, n = sp.symbols(f"P_{part} gamma_{part}{tag} n_{part}{tag}")
    what = TRAINED_PARTS[part]
    phi = 1 - sp.exp(-P / gamma + (n if offset else 0))
    parameters: tuple[Parameter, ...] = (
        Parameter(gamma, 0.05, 20, (0.3, 6), "bits", f"bits of {what} that cut the shortfall by e"),
    )
    if offset:
        meaning = f"offset of {what}: the factor is zero at gamma * n bits"
        parameters += (Parameter(n, -5, 8, (-1, 2.5), "", meaning),)
    sentence = (
        f"the {what} have too few bits for this law: its factor 1 - exp(-P/gamma_{part} + n_{part}) is not "
        f"positive at or below gamma_{part} * n_{part} bits; use more bits"
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
    """N_eff = N (1 - exp(-P / gamma)), as the main text of Kumar et al. prints it (equation 3)."""
    phi, parameters, condition = _exponential(part, offset=False)
    return Term((_bits(part),), parameters, (condition,), n_factor=phi)


def effective_data(part: str, law: Law) -> Term:
    """D_eff = D (1 - exp(-P / gamma + n)): tried and rejected by Kumar et al. (table 1)."""
    phi, parameters, condition = _exponential(part)
    return Term((_bits(part),), parameters, (condition,), d_factor=phi)


def effective_both(part: str, law: Law) -> Term:
    """N and D shrink by one factor: tried and rejected by Kumar et al. (table 1)."""
    phi, parameters, condition = _exponential(part)
    return Term((_bits(part),), parameters, (condition,), n_factor=phi, d_factor=phi)


def effective_both_untied(part: str, law: Law) -> Term:
    """N and D shrink by factors of their own: the best of table 1, rejected for its extra parameters."""
    size, of_size, condition_n = _exponential(part)
    data, of_data, condition_d = _exponential(part, tag="_D")
    conditions = (condition_n, condition_d)
    return Term((_bits(part),), of_size + of_data, conditions, n_factor=size, d_factor=data)


def _power(part: str) -> tuple[sp.Symbol, sp.Expr, tuple[Parameter, ...]]:
    P, K, kappa = sp.symbols(f"P_{part} K_{part} kappa_{part}")
    what = TRAINED_PARTS[part]
    parameters = (
        Parameter(K, 1e-6, 1e6, (1e-2, 1e2), "nats/token", f"cost of one-bit {what}"),
        Parameter(kappa, 0.05, 20, (0.5, 6), "", f"how fast bits of {what} pay"),
    )
    return P, K * P**-kappa, parameters


def additive_power(part: str, law: Law) -> Term:
    """L + K P^-kappa: tried and rejected by Kumar et al. (table 1)."""
    P, term, parameters = _power(part)
    return Term((_bits(part),), parameters, added=only_quantized(P, term))


def multiplicative_power(part: str, law: Law) -> Term:
    """A N^-alpha (1 + K P^-kappa): tried and rejected by Kumar et al. (table 1).

    Written as a factor (1 + K P^-kappa)^(-1/alpha) on N, so that it composes like the others.
    """
    P, term, parameters = _power(part)
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


PRECISION |= {
    "kumar": kumar,
    "kumar-without-offset": kumar_without_offset,
    "effective-data": effective_data,
    "effective-both": effective_both,
    "effective-both-untied": effective_both_untied,
    "additive-power": additive_power,
    "multiplicative-power": multiplicative_power,
    "efficiency": efficiency,
    "capacity": capacity,
}
