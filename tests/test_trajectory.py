"""The trajectory law: its root to rounding, its planner's answers, and a large model predicted from small ones."""

from __future__ import annotations

from dataclasses import replace

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar

import bitlaw as bl
from bitlaw import ConfigError, LawError, Runs
from bitlaw.laws import LAWS, chinchilla, from_spec, published, trajectory
from bitlaw.laws.compiled import Implicit
from bitlaw.laws.terms import LOSS, Parameter

LAW = trajectory.law
KAPLAN = published("kaplan-2020-trajectory").values
#: Arbitrary inputs of the test, not constants of anybody.
TRUTH = {"N_c": 1.5e14, "alpha_N": 0.076, "S_c": 2.6e3, "alpha_S": 0.67, "B_star": 1.7e8, "alpha_B": 0.205}


def right(loss, v, n, s, b):
    noise = 1 + v["B_star"] / (b * loss ** (1 / v["alpha_B"]))
    return (v["N_c"] / n) ** v["alpha_N"] + (v["S_c"] / s * noise) ** v["alpha_S"]


# ---- the root


def test_the_root_is_brents_for_many_constants_and_rows_at_once():
    rng = np.random.default_rng(0)
    n, s, b = 10 ** rng.uniform((5, 2, 3), (11, 6, 8), (40, 3)).T
    theta = LAW.vector(TRUTH) * np.exp(0.3 * rng.standard_normal((7, 6)))
    values = LAW.compiled.total(theta, {"params": n, "steps": s, "batch_tokens": b})
    assert values.shape == (7, 40)
    for k, row in enumerate(theta):
        v = dict(zip(LAW.names, row, strict=True))
        for j in range(40):
            at = (v, n[j], s[j], b[j])
            root = brentq(lambda x, at=at: x - right(x, *at), 1e-3, 1e9, xtol=1e-300, rtol=1e-15, maxiter=500)
            assert values[k, j] == pytest.approx(root, rel=1e-14)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1, 1), min_size=6, max_size=6),
    st.floats(4, 13),
    st.floats(0, 8),
    st.floats(0, 9),
)
def test_the_root_is_a_root_however_far_away(shifts, n, s, b):
    v = {p.name: TRUTH[p.name] * np.exp(shift) for p, shift in zip(LAW.parameters, shifts, strict=True)}
    at = {"params": 10**n, "steps": 10**s, "batch_tokens": 10**b}
    loss = float(LAW.predict(v, **at))
    assert right(loss, v, *at.values()) == pytest.approx(loss, rel=2e-13)


def test_derivatives_are_those_of_the_root_to_twelve_digits():
    data = LAW.arrange({"params": 3e7, "steps": 5e3, "batch_tokens": 2.5e5})
    theta = LAW.vector(TRUTH)
    _, jacobian = LAW.compiled.total.jacobian(theta, data)
    with mpmath.workdps(40):
        exact = [mpmath.mpf(float(t)) for t in theta]

        def root(*values):
            v = dict(zip(LAW.names, values, strict=True))
            return mpmath.findroot(lambda x: x - right(x, v, 3e7, 5e3, 2.5e5), (3, 4))

        for k in range(6):
            slope = mpmath.diff(lambda x, k=k: root(*exact[:k], x, *exact[k + 1 :]), exact[k])
            assert float(jacobian[..., k]) == pytest.approx(float(slope), rel=1e-12)


def test_shapes_are_those_of_plain_laws():
    total = LAW.compiled.total
    assert isinstance(total, Implicit)
    assert total.linear == ()
    data = LAW.arrange({"params": np.full(5, 1e7), "steps": 1e4, "batch_tokens": 1e5})
    stack = np.tile(LAW.vector(TRUTH), (3, 1))
    for theta, shape in ((stack, (3, 5)), (stack[0], (5,))):
        value, jacobian = total.jacobian(theta, data)
        rest, basis = total.basis(theta, data)
        assert value.shape == rest.shape == shape
        assert jacobian.shape == (*shape, 6)
        assert basis.shape == (*shape, 0)
        assert LAW.compiled.guarded("total", theta, data) == pytest.approx(value, rel=0)
        assert (LAW.compiled.guarded("gap", theta, data) == 0).all()


def test_no_root_is_not_a_number():
    data = LAW.arrange({"params": 1e7, "steps": 1e4, "batch_tokens": 1e5})
    theta = np.stack([LAW.vector(TRUTH), LAW.vector(TRUTH | {"N_c": np.finfo(float).max, "alpha_N": 3})])
    value = LAW.compiled.total(theta, data)
    assert np.isfinite(value[0])
    assert np.isnan(value[1])
    assert LAW.compiled.guarded("total", theta, data)[1] == np.inf


# ---- the planner's questions


def test_steps_and_tokens_lead_to_the_loss_they_were_asked_for():
    n, b = np.array([1e7, 1e9, 33e9]), np.array([2.5e5, 4e6, 1e6])
    loss = np.array([4.0, 2.6, 2.0])
    steps = trajectory.steps_to(loss, n, b, KAPLAN)
    assert LAW.predict(KAPLAN, params=n, steps=steps, batch_tokens=b) == pytest.approx(loss, rel=1e-13)
    tokens = trajectory.tokens_to(loss, n, b, KAPLAN)
    assert tokens == pytest.approx(steps * b)
    fewest = trajectory.least_steps(loss, n, KAPLAN)
    least = trajectory.least_tokens(loss, n, KAPLAN)
    assert (steps / fewest - 1) * (tokens / least - 1) == pytest.approx(1, rel=1e-9)


def test_at_the_critical_batch_both_are_twice_the_least():
    batch = trajectory.critical_batch(2.6, KAPLAN)
    assert trajectory.steps_to(2.6, 1e9, batch, KAPLAN) == pytest.approx(
        2 * trajectory.least_steps(2.6, 1e9, KAPLAN)
    )
    assert trajectory.tokens_to(2.6, 1e9, batch, KAPLAN) == pytest.approx(
        2 * trajectory.least_tokens(2.6, 1e9, KAPLAN)
    )


def test_the_best_size_for_steps_that_batches_do_not_slow_stops_a_tenth_above_its_end():
    """At fixed N * S_min the loss is lowest where L = (1 + alpha_N / alpha_S) (N_c / N)^alpha_N."""

    def loss(log_n):
        n = np.exp(log_n)
        return float(LAW.predict(KAPLAN, params=n, steps=1e14 / n, batch_tokens=1e30))

    best = np.exp(minimize_scalar(loss, bracket=(np.log(1e8), np.log(1e9)), tol=1e-10).x)
    end = (KAPLAN["N_c"] / best) ** KAPLAN["alpha_N"]
    assert loss(np.log(best)) / end == pytest.approx(1 + KAPLAN["alpha_N"] / KAPLAN["alpha_S"], rel=1e-6)


def test_kaplans_constants_agree_with_his_law_of_size_alone():
    """(8.8e13 / N)^.076, which was fitted by itself, over the sizes it was fitted on."""
    n = np.geomspace(1e6, 1e9, 7)
    ends = LAW.predict(KAPLAN, params=n, steps=1e30, batch_tokens=1e30)
    assert ends == pytest.approx((8.8e13 / n) ** 0.076, rel=0.015)


def test_a_loss_that_is_never_reached_is_refused():
    with pytest.raises(LawError, match="ends at a loss of 2.347"):
        trajectory.least_steps(2.3, 1e9, KAPLAN)
    with pytest.raises(LawError, match="positive"):
        trajectory.critical_batch(0, KAPLAN)


# ---- with precision


def test_precision_shrinks_the_size_inside_the_equation():
    law = LAW.with_precision(w="kumar")
    assert law.implicit
    v = {**TRUTH, "gamma_w": 2.67, "n_w": 0.3}
    at = {"params": 3e7, "steps": 5e3, "batch_tokens": 2.5e5}
    phi = 1 - np.exp(-4 / 2.67 + 0.3)
    assert law.predict(v, w_bits=4, **at) == pytest.approx(
        float(LAW.predict(TRUTH, **(at | {"params": 3e7 * phi}))), rel=1e-14
    )
    assert law.predict(v, **at) == pytest.approx(float(LAW.predict(TRUTH, **at)), rel=1e-15)
    again = from_spec(law.spec.as_json())
    assert again.loss == law.loss
    assert str(law.display()["L"]).count("N_eff") == 1


def test_what_adds_to_the_loss_is_refused():
    with pytest.raises(ConfigError, match="leaves open"):
        LAW.with_precision(w="additive-power")
    with pytest.raises(ConfigError, match="does not go with trajectory"):
        LAW.with_gap("kumar")


def test_a_law_with_a_parameter_called_l_is_not_an_equation():
    law = replace(
        chinchilla,
        loss=chinchilla.loss + LOSS,
        parameters=(*chinchilla.parameters, Parameter(LOSS, 1e-3, 1, (0.1, 1), "", "")),
    )
    assert not law.implicit
    assert law.names[-1] == "L"


# ---- a large model predicted from small ones


def curves(seed):
    """Five sizes at four batches each, 30 losses a run after its warm-up, with 0.3 % noise."""
    rng = np.random.default_rng(seed)
    steps = np.geomspace(1500, 4e4, 30).round()
    rows = []
    for n in (1e6, 3e6, 8e6, 2e7, 6e7):
        for b in (16, 64, 256, 1024):
            exact = LAW.predict(TRUTH, params=n, steps=steps, batch_tokens=b * 1024)
            noisy = exact * np.exp(0.003 * rng.standard_normal(len(steps)))
            run = {"trunk": f"{n:g} at {b}", "params": n, "batch_size": b, "seq_len": 1024}
            rows += [
                {**run, "steps": int(s), "tokens": s * b * 1024, "loss": float(x)}
                for s, x in zip(steps, noisy, strict=True)
            ]
    return Runs.from_rows(rows)


@pytest.mark.parametrize("seed", range(2))
def test_models_of_a_million_to_sixty_million_predict_thirty_three_billion(seed):
    fit = bl.fit("trajectory", curves(seed), draws=0, seed=seed)
    steps = np.geomspace(3e3, 3e5, 60)
    for batch in (0.25e6, 4e6):
        at = {"params": 33e9, "steps": steps, "batch_tokens": batch}
        error = np.abs(LAW.predict(fit.values, **at) / LAW.predict(TRUTH, **at) - 1)
        assert error.mean() < 0.003
        assert error.max() < 0.004
    assert fit.values["B_star"] == pytest.approx(TRUTH["B_star"], rel=0.25)


def test_the_law_is_in_the_catalogue():
    assert LAWS["trajectory"] is LAW
