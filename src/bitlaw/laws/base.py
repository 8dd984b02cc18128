"""Base laws: how loss falls with parameters and tokens, at full precision."""

from __future__ import annotations

import sympy as sp

from .law import BASE, Input, Law, LawSpec, Parameter, Source

N, D = sp.symbols("N D")
E, A, B, alpha, beta = sp.symbols("E A B alpha beta")

chinchilla = Law(
    name="chinchilla",
    loss=E + A * N**-alpha + B * D**-beta,
    inputs=(
        Input(N, "params", "model size, parameters"),
        Input(D, "tokens", "training data, tokens"),
    ),
    parameters=(
        Parameter(E, 1e-4, 20, (0.1, 5), "nats/token", "loss of an ideal model with unlimited data"),
        Parameter(A, 1e-6, 1e12, (1, 1e6), "nats/token", "cost of finite parameters, at N = 1"),
        Parameter(B, 1e-6, 1e15, (1, 1e6), "nats/token", "cost of finite data, at D = 1"),
        Parameter(alpha, 0.01, 3, (0.1, 1.2), "", "how fast parameters pay"),
        Parameter(beta, 0.01, 3, (0.1, 1.2), "", "how fast data pays"),
    ),
    source=Source("Hoffmann et al. 2022", "2203.15556", "approach 3"),
    spec=LawSpec(base="chinchilla"),
)

BASE["chinchilla"] = chinchilla
