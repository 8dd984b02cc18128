"""Decisions that others published, from their laws by the one planner; and the law of the trajectory."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bitlaw import plan, published
from bitlaw.laws import floating, overtraining, trajectory
from bitlaw.laws.published import Published
from bitlaw.laws.rules import qat_fraction
from bitlaw.laws.terms import Source
from bitlaw.planning import hardware

# ---- Sun et al. 2025: floats


def layouts(bits: int) -> list[str]:
    """Every split of some bits between exponent and mantissa."""
    return [f"e{e}m{bits - 1 - e} group128" for e in range(1, min(bits - 1, 7) + 1)]


@pytest.mark.parametrize(("bits", "best"), [(4, "e2m1"), (6, "e3m2"), (8, "e4m3")])
def test_how_the_bits_of_a_float_are_best_laid_out(bits, best):
    answer = plan("sun-2025", budget=1e22, tokens="1T", bits=layouts(bits))
    assert answer.formats == f"{best} group128"
    e, m = floating.best_layout(bits, published("sun-2025").values)
    assert (round(float(e)), round(float(m))) == (int(best[1]), int(best[3]))


@pytest.mark.parametrize(("tokens", "bits"), [("100B", 4.27), ("1T", 5.18), ("10T", 6.28), ("100T", 7.62)])
def test_four_to_eight_bits_for_a_tenth_to_a_hundred_trillion_tokens(tokens, bits):
    """At given tokens the size takes the rest of the budget, and the best bits do not depend on it."""
    every = [name for b in range(3, 12) for name in layouts(b)]
    exact = float(floating.best_bits(plan_tokens(tokens), 128, published("sun-2025").values))
    assert exact == pytest.approx(bits, abs=5.1e-3)
    for budget in (1e22, 1e25):
        answer = plan("sun-2025", budget=budget, tokens=tokens, bits=every)
        assert abs(answer["bits"].value - exact) < 1
        assert 4 <= answer["bits"].value <= 8


def plan_tokens(text: str) -> float:
    return float(text[:-1]) * {"B": 1e9, "T": 1e12}[text[-1]]


def test_more_tokens_hurt_a_float_beyond_its_critical_ones():
    for layout in ("e2m1", "e4m3"):
        exact = floating.critical_tokens(
            1e9, int(layout[1]), int(layout[3]), 128, published("sun-2025").values
        )
        answer = plan("sun-2025", params="1B", bits=f"{layout} group128")
        assert answer["tokens"].value == pytest.approx(float(exact), rel=1e-6)


# ---- QuEST, Quartet: efficiencies


def test_four_bits_are_best_at_equal_memory_and_two_to_four_for_weights_alone():
    """Fixed N x P, long training: the largest eff(P) / P (2502.05003, section 4)."""
    given = {"memory": "1 GB", "tokens": 1e15, "bits": "any"}
    both = plan("quest-2025", **given)
    assert both.formats == "int4"
    values = {k[6:-1]: v for k, v in published("quest-2025").values.items() if k.startswith("eff_w")}
    width = {"binary": 1, "e2m1": 4, "bf16": 16} | {f"int{b}": b for b in (2, 3, 4, 8)}
    ranked = sorted(width, key=lambda name: -(values | {"bf16": 1.0})[name] / width[name])
    assert [o.formats for o in both.options] == ranked
    weights = plan("quest-2025-weights", **given)
    assert {o.formats for o in weights.options[:3]} == {"int2", "int3", "int4"}


def test_quartet_trains_all_in_four_bits_once_speedups_count():
    """Effective loss L(N_max sp_fw, D_max sp_tr / sp_fw): a size from serving, tokens from training (2505.14669).

    16 bits stand for the paper's 8, which lose nothing there; speed-ups are over these. FP8:FP4, whose backward pass
    alone is narrow, has no products of two narrow operands here, so it is left to the formula.
    """
    v = published("quartet-2025-mxfp4").values
    fw, bw = v["eff_w[mxfp4]"], v["eff_grad[mxfp4]"]

    def loss(n, d, eff_n=1.0, eff_d=1.0):
        terms = v["A"] * (n * eff_n) ** -v["alpha"] + v["B"] * (d * eff_d) ** -v["beta"]
        return v["E"] + terms ** v["g"]

    formats = ["bf16", "w=mxfp4, a=mxfp4", "mxfp4"]
    region = {}
    for n in (3e7, 1e9, 1e11):
        for ratio in (10, 25, 400, 3000):
            d = ratio * n
            hand = {
                "bf16": loss(n, d),
                formats[1]: loss(2 * n, 1.2 / 2 * d, fw),
                "mxfp4": loss(2 * n, d, fw, bw),
            }
            backward = loss(n, 1.5 * d, 1.0, bw)
            answer = plan(
                "quartet-2025-mxfp4",
                token_flops=2 * n,
                budget=6 * n * d,
                hardware="b200",
                speedups={"fp4": 2.0},
                bits=formats,
            )
            found = {o.formats: o.loss for o in answer.options}
            region[n, ratio] = min([*hand.values(), backward]) == hand["mxfp4"]
            assert answer.formats == min(hand, key=hand.__getitem__) == "mxfp4"
            if (
                ratio >= 400
            ):  # sizes end where serving ends them; below, a smaller model on more tokens is better
                assert found == pytest.approx(hand, rel=1e-12)
            else:
                assert all(found[name] <= hand[name] + 1e-12 for name in formats)
    assert all(region[n, ratio] == (ratio >= 400) for n, ratio in region)


# ---- plain laws


def test_eighteen_tokens_a_parameter_at_chinchillas_budget():
    v = published("chinchilla-2024").values
    answer = plan("chinchilla-2024", budget=5.76e23)
    g = (v["alpha"] * v["A"] / (v["beta"] * v["B"])) ** (1 / (v["alpha"] + v["beta"]))
    exact = g * (5.76e23 / 6) ** (v["beta"] / (v["alpha"] + v["beta"]))
    assert answer["params"].value == pytest.approx(exact, rel=1e-6)
    assert answer["tokens_per_param"].value == pytest.approx(18, abs=0.5)
    before = plan("chinchilla-2022", budget=5.76e23)
    assert before["tokens_per_param"].value > 50  # the constants of the fit that had stopped early


@pytest.mark.parametrize("law", ["chinchilla-2024", "muennighoff-2023", "kumar-2024"])
def test_serving_moves_the_optimum_to_smaller_models_trained_longer(law):
    """At the least 6 N D + 2 N T for a loss, eps_N / eps_D = 1 + T / (3 D) (Sardana et al. 2024, 2401.00448).

    The slopes of the cost against log N and log D are 6 N D + 2 N T and 6 N D, those of the loss eps_N and eps_D.
    """
    v, step, sizes = published(law).values, 1e-4, []
    form = published(law).law

    def at(n, d):
        rest = {"unique_tokens": d} if "unique_tokens" in form.columns else {}
        return float(form.predict(v, params=n, tokens=d, **rest))

    for served in (None, 1e11, 1e13):
        answer = plan(law, loss=2.95, served=served, bits="bf16" if law == "kumar-2024" else None)
        n, d = answer["params"].value, answer["tokens"].value
        assert answer["loss"].value == pytest.approx(2.95, abs=1e-9)
        assert at(n, d) == pytest.approx(2.95, abs=1e-6)
        up, down = math.exp(step), math.exp(-step)
        ratio = (at(n * up, d) - at(n * down, d)) / (at(n, d * up) - at(n, d * down))
        if law != "muennighoff-2023":  # whose sizes beyond what unique tokens feed are worth less
            assert ratio == pytest.approx(1 + (served or 0) / (3 * d), rel=1e-4)
        sizes.append((n, d))
    assert [n for n, _ in sizes] == sorted((n for n, _ in sizes), reverse=True)
    assert [d for _, d in sizes] == sorted(d for _, d in sizes)


def test_serving_in_fewer_bits_makes_the_served_model_larger():
    """Sardana's shift is smaller where a served token costs less."""
    wide = plan("kumar-2024", loss=3.0, served="10T", bits="bf16")
    narrow = plan("kumar-2024", loss=3.0, served="10T", bits="bf16", quantize_to="int6")
    none = plan("kumar-2024", loss=3.0, bits="bf16")
    assert wide["params"].value < narrow["params"].value < none["params"].value


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_the_best_tokens_a_parameter_shrink_with_the_parameters_that_count(bits):
    """M*(P) = phi(P) M*: with alpha = beta, the best D / N_eff is one number (Gadre et al. 2024, 2403.08540)."""
    c4, kumar = published("gadre-2024-c4"), published("kumar-2024")
    values = {**c4.values, "gamma_w": kumar.values["gamma_w"], "n_w": kumar.values["n_w"]}
    law = Published("c4-w", overtraining.with_precision(w="kumar"), values, Source("test", "", ""), "nothing")
    best = (c4.values["q"] / c4.values["p"]) ** (1 / (2 * c4.values["eta"]))
    phi = 1 - math.exp(-bits / values["gamma_w"] + values["n_w"])
    assert plan(law, budget=1e21, bits="bf16")["tokens_per_param"].value == pytest.approx(best, rel=1e-6)
    assert plan(law, budget=1e21, bits=f"w{bits}")["tokens_per_param"].value == pytest.approx(
        phi * best, rel=1e-6
    )


def test_repeated_tokens_are_worth_more_than_none_and_less_than_new_ones():
    """2305.16264: several epochs are best where tokens are few, and gain less and less."""
    budgets = (1e20, 1e21, 1e22, 1e23)
    few = [plan("muennighoff-2023", budget=c, unique_tokens="10B") for c in budgets]
    many = [plan("muennighoff-2023", budget=c) for c in budgets]
    epochs = [answer["epochs"].value for answer in few]
    assert (
        1 < epochs[0] < many[0]["tokens"].value / 10e9 + 0.2
    )  # two epochs are worth almost as much as new tokens
    assert (np.diff(epochs) > 0).all()
    assert 2 < epochs[1] < 20
    for some, all_ in zip(few, many, strict=True):
        assert some["loss"].value >= all_["loss"].value
    gains = -np.diff([answer["loss"].value for answer in few])
    free = -np.diff([answer["loss"].value for answer in many])
    assert (np.diff(gains / free) < 0).all()
    once = plan("muennighoff-2023", budget=1e22, unique_tokens="10B", max_tokens="10B")
    assert once["loss"].value > few[2]["loss"].value


@pytest.mark.parametrize(("per_byte", "share"), [(18.6, 0.10), (264, 0.30), (4.3e3, 0.45), (7.7e4, 0.55)])
def test_the_share_of_training_with_quantised_weights(per_byte, share):
    found = qat_fraction(params=1e9, tokens=per_byte * 1e9 * 4 / 8, bits=4)
    assert float(found) == pytest.approx(share, abs=5.1e-3)


def test_larger_models_are_hurt_at_fewer_tokens_a_parameter():
    """The multiple of Chinchilla's tokens beyond which more of them hurt the quantised model."""
    multiples = []
    for params in ("30M", "220M", "1B", "8B", "70B"):
        critical = plan("kumar-2024", params=params, quantize_to="int4")["tokens"].value
        best = plan("kumar-2024", params=params, loss=_chinchilla_loss(params), bits="bf16")["tokens"].value
        multiples.append(critical / best)
    assert (np.diff(np.log(multiples)) < 0).all()
    assert multiples[0] > 50 > multiples[2] > 5 > multiples[-2]


def _chinchilla_loss(params: str) -> float:
    """The loss of a size whose share of the loss is that of its tokens: alpha A N^-alpha = beta B D^-beta."""
    v = published("kumar-2024").values
    n = float(params[:-1]) * {"M": 1e6, "B": 1e9}[params[-1]]
    return v["E"] + 2 * v["A"] * n ** -v["alpha"]


# ---- the law of the trajectory

KAPLAN = published("kaplan-2020-trajectory").values


@pytest.mark.parametrize(("params", "loss", "batch"), [(1e7, 4.0, 2.5e5), (1e9, 2.6, 4e6), (33e9, 2.0, None)])
def test_steps_and_tokens_to_a_loss_are_those_of_the_closed_form(params, loss, batch):
    answer = plan("kaplan-2020-trajectory", params=params, loss=loss, batch_tokens=batch)
    critical = float(trajectory.critical_batch(loss, KAPLAN))
    steps = float(trajectory.steps_to(loss, params, batch or critical, KAPLAN))
    exact = {
        "steps": steps,
        "tokens": steps * (batch or critical),
        "critical_batch": critical,
        "least_steps": float(trajectory.least_steps(loss, params, KAPLAN)),
        "least_tokens": float(trajectory.least_tokens(loss, params, KAPLAN)),
    }
    for name, value in exact.items():
        assert answer[name].value == pytest.approx(value, rel=1e-9), name
    assert ("critical batch" in " ".join(answer.notes)) == (batch is None)


def test_hours_shrink_with_devices_and_money_does_not():
    given = {"params": 1e9, "loss": 2.6, "batch_tokens": 4e6, "hardware": "h100", "achieved": 0.4}
    one, sixteen = (plan("kaplan-2020-trajectory", **given, devices=n) for n in (1, 16))
    h100 = hardware("h100")
    hours = 6 * 1e9 * one["tokens"].value / (0.4 * h100.rate("bf16").flops) / 3600
    assert one["hours"].value == pytest.approx(hours, rel=1e-12)
    assert sixteen["hours"].value == pytest.approx(hours / 16, rel=1e-12)
    assert one["money"].value == pytest.approx(hours * h100.price, rel=1e-12)
    assert sixteen["money"].value == pytest.approx(hours * h100.price, rel=1e-12)
