"""The optimiser against differential evolution, on random constants, limits and served tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import TRUTH
from scipy.optimize import differential_evolution, minimize

from bitlaw import LawError, plan, published
from bitlaw.laws import kumar_unified
from bitlaw.planning.search import minimise

KUMAR = replace(published("kumar-2024"), name="unified", law=kumar_unified, values=TRUTH)
UNQUANTISED = 1024.0


def problem(seed: int) -> tuple[Any, str, dict[str, Any]]:
    """Constants, which bits are free, and a question in numbers."""
    rng = np.random.default_rng(seed)
    law, free = KUMAR, str(rng.choice(["bits", "post_bits"], p=[0.6, 0.4]))
    if rng.random() < 0.3:
        law, free = published(str(rng.choice(["chinchilla-2024", "quartet-2025", "muennighoff-2023"]))), ""
    values = {k: v * (1 if k == "E" else np.exp(0.05 * rng.standard_normal())) for k, v in law.values.items()}
    asked: dict[str, Any] = {"budget": 10 ** rng.uniform(19, 25)}
    if rng.random() < 0.4:
        asked["max_tokens"] = 10 ** rng.uniform(9, 12.5)
    if rng.random() < 0.4:
        asked["max_params"] = 10 ** rng.uniform(8, 11)
    if rng.random() < 0.5:
        asked |= {
            "memory": 10 ** rng.uniform(9, 11.5),
            "context": 1e3,
            "sequences": float(rng.integers(1, 20)),
        }
        if rng.random() < 0.5:
            asked["cache"] = (int(rng.integers(4, 60)), int(rng.integers(1, 9)), 128)
    if rng.random() < 0.6:
        asked["served"] = 10 ** rng.uniform(9, 13)
    if law.law.name == "data-constrained":
        asked["unique_tokens"] = 10 ** rng.uniform(9, 11.5)
    return replace(law, values=values), free, asked


def by_brute_force(law: Any, free: str, asked: dict[str, Any]) -> float:
    """The lowest loss over bits, log N and log D, where what costs too much is infinite."""
    form, theta = law.law, law.law.vector(law.values)[None]

    def losses(x: np.ndarray) -> np.ndarray:
        x = x.reshape(3, -1)
        bits, n, d = x[0], np.exp(x[1]), np.exp(x[2])
        train = bits / 16 if free == "bits" else 1.0
        serve = bits / 16 if free else 1.0
        layers = (n / 12 / 128**2) ** (1 / 3)
        layers_x_heads_x_width = np.prod(asked["cache"]) if "cache" in asked else layers * 128 * layers
        kept = 2 * layers_x_heads_x_width * asked.get("context", 0.0) * asked.get("sequences", 1.0)
        held = n * 16 * serve + kept * 16 * train
        fits = held <= 8 * asked.get("memory", np.inf)
        fits &= n <= asked.get("max_params", np.inf)
        left = asked["budget"] - 2 * asked.get("served", 0.0) * n * serve
        most = np.minimum(np.maximum(left, 0) / (6 * n * train), asked.get("max_tokens", np.inf))
        d = most * np.exp(-np.abs(x[2]))  # a share of what there is
        fits &= d >= 1
        columns = {
            i.column: np.full(n.shape, UNQUANTISED if i.default is None else i.default) for i in form.inputs
        }
        columns |= {"params": n, "tokens": np.maximum(d, 1.0)}
        columns["unique_tokens"] = np.minimum(columns["tokens"], asked.get("unique_tokens", np.inf))
        if free == "bits":
            columns |= {f"{part}_bits": bits for part in form.parts}
        elif free:
            columns["post_bits"] = bits
        loss = form.compiled.guarded("total", theta, {i.column: columns[i.column] for i in form.inputs})[0]
        return np.where(fits & np.isfinite(loss), loss, 1e3)

    box = [(2, 16), (10, 30), (0, 30)]
    found = differential_evolution(
        losses,
        box,
        vectorized=True,
        updating="deferred",
        popsize=40,
        maxiter=400,
        tol=1e-12,
        polish=False,
        rng=0,
    )
    x, low = found.x, float(found.fun)
    for _ in range(4):
        near = minimize(
            lambda z: float(losses(np.clip(z, *np.transpose(box)))[0]),
            x,
            method="Nelder-Mead",
            options={"xatol": 1e-9, "fatol": 1e-14, "maxiter": 3000},
        )
        x, low = np.clip(near.x, *np.transpose(box)), min(low, float(near.fun))
    return low


def compare(seed: int) -> None:
    law, free, asked = problem(seed)
    lowest = by_brute_force(law, free, asked)
    try:
        found = plan(law, **asked, quantize_to="any" if free == "post_bits" else None)["loss"].value
    except LawError:
        assert lowest == 1e3, asked
        return
    assert found <= lowest * (1 + 1e-7), (asked, found / lowest - 1)


@pytest.mark.parametrize("seed", range(4))
def test_no_point_within_the_limits_is_better(seed):
    compare(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4, 50))
def test_no_point_within_many_limits_is_better(seed):
    compare(seed)


@pytest.mark.parametrize("served", [1e10, 1e11, 3e11, 1e12])
@pytest.mark.parametrize("budget", [1e20, 1e21, 1e22])
def test_bits_and_size_trade_off_along_a_slanted_valley(served, budget):
    """Where serving costs most, a size is near the largest that can be paid, which depends on bits."""
    assert plan("kumar-2024", budget=budget, served=served)["bits"].value == pytest.approx(7.0021, abs=1e-4)


def test_size_at_the_corner_of_budget_and_most_tokens_beside_served_ones():
    """Found by a search like that above: along the corner, fewer bits after training pay for a larger model."""
    law = replace(KUMAR, values={**TRUTH, "gamma_post": 0.6})
    asked = {"budget": 3e21, "max_tokens": 8.1e9, "served": 9e10}
    answer = plan(law, **asked, quantize_to="any")
    assert answer["tokens"].value == pytest.approx(8.1e9, rel=1e-9)
    assert answer["loss"].value <= by_brute_force(law, "post_bits", asked) * (1 + 1e-9)


def test_a_long_narrow_valley_is_followed_to_its_end():
    def valley(x):  # a hundred times as long as wide, and bent
        return (x[..., 0] + 3 * x[..., 1] - 0.1 * x[..., 1] ** 2) ** 2 + 1e-4 * (x[..., 1] - 4) ** 2

    at, value = minimise(valley, np.array([[-20.0, -9.0]]), np.array([[20.0, 9.0]]))
    assert at[0] == pytest.approx([-10.4, 4], abs=1e-4)
    assert value[0] < 1e-12


def test_what_is_infinite_beside_the_minimum_does_not_stop_the_search():
    def cliff(x):
        with np.errstate(all="ignore"):
            return np.where(
                x[..., 0] < 1, -np.log(1 - x[..., 0]) - 3 * x[..., 0] + (x[..., 1] - x[..., 0]) ** 2, np.inf
            )

    at, _ = minimise(cliff, np.array([[-40.0, -5.0]]), np.array([[30.0, 5.0]]))
    assert at[0] == pytest.approx([2 / 3, 2 / 3], abs=1e-6)


def test_nothing_finite_is_left_infinite():
    at, value = minimise(lambda x: np.full(x.shape[:-1], np.inf), np.zeros((2, 2)), np.ones((2, 2)))
    assert np.isinf(value).all()
    assert np.isfinite(at).all()
