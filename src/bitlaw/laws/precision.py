"""Precision of training: low-bit parts shrink the number of parameters that count.

    N_eff = N * phi_w(P_w) * phi_a(P_a) * phi_kv(P_kv)

Each factor rises to one as bits are added. A part that is not quantised has a factor of exactly one.
"""

from __future__ import annotations

import sympy as sp

from .law import PARTS, PRECISION, Condition, Parameter, PrecisionTerm, bits_input


def kumar(part: str) -> PrecisionTerm:
    """phi(P) = 1 - exp(-P / gamma + n), with its offset (Kumar et al. 2024, appendix K).

    The main text prints the form without `n`; without it the published constants give an optimum of 3.5
    bits, with it 7.0 as the paper says. Below `gamma * n` bits the factor is negative: the law says
    nothing there, and we refuse rather than clamp.
    """
    P, gamma, n = sp.symbols(f"P_{part} gamma_{part} n_{part}")
    what = PARTS[part]
    phi = 1 - sp.exp(-P / gamma + n)
    return PrecisionTerm(
        factor=phi,
        input=bits_input(part, f"bits of the {what} in training"),
        parameters=(
            Parameter(gamma, 0.05, 20, (0.3, 6), "bits", f"bits of {what} that cut the shortfall by e"),
            Parameter(n, -5, 8, (-1, 2.5), "", f"offset of {what}: the factor is zero at gamma * n bits"),
        ),
        condition=Condition(
            phi,
            f"the {what} have too few bits for this law: its factor 1 - exp(-P/gamma_{part} + n_{part}) is not "
            f"positive at or below gamma_{part} * n_{part} bits; use more bits",
        ),
    )


PRECISION["kumar"] = kumar
