"""What an engineer with rows of their own met on a walk through fits, plans and reports."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
import tables
from conftest import synthetic_sweep
from typer.testing import CliRunner

import bitlaw as bl
from bitlaw import ConfigError, FitError, LawError, Runs, fit, plan, published
from bitlaw.cli.main import app
from bitlaw.fitting import load_fit, load_forecast
from bitlaw.laws import LAWS
from bitlaw.report.figures import NothingToDraw, charts, plan_options


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


def test_a_format_that_never_reaches_the_loss_is_said():
    asked = {"loss": 3.05, "bits": "bf16", "params": "1B"}
    found = plan("kumar-2024", **asked, quantize_to=["int3", "int8"])
    assert [o.formats for o in found.options] == ["bf16, then int8"]
    assert "no budget reaches the loss with bf16, then int3" in words(found)
    with pytest.raises(NothingToDraw):
        plan_options.chart(plan("kumar-2024", loss=3.05, bits=["bf16", "int8"]))


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
    assert "by those on gaps" in words(answer)
    assert "by those on gaps" not in words(plan(fitted, budget=1e20, runs=paired))


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


# ---- what a pretraining lead met


def uneven(seed, rows=96):
    """Runs of Chinchilla's law with noise that is ten times as large on few tokens as on many."""
    rng, law = np.random.default_rng(seed), published("chinchilla-2024")
    n = np.exp(rng.uniform(np.log(2e7), np.log(2e9), rows))
    d = np.exp(rng.uniform(np.log(4e8), np.log(4e10), rows))
    spread = 0.01 * 10 ** -(np.log(d / 4e8) / np.log(100))
    exact = [float(law.law.predict(law.values, params=a, tokens=b)) for a, b in zip(n, d, strict=True)]
    loss = exact * np.exp(spread * rng.standard_normal(rows))
    return Runs.from_rows([{"params": a, "tokens": b, "loss": c} for a, b, c in zip(n, d, loss, strict=True)])


def even(seed, rows=96):
    rng, law = np.random.default_rng(seed), published("chinchilla-2024")
    made = []
    for n, d in np.exp(rng.uniform(np.log([2e7, 4e8]), np.log([2e9, 4e10]), (rows, 2))):
        loss = float(law.law.predict(law.values, params=n, tokens=d)) * math.exp(
            0.003 * rng.standard_normal()
        )
        made.append({"params": n, "tokens": d, "loss": loss})
    return Runs.from_rows(made)


def test_many_rows_that_spread_unevenly_get_the_wild_bootstrap():
    found = fit("chinchilla", uneven(0), draws=50)
    assert found.method == "wild" and any("wild bootstrap" in note for note in found.notes)
    kept = [fit("chinchilla", even(seed), draws=20).method for seed in range(12)]
    assert kept.count("residual") >= 11  # 1 % of tables by chance
    assert fit("chinchilla", uneven(0, 40), draws=50).method == "residual"  # of few rows neither is better
    assert fit("chinchilla", uneven(0), draws=50, method="residual").method == "residual"


@pytest.mark.slow
def test_intervals_of_uneven_rows_hold_the_truth(public_data):
    """Residuals of Hoffmann et al.'s runs, each in its place and of random sign (decision 33)."""
    frame = tables.epoch(public_data).frame
    n, d = frame["params"].to_numpy(), frame["tokens"].to_numpy()
    seen = fit("chinchilla", Runs(frame), draws=0)
    exact = np.array([seen.predict(params=a, tokens=b) for a, b in zip(n, d, strict=True)])
    off = np.log(frame["loss"].to_numpy() / exact)
    rng, held, sweeps = np.random.default_rng(0), dict.fromkeys((None, "residual"), 0), 60
    for seed in range(sweeps):
        losses = exact * np.exp(off * rng.choice([-1, 1], len(off)))
        runs = Runs(frame.with_columns(pl.Series("loss", losses)))
        for method in held:
            found = fit("chinchilla", runs, draws=200, method=method, seed=seed)
            held[method] += sum(e.low <= seen.values[e.parameter.name] <= e.high for e in found.estimates)
    assert held[None] / sweeps / 5 > 0.8 > held["residual"] / sweeps / 5 + 0.05, held


def test_single_runs_lie_in_their_intervals_where_residuals_have_tails():
    """One run in five lies far out: the robust noise knows nothing of it, the interval does."""
    rng, law = np.random.default_rng(0), published("chinchilla-2024")

    def runs(count):
        made = []
        for n, d in np.exp(rng.uniform(np.log([2e7, 4e8]), np.log([2e9, 4e10]), (count, 2))):
            noise = (0.02 if rng.random() < 0.2 else 0.002) * rng.standard_normal()
            loss = float(law.law.predict(law.values, params=n, tokens=d)) * math.exp(noise)
            made.append({"params": n, "tokens": d, "loss": loss})
        return Runs.from_rows(made)

    found = fit("chinchilla", runs(200), draws=100)
    assert found.tails["loss"] > 1.5
    new = runs(300).frame
    inside = [
        (f := bl.forecast(found, params=n, tokens=d)).low <= loss <= f.high
        for n, d, loss in zip(new["params"], new["tokens"], new["loss"], strict=True)
    ]
    assert 0.85 <= np.mean(inside) <= 0.95


def test_a_forecast_carries_what_the_fit_says_of_its_residuals(tmp_path):
    rows = [
        {
            "params": n,
            "tokens": d,
            "loss": 2 + 400 / n**0.3 + 4e4 / d**0.55 * (1 + 0.5 * math.sin(math.log(n))),
        }
        for n in np.geomspace(1e7, 1e9, 8)
        for d in np.geomspace(1e8, 1e10, 8)
    ]
    found = fit("chinchilla", Runs.from_rows(rows), draws=50)
    told = [note for note in found.notes if note.startswith("the residuals are not noise")]
    assert told
    made = bl.forecast(found, params=2e9, tokens=2e10)
    assert made.notes == tuple(told) and "Note: the residuals are not noise" in str(made)
    made.save(tmp_path / "pinned.json")
    assert load_forecast(tmp_path / "pinned.json").notes == made.notes


def test_tokens_a_parameter_far_from_the_rows_are_said(fitted):
    assert "tokens a parameter are" in words(plan(fitted, params="30M", tokens="200B", bits="bf16"))
    far = words(plan("chinchilla-2024", params="8B", tokens="15T"))
    assert "15T tokens is" in far and "1.87e+03 tokens a parameter are" in far
    assert "tokens a parameter are" in words(plan("quest-2025", budget=1e21, bits=["bf16", "w4a4"]))
    assert "above the largest" in words(plan("kaplan-2020", budget=1e25))
    near = words(plan("chinchilla-2024", params="1B", tokens="20B"))
    assert "the law was fitted on" not in near


def test_choices_that_cost_the_same_of_what_is_limited_share_their_draws():
    rows = [
        {
            "params": n,
            "tokens": d,
            "loss": 2 + 400 / (n * f) ** 0.3 + 400 / d**0.3,
            "w_format": w,
            "a_format": w,
        }
        for n in (1e6, 3e6, 1e7)
        for d in (1e7, 1e8, 1e9)
        for w, f in (("bf16", 1.0), ("int8", 0.98), ("int6", 0.9), ("int4", 0.6))
    ]
    rng = np.random.default_rng(0)
    noisy = [row | {"loss": row["loss"] * math.exp(0.002 * rng.standard_normal())} for row in rows]
    answer = plan(fit("kumar", Runs.from_rows(noisy), draws=40), budget=1e18, bits=["bf16", "int4", "w4a4"])
    chance = {o.formats: o.chance for o in answer.options}
    assert chance["int4"] == chance["w4a4"]
    assert "int4 and w4a4 are one and the same here" in words(answer)
    assert "reads no difference" not in words(answer)


def test_notes_on_pools_speed_ups_and_memory():
    pool = words(plan("chinchilla-2024", budget=1e22, unique_tokens="20B"))
    assert "does not know what repeated tokens are worth" in pool
    assert "repeated tokens" not in words(plan("muennighoff-2023", budget=1e22, unique_tokens="20B"))
    asked = {"hours": 1000, "hardware": "h100", "devices": 8, "achieved": 0.4, "bits": ["bf16", "e4m3"]}
    assert "published training gained is 1.25 or 1.43 or 1.5 times" in words(plan("kumar-2024", **asked))
    given = words(plan("kumar-2024", **asked, speedups={"fp8": 1.4}))
    assert "as given: fp8 1.4" in given and "published training" not in given
    served = {"hours": 720, "hardware": "h100", "devices": 64, "achieved": 0.4, "served": "10T"}
    assert "at the speed of training" in words(plan("chinchilla-2024", **served))
    fast = words(plan("chinchilla-2024", tokens="2T", hardware="h100", speed=500.0))
    assert "full bandwidth" in fast
    with pytest.raises(LawError, match="have to fit into"):
        plan(
            "chinchilla-2024", params="8B", tokens="2T", hardware="h100", devices=8, context="8k",
            cache=(32, 8, 128), sequences=40960,
        )  # fmt: skip


def test_a_configuration_that_keeps_more_than_was_counted_is_said():
    asked = {"memory": "16 GB", "context": "8k", "tokens": "2T"}
    assert "times as many keys and values" in words(plan("chinchilla-2024", **asked))
    assert "times as many" not in words(plan("chinchilla-2024", **asked, cache=(32, 8, 128)))
    small = plan("kumar-2024", memory="30 MB", tokens="20B", context="4k")
    depth = small.training.split("depth ")[1].split("\n")[0]
    assert f"depth {depth})" in words(small)
    assert (
        plan("kumar-2024", memory="9.04 GB", tokens="2T", context="1k").formats == ""
    )  # near the ladder's end


def test_splits_of_several_sizes_can_be_held_out(sweep, tmp_path):
    bl.runs.write_runs(sweep, tmp_path / "runs.csv")
    asked = ["compare", str(tmp_path / "runs.csv"), "--law", "kumar", "--hold-out"]
    for split, words_ in (("largest:2", "the 2 largest sizes"), ("cheapest:0.7", "cheapest 70%")):
        out = CliRunner().invoke(app, [*asked, split])
        assert words_ in out.stdout, out.exception
    for wrong, said in (
        ("largest:x", "after the colon"),
        ("larges", "largest"),
        ("cheapest", "after the colon"),
    ):
        out = CliRunner().invoke(app, [*asked, wrong])
        assert said in str(out.exception)


def test_a_shift_is_looked_for_where_both_arms_were():
    """No run is of the largest size on the most tokens: the far end costs no more than the costliest."""
    rng, law = np.random.default_rng(0), published("chinchilla-2024")

    def arm(E):
        rows = []
        for n in np.geomspace(2e7, 2e9, 7):
            for c in (1e18, 1e19, 3e19):
                d = c / 6 / n
                exact = float(law.law.predict(law.values | {"E": E}, params=n, tokens=d))
                rows.append(
                    {"params": n, "tokens": d, "loss": exact * math.exp(0.003 * rng.standard_normal())}
                )
        return Runs.from_rows(rows)

    found = bl.shift("chinchilla", arm(1.8), arm(1.9), draws=50)
    place = next(c.name for c in found.losses if c.name.startswith("the far end"))
    n, d = (
        bl.units.parse_quantity(text, "params")
        for text in (place.split("(")[1].split()[0], place.split()[-2])
    )
    assert n * d <= 1.05 * 3e19 / 6
    assert found.verdict.startswith("The law shifted")


def test_one_law_in_two_forms_is_ranked_once():
    """Kumar's and the overtraining law are one where nothing is quantised; those that are named stay."""
    found = bl.compare(even(0), hold_out=bl.largest(20))
    names = [e.name for e in found.entries]
    assert len({"kumar", "overtraining"} & set(names)) == 1
    told = {name.split(",")[0]: why for name, why in found.left_out.items()}
    assert "predicts the same as" in told["overtraining" if "kumar" in names else "kumar"]
    both = bl.compare(even(0), ["kumar", "overtraining"], hold_out=bl.largest(20))
    assert len(both.entries) == 2 and both.entries[0].held_out.error == pytest.approx(
        both.entries[1].held_out.error, abs=1e-6
    )
