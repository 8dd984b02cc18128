"""Plans: the corrected tables of the paper, closed forms, budget identities, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bitlaw import BitlawError, ConfigError, LawError, fit, plan, published
from bitlaw.planning.cost import train_flops
from bitlaw.planning.search import minimise

V = published("kumar-2024").values
ALLOCATION = {
    4: (4.562, 0.877),
    5: (2.729, 1.173),
    6: (2.082, 1.281),
    7: (1.751, 1.305),
    8: (1.549, 1.291),
    10: (1.311, 1.220),
    12: (1.170, 1.139),
}


@pytest.mark.parametrize("bits", ALLOCATION)
def test_allocation_relative_to_sixteen_bits(bits):
    """Table 7.4 with the corrected D*; the printed formula of the paper breaks its own budget."""
    ours = plan("kumar-2024", budget=1e21, bits=f"int{bits}")
    full = plan("kumar-2024", budget=1e21, bits="int16")
    n, d = ALLOCATION[bits]
    assert ours["params"].value / full["params"].value == pytest.approx(n, abs=6e-4)
    assert ours["tokens"].value / full["tokens"].value == pytest.approx(d, abs=6e-4)


@pytest.mark.parametrize("budget", [1e18, 1e20, 1e22, 1e24, 1e26])
def test_the_joint_optimum_is_seven_bits_at_every_budget(budget):
    answer = plan("kumar-2024", budget=budget)
    assert answer["bits"].value == pytest.approx(7.002, abs=5e-4)
    assert answer["tokens"].value / answer["params"].value == pytest.approx(13.34, abs=6e-3)


def test_the_joint_optimum_in_numbers():
    small, large = plan("kumar-2024", budget=1e20), plan("kumar-2024", budget=1e22)
    assert small["params"].value == pytest.approx(1.690e9, rel=3e-4)
    assert small["tokens"].value == pytest.approx(2.254e10, rel=3e-4)
    assert small["loss"].value == pytest.approx(3.02633, abs=6e-6)
    assert large["loss"].value == pytest.approx(2.84817, abs=6e-6)
    for budget, bits, loss in (
        (1e20, 16, 3.06329),
        (1e20, 4, 3.08342),
        (1e22, 16, 2.85996),
        (1e22, 4, 2.86637),
    ):
        answer = plan("kumar-2024", budget=budget, bits=f"int{bits}")
        assert answer["loss"].value == pytest.approx(loss, abs=6e-6)


def test_the_optimum_is_flat():
    bits = plan("kumar-2024", budget=1e22)["bits"]
    assert (bits.near_low, bits.near_high) == (pytest.approx(5.97, abs=6e-3), pytest.approx(8.41, abs=6e-3))


@pytest.mark.parametrize(
    ("params", "budget", "bits"),
    [
        (1e9, 1e20, 8.05),
        (1e9, 1e21, 10.71),
        (1e9, 1e22, 13.61),
        (1e9, 1e23, 16.57),
        (8e9, 1e22, 8.53),
        (8e9, 1e23, 11.26),
        (8e9, 1e24, 14.18),
        (8e9, 6 * 8e9 * 15.6e12, 13.8),
        (70e9, 6 * 70e9 * 15.6e12, 11.1),
        (405e9, 6 * 405e9 * 15.6e12, 9.0),
    ],
)
def test_bits_at_a_given_size(params, budget, bits):
    answer = plan("kumar-2024", budget=budget, params=params, max_bits=32)
    assert answer["bits"].value == pytest.approx(bits, abs=0.051 if bits in (13.8, 11.1, 9.0) else 5.1e-3)


@pytest.mark.parametrize(
    ("params", "post", "tokens", "ratio"),
    [
        (30e6, 3, 5.33e9, 178),
        (30e6, 4, 2.88e10, 959),
        (30e6, 5, 1.56e11, 5185),
        (220e6, 3, 1.05e10, 47.9),
        (220e6, 4, 5.70e10, 259),
        (220e6, 6, 1.67e12, 7566),
        (8e9, 4, 1.95e11, 24),
        (8e9, 8, 1.67e14, 2.1e4),
    ],
)
def test_critical_tokens_before_quantising(params, post, tokens, ratio):
    answer = plan("kumar-2024", params=params, quantize_to=post)
    assert answer["tokens"].value == pytest.approx(tokens, rel=4e-3)
    assert answer["tokens_per_param"].value == pytest.approx(ratio, rel=2e-2)


def test_critical_tokens_agree_with_the_closed_form():
    a, B, g = V["alpha"], V["B"], V
    for n, post in ((30e6, 3), (1e9, 5), (7e10, 4)):
        inside = a * B * n ** g["gamma_N"] * math.exp(post / g["gamma_post"] - g["b"])
        exact = (inside / (g["gamma_D"] * g["C_T"])) ** (1 / (g["gamma_D"] + a))
        assert plan("kumar-2024", params=n, quantize_to=post)["tokens"].value == pytest.approx(
            exact, rel=1e-6
        )


def test_given_bits_agree_with_the_closed_form():
    """N* = (alpha A u / (beta B))^(1/(alpha+beta)) P^(-beta/(alpha+beta)) C'^(beta/(alpha+beta))."""
    a = V["alpha"]
    for bits in (5, 8, 12):
        f = np.prod([1 - math.exp(-bits / V[f"gamma_{p}"] + V[f"n_{p}"]) for p in ("w", "a", "kv")])
        exact = (V["A"] * f**-a / V["B"]) ** (1 / (2 * a)) * (1e21 * 16 / 6 / bits) ** 0.5
        answer = plan("kumar-2024", budget=1e21, bits=f"int{bits}")
        assert answer["params"].value == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("given", [{}, {"bits": 8}, {"params": "3B"}, {"tokens": "40B"}, {"quantize_to": 4}])
def test_the_budget_is_spent_exactly(given):
    answer = plan("kumar-2024", budget=1e21, **given)
    spent = train_flops(answer["params"].value, answer["tokens"].value, answer["bits"].value)
    assert spent == pytest.approx(1e21, rel=1e-12)


def test_a_plain_sixteen_means_unquantised():
    assert (
        plan("kumar-2024", budget=1e20, bits=16)["loss"]
        == plan("kumar-2024", budget=1e20, bits="bf16")["loss"]
    )
    assert (
        plan("kumar-2024", budget=1e20, bits="int16")["loss"].value
        > plan("kumar-2024", budget=1e20, bits=16)["loss"].value
    )


def test_a_law_without_precision_plans_at_sixteen_bits():
    """The constants of Besiroglu et al. give about 18 tokens a parameter at Chinchilla's budget."""
    answer = plan("chinchilla-2024", budget=5.76e23)
    assert 17 < answer["tokens"].value / answer["params"].value < 19.5
    assert any("no precision terms" in note for note in answer.notes)


@pytest.mark.parametrize(
    ("question", "error", "words"),
    [
        ({}, ConfigError, "budget"),
        ({"params": "1B"}, ConfigError, "budget"),
        ({"budget": -1}, ConfigError, "positive"),
        ({"budget": "lots"}, ConfigError, "lots"),
        ({"budget": 1e20, "params": "1B", "tokens": "20B"}, ConfigError, "nothing to choose"),
        ({"params": "1B", "quantize_to": "int99"}, ConfigError, "2 to 16 bits"),
        ({"params": "1B", "quantize_to": "bf16"}, ConfigError, "does not quantise"),
        ({"budget": 1e20, "bits": 0}, ConfigError, "2 to 16 bits"),
        ({"budget": 1e20, "bits": "int3"}, LawError, "use more bits"),
        ({"budget": 1e20, "tolerance": 2}, ConfigError, "tolerance"),
        ({"budget": 1e20, "interval": 1.5}, ConfigError, "level"),
    ],
)
def test_impossible_questions_get_one_sentence(question, error, words):
    with pytest.raises(error, match=words) as caught:
        plan("kumar-2024", **question)
    assert "\n" not in str(caught.value)


def test_a_law_without_gap_is_not_asked_about_quantisation():
    with pytest.raises(BitlawError, match="law with a gap"):
        plan("chinchilla-2024", params="1B", quantize_to="int4")


def test_extrapolation_is_said():
    notes = plan("kumar-2024", budget=1e24).notes
    assert any("times above the largest" in note for note in notes)


def test_a_fit_gives_intervals_around_the_truth(sweep):
    fitted = fit("kumar-unified", sweep)
    answer = plan(fitted, budget=1e21)
    truth = plan("kumar-2024", budget=1e21)
    for name in ("params", "tokens", "bits", "loss"):
        a = answer[name]
        assert a.low < a.value < a.high
        assert a.low * 0.99 < truth[name].value < a.high * 1.01
    assert sum(o.chance for o in answer.options) == pytest.approx(1)
    assert {o.bits for o in answer.options if o.near_optimal} == {6.0, 7.0, 8.0}
    assert "90% confidence interval" in str(answer)


def test_minimise_finds_many_minima_at_once():
    centres = np.array([-3.0, 0.5, 9.0, 20.0])[:, None]
    at, value = minimise(
        lambda x: np.abs(x[..., 0] - centres) ** 1.5, np.full((4, 1), -5.0), np.full((4, 1), 10.0)
    )
    assert at[:3] == pytest.approx(centres[:3], abs=1e-6)
    assert at[3] == 10.0  # a minimum beyond the end lies at the end
    assert value[3] == pytest.approx(10**1.5)
