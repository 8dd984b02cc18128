"""What a plan carries: intervals from draws, near-optimal ranges, other laws, a training configuration."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from bitlaw import ConfigError, Runs, fit, plan, published
from bitlaw.cli.main import app
from bitlaw.planning import frontier, serving_frontier
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


# ---- what was wrong or silent once


def test_the_configuration_is_of_the_bits_that_are_best():
    """Not of a placeholder: weights quantised after training to as many bits as the options say."""
    found = plan("kumar-2024", memory="1 GB", quantize_to="any", max_params="5B")
    (best,) = [o for o in found.options if o.loss == min(o.loss for o in found.options)]
    assert best.bits == 7
    assert 'post_formats = ["int7 channel"]' in found.to_toml()


def test_gradients_that_the_law_reads_are_in_the_configuration():
    quartet = plan("quartet-2025-mxfp4", budget=1e20, bits="mxfp4")
    assert "grad_a=mxfp4" in quartet.to_toml()
    assert not any("count the backward pass" in note for note in quartet.notes)
    kumar = {"law": "kumar-2024", "bits": "int8", "params": "1B"}
    by_bits, on_hardware = plan(**kumar, budget=1e20), plan(**kumar, budget=1e21, hardware="h100")
    assert "grad" not in by_bits.to_toml().split("schemes")[1].split("\n")[0]
    assert any("backward pass at int8 too" in note for note in on_hardware.notes)
    assert not any("backward" in note for note in by_bits.notes)


def test_a_law_of_weights_says_so_where_all_parts_are_named():
    named, weights = (
        plan("chen-2025-w4a16", budget=1e21, bits=b) for b in ("int4 group128", "w=int4 group128")
    )
    assert any("of weights alone" in note for note in named.notes)
    assert not any("of weights alone" in note for note in weights.notes)


def test_sizes_of_a_fit_that_counts_otherwise_are_said(rows):
    total = replace(fit("chinchilla", rows, draws=0), count="total")
    notes = plan(total, budget=1e20).notes
    assert any("N counts total parameters" in note for note in notes)
    assert any("the fit has no intervals" in note for note in notes)


@pytest.mark.parametrize(
    "asked",
    [
        {"budget": 1e21, "bits": "any"},
        {"budget": 1e21, "hardware": "h100", "bits": "any"},
        {"params": 1e9, "tokens": 1e11, "quantize_to": "lowest"},
    ],
)
def test_no_more_bits_than_asked_for(asked):
    found = plan("kumar-2024", **asked, max_bits=6)
    assert found.options and all(o.bits <= 6 for o in found.options)


def test_max_bits_is_refused_where_formats_are_named():
    with pytest.raises(ConfigError, match="max_bits plays no part"):
        plan("kumar-2024", budget=1e21, bits="int8", max_bits=6)


def test_memory_is_no_more_than_the_hardware_has():
    asked = {"tokens": 1e12, "bits": "int8", "hardware": "rtx-4090"}
    assert plan("kumar-2024", memory="500 GB", **asked)["served_bytes"].value == pytest.approx(24e9, rel=1e-6)
    assert plan("kumar-2024", memory="10 GB", **asked)["served_bytes"].value == pytest.approx(10e9, rel=1e-6)


def test_the_end_of_the_tokens_is_not_where_training_hurts():
    capped = plan("kumar-2024", params="1B", max_tokens="20B", quantize_to="int4")
    assert capped["tokens"].value == pytest.approx(20e9)
    assert "hurts" not in capped.question and any("more tokens would help" in note for note in capped.notes)
    assert "hurts" in plan("kumar-2024", params="1B", quantize_to="int4").question


def test_draws_that_never_reach_a_loss_leave_its_cost_open(fitted):
    """A fifth of the draws end above it: the upper end of a 90 % interval lies among these."""
    draws = fitted.draws.copy()
    draws[:6, fitted.law.names.index("E")] = 3.0
    found = plan(replace(fitted, draws=draws), loss=2.2)
    assert math.isfinite(found["training_flops"].low) and found["training_flops"].high == math.inf
    assert any("in 20% of draws no budget reaches the loss" in note for note in found.notes)
    assert "or more" in str(found)


def test_draws_in_which_nothing_is_safe_leave_the_fewest_bits_open(precise):
    """And gap and critical tokens are those of the bits that are named."""
    draws = precise.draws.copy()
    draws[:12, precise.law.names.index("C_T")] *= 1e6
    found = plan(replace(precise, draws=draws), params=2e8, tokens=1e10, quantize_to="lowest")
    assert found["bits"].value < found["bits"].high == math.inf
    (named,) = [o for o in found.options if o.formats == found.formats]
    assert found["critical_tokens"].value == named.tokens
    for name in ("gap", "critical_tokens"):
        assert found[name].low <= found[name].value <= found[name].high


def test_a_gap_that_may_be_nothing_has_no_ratio(precise):
    unsure = plan(precise, params=2e8, tokens=1e10, bits="w12", measured_gap=0.05)
    assert unsure["predicted_gap"].low < 0 < unsure["predicted_gap"].high
    assert math.isnan(unsure["ratio"].low) and math.isfinite(unsure["ratio"].value)
    draws = precise.draws.copy()
    draws[:20, precise.law.names.index("gamma_w")] = 40.0
    found = plan(replace(precise, draws=draws), params=2e8, tokens=1e10, bits="w3", measured_gap=0.05)
    assert any(note.startswith("20 of 60 draws") for note in found.notes)
    assert found["ratio"].low > 0


def test_formats_that_the_law_does_not_tell_apart_share_their_draws(precise):
    found = plan(precise, budget=1e20, hardware="h100")
    chance = {o.formats: o.chance for o in found.options}
    assert chance["e4m3"] == chance["int8"] > 0
    assert any("e4m3 and int8 are one and the same" in note for note in found.notes)


def test_a_law_of_named_formats_has_precision_terms():
    notes = plan("sun-2025", budget=1e20).notes
    assert any("reads formats by name" in note for note in notes)
    assert not any("no precision terms" in note for note in notes)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"budget": 1e22, "max_params": 8}, "too few"),
        ({"budget": 1e22, "served": 1}, "too few"),
        ({"budget": 1e22, "momentum": "x"}, "momentum must be a number, not"),
    ],
)
def test_what_has_lost_its_unit_is_refused(asked, words):
    with pytest.raises(ConfigError, match=words):
        plan("kumar-2024", **asked)


@pytest.mark.parametrize("budgets", [[], [-1.0], [math.nan]])
def test_frontiers_are_of_positive_budgets(budgets):
    for ask in (frontier, serving_frontier):
        with pytest.raises(ConfigError, match="positive numbers"):
            ask("kumar-2024", budgets)
    with pytest.raises(ConfigError, match="cannot be planned with"):
        frontier("kaplan-2020-trajectory", [1e20])


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (
            "--params 1B --tokens 1T --memory 64GB --context 8192 --cache 32,8,128 --kv mxfp4 --bits bf16",
            "served_bytes",
            2_285_212_672,
        ),
        ("--budget 1e22 --params 1e9 --max-bits 32", "bits", 13.61),
        ("--budget 1e24 --bits bf16 --max-params 2B --max-tokens 50B", "tokens", 50e9),
        ("--budget 1e24 --bits bf16 --max-params 2B --unique-tokens 50B", "params", 2e9),
    ],
)
def test_options_of_the_command_reach_the_planner(words, name, value):
    out = CliRunner().invoke(app, ["plan", "--law", "kumar-2024", *words.split(), "--json"])
    assert out.exit_code == 0, out.output
    answers = {a["name"]: a["value"] for a in json.loads(out.stdout)["answers"]}
    assert answers[name] == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(
    ("words", "said"), [("--cache 32,8", "three whole numbers"), ("--speedup fp4", "how much faster")]
)
def test_options_that_cannot_be_read_are_refused(words, said):
    out = CliRunner().invoke(app, ["plan", "--law", "kumar-2024", "--budget", "1e21", *words.split()])
    assert out.exit_code != 0 and said in f"{out.output}{out.exception}"


def test_an_answer_is_shown_where_its_file_cannot_be_written(tmp_path):
    """A model above the ladder has no configuration, and is an answer all the same."""
    file = tmp_path / "x.toml"
    out = CliRunner().invoke(app, ["plan", "--law", "kumar-2024", "--budget", "1e24", "--toml", str(file)])
    assert out.exit_code != 0 and "tokens per param" in out.output and not file.exists()
