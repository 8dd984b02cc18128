"""Quantisation after training: an additive cost that grows with the tokens a model has seen.

Gaps read the bits the weights end up with, `P_post`; rows that were never quantised have a gap of zero.
"""

from __future__ import annotations

import sympy as sp

from . import precision  # noqa: F401  (registers the precision forms used below)
from .base import D, N, chinchilla
from .law import GAP, Condition, GapTerm, Law, Parameter, Source, bits_input

C_T, gamma_D, gamma_N, gamma_post, b, P_post = sp.symbols("C_T gamma_D gamma_N gamma_post b P_post")

_PARAMETERS = (
    Parameter(C_T, 1e-12, 1e9, (1e-4, 1), "nats/token", "scale of the gap, at D = N = 1"),
    Parameter(gamma_D, -2, 4, (0, 1.2), "", "how fast the gap grows with tokens"),
    Parameter(gamma_N, -2, 4, (0, 1.2), "", "how fast the gap falls with parameters"),
    Parameter(gamma_post, 0.05, 10, (0.3, 2), "bits", "bits after training that cut the gap by e"),
    Parameter(
        b,
        -20,
        20,
        (0, 0),
        "",
        "offset of the bits; only C_T exp(b) can be identified, so fits hold b at 0",
        0.0,
    ),
)


def ptq(law: Law) -> GapTerm:
    """C_T D^gamma_D / N^gamma_N exp(-P_post / gamma_post + b), for models trained unquantised.

    (Kumar et al. 2024, equation 2 and appendix K.) The offset is the reading of `b` in table 2 under which
    the paper's figures come out; the paper does not spell it out.
    """
    trained = [i.symbol for i in law.inputs if i.column.endswith("_bits")]
    return GapTerm(
        expression=C_T * D**gamma_D / N**gamma_N * sp.exp(-P_post / gamma_post + b),
        input=bits_input("post", "bits of the weights after quantisation"),
        parameters=_PARAMETERS,
        conditions=tuple(
            Condition(
                sp.Max(P, P_post) - 1000,  # one of the two is unquantised
                "this gap is of models trained unquantised; for models trained in low precision and then "
                "quantised further, use the law 'kumar-unified'",
            )
            for P in trained
        ),
    )


def unified(law: Law) -> GapTerm:
    """The gap of models trained at any precision.

    C_T D^gamma_D / N_eff^gamma_N exp(-P_post / gamma_post + b) prod_x [1 - exp(-C_x (P_x - P_post))]

    (Kumar et al. 2024, equation 9.) Training at low precision shrinks N, which widens the gap, and makes
    weights robust, which narrows it: the bracket is zero where nothing is taken away.
    """
    brackets, parameters, conditions = [], [], []
    for part in law.parts:
        P, C = sp.symbols(f"P_{part} C_{part}")
        brackets.append(1 - sp.exp(-C * sp.Max(P - P_post, 0)))
        parameters.append(
            Parameter(
                C, 0.01, 50, (0.1, 3), "1/bit", f"how fast fewer training bits of {part} give robustness"
            )
        )
        conditions.append(
            Condition(
                sp.Max(P - P_post, P_post - 1000)
                + 1e-9,  # never trained below P_post; or not quantised at all
                f"the weights were quantised to more bits than the {part} part was trained in; the law speaks "
                "of P_post at or below every training precision only",
            )
        )
    size = law.n_eff
    return GapTerm(
        expression=C_T * D**gamma_D / size**gamma_N * sp.exp(-P_post / gamma_post + b) * sp.Mul(*brackets),
        input=bits_input("post", "bits of the weights after quantisation"),
        parameters=_PARAMETERS + tuple(parameters),
        conditions=tuple(conditions),
    )


GAP["kumar"] = ptq
GAP["kumar-unified"] = unified

_SOURCE = Source("Kumar et al. 2024, Scaling Laws for Precision", "2411.04330")
_trained = chinchilla.with_precision(w="kumar", a="kumar", kv="kumar")

kumar = (
    _trained.with_gap("kumar")
    .tie(beta="alpha")
    .named("kumar", Source(_SOURCE.title, "2411.04330", "F2 and eq. 2"))
)
kumar_unified = (
    _trained.with_gap("kumar-unified")
    .tie(beta="alpha")
    .named("kumar-unified", Source(_SOURCE.title, "2411.04330", "eq. 9"))
)
