"""From loss to errors on tasks: the curve, its rival, and whether quantised models obey it."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import tables
from conftest import synthetic_sweep
from scipy.optimize import curve_fit
from typer.testing import CliRunner

import bitlaw as bl
from bitlaw import ConfigError, FitError, Runs, write_runs
from bitlaw.cli.main import app
from bitlaw.laws import LAWS, published
from bitlaw.report import figures
from bitlaw.report.interactive import plotly

TRUTH = {"epsilon": 0.9, "k": 1.7, "gamma": 0.6}
SIZES = (1e5, 2e5, 4e5, 8e5)


def err(loss):
    return TRUTH["epsilon"] - TRUTH["k"] * np.exp(-TRUTH["gamma"] * np.asarray(loss))


def tasks(seed=0, after=0.0, trained=0.0, between=0.002, noise=0.001, column="error", trunks=2) -> Runs:
    """Four sizes with several trunks, five ends each; an int4 copy of each, and trunks trained in int4.

    Args:
        after, trained: how much more the copies, and those trained in int4, err than their loss says.
        between, noise: standard deviations of what a trunk, and a row, has of its own.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for n in SIZES:
        for t in range(trunks):
            own, low = between * rng.standard_normal(2)
            for k in range(5):
                loss = 1.4 + 40 / n**0.4 + 0.5 / (1 + k) + 0.01 * rng.standard_normal()
                name = f"{n:g}-{t}-{k}"
                base = {"params": n, "tokens": 1e6 * 2**k}

                def row(end, trunk, loss, off, **more):
                    error = float(err(loss) + off + noise * rng.standard_normal())
                    return {**base, "id": name + end, "trunk": trunk, "loss": loss, column: error, **more}  # noqa: B023

                rows.append(row("", f"{n:g}-{t}", loss, own))
                copy = {"post_format": "int4", "method": "gptq", "parent": name, "gap": 0.03}
                rows.append(row("-gptq", f"{n:g}-{t}", loss + 0.03, own + after, **copy))
                rows.append(row("-w4", f"{n:g}-{t}-w4", loss + 0.02, low + trained, w_format="int4"))
    return Runs.from_rows(rows)


def verdicts(found):
    return {e.kind: e.verdict for e in found.effects if e.name == ""}


# ---- the laws


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["c4_original", "rpj", "rw_original"])
def test_the_curve_beats_the_line_on_gadres_largest_models(public_data, dataset):
    found = bl.downstream(tables.gadre(public_data, dataset), hold_out=bl.largest(2), draws=40)
    error = {e.name: e.held_out.error for e in found.held_out.entries}
    assert 3 * error["gadre-error"] < error["error-line"] and error["gadre-error"] < 0.05
    assert not found.effects and found.verdict.startswith("No row is of low precision")


def test_the_curve_is_that_of_plain_least_squares(public_data):
    """Another solver, on all models of a training set; published constants are of six models (test_links)."""
    runs = tables.gadre(public_data, "rpj").filter(pl.col("error").is_not_null())
    loss, error = (runs.frame[name].to_numpy() for name in ("loss", "error"))
    found, _ = curve_fit(lambda x, e, k, g: e - k * np.exp(-g * x), loss, error, (0.85, 2, 0.7))
    ours = bl.fit("gadre-error", runs, objective="squares", draws=0)
    assert [ours.values[name] for name in ("epsilon", "k", "gamma")] == pytest.approx(found, rel=1e-4)
    slope, start = np.polyfit(loss, error, 1)
    line = bl.fit("error-line", runs, objective="squares", draws=0)
    assert [line.values["Err_0"], line.values["slope"]] == pytest.approx([start, slope], rel=1e-5)


def test_rows_that_want_a_larger_epsilon_than_one_are_fitted_all_the_same():
    """A narrow range of losses: nearly a straight line, whose best curve leaves the bounds."""
    loss = np.linspace(1.34, 1.79, 9)
    rows = [{"tokens": 1e6, "loss": x, "error": 0.33 * x - 0.175} for x in loss]
    fit = bl.fit("gadre-error", Runs.from_rows(rows), draws=0)
    assert fit.values["epsilon"] == pytest.approx(1)
    assert np.abs(fit.predict(loss=loss) - (0.33 * loss - 0.175)).max() < 0.01


def test_a_linear_parameter_that_may_be_negative_is_found():
    rows = [{"tokens": 1e6, "loss": x, "error": 0.2 * x - 0.1} for x in np.linspace(1, 3, 6)]
    fit = bl.fit("error-line", Runs.from_rows(rows), draws=0)
    assert fit.values == pytest.approx({"Err_0": -0.1, "slope": 0.2}, rel=1e-6)
    assert LAWS["error-line"].target == published("gadre-2024-c4-error").law.target == "error"


# ---- is the loss enough?


@pytest.mark.parametrize("seed", range(3))
def test_what_obeys_the_curve_is_found_sufficient(seed):
    found = bl.downstream(tasks(seed), draws=0)
    assert verdicts(found) == {
        "trained in low precision": "sufficient",
        "quantised after training": "sufficient",
    }
    assert all(e.low < e.mean < e.high for e in found.effects)


@pytest.mark.parametrize(("after", "trained"), [(0.03, -0.04), (-0.03, 0.04)])
def test_what_errs_more_or_less_is_found_and_how_much(after, trained):
    found = bl.downstream(tasks(after=after, trained=trained), draws=0)
    more, less = "errs more than its loss says", "errs less than its loss says"
    assert verdicts(found) == {
        "trained in low precision": more if trained > 0 else less,
        "quantised after training": more if after > 0 else less,
    }
    truth = {"w int4": trained, "gptq int4": after}
    for e in found.effects:
        if e.name:
            assert e.mean == pytest.approx(truth[e.name], abs=0.004) and e.low < truth[e.name] < e.high
    assert {e.name: round(e.gap, 6) for e in found.effects if e.name == "gptq int4"} == {"gptq int4": 0.03}


def test_what_cannot_be_told_is_said_to_be():
    found = bl.downstream(tasks(after=0.005, between=0.02, trunks=1), draws=0)
    assert verdicts(found)["trained in low precision"] == "cannot be told"
    alone = tasks().filter(pl.col("trunk").str.starts_with("100000-0"))
    found = bl.downstream(alone, draws=0)
    assert {e.verdict for e in found.effects} == {"cannot be told"} and np.isnan(found.effects[0].low)
    assert "need two trunks" in found.verdict


def test_tuned_models_are_no_evidence_of_low_precision():
    rows = tasks().frame
    tuned = rows.filter(pl.col("w_format") == "int4").with_columns(
        id=pl.col("id") + "-tuned", error=pl.col("error") + 0.2, parent=pl.col("id"), tuning=pl.lit("full")
    )
    found, plain = (bl.downstream(Runs(frame), draws=0) for frame in (pl.concat([rows, tuned]), rows))
    assert verdicts(found) == verdicts(plain) and found.points.height == plain.points.height
    assert any("40 rows of fine-tuned models are left out" in note for note in found.notes)


@pytest.mark.slow
def test_no_extrapolation_is_judged():
    runs = tasks()
    far = [
        {**row, "id": f"{row['id']}-int2", "post_format": "int2", "loss": row["loss"] + 2, "error": 0.1}
        for row in runs.filter(pl.col("method") == "gptq").frame.to_dicts()
    ]
    found = bl.downstream(Runs.from_rows([*runs.frame.to_dicts(), *far]), draws=0)
    (int2,) = [e for e in found.effects if e.name == "gptq int2"]
    assert (int2.rows, int2.beyond, int2.verdict) == (0, 40, "cannot be told")
    before = {e.name: e.mean for e in bl.downstream(runs, draws=0).effects if e.name}
    assert {e.name: e.mean for e in found.effects if e.name in before} == before


def test_what_is_both_stands_apart_and_other_errors_have_their_own_column():
    runs = tasks(column="error_keyword")
    rows = runs.frame.to_dicts()
    rows += [
        {**row, "id": f"{row['id']}-rtn", "post_format": "int3", "method": "rtn", "parent": row["id"]}
        for row in rows
        if row["w_format"]
    ]
    found = bl.downstream(Runs.from_rows(rows), "error_keyword", draws=0)
    assert [(e.kind, e.name, e.rows > 0) for e in found.effects] == [
        ("trained in low precision", "", True),
        ("quantised after training", "", True),
        ("both", "", True),
        ("trained in low precision", "w int4", True),
        ("quantised after training", "gptq int4", True),
        ("both", "rtn int3", True),
    ]
    with pytest.raises(FitError, match="no row has both a loss and error;"):
        bl.downstream(runs)
    with pytest.raises(ConfigError, match="there is no error 'error_keywords';.* 'error_keyword'"):
        bl.downstream(runs, "error_keywords")
    with pytest.raises(ConfigError, match="margin=0.01"):
        bl.downstream(runs, "error_keyword", margin=0)
    with pytest.raises(FitError, match="no row has both"):
        bl.downstream(synthetic_sweep(0))


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say():
    """Sixty sweeps of four trunks with effects of their own that are as large as what is measured."""
    hits = [
        e.low <= 0 <= e.high
        for seed in range(60)
        for e in bl.downstream(tasks(seed, between=0.004, noise=0.002, trunks=1), draws=0).effects
        if e.name
    ]
    assert np.mean(hits) >= 0.85


@pytest.mark.slow
def test_renaming_trunks_and_turning_rows_round_changes_nothing():
    runs = tasks(trunks=1)
    turned = Runs(runs.frame.reverse().with_columns(pl.lit("x-") + pl.col("trunk")))
    a, b = (bl.downstream(r, draws=0).effects for r in (runs, turned))
    for x, y in zip(a, b, strict=True):
        assert (x.mean, x.low, x.high) == pytest.approx((y.mean, y.low, y.high), abs=1e-6)


# ---- told, drawn, asked


def test_it_is_told_as_text_as_a_page_and_as_data():
    found = bl.downstream(tasks(after=0.03), draws=40)
    text, page, data = str(found), found._repr_html_(), found.as_json()
    for words in ("gptq int4", "errs more than its loss says", "error-line", "all trained in low precision"):
        assert words in text and words in page
    assert json.loads(json.dumps(data, allow_nan=False))["verdict"] == found.verdict
    assert data["held_out"]["rows"] == 10 and {e["name"] for e in data["effects"]} >= {"gptq int4", "w int4"}
    assert "draws" not in data["curve"] and data["interval"]["method"] == "jackknife over trunks"


def test_the_figure_shows_every_row_once():
    found = bl.downstream(tasks(after=0.03), draws=40)
    chart = figures.error_against_loss.chart(found)
    points = [m for m in chart.marks if hasattr(m, "marker") and hasattr(m, "hollow")]
    ids = [i for mark in points for i in mark.ids]
    assert sorted(ids) == sorted(found.points["id"]) and len(ids) == len(set(ids))
    hollow = [m for m in points if m.hollow]
    assert len(hollow) == 1 and {i.split("-")[0] for i in hollow[0].ids} == {"800000"}
    assert "errs more than its loss says" in chart.caption and json.dumps(plotly(chart))


@pytest.mark.slow
def test_a_thorough_report_has_the_figure():
    rows = Runs.from_rows([{**r, "tokens": r["params"] * 20} for r in tasks().frame.to_dicts()])
    drawn = figures.charts(rows, bl.fit("chinchilla", rows, draws=0), slow=True)
    assert "error-against-loss" in {c.name for c in drawn}


def test_the_command(tmp_path):
    write_runs(tasks(after=0.03), tmp_path / "runs.csv")
    run = CliRunner().invoke(
        app, ["downstream", str(tmp_path / "runs.csv"), "--figures", str(tmp_path / "f")]
    )
    assert run.exit_code == 0 and "errs more than its loss says" in run.stdout
    assert (tmp_path / "f" / "error-against-loss.svg").exists()
    run = CliRunner().invoke(app, ["downstream", str(tmp_path / "runs.csv"), "--json", "--margin", "0.05"])
    assert {e["verdict"] for e in json.loads(run.stdout)["effects"]} == {"sufficient"}


def test_rows_of_low_precision_alone_are_no_curve():
    rows = [
        {
            "params": 1e6,
            "tokens": d,
            "loss": 2 + 1e6 / d,
            "error": 0.4 + 1e5 / d,
            "w_format": "int4",
            "trunk": str(d),
        }
        for d in (1e6, 2e6, 4e6, 8e6, 16e6)
    ]
    with pytest.raises(FitError, match="every row is of low precision"):
        bl.downstream(Runs.from_rows(rows), "error")
