"""Steps and tokens to one loss: the hyperbola against the trajectory law, SciPy, and its own coverage."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.optimize import least_squares

from bitlaw import ConfigError, FitError, Runs
from bitlaw.fitting import contours
from bitlaw.laws import published, trajectory

KAPLAN = published("kaplan-2020-trajectory").values
BATCHES = np.array([250, 500, 1000, 2000, 4000, 8000])


def noisy(seed, scatter=0.05, seeds=5, s_min=100.0, b_crit=1500.0):
    """Curves that fall by log 2 a doubling, and reach 2.0 after S_min (1 + B_crit / B) steps but for a factor."""
    rng = np.random.default_rng(seed)
    rows = []
    for b in BATCHES:
        for k in range(seeds):
            arrives = s_min * (1 + b_crit / b) * np.exp(scatter * rng.standard_normal())
            run = {"trunk": f"{b} {k}", "params": 1e4, "batch_size": int(b) // 50, "seq_len": 50}
            for share in (0.5, 0.9, 1.2):
                steps = 1000 * arrives * share  # whole steps, finely
                rows.append(run | {"steps": round(steps), "tokens": steps * b, "loss": 2.0 - np.log(share)})
    return Runs.from_rows(rows)


def test_curves_of_the_trajectory_law_give_back_its_critical_batch():
    rows = []
    steps = np.geomspace(1e3, 1e7, 200).round()
    for b in np.geomspace(1e5, 3e7, 7).round():
        losses = trajectory.law.predict(KAPLAN, params=1e8, steps=steps, batch_tokens=b)
        run = {"trunk": f"{b}", "params": 1e8}
        rows += [
            run | {"steps": int(s), "tokens": s * b, "loss": x} for s, x in zip(steps, losses, strict=True)
        ]
    levels = (3.6, 3.2, 3.0)
    for level, found in zip(levels, contours(Runs.from_rows(rows), levels), strict=True):
        assert found.steps.value == pytest.approx(trajectory.least_steps(level, 1e8, KAPLAN), rel=0.003)
        assert found.tokens.value == pytest.approx(trajectory.least_tokens(level, 1e8, KAPLAN), rel=0.003)
        assert found.batch.value == pytest.approx(trajectory.critical_batch(level, KAPLAN), rel=0.005)
        assert np.abs(found.residual).max() < 0.002
        assert np.isnan(found.batch.low)  # one trunk a batch says nothing of how others would differ


def test_scipy_finds_the_same_least_squares():
    runs = noisy(0)
    found = contours(runs, [2.0], draws=0)[0]
    frame = runs.frame.with_columns((pl.col("loss") - 2.0).exp().alias("off"))
    first = frame.group_by("trunk", maintain_order=True).agg(
        (pl.col("steps") * pl.col("off")).mean(), pl.col("batch_size").first() * 50
    )
    S, b = first["steps"].to_numpy(), first["batch_size"].to_numpy()
    best = least_squares(lambda c: c[0] / S + c[1] / (S * b) - 1, (1e5, 1e8), x_scale=(1e5, 1e8), xtol=1e-14)
    assert found.steps.value == pytest.approx(best.x[0], rel=1e-4)
    assert found.tokens.value == pytest.approx(best.x[1], rel=1e-4)
    assert (found.trunks, found.missed) == (30, 0)


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say():
    """90 % of 300: within four standard errors of it, and not far above."""
    held = [contours(noisy(seed), [2.0], draws=300, seed=seed)[0].batch for seed in range(300)]
    share = np.mean([r.low <= 1500 <= r.high for r in held])
    assert 0.83 < share < 0.97


def test_a_hyperbola_that_does_not_hold_is_seen():
    """Small batches that need half as many steps again: seeds agree, and the hyperbola is off."""
    frame = noisy(1, scatter=0.002).frame
    small = pl.col("batch_size") * 50 <= 500
    bent = frame.with_columns(
        pl.when(small).then(pl.col("steps") * 3 // 2).otherwise(pl.col("steps")).alias("steps")
    )
    assert np.abs(contours(frame, [2.0])[0].residual).max() < 0.01
    assert np.abs(contours(bent, [2.0])[0].residual).max() > 0.05


def test_units_of_the_batch_do_not_matter_and_late_trunks_are_counted():
    runs = noisy(2)
    found = contours(runs, [2.0])[0]
    doubled = contours(runs.frame.with_columns(pl.col("seq_len") * 2), [2.0])[0]
    assert doubled.batch.value == pytest.approx(2 * found.batch.value)
    assert doubled.batch.low == pytest.approx(2 * found.batch.low)
    assert doubled.steps.high == pytest.approx(found.steps.high)
    late = runs.frame.filter((pl.col("trunk") != "250 0") | (pl.col("loss") > 2))
    assert contours(late, [2.0])[0].missed == 1


def test_rows_that_are_no_contour_are_refused():
    runs = noisy(3)
    with pytest.raises(FitError, match="params has several"):
        contours(runs.frame.with_columns(params=pl.col("steps").cast(float)), [2.0])
    with pytest.raises(FitError, match="w_format has several"):
        contours(
            runs.frame.with_columns(w_format=pl.when(pl.col("steps") % 2 == 0).then(pl.lit("int4"))), [2.0]
        )
    with pytest.raises(FitError, match="cooldown"):
        contours(runs.frame.with_columns(cooldown=0.2), [2.0])
    with pytest.raises(FitError, match="0 batches reach a loss of 1"):
        contours(runs, [1.0])
    with pytest.raises(FitError, match="needs trunk"):
        contours(runs.frame.with_columns(trunk=pl.lit(None)), [2.0])
    with pytest.raises(ConfigError, match="between 0 and 1"):
        contours(runs, [2.0], interval=90)


def test_runs_of_cosines_are_refused_and_averages_left_out():
    rows = [
        {
            "trunk": f"{b}",
            "params": 1e4,
            "steps": (s := k * (20 + 20_000 // b)),
            "tokens": s * b,
            "loss": 4 - k,
        }
        for b in (250, 1000, 4000)
        for k in (1, 2)
    ]
    averaged = [{**row, "loss": row["loss"] - 0.5, "average": "ema:0.9"} for row in rows]
    both, alone = (contours(Runs.from_rows(table), [2.0])[0] for table in (rows + averaged, rows))
    assert both.batch.value == alone.batch.value and both.trunks == 3
    with pytest.raises(FitError, match="cosine"):
        contours(Runs.from_rows([{**row, "schedule": "cosine"} for row in rows]), [2.0])
