"""Quantisation after training: an additive cost that grows with the tokens a model has seen.

Gaps read the bits the weights end up with, `P_post`; rows that were never quantised have a gap of zero.
"""

from __future__ import annotations

import sympy as sp

from .law import D, Law, N
from .terms import (
    FORWARD,
    GAP,
    PRECISION,
    TRAINED_PARTS,
    WHOLE,
    Condition,
    Form,
    Input,
    Parameter,
    Term,
    bits_input,
    only_quantized,
)

C_T, gamma_D, gamma_N, gamma_post, b, P_post = sp.symbols("C_T gamma_D gamma_N gamma_post b P_post")
k, kappa = sp.symbols("k_post kappa_post")

_C_T = Parameter(C_T, 1e-12, 1e9, (1e-4, 1), "nats/token", "scale of the gap, at D = N = 1")
_GAMMA_D = Parameter(gamma_D, -2, 4, (0, 1.2), "", "how fast the gap grows with tokens")
_GAMMA_N = Parameter(gamma_N, -2, 4, (0, 1.2), "", "how fast the gap falls with parameters")
_KUMAR = (
    _C_T,
    _GAMMA_D,
    _GAMMA_N,
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
_POST = bits_input("post", "bits of the weights after quantisation")


def _inputs(law: Law) -> tuple[Input, ...]:
    """Bits after training, and bits in training of every part, also where its own term reads a label instead."""
    return (
        _POST,
        *(bits_input(part, f"bits of the {TRAINED_PARTS[part]} in training") for part in law.parts),
    )


def _trained_unquantised(law: Law) -> tuple[Condition, ...]:
    """The gap is of models trained unquantised: of each part's bits and P_post, one is unquantised."""
    sentence = (
        "this gap is of models trained unquantised; for models trained in low precision and then "
        "quantised further, use the law 'kumar-unified'"
    )
    trained = [i.symbol for i in _inputs(law) if i is not _POST]
    return tuple(Condition(sp.Max(P, P_post) - WHOLE, sentence) for P in trained)


def _forward_only(law: Law) -> str:
    others = [TRAINED_PARTS[part] for part in law.parts if part not in FORWARD]
    return f"its gap knows no {' or '.join(others)} of low precision" if others else ""


def _every_part_scales_n(law: Law) -> str:
    if reason := _forward_only(law):
        return reason
    still = [
        form for part, form in law.spec.precision if PRECISION[form].make(part, law).n_factor == sp.Integer(1)
    ]
    if not still:
        return ""
    return f"its gap is of N_eff, which {still[0]!r} leaves as it is; use 'kumar-unified-n'"


def kumar(law: Law) -> Term:
    """C_T D^gamma_D / N^gamma_N exp(-P_post / gamma_post + b), for models trained unquantised.

    (Kumar et al. 2024, equation 2 and appendix K.) The offset is the reading of `b` in table 2 under which
    the paper's figures come out; the paper does not spell it out.
    """
    added = C_T * D**gamma_D / N**gamma_N * sp.exp(-P_post / gamma_post + b)
    return Term(_inputs(law), _KUMAR, _trained_unquantised(law), added=added)


def _unified(law: Law, size: sp.Expr) -> Term:
    brackets, parameters, conditions = [], [], []
    for part in law.parts:
        P, C = sp.symbols(f"P_{part} C_{part}")
        brackets.append(1 - sp.exp(-C * sp.Max(P - P_post, 0)))
        meaning = f"how fast fewer training bits of {part} give robustness"
        parameters.append(Parameter(C, 0.01, 50, (0.1, 3), "1/bit", meaning))
        conditions.append(
            Condition(
                sp.Max(P - P_post, P_post - WHOLE)
                + 1e-9,  # never trained below P_post; or not quantised at all
                f"the weights were quantised to more bits than the {part} part was trained in; the law speaks "
                "of P_post at or below every training precision only",
            )
        )
    added = C_T * D**gamma_D / size**gamma_N * sp.exp(-P_post / gamma_post + b) * sp.Mul(*brackets)
    return Term(_inputs(law), _KUMAR + tuple(parameters), tuple(conditions), added=added)


def kumar_unified(law: Law) -> Term:
    """The gap of models trained at any precision.

    C_T D^gamma_D / N_eff^gamma_N exp(-P_post / gamma_post + b) prod_x [1 - exp(-C_x (P_x - P_post))]

    (Kumar et al. 2024, equation 9.) Training at low precision shrinks N, which widens the gap, and makes
    weights robust, which narrows it: the bracket is zero where nothing is taken away.
    """
    return _unified(law, law.n_eff)


def kumar_unified_n(law: Law) -> Term:
    """As `kumar-unified` with N itself in place of N_eff: fits worse in the paper (figure 21)."""
    return _unified(law, N)


def qid(law: Law) -> Term:
    """Gap as a power law in bits, k D^gamma_D / (N^gamma_N P_post^kappa) (Ouyang et al. 2024, 2411.17691)."""
    parameters = (
        Parameter(k, 1e-12, 1e9, (1e-4, 1), "nats/token", "scale of the gap, at D = N = P = 1"),
        _GAMMA_D,
        _GAMMA_N,
        Parameter(kappa, 0.1, 20, (1, 8), "", "how fast bits after training help"),
    )
    added = only_quantized(P_post, k * D**gamma_D / N**gamma_N * P_post**-kappa)
    return Term(_inputs(law), parameters, _trained_unquantised(law), added=added)


def per_format(law: Law) -> Term:
    """Every format after training by itself: k[format] D^gamma_D[format] / N^gamma_N[format].

    Ouyang et al.'s table of critical tokens is of such laws, not of their pooled one.
    """
    parameters = (
        Parameter(k, 1e-15, 1e9, (1e-6, 1), "nats/token", "scale of the gap", per="post_format", neutral=0.0),
        Parameter(gamma_D, -2, 4, (0, 1.2), "", "how fast the gap grows with tokens", per="post_format", neutral=0.0),
        Parameter(gamma_N, -2, 4, (0, 1.2), "", "how fast the gap falls with parameters", per="post_format",
                  neutral=0.0),
    )  # fmt: skip
    return Term(_inputs(law), parameters, _trained_unquantised(law), added=k * D**gamma_D / N**gamma_N)


GAP |= {
    "kumar": Form(kumar),
    "kumar-unified": Form(kumar_unified, asks=_every_part_scales_n),
    "kumar-unified-n": Form(kumar_unified_n, asks=_forward_only),
    "qid": Form(qid),
    "per-format": Form(per_format),
}
