"""What must not matter to a fit, and derivatives against the complex step.

A fit stops where one more step would lower the objective by less than 1e-13 of it. So the objective comes out
the same to 1e-11, predictions to 1e-8, and parameters to some millionths of their standard errors: that is 1e-6
for constants like A, which stand at one parameter, far outside any table.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from test_catalogue import own_rows, truth, with_labels

import bitlaw as bl
from bitlaw import Runs
from bitlaw.laws import LAWS
from bitlaw.laws.terms import LOSS

SOME = ("chinchilla", "overtraining", "kumar-without-offset", "qid")
GIVEN = ({"delta": 1e-3}, {"objective": "log-squares"}, {"objective": "lad"})
OBJECTIVES = (*GIVEN, {"objective": "squares"}, {})
few = settings(max_examples=4, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 10**6)


def noisy(name, seed):
    """Rows of a law with constants and 0.3 % noise of a seed."""
    law = with_labels(LAWS[name])
    runs = own_rows(law, truth(law, seed))
    noise = np.exp(0.003 * np.random.default_rng(seed).standard_normal(len(runs)))
    return Runs(runs.frame.with_columns(pl.col("loss") * noise))


def fitted(name, runs, **options):
    return bl.fit(name, runs, draws=0, **options)


def same(one, two, cost=1.0, scaled=(), by=1.0, skip=()):
    """Whether two fits agree: objectives up to a factor, parameters, those in `scaled` up to another."""
    exact = 1e-11 if not one.noise else 1e-5  # an estimated noise is found by a few rounds only
    assert two.cost == pytest.approx(cost * one.cost, rel=exact)
    for e in one.estimates:
        name = e.parameter.name
        if e.status in ("ok", "not identified") and name not in skip:
            expected = e.value * (by if name in scaled else 1.0)
            assert two.values[name] == pytest.approx(expected, rel=1e-6, abs=1e-9), name


def predictions(fit, runs):
    data = {i.column: runs.quantity(i.column).to_numpy() for i in fit.law.inputs}
    return fit.law.compiled.total(fit.law.vector(fit.values), data)


@few
@given(st.sampled_from(SOME), seeds, st.sampled_from(OBJECTIVES))
def test_the_order_of_rows_does_not_matter(name, seed, options):
    runs = noisy(name, seed)
    shuffled = Runs(runs.frame.sample(fraction=1, shuffle=True, seed=seed))
    one, two = fitted(name, runs, **options), fitted(name, shuffled, **options)
    same(one, two)
    assert predictions(two, runs) == pytest.approx(predictions(one, runs), rel=1e-8)


@few
@given(st.sampled_from(SOME), seeds, st.sampled_from(OBJECTIVES))
def test_units_do_not_matter(name, seed, options):
    """N in millions changes the constants that carry its unit, A by 1e6^alpha, and nothing else."""
    runs = noisy(name, seed)
    millions = Runs(runs.frame.with_columns(pl.col("params") / 1e6))
    one, two = fitted(name, runs, **options), fitted(name, millions, **options)
    same(one, two, skip=("A", "p", "q", "k_post"))
    assert predictions(two, millions) == pytest.approx(predictions(one, runs), rel=1e-8)
    ours, theirs = one.values, two.values
    if "A" in ours:
        assert theirs["A"] * 1e6 ** theirs["alpha"] == pytest.approx(ours["A"], rel=1e-6)
    else:  # (p (D / N)^eta + q (D / N)^-eta) (6 N D)^-eta
        assert theirs["p"] * 1e12 ** theirs["eta"] == pytest.approx(ours["p"], rel=1e-6)
        assert theirs["q"] == pytest.approx(ours["q"], rel=1e-6)


def test_intervals_do_not_know_units():
    """N in millions and losses in another unit move the ends of the constants that carry it, and no others."""
    runs = noisy("chinchilla", 3)
    others = {
        "millions": Runs(runs.frame.with_columns(pl.col("params") / 1e6)),
        "bits": Runs(runs.frame.with_columns(pl.col("loss") / np.log(2))),
    }
    how = {"draws": 200, "method": "student", "objective": "log-squares"}
    ends = {
        name: {
            e.parameter.name: np.array([e.low, e.high]) for e in bl.fit("chinchilla", some, **how).estimates
        }
        for name, some in {"given": runs, **others}.items()
    }
    for name in ("alpha", "beta", "E", "B"):
        assert ends["millions"][name] == pytest.approx(ends["given"][name], rel=1e-5), name
    for name in ("alpha", "beta"):
        assert ends["bits"][name] == pytest.approx(ends["given"][name], rel=1e-5), name
    for name in ("E", "A", "B"):
        assert ends["bits"][name] == pytest.approx(ends["given"][name] / np.log(2), rel=1e-5), name


@few
@given(st.sampled_from(SOME), seeds, st.sampled_from((*GIVEN, {"objective": "squares"})))
def test_a_row_counts_as_much_as_its_two_halves(name, seed, options):
    """Not where delta is estimated: twice the rows leave more over for the noise than their weights tell."""
    runs = noisy(name, seed)
    halves = Runs(pl.concat([runs.frame, runs.frame.with_columns(pl.col("id") + "-again")]))
    whole = fitted(name, runs, **options)
    # under LAD the last delta, 1e-7 of the noise, is of another noise
    half = fitted(name, halves, weights=np.full(len(halves), 0.5), **options)
    if options.get("objective") == "lad":
        assert half.cost == pytest.approx(whole.cost, rel=1e-8)
        assert predictions(half, runs) == pytest.approx(predictions(whole, runs), rel=1e-7)
    else:
        assert half.cost == pytest.approx(whole.cost, rel=1e-11)
        for name_, value in whole.values.items():
            assert half.values[name_] == pytest.approx(value, rel=1e-6, abs=1e-9), name_


@few
@given(st.sampled_from(SOME), seeds, st.sampled_from(OBJECTIVES))
def test_a_mean_is_minimised_where_the_sum_is(name, seed, options):
    runs = noisy(name, seed)
    share = 1 / len(runs)
    one, two = (fitted(name, runs, weights=np.full(len(runs), w), **options) for w in (1.0, share))
    same(one, two, cost=share)


@few
@given(st.sampled_from(SOME), seeds, st.sampled_from((*GIVEN, {})), st.floats(-1, 1))
def test_a_constant_added_to_log_losses_scales_what_is_linear(name, seed, options, shift):
    """E, A, B and k, and nothing else: the objective on log residuals stays."""
    runs = noisy(name, seed)
    shifted = Runs(runs.frame.with_columns(pl.col("loss") * np.exp(shift)))
    one, two = fitted(name, runs, **options), fitted(name, shifted, **options)
    linear = [one.law.names[k] for k in one.law.compiled.total.linear]
    assert {"E", "q" if name == "overtraining" else "B"} <= set(linear)
    same(one, two, scaled=linear, by=np.exp(shift))


# ---- derivatives

ROW = {
    "params": 3e7, "tokens": 2e9, "unique_tokens": 1e9, "w_bits": 6.0, "a_bits": 7.0, "kv_bits": 5.0,
    "post_bits": 4.0, "w_capacity": 3.1, "a_capacity": 4.0, "kv_capacity": 2.2, "w_exponent": 4.0, "w_mantissa": 3.0,
    "w_group": 64.0, "a_group": 128.0, "post_group": 32.0, "steps": 4e3, "batch_tokens": 5e5, "loss": 3.1,
    "calibration_samples": 128.0, "w_sparsity": 0.5,
}  # fmt: skip
TINY = 1e-40


@pytest.mark.parametrize(
    ("name", "what"), [(n, "total") for n in LAWS] + [(n, "gap") for n, law in LAWS.items() if law.gap != 0]
)
def test_derivatives_agree_with_the_complex_step(name, what):
    """f(x + ih) = f(x) + ih f'(x) loses no digit, h being 1e-40; kinks (Min, Max, Piecewise) lie elsewhere."""
    law = with_labels(LAWS[name])
    expression = law.loss + law.gap if what == "total" else law.gap
    symbols = [p.symbol for p in law.parameters]
    unknown = [LOSS] if law.implicit else []
    complex_ = sp.lambdify([*unknown, *symbols, *(i.symbol for i in law.inputs)], expression, "scipy")
    for seed, size in ((0, 3e7), (1, 3e8), (2, 3e7)):  # on both sides of the kink at N = G_c U
        chosen = {i.column: (ROW | {"params": size}).get(i.column, i.default) for i in law.inputs}
        chosen |= {i.column: float(i.label in ("int3", "int4")) for i in law.inputs if i.label is not None}
        rows = {column: np.array([value]) for column, value in chosen.items()}
        theta = law.vector(truth(law, seed))
        value, jacobian = getattr(law.compiled, what).jacobian(theta, rows)
        for k in range(len(theta)):
            moved = theta.astype(complex)
            moved[k] += 1j * TINY * max(abs(theta[k]), 1.0)
            inputs = (*moved, *chosen.values())
            found = root(complex_, value[0], inputs) if law.implicit else complex_(*inputs)
            slope = np.imag(found) / (TINY * max(abs(theta[k]), 1.0))
            scale = max(abs(slope), 1e-3 * abs(value[0]) / max(abs(theta[k]), 1.0))
            assert abs(jacobian[0, k] - slope) <= 1e-11 * scale, law.names[k]


def root(right, start, inputs):
    """L = f(L) for complex parameters, by the secant through a real neighbour."""
    loss = complex(start)
    for _ in range(40):
        near = loss * (1 + 1e-6)
        here, there = right(loss, *inputs), right(near, *inputs)
        loss -= (loss - here) / (1 - (there - here) / (near - loss))
    return loss
