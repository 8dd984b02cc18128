"""Fits: known truths are recovered, published optima are reached, and ignorance is admitted."""

from __future__ import annotations

import json
import time

import numpy as np
import polars as pl
import pytest
from conftest import CELLS, TRUTH, synthetic_sweep

import bitlaw as bl
from bitlaw import ConfigError, DataError, FitError, Runs
from bitlaw.fitting.centre import rescaled
from bitlaw.fitting.minimize import Aim, minimize
from bitlaw.fitting.rows import select
from bitlaw.fitting.seed import seeds
from bitlaw.fitting.solve import polish
from bitlaw.laws import LAWS, chinchilla, kumar, kumar_unified, published


def noiseless(law, values, formats=({},)):
    rows = []
    for n, d in CELLS:
        for f in formats:
            bits = {c[:-7] + "_bits": float(v[3:]) for c, v in f.items()}
            loss = float(law.predict(values, params=n, tokens=d, **bits))
            rows.append({"id": f"{n}-{d}-{f}", "params": n, "tokens": d, "loss": loss, **f})
    return Runs.from_rows(rows)


FORMATS = (
    {},
    *({"w_format": f"int{b}"} for b in (3, 4, 6, 8)),
    *({"a_format": f"int{b}"} for b in (4, 5, 6, 8)),
    *({"kv_format": f"int{b}"} for b in (3, 4, 5)),
)


def test_what_no_row_that_is_left_tells_of_is_no_parameter():
    """Activations of one scale a tensor have no group, without which this law reads no row of them."""
    formats = ({}, {"w_format": "int4", "w_granularity": "group", "w_group": 32}, {"a_format": "int8"})
    rows = [
        {
            "id": f"{n}-{d}-{k}",
            "params": n,
            "tokens": d,
            "loss": 2 + 300 * n**-0.3 + 900 * d**-0.3 + 0.01 * k,
            **f,
        }
        for n, d in CELLS
        for k, f in enumerate(formats)
    ]
    found = select(LAWS["additive-granular"], Runs.from_rows(rows))
    assert any("k_w[int4]" in name for name in found.law.names)
    assert not any("_a[" in name for name in found.law.names)
    assert len(found.loss) == 2 * len(CELLS)
    assert f"{len(CELLS)} rows without a_group are left out" in found.notes
    weights = [0.0 if row.get("w_format") else 1.0 for row in rows]
    found = select(LAWS["additive-granular"], Runs.from_rows(rows), weights=weights)
    assert not any("[" in name for name in found.law.names)
    assert (
        "no row that is left has weights of low precision; their factor is left out of the law" in found.notes
    )


def test_a_noiseless_chinchilla_law_is_recovered():
    values = published("chinchilla-2024").values
    fit = bl.fit(chinchilla, noiseless(chinchilla, values), draws=0)
    for name, value in values.items():
        assert fit.values[name] == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_noiseless_precision_law_is_recovered_from_any_start(seed):
    law = chinchilla.with_precision(w="kumar", a="kumar", kv="kumar").tie(beta="alpha")
    values = {k: v for k, v in TRUTH.items() if k in law.names}
    fit = bl.fit(law, noiseless(law, values, FORMATS), draws=0, seed=seed)
    for name, value in values.items():
        assert fit.values[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.slow
def test_the_default_starts_reach_the_best_known_optimum():
    """Acceptance: 465 rows, 0.3 % noise; here 6 of the 100 draws that the slow test takes."""
    assert misses(range(6)) == []


@pytest.mark.slow
def test_the_default_starts_reach_the_best_known_optimum_99_times_in_100():
    began = time.process_time()
    missed = misses(range(100))
    assert len(missed) <= 1, missed
    print(
        f"{len(missed)} of 100 missed; {time.process_time() - began:.0f} CPU s with the search for better optima"
    )


def misses(draws):
    """Draws whose default fit lies above the best of 48 other starts and a start at the truth."""
    out = []
    truth = {**TRUTH, "b": 0.0, "C_T": TRUTH["C_T"] * np.exp(TRUTH["b"])}
    for seed in draws:
        rows = select(kumar_unified, synthetic_sweep(seed))
        problem, optimum = minimize(rows, Aim(), np.random.default_rng(0))
        others = polish(problem, seeds(problem, 48, np.random.default_rng(1000 + seed))).cost
        at_truth = problem.coordinates(
            rescaled(problem.law, kumar_unified.vector(truth), problem.centre, -1)
        )[None]
        best = min(others.min(), polish(problem, at_truth).cost[0])
        if optimum.cost[0] > best * (1 + 1e-6):
            out.append(seed)
    return out


def test_intervals_hold_the_truth(sweep):
    fit = bl.fit(kumar_unified, sweep)
    inside = [
        e.low <= TRUTH[e.parameter.name] <= e.high
        for e in fit.estimates
        if e.parameter.name not in ("b", "C_T")
    ]
    assert sum(inside) >= 13, fit  # 16 intervals of 90 %, some of them dependent


def test_what_sixteen_bit_models_cannot_tell_is_named():
    """Quantising only 16-bit models says nothing of C_w, C_a, C_kv."""
    fit = bl.fit(kumar_unified, synthetic_sweep(1, post_of_low=False))
    status = {e.parameter.name: e.status for e in fit.estimates}
    for name in ("C_w", "C_a", "C_kv"):
        assert status[name] in ("not identified", "at bound")
        assert any(name in note for note in fit.notes)
    assert status["gamma_w"] == status["gamma_D"] == status["gamma_post"] == "ok"
    assert status["b"] == "fixed"


def test_one_size_identifies_no_size_exponent():
    rows = [r for r in synthetic_sweep(2).frame.to_dicts() if r["params"] == 30e6 and not r["post_format"]]
    fit = bl.fit(chinchilla, Runs.from_rows([{k: v for k, v in r.items() if v is not None} for r in rows]))
    status = {e.parameter.name: e.status for e in fit.estimates}
    assert status["alpha"] != "ok"
    assert any("alpha" in note for note in fit.notes)


def test_terms_without_rows_are_left_out_and_said():
    fit = bl.fit("kumar", noiseless(chinchilla, published("chinchilla-2024").values), draws=0)
    assert fit.law.names == ("E", "A", "B", "alpha")
    assert any("keys and values" in note for note in fit.notes)
    assert any("gap is left out" in note for note in fit.notes)


def test_paired_gaps_keep_their_sign():
    """A negative gap within its error neither breaks the fit nor is dropped."""
    runs = synthetic_sweep(3, paired=True, post_of_low=False)
    gaps = pl.col("gap")
    flipped = Runs(runs.frame.with_columns(pl.when(gaps < 0.004).then(-0.0005).otherwise(gaps).alias("gap")))
    flipped = Runs(
        flipped.frame.with_columns(pl.when(gaps < 0).then(0.003).otherwise(pl.col("gap_se")).alias("gap_se"))
    )
    assert (flipped.frame["gap"] < 0).any()
    fit = bl.fit("kumar", flipped)
    assert fit.rows["gap"] == runs.frame["gap"].is_not_null().sum()
    assert fit.values["gamma_D"] == pytest.approx(TRUTH["gamma_D"], abs=0.03)
    assert fit.values["gamma_post"] == pytest.approx(TRUTH["gamma_post"], rel=0.03)


# ---- held out, compared, kept


def test_held_out_rows_are_predicted_by_a_fit_without_them(sweep):
    fit = bl.fit(kumar_unified, sweep, hold_out=bl.largest(), draws=0)
    assert fit.held_out.rows == int((sweep.frame["params"] == 220e6).sum())
    assert fit.held_out.error < 0.006  # the noise is 0.3 %
    without = Runs(sweep.frame.filter(pl.col("params") < 220e6))
    alone = bl.fit(kumar_unified, without, draws=0)
    test = sweep.frame.filter(pl.col("params") == 220e6)
    row = test.row(0, named=True)
    predicted = float(alone.predict(params=row["params"], tokens=row["tokens"]))
    assert fit.held_out.errors[0] == pytest.approx(predicted / row["loss"] - 1, abs=1e-7)


def test_a_law_with_precision_beats_one_without(sweep):
    from bitlaw.fitting.compare import without_precision

    result = bl.compare(sweep, [without_precision(kumar), kumar])
    assert [e.name for e in result.entries] == ["kumar", "kumar without precision"]
    assert result.entries[1].behind_low > 0
    assert "predicts the held-out rows best" in result.verdict


def test_no_winner_is_declared_between_equals(sweep):
    result = bl.compare(sweep, [kumar, kumar_unified])
    assert result.verdict.startswith("No winner")


def test_a_fit_survives_its_file(sweep, tmp_path):
    fit = bl.fit("kumar", sweep, hold_out=bl.largest(), draws=60)
    fit.save(tmp_path / "fit.json")
    again = bl.load_fit(tmp_path / "fit.json")
    assert again.values == fit.values
    assert np.array_equal(again.draws, fit.draws)
    assert again.held_out == fit.held_out
    assert again.law.loss == fit.law.loss
    assert bl.plan(again, budget=1e20)["params"] == bl.plan(fit, budget=1e20)["params"]
    assert list(tmp_path.iterdir()) == [tmp_path / "fit.json"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: "not json",
        lambda d: json.dumps([]),
        lambda d: json.dumps({**d, "bitlaw_fit": 99}),
        lambda d: json.dumps({**d, "law": {**d["law"], "base": "__import__('os')"}}),
        lambda d: json.dumps({k: v for k, v in d.items() if k != "draws"}),
        lambda d: json.dumps({**d, "draws": [["1e5"] * 15]}),
        lambda d: json.dumps({**d, "estimates": {**d["estimates"], "E": {"value": float("nan")}}}),
        lambda d: "[" * 100_000,
    ],
)
def test_a_damaged_fit_is_refused(damage, sweep, tmp_path):
    path = tmp_path / "fit.json"
    bl.fit("kumar", sweep, draws=50).save(path)
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(DataError):
        bl.load_fit(path)


def test_the_same_seed_gives_the_same_intervals(sweep):
    one, two, other = (bl.fit("kumar", sweep, draws=60, seed=s) for s in (1, 1, 2))
    assert np.array_equal(one.draws, two.draws)
    assert not np.array_equal(one.draws, other.draws)


# ---- refusals


def test_too_few_rows_are_refused(sweep):
    with pytest.raises(FitError, match="needs at least"):
        bl.fit("kumar", Runs(sweep.frame.head(8)))


def test_rows_of_two_evaluation_sets_are_refused(sweep):
    frame = sweep.frame.with_columns(
        pl.when(pl.col("params") < 5e7).then(pl.lit("a")).otherwise(pl.lit("b")).alias("eval_sha256")
    )
    with pytest.raises(FitError, match="2 different sets"):
        bl.fit("kumar", Runs(frame))


def test_mixed_counting_conventions_are_refused(sweep):
    frame = sweep.frame.with_columns(
        pl.when(pl.col("params") < 5e7).then(pl.lit("total")).otherwise(pl.lit("matmul")).alias("count")
    )
    with pytest.raises(DataError, match="different ways"):
        bl.fit("kumar", Runs(frame))


def test_mixed_schedules_are_said(sweep):
    frame = sweep.frame.with_columns(
        pl.when(pl.col("params") < 5e7).then(pl.lit("cosine")).otherwise(pl.lit("constant")).alias("schedule")
    )
    assert any("mix learning-rate schedules" in note for note in bl.fit("kumar", Runs(frame), draws=0).notes)


def test_holding_out_needs_sizes(sweep):
    with pytest.raises(FitError, match="cannot hold out"):
        bl.fit("kumar", Runs(sweep.frame.filter(pl.col("params") < 40e6)), hold_out=bl.largest())


def test_rows_of_one_trunk_are_one_cluster(sweep):
    """Copying every run three times within its trunk must not make the intervals narrower."""
    base = sweep.frame.filter(pl.col("post_format").is_null()).with_columns(pl.col("id").alias("trunk"))
    copies = [base.with_columns((pl.col("id") + f"-{k}").alias("id")) for k in range(3)]
    one, three = bl.fit("kumar", Runs(base)), bl.fit("kumar", Runs(pl.concat(copies)))
    assert one.clusters == three.clusters
    for a, b in zip(one.estimates, three.estimates, strict=True):
        if a.status == "ok":
            assert (b.high - b.low) == pytest.approx(a.high - a.low, rel=0.35)


@pytest.mark.slow
def test_ninety_percent_intervals_cover_about_ninety_percent():
    """A smoke test of coverage on 100 sweeps of 36 independent runs; the binomial 99 % band is 81 to 96."""
    values = published("chinchilla-2024").values
    hits = dict.fromkeys(("alpha", "beta", "far"), 0)
    far = float(np.log(chinchilla.predict(values, params=2.2e9, tokens=2.6e11)))
    for seed in range(100):
        rng = np.random.default_rng(seed)
        rows = [
            {
                "params": n,
                "tokens": d,
                "loss": float(chinchilla.predict(values, params=n, tokens=d)) * np.exp(0.01 * e),
            }
            for (n, d), e in zip([*CELLS, *CELLS], rng.standard_normal(2 * len(CELLS)), strict=True)
        ]
        fit = bl.fit(
            chinchilla,
            Runs.from_rows([{"id": str(k), **r} for k, r in enumerate(rows)]),
            draws=200,
            seed=seed,
        )
        for e in fit.estimates:
            if e.parameter.name in hits:
                hits[e.parameter.name] += e.low <= values[e.parameter.name] <= e.high
        low, high = fit.band(params=2.2e9, tokens=2.6e11)
        hits["far"] += bool(np.log(low) <= far <= np.log(high))
    assert 81 <= hits["alpha"] <= 98, hits
    assert 81 <= hits["beta"] <= 98, hits
    assert hits["far"] >= 70, (
        hits
    )  # a loss extrapolated tenfold is covered less often than promised: 79 measured


# ---- the gap alone, and what a fit must not pretend


def test_a_law_of_the_gap_alone_needs_no_law_of_the_loss():
    """It finds the truth from gaps, says nothing of losses, and nothing can be planned with it."""
    runs = synthetic_sweep(4, paired=True, post_of_low=False)
    fit = bl.fit("gap-kumar", runs)
    assert fit.rows == {"gap": runs.frame["gap"].is_not_null().sum()}
    for name in ("gamma_D", "gamma_N", "gamma_post"):
        assert fit.values[name] == pytest.approx(TRUTH[name], rel=0.03)
    with pytest.raises(ConfigError, match="predicts the gap alone"):
        bl.plan(fit, budget=1e20)
    with pytest.raises(FitError, match="no row is left whose gap"):
        bl.fit("gap-kumar", Runs(runs.frame.filter(pl.col("post_format").is_null())))
    with pytest.raises(ConfigError, match="of the gap alone"):
        bl.laws.from_spec(fit.law.spec.as_json() | {"precision": {"w": "kumar"}})


def test_gaps_that_are_mostly_negative_are_fitted():
    runs = synthetic_sweep(5, paired=True, post_of_low=False)
    small = runs.filter(pl.col("post_format").is_in(["int5", "int6"]))
    noise = pl.lit(np.random.default_rng(0).standard_normal(len(small))) * 0.05
    frame = small.frame.with_columns(pl.col("gap") + noise - 0.05, pl.lit(0.05).alias("gap_se"))
    assert frame["gap"].median() < 0
    fit = bl.fit("gap-kumar", Runs(frame), draws=0)
    assert fit.rows == {"gap": len(frame)}
    assert fit.values["C_T"] < 0.1 * bl.fit("gap-kumar", small, draws=0).values["C_T"]


def test_runs_that_diverged_or_failed_are_left_out_and_counted():
    values = published("chinchilla-2024").values
    good = noiseless(chinchilla, values).frame
    lost = good.head(2).with_columns(
        id=pl.col("id") + "-lost", loss=pl.lit(None, pl.Float64), status=pl.Series(["diverged", "failed"])
    )
    found = bl.fit(chinchilla, Runs(pl.concat([good, lost])), draws=0)
    assert found.rows == {"loss": good.height}
    assert any("2 rows without a loss (diverged or failed) are left out" in note for note in found.notes)
    assert found.values == bl.fit(chinchilla, Runs(good), draws=0).values


def test_one_trunk_gives_no_intervals(sweep):
    """A cluster bootstrap of one cluster would give intervals of no width."""
    one = Runs(sweep.frame.with_columns(pl.lit("the only one").alias("trunk")))
    fit = bl.fit("kumar", one)
    assert (fit.method, fit.df) == ("none", 0)
    assert any("all rows are of one trunk" in note for note in fit.notes)


@pytest.mark.parametrize("method", ["student", "profile"])
def test_least_absolute_deviation_has_no_curvature_to_read_intervals_off(method, sweep):
    with pytest.raises(ConfigError, match="which least absolute deviation has none"):
        bl.fit("kumar", sweep, objective="lad", method=method)


def test_laws_of_one_name_are_compared_as_two(sweep):
    """Composed laws are named after their parts, not their forms."""
    laws = [chinchilla.with_precision(w=form) for form in ("kumar", "kumar-without-offset")]
    trained = Runs(sweep.frame.filter(pl.col("a_format").is_null() & pl.col("kv_format").is_null()))
    assert len({law.name for law in laws}) == 1
    assert len(bl.compare(trained, laws).entries) == 2


def test_one_row_more_than_parameters_is_enough():
    values = published("chinchilla-2024").values
    six = Runs(noiseless(chinchilla, values).frame[[0, 2, 4, 6, 9, 11]])
    fit = bl.fit(chinchilla, six, draws=0)
    assert fit.values["alpha"] == pytest.approx(values["alpha"], rel=1e-4)
    assert any("6 rows for 5 parameters" in note for note in fit.notes)
    with pytest.raises(FitError, match="needs at least 6"):
        bl.fit(chinchilla, Runs(six.frame.head(5)))


def test_barely_trained_models_are_counted():
    rows = noiseless(chinchilla, published("chinchilla-2024").values).frame
    frame = pl.concat([rows, rows.head(2).with_columns(pl.lit(1e7).alias("tokens"), pl.col("id") + "-short")])
    notes = bl.fit(chinchilla, Runs(frame), draws=0).notes
    assert any(f"2 of {len(frame)} rows have seen fewer tokens than they have parameters" in n for n in notes)


@pytest.mark.parametrize("width", [1, 3, 9, 14])
def test_non_negative_least_squares_against_lawson_and_hanson(width):
    from scipy.optimize import nnls

    from bitlaw.fitting.seed import _nonnegative

    rng = np.random.default_rng(width)
    basis = np.abs(rng.standard_normal((60, 40, width))) + 3 * rng.random((60, 1, 1))  # columns much alike
    y = (basis @ rng.standard_normal((60, width, 1)))[..., 0] + 0.1 * rng.standard_normal((60, 40))
    exact = np.array([nnls(basis[k], y[k])[0] for k in range(60)])
    assert (exact == 0).any() and (exact > 0).any()
    assert np.allclose(_nonnegative(basis, y), exact, rtol=0, atol=1e-10)
