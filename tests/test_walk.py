"""What an engineer with rows of their own met on a walk through fits, plans and reports."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from conftest import synthetic_sweep
from typer.testing import CliRunner

import bitlaw as bl
from bitlaw import ConfigError, FitError, LawError, Runs, fit, plan, published
from bitlaw.cli.main import app
from bitlaw.fitting import load_fit
from bitlaw.laws import LAWS
from bitlaw.report.figures import charts


@pytest.fixture(scope="module")
def fitted(sweep):
    return fit("kumar", sweep, draws=60)


@pytest.fixture(scope="module")
def paired():
    return synthetic_sweep(0, paired=True, post_of_low=False)


def words(answer) -> str:
    return " ".join(answer.remarks)


# ---- plans


def test_every_format_is_asked_for_the_loss_by_itself(fitted):
    """Not for what it does with the budget of the cheapest."""
    asked = {"loss": 3.0, "served": "1T", "bits": "bf16"}
    both = plan(fitted, **asked, quantize_to=["int4", "int8"])
    assert [o.flops for o in both.options] == sorted(o.flops for o in both.options)
    for option in both.options:
        alone = plan(fitted, **asked, quantize_to=option.formats.removeprefix("bf16, then "))
        cost = alone["training_flops"].value + alone["serving_flops"].value
        assert option.flops == pytest.approx(cost, rel=1e-6)
        assert option.loss == pytest.approx(3.0, abs=1e-6)
        assert option.params == pytest.approx(alone["params"].value, rel=1e-3)
    assert "16-bit FLOPs" in str(both)


def test_a_format_that_never_reaches_the_loss_is_not_among_the_options():
    law = published("kumar-2024")
    reach = plan(law, loss=3.05, bits=["bf16", "int3"])
    assert {o.formats for o in reach.options} <= {"bf16", "int3"}
    for option in reach.options:
        assert option.loss == pytest.approx(3.05, abs=1e-6) and math.isfinite(option.flops)


def test_tokens_until_a_gap_are_where_the_law_says(fitted):
    answer = plan(fitted, params="220M", quantize_to="int4", max_gap=0.05)
    law, tokens = fitted.law, answer["max_gap_tokens"].value
    gap = law.predict_gap(fitted.values, params=2.2e8, tokens=tokens, post_bits=4)
    assert gap == pytest.approx(0.05, rel=1e-6)
    assert answer["max_gap_tokens"].low < tokens < answer["max_gap_tokens"].high
    never = plan(fitted, params="220M", tokens="1B", quantize_to="int8", max_gap=1e9)
    assert "without end" in str(never)
    with pytest.raises(ConfigError, match="max_gap plays no part"):
        plan(fitted, budget=1e20, quantize_to="int4", max_gap=0.05)


def test_what_tells_formats_apart_is_said(fitted):
    """The law reads bits alone: groups cost bytes, and gain nothing that it knows of."""
    answer = plan(
        fitted, memory="1 GB", budget=1e21, bits="bf16", quantize_to=["int4", "int4 group128", "int8"]
    )
    assert "reads no difference between 'bf16, then int4' and 'bf16, then int4 group128'" in words(answer)
    assert "reads no difference" not in words(
        plan(fitted, memory="1 GB", budget=1e21, bits="bf16", quantize_to=["int4", "int8"])
    )


def test_what_a_flop_is_and_what_serving_counts_are_said(fitted):
    served = words(plan(fitted, budget=1e21, served="1T", bits=["bf16", "w4"]))
    assert "one in P bits counts P/16" in served and "the bits of the weights alone" in served
    assert "P/16" in words(plan(fitted, budget=1e21))
    plain = words(plan(fitted, budget=1e21, served="1T", bits="bf16"))
    assert "P/16" not in plain and "the weights alone" not in plain
    whole = words(plan(fitted, budget=1e21, served="1T", bits="int8"))
    assert "P/16" in whole and "the weights alone" not in whole
    fast = plan(fitted, hours=10, hardware="h100", achieved=0.4, bits="e4m3")
    assert "runs faster, one counts less" in words(fast)


def test_a_law_without_a_gap_for_such_models_says_so_of_the_fewest_bits_too(fitted):
    with pytest.raises(LawError, match="kumar-unified"):
        plan(fitted, params="220M", tokens="1B", bits="w8a8", quantize_to="lowest")


def test_several_formats_in_one_word_are_told_how_to_be_given(fitted):
    with pytest.raises(ConfigError, match="repeating the option"):
        plan(fitted, params="220M", quantize_to="int4,int8")
    assert plan(fitted, budget=1e20, bits="w=int4, a=int8").formats  # one choice, of two parts


def test_a_question_about_quantisation_asks_laws_with_a_gap(paired):
    fitted = fit("kumar", paired, draws=60)
    answer = plan(fitted, params="220M", quantize_to="int4", runs=paired)
    asked = [o for o in answer.others if not o.law.startswith("kumar,")]
    assert asked and all(LAWS[o.law].gap != 0 and not o.reason for o in asked)
    assert "held-out errors on gaps" in words(answer)
    assert "held-out errors on gaps" not in words(plan(fitted, budget=1e20, runs=paired))


def test_the_share_of_the_peak_may_be_per_cent(tmp_path):
    asked = [
        "plan",
        "--law",
        "chinchilla-2024",
        "--hours",
        "24",
        "--hardware",
        "h100",
        "--json",
        "--achieved",
    ]
    shares = [CliRunner().invoke(app, [*asked, share]).stdout for share in ("0.4", "40%")]
    assert shares[0] == shares[1] and '"params"' in shares[0]


def test_runs_to_buy_say_what_is_to_be_quantised(fitted):
    design = bl.next_runs(fitted, 1e20, params="220M", quantize_to="int4")
    assert design.post and f"quantised to {', '.join(design.post)} too" in str(design)


# ---- fits


def test_rows_without_their_parent_are_said(sweep):
    parents = {
        (row["params"], row["tokens"]): row["id"]
        for row in sweep.frame.rows(named=True)
        if row["w_format"] is None
    }
    named = [
        parents[row["params"], row["tokens"]] if row["post_format"] else None
        for row in sweep.frame.rows(named=True)
    ]
    frame = sweep.frame.with_columns(pl.Series("parent", named, dtype=pl.String))
    assert not [n for n in fit("kumar", Runs(frame), draws=0).notes if "name as parent" in n]
    lost = frame["parent"].drop_nulls()[0]
    notes = fit("kumar", Runs(frame.filter(pl.col("id") != lost)), draws=0).notes
    assert any(f"like '{lost}'" in note and "are not in the table" in note for note in notes)


def test_low_precision_that_a_law_does_not_read_is_said_to_be_taken_for_16_bits(sweep):
    notes = fit("chinchilla", sweep, draws=0).notes
    assert any("fitted as if they were of 16 bits" in note and "--where" in note for note in notes)


def test_intervals_that_reach_the_search_s_bounds_are_not_called_ok():
    """Three widths at one size: the offset of the bits runs off in many draws."""
    rng, law = np.random.default_rng(0), published("kumar-2024")
    rows = []
    for n in (3e7, 6e7, 1.1e8):
        for d in (1.5e9, 3e9, 6e9):
            for w in ("bf16", "int8") if n != 6e7 else ("bf16", "int8", "int6"):
                exact = float(
                    law.law.predict(
                        law.values, params=n, tokens=d, **({} if w == "bf16" else {"w_bits": float(w[3:])})
                    )
                )
                loss = exact * math.exp(0.01 * rng.standard_normal())
                rows.append({"params": n, "tokens": d, "w_format": w, "loss": loss})
    found = fit("kumar", Runs.from_rows(rows), draws=200)
    for e in found.estimates:
        if e.status == "ok":
            assert e.parameter.low < e.low <= e.value <= e.high < e.parameter.high, e.parameter.name
    assert any(e.status == "not identified" for e in found.estimates)


def test_a_saved_law_keeps_its_paper(sweep, fitted, tmp_path):
    fitted.save(tmp_path / "fit.json")
    assert load_fit(tmp_path / "fit.json").law.source == fitted.law.source


def test_what_a_law_of_gaps_forecasts_is_called_a_gap(paired):
    found = bl.forecast(fit("gap-kumar", paired, draws=60), params=1e8, tokens=2e9, post_bits=4)
    assert ": gap 0." in str(found)


def test_levels_that_a_guess_reaches_need_no_law():
    rows = [
        {"params": n, "tokens": d, "loss": 3 + 0.001 * math.log(1e10 / n / d)}
        for n in (1e7, 2e7, 4e7, 8e7, 16e7)
        for d in (2e8, 4e8, 8e8, 16e8)
    ]
    text = str(bl.protocol("chinchilla", Runs.from_rows(rows)))
    assert "no law is needed" in text and "are enough" not in text


def test_the_run_that_would_tell_most_could_be_trained(sweep):
    """Tokens per parameter stay within a factor of four of the rows'."""
    one = sweep.filter(pl.col("params") == sweep.frame["params"].min())
    try:
        notes = fit("kumar", one, draws=0).notes
    except FitError as error:
        pytest.fail(str(error))
    told = [note for note in notes if "most would be told by a run of" in note]
    assert told
    frame = one.frame
    ratios = (frame["tokens"] / frame["params"]).to_numpy()
    for note in told:
        n, d = (
            bl.units.parse_quantity(text.split()[0], unit)
            for text, unit in zip(note.split(" a run of ")[1].split(", "), ("params", "tokens"), strict=False)
        )
        assert ratios.min() / 4.2 <= d / n <= ratios.max() * 4.2, note


# ---- reports


def test_figures_of_budgets_show_the_one_that_was_asked_for(fitted, sweep):
    found = {chart.name: chart for chart in charts(sweep, fitted, budget=1e24)}
    assert "1e+24" in found["loss-against-bits"].title
    ends = [max(mark.x) for mark in found["compute-optimal"].marks if np.ndim(getattr(mark, "x", 0)) == 1]
    assert max(ends) >= 1e24 * (1 - 1e-9)
