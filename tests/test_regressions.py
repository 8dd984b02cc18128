"""Mistakes that were made once, by us or in review; each stays mended."""

from __future__ import annotations

import json
import math
import sqlite3

import numpy as np
import polars as pl
import pytest
from conftest import CELLS, synthetic_sweep

import bitlaw as bl
from bitlaw import ConfigError, DataError, Runs, Store, StoreError, plan, read_runs
from bitlaw.fitting import examine
from bitlaw.laws import chinchilla, kumar, published
from bitlaw.report import write_report

ROW = {"id": "a", "params": 1e6, "tokens": 2e7, "loss": 3.1}
CHIN = published("chinchilla-2024").values


def chinchilla_rows(cells=CELLS, noise=0.0):
    rng = np.random.default_rng(0)
    return [
        {
            "params": n,
            "tokens": d,
            "loss": float(chinchilla.predict(CHIN, params=n, tokens=d)) * math.exp(noise * e),
        }
        for (n, d), e in zip(cells, rng.standard_normal(len(cells)), strict=True)
    ]


# ---- planning


@pytest.mark.parametrize("budget", [1e3, 1e6, 1e12, 1e30, 1e40])
def test_the_search_window_moves_with_the_budget(budget):
    answer = plan("kumar-2024", budget=budget)
    assert answer["bits"].value == pytest.approx(7.002, abs=2e-3)
    assert answer["params"].near_low < answer["params"].value < answer["params"].near_high


def test_budgets_nobody_can_mean_are_refused():
    for budget in (10**400, 1e308, "9" * 400):
        with pytest.raises(ConfigError, match="below 1e"):
            plan("kumar-2024", budget=budget)


def test_a_fit_that_saw_one_part_says_so_in_its_plan(sweep):
    weights = sweep.filter(
        pl.col("a_format").is_null() & pl.col("kv_format").is_null() & pl.col("post_format").is_null()
    )
    notes = " ".join(plan(bl.fit("kumar", weights), budget=1e20).notes)
    assert "says nothing of activations and keys and values" in notes
    assert "is below the fewest w_bits" in notes


def test_the_condition_that_fails_is_named():
    with pytest.raises(bl.LawError, match="kumar-unified"):
        plan("kumar-2024", budget=1e21, bits="int8", quantize_to="int4")


def test_tokens_have_a_near_optimal_range_at_a_given_size():
    answer = plan("kumar-2024", budget=1e21, params="1B")
    assert answer["tokens"].near_low < answer["tokens"].value < answer["tokens"].near_high


# ---- fitting


def test_a_law_that_leaves_its_domain_on_held_out_rows_does_not_win(sweep):
    rows = sweep.filter(pl.col("post_format").is_null()).frame
    odd = rows.filter((pl.col("params") == 220e6) & (pl.col("a_format") == "int4")).head(1)
    odd = odd.with_columns(pl.lit("int2").alias("a_format"), pl.lit("odd").alias("id"))
    runs = Runs(pl.concat([rows, odd]))
    from bitlaw.fitting.compare import without_precision

    for order in ([kumar, without_precision(kumar)], [without_precision(kumar), kumar]):
        result = bl.compare(runs, order)
        assert result.entries[0].name == "kumar without precision"
        assert result.entries[1].held_out.outside == 1
        assert "nan" not in str(result)


def test_rows_of_low_bit_gradients_or_embeddings_are_not_fitted_as_full_precision(sweep):
    frame = sweep.frame.with_columns(
        pl.when(pl.col("params") == 30e6).then(pl.lit("int4")).alias("grad_format")
    )
    fit = bl.fit("kumar-unified", Runs(frame), draws=0)
    assert any("gradients of low precision are left out" in note for note in fit.notes)
    assert fit.rows["loss"] == int((frame["grad_format"].is_null()).sum())


def test_a_linear_parameter_can_be_held():
    values = {"E": 2.0, "A": 3e8, "B": 8e9, "alpha": 1.05, "beta": 1.05}
    rows = [
        {"params": n, "tokens": d, "loss": float(chinchilla.predict(values, params=n, tokens=d))}
        for n, d in CELLS
    ]
    for held in ("E", "A"):
        fit = bl.fit(chinchilla, Runs.from_rows(rows), fix={held: values[held]}, draws=0)
        for name, value in values.items():
            assert fit.values[name] == pytest.approx(value, rel=1e-5), (held, name)
    with pytest.raises(ConfigError, match="cannot be fixed"):
        bl.fit(chinchilla, Runs.from_rows(rows), fix={"alpha": -1.0})
    with pytest.raises(ConfigError, match="no parameter"):
        bl.fit(chinchilla, Runs.from_rows(rows), fix={"alfa": 1.0})


def test_a_table_too_small_to_hold_anything_out_is_still_fitted():
    cells = [(n, d) for n in (1e7, 3e7, 1e8) for d in (1e9, 3e9, 1e10)]
    fit, comparison = examine(chinchilla, Runs.from_rows(chinchilla_rows(cells, 0.002)))
    assert comparison is None
    assert any("no rows were held out" in note for note in fit.notes)


def test_rows_without_ids_are_named_by_their_place():
    runs = Runs.from_rows([{**ROW, "id": "row-2"}, {k: v for k, v in ROW.items() if k != "id"}])
    assert runs.frame["id"].to_list() == ["row-2", "row-2x"]
    bl.fit(chinchilla, Runs.from_rows(chinchilla_rows(noise=0.01)), draws=50)


def test_a_given_delta_is_not_called_an_estimate():
    fit = bl.fit(chinchilla, Runs.from_rows(chinchilla_rows(noise=0.01)), delta=1e-3, draws=0)
    assert "as given" in str(fit)
    assert "100" not in str(fit).split("Huber")[1].splitlines()[0]


def test_a_given_delta_does_not_make_everything_unidentified():
    """What the rows identify is judged by their noise, not by the unit that a given delta leaves residuals in."""
    runs = Runs.from_rows(chinchilla_rows(noise=0.003))
    given, estimated = (bl.fit(chinchilla, runs, delta=huber, draws=0) for huber in (1e-3, None))
    assert [e.status for e in given.estimates] == [e.status for e in estimated.estimates]
    assert {e.status for e in given.estimates} == {"ok"}
    assert given.noise == pytest.approx(estimated.noise, rel=0.2)


def test_fits_print_as_valid_json(capsys):
    fit = bl.fit(chinchilla, Runs.from_rows(chinchilla_rows(noise=0.01)), hold_out=bl.largest(), draws=0)
    json.loads(json.dumps(fit.as_json(), allow_nan=False))


@pytest.mark.parametrize("change", [{"gamma_w": 0.0}, {"alpha": -1.0}, {"A": -5.0}, {"E": 10**400}])
def test_saved_constants_out_of_bounds_are_refused(change, sweep, tmp_path):
    path = tmp_path / "fit.json"
    bl.fit("kumar", sweep, draws=50).save(path)
    data = json.loads(path.read_text())
    for name, value in change.items():
        data["estimates"][name]["value"] = value
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match="not a complete fit"):
        bl.load_fit(path)


@pytest.mark.parametrize(
    "inputs", [{"params": -1}, {"tokens": 0}, {"post_bits": -5}, {"params": float("nan")}]
)
def test_laws_refuse_quantities_that_are_not_positive(inputs):
    p = published("kumar-2024")
    with pytest.raises(ConfigError, match="must be positive"):
        p.law.predict(p.values, **{"params": 1e8, "tokens": 1e9, **inputs})


# ---- stores and tables


@pytest.mark.parametrize("name", ["a?b", "a#b", "50%25", "a%20b", "a b", "ä"])
def test_stores_live_in_folders_of_any_name(name, tmp_path):
    path = tmp_path / name / "runs.sqlite"
    Store(path).add([ROW])
    assert len(read_runs(tmp_path / name)) == 1
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "change", ["params = -1", "loss = 9e999", "w_format = 'int99'", "tokens = 'many'", "method = x'00ff'"]
)
def test_rows_of_a_hostile_store_are_checked(change, tmp_path):
    path = tmp_path / "runs.sqlite"
    Store(path).add([ROW])
    connection = sqlite3.connect(path)
    columns = [row[1] for row in connection.execute("PRAGMA table_info(runs)")]
    connection.execute("ALTER TABLE runs RENAME TO old")  # a table without our checks
    connection.execute(f"CREATE TABLE runs ({', '.join(columns)})")
    connection.execute("INSERT INTO runs SELECT * FROM old")
    connection.execute(f"UPDATE runs SET {change}")
    connection.commit()
    connection.close()
    with pytest.raises((DataError, StoreError)):
        read_runs(path)


def test_a_store_without_its_table_is_refused(tmp_path):
    path = tmp_path / "runs.sqlite"
    Store(path).close()
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE runs")
    connection.execute("CREATE TABLE other (x)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError):
        Store(path).ids()


def test_paths_too_long_for_the_system_are_refused():
    with pytest.raises(DataError):
        read_runs("x" * 5000 + ".csv")


def test_text_in_a_number_of_a_row_is_named():
    with pytest.raises(DataError, match="column params: 'big' is not a number"):
        Runs.from_rows([{**ROW, "params": "big"}])


# ---- reports


def test_a_table_without_plain_weight_rows_has_a_report(tmp_path):
    runs = synthetic_sweep(0).filter(pl.col("a_format").is_not_null() & pl.col("post_format").is_null())
    fit = bl.fit(chinchilla.with_precision(a="kumar").tie(beta="alpha"), runs, draws=60)
    write_report(tmp_path / "r.html", runs, fit)
    page = (tmp_path / "r.html").read_text()
    assert "gamma_a" in page and page.count("data-chart=") > 2


def test_a_report_that_cannot_be_written_leaves_nothing(sweep, tmp_path):
    fit = bl.fit("kumar", sweep, draws=60)
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "absent" / "r.html"):
        with pytest.raises(DataError, match="cannot write"):
            write_report(path, sweep, fit, figure_folder=tmp_path / "figures")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
