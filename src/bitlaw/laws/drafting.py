"""How often what a low-bit copy of a model drafts is rejected by the model itself: laws of our own."""

from __future__ import annotations

import sympy as sp

from .law import Law, N
from .spec import BASE, LawSpec
from .terms import WHOLE, Condition, Input, Parameter, Source

C, P_post, gamma, alpha = sp.symbols("C P_post gamma alpha")

_INPUTS = (
    Input(N, "params", "model size, parameters"),
    Input(P_post, "post_bits", "bits of the weights after quantisation"),
)
_SCALE = Parameter(C, 1e-9, 1e9, (1e-2, 1e3), "", "scale")
_SIZE = Parameter(alpha, -2, 2, (-0.3, 0.3), "", "how size counts")
_AFTER = Condition(WHOLE - P_post, "this law is of models whose weights were quantised after training")
_WHERE = "a proposal; that acceptance is 1 - total variation: Leviathan et al. 2023, 2211.17192"

#: Log rejection is linear in bits and in log size.
rejection = Law(
    "rejection",
    C * N**-alpha * sp.exp(-P_post / gamma),
    _INPUTS,
    (
        _SCALE,
        _SIZE,
        Parameter(gamma, 0.1, 20, (0.5, 4), "bits", "bits over which rejection falls by a factor of e"),
    ),
    Source("bitlaw", "", _WHERE),
    LawSpec(base="rejection"),
    conditions=(_AFTER,),
    target="rejection",
)

#: Rejection is in proportion to the step of a symmetric integer grid, 1 / (2^(P - 1) - 1) of the largest weight: total
#: variation is of first order in a small change of the logits, and these are in that of the weights.
rejection_step = Law(
    "rejection-step",
    C * N**-alpha * sp.exp(-(P_post - 1) * sp.log(2)) / (1 - sp.exp(-(P_post - 1) * sp.log(2))),
    _INPUTS,
    (_SCALE, _SIZE),
    Source("bitlaw", "", _WHERE),
    LawSpec(base="rejection-step"),
    conditions=(_AFTER, Condition(P_post - sp.Rational(3, 2), "a symmetric grid of one bit has no step")),
    target="rejection",
)

BASE |= {law.name: law for law in (rejection, rejection_step)}
