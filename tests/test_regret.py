"""The choice that draws of the constants expect to lose least, and the truths that plans are judged by."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import numpy as np
import pytest

from bitlaw import Runs, fit, plan, published
from bitlaw.laws import chinchilla, kumar, kumar_unified
from bitlaw.planning.choice import chosen, tied
from bitlaw.planning.hedge import hedged
from bitlaw.planning.limits import Limits
from bitlaw.planning.optimum import Search
from bitlaw.planning.source import Source

FLOPS = 1e22


def asked(law, vectors, choices, flops=FLOPS):
    """A search over the estimate and draws, with the best of each choice and in each draw."""
    source = Source("ours", law, np.array([law.vector(v) for v in vectors]), True, {}, ())
    search = Search(source, choices, Limits(flops=flops))
    each = search.each()
    return search, each, search.in_draws(each)


def test_the_hedge_has_the_least_mean_regret_of_a_fine_grid():
    point = published("chinchilla-2024").values
    draws = [{**point, "alpha": a, "beta": b} for a, b in ((0.345, 0.37), (0.34, 0.37), (0.34, 0.375))]
    search, each, drawn = asked(chinchilla, [point, *draws], chosen(chinchilla, None, None))
    hedge = hedged(search, each, drawn)

    n = np.geomspace(1e8, 1e13, 200_001)
    excess = [v["A"] * n ** -v["alpha"] + v["B"] * (FLOPS / 6 / n) ** -v["beta"] for v in draws]
    regret = np.mean([np.log(x / x.min()) for x in excess], axis=0)
    assert hedge.params == pytest.approx(n[np.argmin(regret)], rel=1e-3)
    assert hedge.regret == pytest.approx(math.expm1(regret.min()), rel=1e-6)
    assert 6 * hedge.params * hedge.tokens == pytest.approx(FLOPS, rel=1e-12)
    assert hedge.at_best == pytest.approx(
        math.expm1(np.interp(math.log(each.params[0]), np.log(n), regret)), rel=1e-5
    )
    assert hedge.at_best > 1.05 * hedge.regret


def test_draws_that_agree_leave_nothing_to_hedge():
    values = published("kumar-2024").values
    search, each, drawn = asked(kumar, [values] * 4, tied(kumar, [6.0, 7.0, 8.0]))
    hedge = hedged(search, each, drawn)
    assert (hedge.formats, hedge.bits) == ("7 bits", 7.0)
    assert hedge.params == pytest.approx(each.params[1], rel=1e-4)
    assert abs(hedge.regret) < 1e-9 and abs(hedge.at_best) < 1e-9


def test_a_draw_that_knows_no_such_model_counts_as_twice_the_reducible_loss():
    values = published("kumar-2024").values
    refuses = {**values, "n_a": 7.5 / values["gamma_a"]}  # activations of 7 bits: a factor below zero
    search, each, drawn = asked(kumar, [values, values, refuses], tied(kumar, [7.0, 8.0, 12.0]))
    hedge = hedged(search, each, drawn)
    assert hedge.at_best == pytest.approx(math.sqrt(2) - 1, rel=1e-6)
    assert hedge.bits > 7 and hedge.regret < hedge.at_best


def test_what_draws_cannot_hedge():
    assert plan("kumar-2024", budget=FLOPS).hedge is None  # published constants have none
    values = published("kumar-2024").values
    search, each, drawn = asked(kumar, [values] * 3, tied(kumar, [7.0]), flops=np.full(3, FLOPS))
    assert hedged(search, each, drawn) is None  # each has a budget of its own


@pytest.mark.parametrize("noise, sure", [(1e-4, True), (0.02, False)])
def test_plans_say_what_their_draws_expect_to_lose(noise, sure):
    values, rng = published("chinchilla-2024").values, np.random.default_rng(0)
    rows = [{"params": n, "tokens": d} for n in (3e7, 1e8, 3e8, 1e9) for d in (1e9, 3e9, 1e10, 3e10)]
    for row in rows:
        row["loss"] = float(chinchilla.predict(values, **row)) * math.exp(noise * rng.standard_normal())
    answer = plan(fit("chinchilla", Runs.from_rows(rows), draws=100), budget=FLOPS)
    assert 0 <= answer.hedge.regret <= answer.hedge.at_best
    assert (answer.hedge.at_best < 0.01) is sure
    assert any("leave the optimum open" in note for note in answer.notes) is not sure


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a file of the benchmarks."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module


@pytest.mark.slow
def test_truths_are_the_laws_of_the_package(benchmark):
    """Written down twice, so that a mistake cannot hide in both."""
    there = benchmark("truths").truth("unified", np.random.default_rng(0))
    values = there.values | {"b": 0.0}
    for bits in ({}, {"w": 4.0}, {"w": 6.0, "a": 8.0, "kv": 5.0}, {"a": 6.0, "post": 4.0}):
        ours = there.loss(2e8, 7e9, **bits)
        inputs = {f"{part}_bits": b for part, b in bits.items()}
        theirs = kumar_unified.predict(
            {name: values[name] for name in kumar_unified.names}, params=2e8, tokens=7e9, **inputs
        )
        assert float(ours) == pytest.approx(float(theirs), rel=1e-12)


def test_optima_of_truths_are_those_of_the_paper(benchmark):
    """The joint optimum of the published constants: 7.002 bits at every budget, 13.34 tokens a parameter."""
    truths = benchmark("truths")
    there = truths.Truth("kumar", dict(published("kumar-2024").values) | {"beta": 0.4965})
    bits, n, loss = there.best_bits(1e22)
    assert bits == pytest.approx(7.002, abs=2e-3)
    assert truths.tokens_for(1e22, n, bits) / n == pytest.approx(13.34, abs=0.02)
    assert loss == pytest.approx(2.84817, abs=5e-6)


def test_judging_a_plan(benchmark):
    regret = benchmark("regret")
    found = regret.judged(regret.STUDIES[7], 10**6, rivals=False)
    assert 1 <= found["free"] < 1.2 and found["whole"] == pytest.approx(found["free"], rel=1e-9)
    assert found["params"] == found["tokens"]  # one budget, one number of bits
    assert found["params"] == sorted(found["params"])  # wider intervals hold more
