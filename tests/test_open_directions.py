"""What rows leave open stays open: in intervals, in forecasts, between arms, and in files."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import tables
from typer.testing import CliRunner

import bitlaw as bl
from bitlaw import DataError, Runs
from bitlaw.cli.main import app
from bitlaw.fitting import forecast, load_fit, load_forecast, shift
from bitlaw.laws import chinchilla, published

TRUTH = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}
ONE_SIZE = [(1e8, d) for d in np.geomspace(1e8, 1e11, 12)]
ONE_BUDGET = [(n, 1e19 / 6 / n) for n in np.geomspace(1e8, 1e10, 12)]
ONE_RATIO = [(n, 20 * n) for n in np.geomspace(1e7, 1e10, 12)]
BOOTSTRAPS = ("residual", "wild", "cluster")
GRID = [(n, d) for n in (1e7, 3e7, 9e7, 3e8, 1e9) for d in (2e8, 1e9, 5e9, 2e10)]


def rows(cells, noise=0.01, seed=0, law=chinchilla, values=TRUTH, **columns):
    rng = np.random.default_rng(seed)
    return [
        {
            "params": n,
            "tokens": d,
            "loss": float(law.predict(values, params=n, tokens=d)) * math.exp(noise * rng.standard_normal()),
            **columns,
        }
        for n, d in cells
    ]


# ---- intervals


@pytest.mark.parametrize(
    ("cells", "opened", "method"),
    [(ONE_SIZE, "alpha E", method) for method in ("residual", "wild", "cluster", "student")]
    + [
        (c, name, method)
        for c, name in ((ONE_BUDGET, "E"), (ONE_RATIO, "B"))
        for method in ("residual", "wild", "cluster")
    ],
)
def test_what_is_not_identified_has_no_narrow_interval(cells, opened, method):
    """With one size alpha may be anything; along one budget, or one ratio, E or a whole term may be absent.

    Valleys of the latter bend, of which `student`, the curvature at one point, knows nothing.
    """
    fit = bl.fit("chinchilla", Runs.from_rows(rows(cells)), method=method)
    for e in fit.estimates:
        if e.parameter.name in opened.split():
            assert e.status in ("not identified", "at bound")
            assert e.low < TRUTH[e.parameter.name] < e.high
            assert e.high > 4 * e.low


@pytest.mark.slow
def test_a_floor_at_zero_can_leave_it():
    """Refits from E = 0, where its derivative by its logarithm is nothing, used to stay there all of them."""
    fits = [bl.fit("chinchilla", Runs.from_rows(rows(ONE_BUDGET, seed=s))) for s in range(8)]
    at_zero = [fit for fit in fits if fit.values["E"] < 1e-3]
    assert at_zero  # or this tests nothing
    assert all(np.quantile(fit.draws[:, 0], 0.95) > 1 for fit in at_zero)


def test_quests_floor_is_not_called_known(public_data):
    law = chinchilla.with_precision(w="efficiency")
    runs = tables.quest(public_data)
    floor = bl.fit(law, runs, objective="log-squares").estimates[0]
    assert floor.low < 1e-6 and floor.high > 0.3


def test_a_forecast_is_as_wide_as_what_it_rests_on():
    fit = bl.fit("chinchilla", Runs.from_rows(rows(ONE_SIZE)))
    far = forecast(fit, params=1e10, tokens=2e10)
    truth = float(chinchilla.predict(TRUTH, params=1e10, tokens=2e10))
    assert far.low < truth < far.high


def test_rows_that_are_all_alike_tell_nothing():
    fit = bl.fit("chinchilla", Runs.from_rows([{"params": 1e8, "tokens": 1e9, "loss": 2.9}] * 10))
    assert all(e.status != "ok" for e in fit.estimates)
    assert any("9 rows repeat another" in note for note in fit.notes)


# ---- forecasts


def noise_of(**how):
    fit = bl.fit("chinchilla", Runs.from_rows(rows(GRID * 3, noise=0.02)), **how)
    found = forecast(fit, params=1e8, tokens=2e9)
    return (found.high - found.low) / found.loss / 2 / 1.645


@pytest.mark.parametrize("how", [{}, {"delta": 1e-3}, {"objective": "squares"}, {"objective": "lad"}])
def test_single_runs_have_their_noise_whatever_was_minimised(how):
    assert noise_of(**how) == pytest.approx(0.02, rel=0.3)


def test_the_noise_of_gaps_is_in_the_forecast_of_a_quantised_run():
    law = chinchilla.with_gap("kumar")
    values = {**TRUTH, "C_T": 0.06, "gamma_D": 0.5, "gamma_N": 0.5, "gamma_post": 1.0, "b": 0.0}
    rng = np.random.default_rng(0)
    table = rows(GRID, noise=1e-4)
    for k, row in enumerate(list(table)):
        row |= {"id": f"t{k}", "trunk": f"t{k}"}
        for bits in (3, 4, 6):
            exact = float(
                law.predict_gap(values, params=row["params"], tokens=row["tokens"], post_bits=float(bits))
            )
            gap = exact * math.exp(0.3 * rng.standard_normal())
            more = {"post_format": f"int{bits}", "gap": gap, "gap_se": 0.01 * gap, "parent": row["id"]}
            table.append({**row, **more, "id": f"t{k}-{bits}", "loss": row["loss"] + gap})
    fit = bl.fit(law, Runs.from_rows(table))
    found = forecast(fit, params=9e7, tokens=5e9, post_bits=3.0)
    gap = float(fit.law.predict_gap(fit.values, params=9e7, tokens=5e9, post_bits=3.0))
    assert (found.high - found.low) / 2 > 0.3 * gap


def test_a_forecast_says_when_it_lies_below_what_was_fitted(sweep):
    fit = bl.fit("kumar", sweep)
    near = forecast(fit, params=6e7, tokens=3e9, w_bits=4.0)
    assert set(near.beyond.values()) == {1.0} and "Extrapolated" not in str(near)
    assert "w_bits 1.2 times" in str(forecast(fit, params=6e7, tokens=3e9, w_bits=2.5))
    assert "params 3.0 times" in str(forecast(fit, params=1e7, tokens=3e9))


# ---- two arms


def test_a_shift_of_precision_is_seen():
    law = chinchilla.with_precision(w="kumar")

    def arm(gamma, seed):
        rng = np.random.default_rng(seed)
        values = {**TRUTH, "gamma_w": gamma, "n_w": 0.3}
        table = []
        for n, d in GRID:
            for bits in (None, 4, 6):
                given = {} if bits is None else {"w_bits": float(bits)}
                loss = float(law.predict(values, params=n, tokens=d, **given))
                name = {} if bits is None else {"w_format": f"int{bits}"}
                table.append(
                    {"params": n, "tokens": d, "loss": loss * math.exp(0.003 * rng.standard_normal()), **name}
                )
        return Runs.from_rows(table)

    found = shift(law, arm(1.7, 0), arm(3.0, 1))
    assert "weights in 4 bits" in found.verdict and found.verdict.startswith("The law shifted")
    assert shift(law, arm(1.7, 0), arm(1.7, 2)).verdict.startswith("No shift")


# ---- files


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    fit = bl.fit("chinchilla", Runs.from_rows(rows(GRID)))
    fit.save(folder / "fit.json")
    forecast(fit, params=1e9, tokens=2e10).save(folder / "pin.json")
    return folder


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("interval", "level"), 5),
        (("interval", "level"), -1),
        (("interval", "df"), -3),
        (("interval", "df"), 2.9),
        (("interval", "df"), "7"),
        (("interval", "method"), "\x1b[31mresidual"),
        (("converged",), "no"),
        (("rows", "loss"), "3"),
        (("objective",), "zzz"),
        (("noise", "loss"), -0.1),
        (("notes",), ["\x1b]0;title\x07"]),
        (("estimates", "alpha", "low"), 0.9),
        (("estimates", "alpha", "status"), "fine"),
        (("ranges", "params"), [2e9, 1e9]),
        (("draws",), [1.8, 480.0, 2100.0, 0.35, 0.37]),
        (("draws",), [[1.8, 480.0]]),
    ],
)
def test_a_fit_is_taken_as_it_is_or_refused(saved, tmp_path, place, value):
    data = json.loads((saved / "fit.json").read_text())
    inner = data
    for key in place[:-1]:
        inner = inner[key]
    assert place[-1] in inner
    inner[place[-1]] = value
    (tmp_path / "fit.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match="not a complete fit"):
        load_fit(tmp_path / "fit.json")


@pytest.mark.parametrize("change", [{"low": 99.0}, {"level": 0.5}, {"made": {}}, {"loss": 2.0}])
def test_a_pin_that_was_changed_is_not_scored(saved, tmp_path, change):
    data = json.loads((saved / "pin.json").read_text())
    (tmp_path / "pin.json").write_text(json.dumps({**data, **change}))
    with pytest.raises(DataError, match="changed after it was pinned"):
        load_forecast(tmp_path / "pin.json")


# ---- every law from the command line


def test_gap_laws_are_fitted_from_the_command_line(tmp_path):
    law = bl.laws.get("gap-kumar")
    values = {name: published("kumar-2024").values.get(name, 0.0) for name in law.names}
    table = []
    for n, d in GRID:
        for bits in (3, 4, 5):
            gap = float(law.predict_gap(values, params=n, tokens=d, post_bits=float(bits)))
            name = {"post_format": f"int{bits}", "gap": gap, "gap_se": gap / 50}
            table.append({"params": n, "tokens": d, "loss": 3 + gap, **name})
    bl.write_runs(Runs.from_rows(table), tmp_path / "gaps.csv")
    for name in ("gap-kumar", "gap-qid", "gap-per-format"):
        out = CliRunner().invoke(app, ["fit", str(tmp_path / "gaps.csv"), "--law", name])
        assert out.exit_code == 0, (name, out.exception)
        assert "gaps predicted with a mean absolute error" in out.output
