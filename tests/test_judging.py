"""Laws judged: compared on several splits, against guesses, on the past, between arms, before the run."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest
from conftest import CELLS

import bitlaw as bl
from bitlaw import ConfigError, DataError, FitError, Runs
from bitlaw.fitting import (
    all_for,
    backtest,
    cheapest,
    forecast,
    load_forecast,
    longest,
    lowest_bits,
    protocol,
    shift,
)
from bitlaw.laws import chinchilla, published

PLAIN = published("chinchilla-2024").values
FAMILY = [(n, d) for n in (2e7, 4e7, 8e7, 16e7, 32e7) for d in (4e8, 8e8, 16e8, 32e8, 64e8)]


def family(noise=0.003, seed=0, values=PLAIN, cells=FAMILY, **columns):
    rng = np.random.default_rng(seed)
    rows = []
    for n, d in cells:
        loss = float(chinchilla.predict(values, params=n, tokens=d)) * math.exp(noise * rng.standard_normal())
        rows.append({"params": n, "tokens": d, "loss": loss, **columns})
    return Runs.from_rows(rows)


# ---- comparing


def test_several_splits_are_named_and_judged_by_themselves(sweep):
    found = bl.compare(
        sweep, ["kumar", "kumar-without-offset"], hold_out=[bl.largest(), longest(), lowest_bits()]
    )
    assert [r.split for r in found.rankings] == [
        "the largest size",
        "the largest token count",
        "the lowest bits",
    ]
    assert all(r.entries[0].name == "kumar" for r in found.rankings[:2])
    assert "Held out the lowest bits" in found.verdict
    json.dumps(found.as_json(), allow_nan=False)


@pytest.mark.slow
def test_every_law_that_the_rows_can_carry_is_compared_and_the_others_are_named():
    found = bl.compare(family(), criteria=True)
    names = {e.name for e in found.entries}
    assert {"chinchilla", "kaplan", "overtraining", "outer"} <= names
    assert "on these rows it is chinchilla" in found.left_out["kumar-untied"]
    assert "unique_tokens" in found.left_out["data-constrained"]
    assert found.left_out["the lowest bits"]
    bic = {e.name: e.bic for e in found.entries}
    assert bic["chinchilla"] < bic["kaplan"]
    laws, why = all_for(family())
    assert {law.name for law in laws} | set(why) >= names


def test_no_information_criterion_where_rows_of_one_trunk_depend_on_each_other():
    rows = family().frame.select("params", "tokens", "loss").to_dicts()
    rows = [row | {"trunk": str(row["params"])} for row in rows]
    found = bl.compare(Runs.from_rows(rows), ["chinchilla", "kaplan"], criteria=True)
    assert all(e.bic is None for e in found.entries)


def test_a_format_that_no_fitted_row_had_is_not_predicted(sweep):
    found = bl.compare(sweep, ["efficiency", "kumar"], hold_out=lowest_bits())
    by_name = {e.name: e for e in found.entries}
    assert by_name["efficiency"].held_out.outside == by_name["efficiency"].held_out.rows
    assert "says nothing of them" in str(found)


def test_losses_without_a_law_are_not_ranked_confidently():
    rng = np.random.default_rng(0)
    rows = [{"params": n, "tokens": d, "loss": float(3 + rng.standard_normal() * 0.3)} for n, d in FAMILY]
    found = bl.compare(Runs.from_rows(rows), ["chinchilla", "kaplan", "overtraining"])
    assert found.verdict.startswith("No law")


def test_splits_that_cannot_be_made_say_why():
    runs = family()
    with pytest.raises(FitError, match="no row is of low precision"):
        bl.compare(runs, ["chinchilla"], hold_out=lowest_bits())
    with pytest.raises(FitError, match="between 0 and 1"):
        cheapest(1.5)
    with pytest.raises(FitError, match="cannot hold out 4 of 5 token counts"):
        bl.compare(runs, ["chinchilla"], hold_out=longest(4))


# ---- the past


def test_the_procedure_beats_the_guesses_and_says_how_few_runs_do():
    found = protocol("chinchilla", family())
    assert found.error < 0.01
    assert found.error < min(error for _, error in found.guesses)
    assert dict(found.enough)[0.05].flops < found.cells[-1].flops
    assert "predicts the largest model" in str(found)
    json.dumps(found.as_json(), allow_nan=False)


def test_a_transient_at_the_beginning_is_cut_off():
    """A warm-up that lifts the first fifth of training: the cut is chosen without looking at the target."""
    cells = [
        (n, d * f) for n in (2e7, 4e7, 8e7, 16e7, 32e7) for d in (64e8,) for f in np.linspace(0.03, 1, 30)
    ]
    rows = family(noise=0.002, cells=cells).frame.select("params", "tokens", "loss").to_dicts()
    for row in rows:
        row["loss"] *= 1 + 0.4 * math.exp(-row["tokens"] / 64e8 / 0.08)
    runs = Runs.from_rows(rows)
    chosen, none = protocol("chinchilla", runs), protocol("chinchilla", runs, cut=0.0)
    assert chosen.cut >= 0.1
    assert chosen.error < none.error


def test_the_procedure_refuses_too_few_sizes():
    with pytest.raises(FitError, match="at least 4 sizes"):
        protocol("chinchilla", family(cells=FAMILY[:15]))
    with pytest.raises(ConfigError, match="share of the tokens"):
        protocol("chinchilla", family(), cut=1.2)


def test_the_past_is_forecast_from_cheaper_runs_only():
    found = backtest("chinchilla", family(), shares=(0.1, 0.5, 0.8))
    assert [s.share for s in found.steps] == [0.5, 0.8]
    assert found.skipped[0].startswith("10%")
    for step in found.steps:
        assert step.error < 0.02 < step.guess
        assert step.fitted + step.rows == len(FAMILY)
        assert step.lowest == step.error == step.highest
    assert "a guess" in str(found) and "Fits as good" not in str(found)


def test_constants_that_cheap_runs_do_not_identify_are_said_to_be_chance():
    """Two budgets tell no exponent of D."""
    few = family(cells=[(n, d) for n, d in FAMILY if d in (4e8, 8e8)] + [(32e7, 64e8), (16e7, 64e8)])
    found = [backtest("chinchilla", few, shares=(0.8,), seed=seed) for seed in range(3)]
    for step in [f.steps[0] for f in found]:
        assert step.lowest <= step.error <= step.highest
        assert step.highest > 2 * step.lowest
    assert "Fits as good" in str(found[0])


# ---- arms


def test_a_shift_of_the_law_is_seen_and_its_absence_too():
    higher = {**PLAIN, "E": PLAIN["E"] * 1.03}
    moved = shift("chinchilla", family(seed=1), family(seed=2, values=higher), draws=200)
    assert moved.verdict.startswith("The law shifted")
    assert all(0 < c.low < c.change < c.high for c in moved.losses)
    still = [shift("chinchilla", family(seed=k), family(seed=100 + k), draws=200) for k in range(8)]
    assert sum(s.verdict.startswith("The law shifted") for s in still) <= 3  # 10 % each by chance
    assert "No shift is seen" in "".join(s.verdict for s in still)
    json.dumps(moved.as_json(), allow_nan=False)


def test_arms_that_cannot_be_compared_say_why(sweep):
    with pytest.raises(FitError, match="do not carry the same law"):
        shift("kumar", sweep, family(), draws=50)
    far = family(cells=[(n * 1e3, d) for n, d in FAMILY])
    with pytest.raises(FitError, match="no params in common"):
        shift("chinchilla", family(), far, draws=50)


# ---- before the run


def test_a_forecast_is_pinned_scored_and_not_overwritten(tmp_path):
    fit = bl.fit("chinchilla", family(), draws=200)
    pinned = forecast(fit, params=64e7, tokens=128e8)
    pinned.save(tmp_path / "run.json")
    again = load_forecast(tmp_path / "run.json")
    assert again == pinned
    assert again.low < again.confidence_low < again.loss < again.confidence_high < again.high
    score = again.score(again.loss * 1.001)
    assert score.inside
    assert score.error == pytest.approx(-0.001, abs=1e-5)
    assert not again.score(again.loss * 1.2).inside
    with pytest.raises(DataError, match="not overwritten"):
        pinned.save(tmp_path / "run.json")
    with pytest.raises(ConfigError, match="positive number"):
        again.score(float("nan"))
    with pytest.raises(ConfigError, match="needs the draws"):
        forecast(bl.fit("chinchilla", family(), draws=0), params=1e8, tokens=1e9)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"bitlaw_forecast": 1}', '{"bitlaw_forecast": 9}', "NaN", '{"a":' * 2000]
)
def test_files_that_are_no_forecast_are_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError):
        load_forecast(tmp_path / "x.json")


@pytest.mark.slow
def test_single_runs_fall_into_their_prediction_interval():
    """Nominal 90 %, 60 runs at twice the largest size: 47 to 60 inside is the 99.9 % band."""
    inside = 0
    for seed in range(60):
        fit = bl.fit("chinchilla", family(noise=0.01, seed=seed), draws=100)
        one = family(noise=0.01, seed=1000 + seed, cells=[(64e7, 64e8)]).frame["loss"][0]
        inside += forecast(fit, params=64e7, tokens=64e8).score(one).inside
    assert 47 <= inside <= 60


# ---- what is minimised


def test_weights_count_rows_and_zero_leaves_them_out():
    runs = family(noise=0.01)
    weights = np.ones(len(runs))
    weights[::5] = 0
    weighted = bl.fit("chinchilla", runs, weights=weights, draws=0)
    without = bl.fit("chinchilla", Runs(runs.frame[np.flatnonzero(weights)]), draws=0)
    assert weighted.values == pytest.approx(without.values, rel=1e-9)
    for wrong in (np.ones(3), -weights, weights * math.nan, weights * 0):
        with pytest.raises(FitError, match="weights must be"):
            bl.fit("chinchilla", runs, weights=wrong)


def test_measured_noise_is_used_and_asked_for():
    squared = {"uniform": 0.0, "measured": 0.0}
    for seed in range(12):
        rng = np.random.default_rng(seed)
        rows = family(noise=0).frame.select("params", "tokens", "loss").to_dicts()
        for row in rows:
            row["loss_se"] = row["loss"] * (0.02 if row["params"] < 5e7 else 0.001)
            row["loss"] += row["loss_se"] * float(rng.standard_normal())
        for noise in squared:
            fit = bl.fit("chinchilla", Runs.from_rows(rows), draws=0, objective="log-squares", noise=noise)
            squared[noise] += (fit.values["alpha"] - PLAIN["alpha"]) ** 2
    assert squared["measured"] < squared["uniform"]
    with pytest.raises(FitError, match="no measurement error"):
        bl.fit("chinchilla", family(), noise="measured")


def test_a_new_format_is_fitted_with_the_rest_borrowed(sweep):
    """Two runs of a format nobody had: everything else comes from the fit to the others."""
    lender = bl.fit("efficiency", sweep.filter(pl.col("post_format").is_null()), draws=0)
    values = lender.values
    rows = []
    for n, d in CELLS[:2]:
        shrunk = {k: v for k, v in values.items() if k in ("E", "A", "B", "alpha", "beta")}
        loss = float(chinchilla.predict(shrunk, params=n * 0.61, tokens=d))
        rows.append({"params": n, "tokens": d, "w_format": "int7", "loss": loss})
    third = float(chinchilla.predict(shrunk, params=2e8 * 0.61, tokens=rows[0]["tokens"]))
    rows.append({**rows[0], "params": 2e8, "loss": third})
    fit = bl.fit(chinchilla.with_precision(w="efficiency"), Runs.from_rows(rows), borrow=lender, draws=0)
    assert fit.values["eff_w[int7]"] == pytest.approx(0.61, rel=1e-6)
    assert fit.values["alpha"] == values["alpha"]
    assert any("borrowed" in note for note in fit.notes)
