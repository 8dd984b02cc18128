"""Base laws: how loss falls with parameters and tokens, at full precision."""

from __future__ import annotations

import sympy as sp

from .law import D, Law, N
from .spec import BASE, LawSpec
from .terms import Condition, Input, Parameter, Source

E, A, B, alpha, beta, g = sp.symbols("E A B alpha beta g")
N_c, D_c, L_inf, a = sp.symbols("N_c D_c L_inf a")
eta, p, q, U, R_D, R_N, G_c = sp.symbols("eta p q U R_D R_N G_c")
b, c_0, c_1, d_1, f_1 = sp.symbols("b c_0 c_1 d_1 f_1")

_SIZE = Input(N, "params", "model size, parameters")
_DATA = Input(D, "tokens", "training data, tokens")
_E = Parameter(E, 1e-4, 20, (0.1, 5), "nats/token", "loss of an ideal model with unlimited data")
_A = Parameter(A, 1e-6, 1e15, (1, 1e6), "nats/token", "cost of finite parameters, at N = 1")
_B = Parameter(B, 1e-6, 1e15, (1, 1e6), "nats/token", "cost of finite data, at D = 1")
_ALPHA = Parameter(alpha, 0.01, 3, (0.1, 1.2), "", "exponent of parameters")
_BETA = Parameter(beta, 0.01, 3, (0.1, 1.2), "", "exponent of data")


def _base(
    name: str,
    loss: sp.Expr,
    parameters: tuple[Parameter, ...],
    source: Source,
    inputs: tuple[Input, ...] = (_SIZE, _DATA),
    conditions: tuple[Condition, ...] = (),
) -> Law:
    law = Law(name, loss, inputs, parameters, source, LawSpec(base=name), conditions=conditions)
    BASE[name] = law
    return law


#: No loss: a base for laws of the gap alone, which need no loss before quantisation and no law of it.
nothing = _base("none", sp.Integer(0), (), Source("a base for laws of the gap alone"))

chinchilla = _base(
    "chinchilla",
    E + A * N**-alpha + B * D**-beta,
    (_E, _A, _B, _ALPHA, _BETA),
    Source("Hoffmann et al. 2022", "2203.15556", "approach 3"),
)

#: An outer exponent lets the two costs interact; it contains Chinchilla (g = 1).
outer = _base(
    "outer",
    E + (A * N**-alpha + B * D**-beta) ** g,
    (
        _E,
        Parameter(A, 1e-9, 1e30, (1e-3, 1e9), "nats/token ^(1/g)", "cost of finite parameters, at N = 1"),
        Parameter(B, 1e-9, 1e30, (1e-3, 1e9), "nats/token ^(1/g)", "cost of finite data, at D = 1"),
        _ALPHA,
        _BETA,
        Parameter(g, 0.05, 5, (0.2, 1.5), "", "how the two costs join"),
    ),
    Source("Busbridge et al. 2025; Castro et al. 2025 (Quartet)", "2502.08606; 2505.14669", "eq. 1"),
)

#: No floor: extrapolates badly where one matters (10 % on Gadre's testbed), kept for comparison.
kaplan = _base(
    "kaplan",
    ((N_c / N) ** (alpha / beta) + D_c / D) ** beta,
    (
        Parameter(N_c, 1e-6, 1e30, (1e-2, 1e12), "parameters", "scale of size", scale_of="params"),
        Parameter(D_c, 1e-6, 1e30, (1e-2, 1e12), "tokens", "scale of data", scale_of="tokens"),
        Parameter(alpha, 0.005, 3, (0.03, 0.8), "", "exponent of parameters"),
        Parameter(beta, 0.005, 3, (0.03, 0.8), "", "exponent of data"),
    ),
    Source("Kaplan et al. 2020", "2001.08361", "eq. 1.5"),
)

#: The sharpness `a` sets how the three regimes cross: 1 is a plain sum, near 0 the largest of them.
saturating = _base(
    "saturating",
    (L_inf ** (1 / a) + (N_c / N) ** (alpha / a) + (D_c / D) ** (beta / a)) ** a,
    (
        Parameter(L_inf, 1e-4, 20, (0.1, 5), "nats/token", "loss of an ideal model with unlimited data"),
        Parameter(N_c, 1e-9, 1e30, (1e-4, 1e6), "parameters", "scale of size", scale_of="params"),
        Parameter(D_c, 1e-9, 1e30, (1e-4, 1e6), "tokens", "scale of data", scale_of="tokens"),
        _ALPHA,
        _BETA,
        Parameter(a, 0.05, 3, (0.2, 1.2), "", "sharpness of the crossing"),
    ),
    Source(
        "after Droppo & Elibol 2021, Scaling Laws for Acoustic Models",
        "2106.09488",
        "the form is from memory and was not checked against the paper",
    ),
)

#: Chinchilla with alpha = beta in compute and tokens per parameter: over-trained models lie on parallels.
overtraining = _base(
    "overtraining",
    E + (p * (D / N) ** eta + q * (D / N) ** -eta) * (6 * N * D) ** -eta,
    (
        _E,
        Parameter(p, 1e-6, 1e15, (1, 1e5), "nats/token", "cost of few parameters, at C = M = 1"),
        Parameter(q, 1e-6, 1e15, (1, 1e5), "nats/token", "cost of few tokens, at C = M = 1"),
        Parameter(eta, 0.005, 1.5, (0.05, 0.6), "", "exponent of compute; half of alpha"),
    ),
    Source("Gadre et al. 2024", "2403.08540", "eq. 4"),
)

_N_opt = sp.Min(N, G_c * U)  # the size that unique data can feed
_D_rep = U * (1 + R_D * (1 - sp.exp(-(D / U - 1) / R_D)))
_N_rep = _N_opt * (1 + R_N * (1 - sp.exp(-(N / _N_opt - 1) / R_N)))

#: Repeated tokens, and parameters beyond what unique data can feed, are worth ever less.
data_constrained = _base(
    "data-constrained",
    E + A * _N_rep**-alpha + B * _D_rep**-alpha,
    (
        _E,
        _A,
        _B,
        _ALPHA,
        Parameter(R_D, 0.1, 1e3, (1, 60), "epochs", "repetitions after which more are worth 1/e"),
        Parameter(R_N, 0.1, 1e3, (1, 60), "", "excess of parameters after which more are worth 1/e"),
        Parameter(
            G_c,
            1e-6,
            1e6,
            (0.051, 0.051),
            "parameters/token",
            "size that a unique token feeds; held as published",
            0.051,
            scale_of="params/tokens",
        ),
    ),
    Source("Muennighoff et al. 2023", "2305.16264"),
    (_SIZE, _DATA, Input(U, "unique_tokens", "distinct training tokens")),
    (
        Condition(
            (1 + 1e-9) * D - U, "unique_tokens may not exceed tokens: nothing unique is left out of them"
        ),
    ),
)


def _broken(name: str, x: sp.Symbol, of: Input, what: str) -> Law:
    """Two power laws in one quantity, joined at d_1 over a stretch that f_1 sets."""
    return _base(
        name,
        E + b * x**-c_0 * (1 + (x / d_1) ** (1 / f_1)) ** (-c_1 * f_1),
        (
            _E,
            Parameter(b, 1e-9, 1e30, (1e-3, 1e9), "nats/token", f"what {what} can gain, at {x} = 1 (the paper's b)"),
            Parameter(c_0, -1, 3, (0.05, 1), "", f"exponent of {what} before the break"),
            Parameter(c_1, -3, 3, (-0.5, 0.5), "", "how much faster it pays after the break"),
            Parameter(d_1, 1e-6, 1e6, (0.03, 30), of.column.replace("params", "parameters"), "where the break is",
                      scale_of=of.column),
            Parameter(f_1, 0.02, 5, (0.05, 1), "", "how wide the break is: 0 is a corner"),
        ),
        Source(
            "Caballero et al. 2022, Broken Neural Scaling Laws", "2210.14891", "one break; E is the paper's a"
        ),
        (of,),
    )  # fmt: skip


#: One size of model along its tokens, or one number of tokens along sizes.
broken = _broken("broken", D, _DATA, "data")
broken_size = _broken("broken-size", N, _SIZE, "size")
