"""What a plan carries: intervals from draws, near-optimal ranges, other laws, a training configuration."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from bitlaw import ConfigError, Runs, fit, plan, published
from bitlaw.study import read_study


@pytest.fixture(scope="module")
def rows():
    """Twenty-five runs of Chinchilla's law with 0.2 % noise."""
    rng, law = np.random.default_rng(0), published("chinchilla-2024")
    cells = [(n, d) for n in np.geomspace(2e7, 2e9, 5) for d in np.geomspace(4e8, 4e10, 5)]
    return Runs.from_rows(
        {
            "params": n,
            "tokens": d,
            "loss": float(law.law.predict(law.values, params=n, tokens=d))
            * math.exp(0.002 * rng.standard_normal()),
        }
        for n, d in cells
    )


@pytest.fixture(scope="module")
def fitted(rows):
    return fit("chinchilla", rows, draws=30)


@pytest.fixture(scope="module")
def precise(sweep):
    return fit("kumar-unified", sweep, draws=60)


def one_by_one(fitted, **asked):
    """The plan of every draw, as if it were published."""
    base, names = published("chinchilla-2024"), fitted.law.names
    draws = [dict(zip(names, draw, strict=True)) for draw in fitted.draws]
    return [plan(replace(base, law=fitted.law, values=values), **asked) for values in draws]


def test_near_optimal_choices_keep_to_the_limits():
    """Of a pool that the law cannot repeat, no more tokens than there are."""
    answer = plan("chinchilla-2024", budget="1e22 flops", unique_tokens="10B")
    tokens = answer["tokens"]
    assert tokens.near_low < tokens.value == pytest.approx(1e10)
    assert tokens.near_high == pytest.approx(1e10)


def test_choices_that_the_law_does_not_speak_of_are_said():
    """The gap of kumar-2024 is of models trained unquantised: none of the 35 others is answered."""
    answer = plan("kumar-2024", budget="1e22 flops", bits="any", quantize_to="any")
    assert len(answer.options) == 7
    notes = [note for note in answer.notes if "left out" in note]
    assert sum(int(note.partition(" of 42 choices")[0]) for note in notes) == 35
    assert "this gap is of models trained unquantised" in notes[0]


def test_draws_outside_the_domain_count_in_no_interval_and_in_no_share(precise):
    """Draws in which no choice has a loss, and draws in which the best has none, but another has one."""
    draws = precise.draws.copy()
    gamma = precise.law.names.index("gamma_a")
    draws[:20, gamma] = 50.0  # activations of 16 bits have none either
    answer = plan(replace(precise, draws=draws), budget="1e20 flops", bits=["w6a6", "w8a8"])
    alone = plan(replace(precise, draws=draws[20:]), budget="1e20 flops", bits=["w6a6", "w8a8"])
    assert any("20 of 60 draws have no optimum" in note for note in answer.notes)
    for name in ("params", "tokens", "loss"):
        assert (answer[name].low, answer[name].high) == (alone[name].low, alone[name].high)
    assert [o.chance for o in answer.options] == [o.chance for o in alone.options]


@pytest.mark.parametrize(
    "asked",
    [
        {"budget": 1e21},
        {"budget": 1e21, "served": "100B"},
        {"loss": 2.4},
        {"loss": 2.4, "served": "1T", "max_tokens": "1T"},
    ],
    ids=str,
)
def test_intervals_are_quantiles_of_what_each_draw_would_choose(fitted, asked):
    answer = plan(fitted, **asked, interval=0.8)
    drawn = one_by_one(fitted, **asked)
    for name in ("params", "tokens", "loss"):
        ends = np.quantile([p[name].value for p in drawn], [0.1, 0.9])
        assert (answer[name].low, answer[name].high) == (
            pytest.approx(ends[0], rel=1e-5),
            pytest.approx(ends[1], rel=1e-5),
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        {"budget": 1e20},
        {"budget": 1e21, "served": "1T", "quantize_to": "any"},
        {"memory": "1 GB", "tokens": "20B"},
    ],
    ids=str,
)
def test_free_bits_have_the_intervals_that_each_draw_gives(precise, asked):
    answer = plan(precise, **asked)
    drawn = one_by_one(precise, **asked)
    for name in ("params", "bits", "loss"):
        values = np.array([p[name].value for p in drawn])
        ends = np.quantile(values[np.isfinite(values)], [0.05, 0.95])
        assert (answer[name].low, answer[name].high) == pytest.approx(tuple(ends), rel=1e-3), name


@pytest.mark.parametrize(
    "asked", [{"loss": 3.0}, {"loss": 3.0, "served": "1T"}, {"budget": 1e21, "served": "1T"}], ids=str
)
def test_no_draw_is_lost_on_the_way(precise, asked):
    answer = plan(precise, **asked)
    assert not any("left out" in note or "never" in note for note in answer.notes)
    assert answer["bits"].low == pytest.approx(plan(precise, budget=1e21)["bits"].low, rel=1e-4)


@pytest.mark.parametrize(
    "asked",
    [
        {"budget": 1e21},
        {"budget": 1e21, "bits": "each"},
        {"budget": 1e21, "served": "1T", "bits": ["int6", "int8", "bf16"], "quantize_to": ["int4", "int5"]},
        {"params": "1B", "quantize_to": "int4"},
        {"memory": "4 GB", "tokens": "100B", "context": 4096},
        {"hours": 100, "hardware": "h100", "achieved": 0.4},
        {"loss": 3.0},
    ],
    ids=str,
)
def test_intervals_and_ranges_are_in_order(precise, asked):
    answer = plan(precise, **asked)
    for a in answer.answers:
        if not a.given:
            assert a.low <= a.high, a
        if not math.isnan(a.near_low):
            assert a.near_low <= a.value * (1 + 1e-9), a
            assert a.value <= a.near_high * (1 + 1e-9), a
    wide = plan(precise, **asked, interval=0.99)
    for a in wide.answers:
        if not a.given:
            assert a.low <= answer[a.name].low <= answer[a.name].high <= a.high, a
    if answer.options:
        assert sum(o.chance for o in answer.options) == pytest.approx(1)
        assert any(o.near_optimal for o in answer.options)
    json.dumps(answer.as_json(), allow_nan=False)
    assert "90% confidence interval" in str(answer)


def test_the_near_optimal_range_costs_what_it_says(precise):
    """Its ends, each at the best of the rest, lose one part in a hundred of what is reducible."""
    answer = plan(precise, budget=1e21)
    floor, best = precise.values["E"], answer["loss"].value
    limit = best + 0.01 * (best - floor)
    for name in ("params", "tokens"):
        for end in (answer[name].near_low, answer[name].near_high):
            there = plan(precise, budget=1e21, **{name: end})["loss"].value
            assert there == pytest.approx(limit, abs=0.02 * (limit - best))


# ---- a training configuration


@pytest.mark.parametrize(
    ("asked", "schemes"),
    [
        ({"budget": 1e16, "bits": "int8"}, ("int8", "w8a8", "w=int8")),
        ({"budget": 1e15}, ("w",)),
        ({"budget": 1e20, "bits": "w4a8"}, ("w4a8",)),
        ({"budget": 1e19, "quantize_to": "int4"}, ("16",)),
        ({"budget": 1e19, "bits": "bf16", "quantize_to": ["int4 group128", "int3"]}, ("16",)),
        ({"loss": 3.2}, ("w",)),
    ],
    ids=str,
)
def test_the_configuration_is_one_that_a_study_reads(tmp_path, asked, schemes):
    answer = plan("kumar-2024", **asked)
    path = tmp_path / "planned.toml"
    path.write_text(answer.to_toml(), encoding="utf-8")
    study = read_study(str(path))
    config = study.sweep.model_dump()
    (size,), (tokens,) = config["sizes"], config["budgets"]
    free = (
        "bits" not in asked and "quantize_to" not in asked
    )  # then whole bits are trained, at their best size
    assert size == pytest.approx(answer["params"].value, rel=0.05 if free else 1e-6)
    assert tokens == pytest.approx(answer["tokens"].value, rel=0.05 if free else 1e-6)
    (scheme,) = config["schemes"]
    assert str(scheme).startswith(schemes)
    post = asked.get("quantize_to")
    assert bool(config["post_formats"]) == (post is not None)


@pytest.mark.parametrize(
    "asked", [{"params": "1B", "tokens": "20B", "quantize_to": "lowest"}, {"budget": 1e24}]
)
def test_a_plan_without_a_model_of_the_ladder_has_no_configuration(asked):
    with pytest.raises(ConfigError, match="names no model"):
        plan("kumar-2024", **asked).to_toml()


# ---- other laws


def test_named_laws_answer_beside_the_first():
    answer = plan(
        "kumar-2024", budget=1e21, bits="bf16", others=["chinchilla-2024", published("quartet-2025")]
    )
    assert [o.law for o in answer.others] == ["chinchilla-2024", "quartet-2025"]
    alone = plan("chinchilla-2024", budget=1e21, bits="bf16")
    assert answer.others[0].values["params"] == alone["params"].value
    assert "The same question by other laws" in str(answer)
    json.dumps(answer.as_json(), allow_nan=False)


@pytest.mark.slow
def test_laws_and_objectives_that_fit_as_well_are_asked(rows, fitted):
    answer = plan(fitted, budget=1e21, runs=rows)
    names = [o.law for o in answer.others]
    assert {"chinchilla, lad", "outer"} <= set(names)
    assert not {"kaplan", "broken", "broken-size"} & set(names)  # clearly worse, or of one quantity alone
    assert all(np.isfinite(list(o.values.values())).all() for o in answer.others)
    for other in answer.others:
        assert 0.1 < other.values["params"] / answer["params"].value < 10
    with pytest.raises(ConfigError, match="runs are of a fit"):
        plan("kumar-2024", budget=1e21, runs=rows)


def test_a_measured_gap_has_the_noise_of_two_runs_whatever_the_objective(precise, sweep):
    """Noise of least squares is in nats per token, that of the others relative."""
    squares = fit("kumar-unified", sweep, objective="squares", draws=60)
    asked = {"params": "200M", "tokens": "5B", "bits": "w4", "measured_gap": 0.05}
    widths = []
    for fitted in (precise, squares):
        gap = plan(fitted, **asked)["predicted_gap"]
        widths.append(gap.high - gap.low)
        loss = fitted.law.predict(fitted.values, params=2e8, tokens=5e9)
        noise = fitted.noise["loss"] * (1.0 if fitted is squares else float(loss))
        assert widths[-1] == pytest.approx(2 * 1.645 * math.sqrt(2) * noise, rel=0.3)
    assert widths[1] == pytest.approx(widths[0], rel=0.3)
