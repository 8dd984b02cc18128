"""Cells of a table made again, and the table that the package carries."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

import bitlaw as bl
from bitlaw import DataError, read_runs
from bitlaw.cli.main import app
from bitlaw.lab.corpus import read_corpus
from bitlaw.lab.model import load_model
from bitlaw.lab.sweep import TRAINED, After, SweepConfig, draw, make_again, run_sweep, seed_noise, trunks
from bitlaw.runs import Runs, Store, write_runs

STUDY = Path(__file__).parents[1] / "studies" / "thousandth"
SHAPE = {"sizes": (4000,), "batch_size": 4, "seq_len": 64, "eval_tokens": 4096, "calibration_tokens": 2000}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A small sweep: cooldowns, and cosines of three seeds, some of it quantised after training."""
    folder = tmp_path_factory.mktemp("sweep")
    text = read_corpus(None)
    ways = (
        SweepConfig(
            **SHAPE,
            budgets=(8_000, 16_000),
            schemes=("16", "w3"),
            post_formats=("int3", "int4"),
            low_post_formats=("int2",),
            post_methods=("rtn", "gptq"),
        ),
        SweepConfig(**SHAPE, budgets=(8_000, 12_000), schemes=("16",), schedule="cosine", seeds=(1, 2, 3)),
    )
    for config in ways:
        run_sweep(
            trunks(config, text), Store(folder / "runs.sqlite"), folder / "c", after=After.of(config, folder)
        )
    return folder / "runs.sqlite"


@pytest.mark.slow
def test_cells_made_again_have_the_losses_that_they_had(store, tmp_path):
    rows = read_runs(store).frame.to_dicts()
    assert len(rows) == 4 + 2 * 4 + 2 * 2 + 6
    again = draw(rows, 10)
    assert set(again.rows) == {row["id"] for row in rows}
    assert len(again.configs) == 2 + 6  # a cosine's budgets are runs of their own
    assert len(again.jobs) == 3  # 16 bits with four copies, three with two, cosines with none
    seen = []
    found = make_again(again, tmp_path, None, 2, lambda done, total, made: seen.append((done / total, made)))
    assert {one.id for one in found} == set(again.rows) and all(one.difference == 0 for one in found)
    assert sum(one.quantized for one in found) == 12
    assert seen[-1] == (pytest.approx(1), len(rows))
    assert make_again(again, tmp_path, None) == found  # nothing is made a third time
    kept = Store(tmp_path / "runs.sqlite")
    kept.forget(found[0].id)
    kept.add([{"id": found[0].id, "params": 1e6, "tokens": 1e6, "status": "failed"}])
    assert math.inf in [one.difference for one in make_again(again, tmp_path, None)]
    renamed = [{**row, "id": f"{row['id']}-x"} if row["method"] == "gptq" else row for row in rows]
    with pytest.raises(DataError, match="does not end in the tokens"):
        draw(renamed, 10)


@pytest.mark.slow
def test_a_draw_is_of_ends_with_their_copies_and_of_a_seed(store):
    rows = read_runs(store).frame.to_dicts()
    one, same, other = draw(rows, 3), draw(rows, 3), draw(rows, 3, seed=1)
    assert one.rows == same.rows != other.rows
    ends = [row for row in one.rows.values() if row["parent"] is None]
    assert len(ends) == 3 and all(row["parent"] in one.rows for row in one.rows.values() if row["parent"])
    for count in (0, 11):
        with pytest.raises(DataError, match="10 that were trained"):
            draw(rows, count)


@pytest.mark.slow
def test_late_schemes_are_cells_of_their_own(tmp_path):
    config = SweepConfig(
        **SHAPE,
        budgets=(8_000,),
        schemes=("16",),
        late_schemes=("w2", "w4"),
        late_cooldowns=(0.1,),
        seeds=(1, 2),
    )
    run_sweep(trunks(config, read_corpus(None)), Store(tmp_path / "runs.sqlite"), tmp_path / "c")
    rows = read_runs(tmp_path / "runs.sqlite").frame.to_dicts()
    assert len(rows) == 6
    noise, freedom = seed_noise(rows)[TRAINED]
    assert freedom == 3 and noise == pytest.approx(
        math.sqrt(pl.DataFrame(rows).group_by("w_format").agg(pl.col("loss").var())["loss"].mean())
    )


def test_copies_scatter_by_how_they_were_quantised():
    """As a data frame has it: sizes, tokens and seeds of the study's 16-bit trunks make the cells."""
    frame = bl.datasets.thousandth().frame
    plain = frame.filter(pl.all_horizontal(pl.col(f"{part}_format") == "bf16" for part in ("w", "a", "kv")))
    cells = plain.group_by("method", "post_recipe", "params", "tokens").agg(pl.col("loss").var(), pl.len())
    several = cells.filter(pl.col("len") > 1)
    found = seed_noise(frame.to_dicts())
    assert found.keys() == set(several.select("method", "post_recipe").iter_rows())
    for (method, recipe), (noise, freedom) in found.items():
        some = several.filter(pl.col("method").eq_missing(method), pl.col("post_recipe").eq_missing(recipe))
        assert freedom == (some["len"] - 1).sum()
        assert noise == pytest.approx(math.sqrt((some["loss"] * (some["len"] - 1)).sum() / freedom))
    assert found["rtn", "int3 channel"][0] > 2 * found["gptq", "int4 channel"][0]


@pytest.mark.slow
def test_what_cannot_be_made_again_is_said(store, tmp_path):
    rows = read_runs(store).frame.to_dicts()
    with pytest.raises(DataError, match="only rows of bitlaw's own sweeps"):
        draw([{**row, "config": None} for row in rows], 1)
    with pytest.raises(DataError, match="changed by hand"):
        draw(
            [
                {**row, "config": row["config"].replace('"weight_decay":0.1', '"weight_decay":0.2')}
                for row in rows
            ],
            1,
        )
    (tmp_path / "other.txt").write_text("Another text. " * 9000)
    with pytest.raises(DataError, match="name theirs with --corpus"):
        make_again(draw(rows, 1), tmp_path / "a", str(tmp_path / "other.txt"))


@pytest.mark.slow
def test_the_command_compares_with_the_noise_of_seeds(store, tmp_path):
    noise, freedom = seed_noise(read_runs(store).frame.to_dicts())[TRAINED]
    assert freedom == 4 and 0.001 < noise < 0.3  # three seeds of two budgets
    losses = (
        read_runs(store)
        .frame.filter(pl.col("schedule") == "cosine")
        .group_by("tokens")
        .agg(pl.col("loss").var())
    )
    assert noise == pytest.approx(math.sqrt(losses["loss"].mean()))
    command = ["study", str(store), "--verify", "4", "--out", str(tmp_path / "again"), "--json"]
    done = CliRunner().invoke(app, command)
    told = json.loads(done.stdout)
    assert done.exit_code == 0 and told["same"] and told["seed_noise"][0]["sd"] == noise
    assert sum(not row["quantized"] for row in told["rows"]) == 4
    copy = next(row["id"] for row in told["rows"] if row["quantized"])

    def wrong(row):
        return {**row, "loss": row["loss"] + 4 * noise} if row["id"] == copy else row

    write_runs(Runs.from_rows(map(wrong, read_runs(store).frame.to_dicts())), tmp_path / "rows.parquet")
    done = CliRunner().invoke(app, ["study", str(tmp_path / "rows.parquet"), *command[2:-1]])
    assert done.exit_code == 1 and f"Not the same: row {copy}" in done.stdout
    assert "4 trained models: 4 losses identical to the bit" in done.stdout


def test_the_package_carries_what_the_study_published():
    for here, there in (("rows.parquet", "thousandth.parquet"), ("trunks.csv", "thousandth.csv")):
        carried = Path(bl.datasets.__file__).parent / there
        assert carried.read_bytes() == (STUDY / here).read_bytes()
    runs = bl.datasets.thousandth(None)
    assert sum(len(bl.datasets.thousandth(stage)) for stage in bl.datasets.STAGES) == len(runs)
    core = bl.datasets.thousandth().frame
    assert core["params"].max() < 230_000 and core["tokens"].max() < 27e6
    with pytest.raises(DataError, match="did you mean 'held-out'"):
        bl.datasets.thousandth("heldout")
    draw(runs.frame.to_dicts(), 1)  # every row says how it was made


def test_the_thousandth_study_by_itself_is_refused():
    done = CliRunner().invoke(app, ["study", "thousandth"])
    assert done.exit_code and "--verify" in str(done.exception)


def test_the_card_is_of_the_rows():
    """README.md of the study is what its rows say; made by `card.py`."""
    spec = importlib.util.spec_from_file_location("card", STUDY / "card.py")
    card = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(card)
    assert (STUDY / "README.md").read_text(encoding="utf-8") == card.card()


def test_models_of_the_study_are_small_whole_and_of_its_rows():
    folders = sorted((STUDY / "models").iterdir())
    assert sum(f.stat().st_size for f in (STUDY / "models").rglob("*") if f.is_file()) < 20e6
    rows = {row["id"]: row for row in read_runs(STUDY / "rows.parquet").frame.to_dicts()}
    assert len(folders) >= 19
    for folder in folders:
        loaded = load_model(folder)
        row = rows[folder.name]
        assert loaded.model.shape.counts().non_embedding == row["params"] and not loaded.scheme.quantized
        assert loaded.row["loss"] == row["loss"]
