"""How often what a low-bit copy of a model drafts is rejected by the model itself."""

from __future__ import annotations

import sympy as sp

from .law import Law, N
from .spec import BASE, LawSpec
from .terms import WHOLE, Condition, Input, Parameter, Source

C, P_post, gamma, alpha = sp.symbols("C P_post gamma alpha")

#: Log rejection is linear in bits and in log size. Ours, a proposal: nobody has published one.
rejection = Law(
    "rejection",
    C * N**-alpha * sp.exp(-P_post / gamma),
    (
        Input(N, "params", "model size, parameters"),
        Input(P_post, "post_bits", "bits of the weights after quantisation"),
    ),
    (
        Parameter(C, 1e-9, 1e9, (1e-2, 1e3), "", "scale"),
        Parameter(alpha, -2, 2, (-0.3, 0.3), "", "how size counts"),
        Parameter(gamma, 0.1, 20, (0.5, 4), "bits", "bits over which rejection falls by a factor of e"),
    ),
    Source("bitlaw", "", "a proposal; that acceptance is 1 - total variation: Leviathan et al. 2023, 2211.17192"),
    LawSpec(base="rejection"),
    conditions=(
        Condition(WHOLE - P_post, "this law is of models whose weights were quantised after training"),
    ),
    target="rejection",
)  # fmt: skip

BASE |= {rejection.name: rejection}
