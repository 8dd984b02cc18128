"""What a review of the planner found: each was a wrong or silent answer once."""

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
