"""The run table: cells are checked one by one, stores survive, nothing is written half."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitlaw import BitlawError, DataError, Runs, Store, StoreError, read_runs, write_runs
from bitlaw.runs import COLUMNS

ROW = {"id": "a", "params": 1e6, "tokens": 2e7, "loss": 3.1}


def csv(tmp_path, text, name="runs.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


GOOD = "id,params,tokens,loss,w_format\na,1e6,2e7,3.1,int4\nb,2e6,2e7,2.9,\n"


def test_a_plain_csv_is_read(tmp_path):
    runs = read_runs(csv(tmp_path, GOOD))
    assert runs.frame["w_format"].to_list() == ["int4", None]
    assert runs.bits("w").to_list() == [4.0, 1e6]


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("nan", "not finite"),
        ("inf", "not finite"),
        ("-inf", "not finite"),
        ("1e400", "not finite"),
        ("-1e6", "out of range"),
        ("0", "out of range"),
        ("20M", "not a number"),
        ("1_000", "not a number"),
        ("٣", "not a number"),
        ("16;DROP TABLE runs", "not a number"),
        ("=cmd|calc", "not a number"),
        ('"20,000,000"', "not a number"),
    ],
)
@pytest.mark.parametrize("column", ["params", "tokens", "loss"])
def test_a_bad_cell_is_named_with_line_and_column(tmp_path, column, cell, words):
    row = {"id": "x", "params": "1e6", "tokens": "2e7", "loss": "3.1", column: cell}
    path = csv(tmp_path, f"id,params,tokens,loss\nok,1e6,2e7,3\n{','.join(row.values())}\n")
    with pytest.raises(DataError) as caught:
        read_runs(path)
    message = str(caught.value)
    assert "line 3" in message
    assert f"column {column}" in message
    assert words in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("id,params,tokens,loss\n", "no rows"),
        ("id,params,tokens,loss,bogus\na,1,2,3,4\n", "unknown column 'bogus'"),
        ("id,params,tokns,loss\na,1,2,3\n", "did you mean 'tokens'"),
        ("id,params,tokens,loss,loss\na,1,2,3,3\n", "twice"),
        ("id,params,loss\na,1,3\n", "'tokens' is missing"),
        ("id,params,tokens,loss\na,1,2,3\na,1,2,4\n", "two rows have the id 'a'"),
        ("id,params,tokens,loss\na,1,2,3\na,1,2,3\n", "the row 'a' is there twice"),
        ("id,params,tokens,loss\na,1,2\n", "3 cells, its header 4"),
        ("id,params,tokens,loss\na,1,2,\n", "no loss"),
        ("id,params,tokens,loss,status\na,1,2,3,diverged\n", "a failed run has none"),
        ("id,params,tokens,loss,w_format\na,1,2,3,int0\n", "2 to 16 bits"),
        ("id,params,tokens,loss,w_format\na,1,2,3,int99\n", "2 to 16 bits"),
        ("id,params,tokens,loss,w_format\na,1,2,3,fp9\n", "unknown format"),
        ("id,params,tokens,loss,seed\na,1,2,3,1.5\n", "not a whole number"),
        ("id,params,tokens,loss,gap\na,1,2,3,0.1\n", "post_format"),
        ('id,params,tokens,loss\n"a,1,2,3\n', "CSV"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        read_runs(csv(tmp_path, text))


def test_all_bad_cells_are_reported_at_once(tmp_path):
    path = csv(tmp_path, "id,params,tokens,loss\na,x,2,3\nb,1,y,3\nc,1,2,z\n")
    with pytest.raises(DataError) as caught:
        read_runs(path)
    assert all(f"line {n}" in str(caught.value) for n in (2, 3, 4))


def test_byte_order_marks_and_windows_line_ends_are_fine(tmp_path):
    path = csv(tmp_path, "\ufeff" + GOOD.replace("\n", "\r\n"))
    assert len(read_runs(path)) == 2


def test_binary_rubbish_is_not_a_table(tmp_path):
    (tmp_path / "x.csv").write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match="UTF-8"):
        read_runs(tmp_path / "x.csv")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 rubbish")
    with pytest.raises(DataError, match="Parquet"):
        read_runs(tmp_path / "x.parquet")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_no_text_crashes_the_reader(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("fuzz") / "runs.csv"
    path.write_text("params,tokens,loss\n" + text, encoding="utf-8", errors="surrogatepass", newline="")
    try:
        runs = read_runs(path)
    except BitlawError:
        return
    assert runs.frame["loss"].is_finite().all()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_survive_their_file(tmp_path, sweep, suffix):
    path = tmp_path / f"runs.{suffix}"
    write_runs(sweep, path)
    assert read_runs(path).frame.equals(sweep.frame)
    assert list(tmp_path.iterdir()) == [path]


def test_data_frames_are_read(sweep):
    assert len(read_runs(sweep.frame)) == 465
    with pytest.raises(DataError, match="give a path or a data frame"):
        read_runs(42)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "tex"])
def test_a_full_disk_is_one_sentence_and_costs_nothing_that_was_there(tmp_path, sweep, suffix):
    """As when a quota ends: a limit on the size of files, in a process of its own."""
    path = tmp_path / f"runs.{suffix}"
    write_runs(Runs(sweep.frame.head(3)), path)
    before = path.read_bytes()
    write_runs(sweep, tmp_path / "all.csv")
    code = (
        "import resource, signal, sys\nfrom bitlaw import DataError, read_runs, write_runs\n"
        "runs = read_runs(sys.argv[1])\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n    write_runs(runs, sys.argv[2])\nexcept DataError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "all.csv"), str(path)]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.stdout.startswith(f"cannot write {path}: "), said.stderr
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({"all.csv", path.name})


def test_nothing_is_left_when_a_write_fails(tmp_path, sweep):
    with pytest.raises(DataError, match="ends in"):
        write_runs(sweep, tmp_path / "runs.xlsx")
    with pytest.raises(DataError):
        write_runs(sweep, tmp_path / "absent" / "runs.csv")
    assert list(tmp_path.iterdir()) == []


# ---- counting


PARTS = {
    "params_embedding": 100,
    "params_attention": 40,
    "params_mlp": 80,
    "params_norm": 4,
    "params_head": 100,
}


def test_counts_are_summed_from_parts():
    runs = Runs.from_rows([{**ROW, **PARTS}])
    sizes = {c: runs.size(c)[0] for c in ("as_given", "non_embedding", "total", "matmul")}
    assert sizes == {"as_given": 1e6, "non_embedding": 124, "total": 324, "matmul": 220}


def test_a_count_that_cannot_be_made_is_refused():
    with pytest.raises(DataError, match="has no total count"):
        Runs.from_rows([ROW]).size("total")


# ---- the store


def test_a_store_keeps_every_column(tmp_path, sweep):
    store = Store(tmp_path / "runs.sqlite")
    store.add(sweep.frame.to_dicts())
    again = store.runs()
    assert again.frame.drop("status").equals(sweep.frame.drop("status"))
    assert read_runs(tmp_path).frame.equals(again.frame)


def test_a_failed_run_has_a_status_and_no_loss(tmp_path):
    store = Store(tmp_path / "runs.sqlite")
    store.add([{"id": "d", "params": 1.0, "tokens": 1.0, "status": "diverged", "reason": "loss inf"}])
    assert store.runs().frame.row(0, named=True)["loss"] is None


def test_foreign_and_damaged_files_are_left_alone(tmp_path):
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    rubbish = tmp_path / "rubbish.sqlite"
    rubbish.write_bytes(os.urandom(5000))
    newer = tmp_path / "newer.sqlite"
    Store(newer).close()
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    for path, words in (
        (foreign, "not a bitlaw run store"),
        (rubbish, "cannot open"),
        (newer, "newer bitlaw"),
    ):
        before = path.read_bytes()
        for read_only in (True, False):
            with pytest.raises(StoreError, match=words):
                Store(path, read_only=read_only)
        assert path.read_bytes() == before
    with pytest.raises(StoreError):
        Store(tmp_path, read_only=False)
    with pytest.raises(StoreError, match="no run store"):
        Store(tmp_path / "absent.sqlite", read_only=True)


def test_a_store_of_an_older_version_is_read_as_it_is_and_grows_when_written(tmp_path):
    path = tmp_path / "old.sqlite"
    store = Store(path)
    store.add([{"id": "a", "params": 1e6, "tokens": 2e7, "loss": 3.0}])
    store.close()
    with sqlite3.connect(path) as connection:
        for column in ("w_group", "error", "calibration_samples", "ece", "loss_scaled", "error_copy"):
            connection.execute(f"ALTER TABLE runs DROP COLUMN {column}")
    connection.close()
    before = path.read_bytes()
    assert Store(path, read_only=True).runs().frame["w_group"].to_list() == [None]
    assert path.read_bytes() == before
    store = Store(path)
    store.add(
        [{"id": "b", "params": 1e6, "tokens": 2e7, "loss": 2.9, "w_group": 32, "error": 0.5, "ece": 0.1}]
    )
    assert store.runs().frame["w_group"].to_list() == [None, 32]
    assert Store(path, read_only=True).runs().frame["error"].to_list() == [None, 0.5]
    assert Store(path, read_only=True).runs().frame["ece"].to_list() == [None, 0.1]


def test_every_column_is_explained():
    for column in COLUMNS:
        assert column.meaning
        assert (
            column.problem(-1.0)
            or column.kind in ("text", "format")
            or column.low <= -1
            or column.name == "gap"
        )
    assert len({c.name for c in COLUMNS}) == len(COLUMNS)


def test_pandas_like_integers_and_floats_are_taken():
    frame = pl.DataFrame({"params": [1_000_000], "tokens": [20_000_000], "loss": [3], "seed": [1.0]})
    assert read_runs(frame).frame["seed"].to_list() == [1]


# ---- out


def test_tables_become_latex_that_runs_nothing(tmp_path):
    hostile = {**ROW, "id": r"50%_\input{/etc/passwd}$x$&#~^", "w_format": "int4"}
    runs = Runs.from_rows([hostile, {"params": 2e9, "tokens": 3e9, "status": "failed"}])
    write_runs(runs, tmp_path / "t.tex")
    lines = (tmp_path / "t.tex").read_text().splitlines()
    assert lines[1] == r"\begin{tabular}{lrrlrl}" and lines[-1] == r"\end{tabular}"
    body = (
        lines[5]
        .replace(r"\textbackslash{}", "")
        .replace(r"\textasciitilde{}", "")
        .replace(r"\textasciicircum{}", "")
    )
    assert body == r"50\%\_input\{/etc/passwd\}\$x\$\&\# & 1M & 20M & int4 & 3.1000 &  \\"
    assert lines[6] == r"row-2 & 2B & 3B &  &  & failed \\"
    assert [line.replace(r"\&", "").count("&") for line in lines[3:7:1] if "&" in line] == [5, 5, 5]


def test_spreadsheets_get_no_formulas_and_keep_numbers(tmp_path):
    rows = [
        {**ROW, "id": text, "gap": -0.1, "post_format": "int4"}
        for text in ("=1+1", "+1", "-1", "@a", "＝1", "b")
    ]
    runs = Runs.from_rows(rows)
    write_runs(runs, tmp_path / "a.csv", spreadsheet=True)
    write_runs(runs, tmp_path / "b.csv")
    assert read_runs(tmp_path / "b.csv").frame["id"].to_list()[:4] == ["=1+1", "+1", "-1", "@a"]
    kept = pl.read_csv(tmp_path / "a.csv", infer_schema=False)
    assert kept["id"].to_list() == ["'=1+1", "'+1", "'-1", "'@a", "'＝1", "b"] and set(kept["gap"]) == {
        "-0.1"
    }
    with pytest.raises(DataError, match="not for spreadsheets"):
        write_runs(runs, tmp_path / "a.parquet", spreadsheet=True)


def test_pandas_and_arrow_come_out_and_go_in_again(sweep):
    few = sweep.filter(pl.col("id").is_in(["run-0", "run-5", "run-460"]))
    assert read_runs(few.to_arrow()).frame.equals(few.frame)
    assert read_runs(few.to_pandas()).frame.equals(few.frame)


def test_a_store_takes_a_whole_table_at_once(tmp_path, sweep):
    shares = []
    store = Store(tmp_path / "runs.sqlite")
    assert store.take(sweep, shares.append) == 465 and shares == [1.0]
    assert store.take(sweep) == 0
    assert store.runs().frame.drop("status").equals(sweep.frame.drop("status"))
    assert set(store.runs().frame["status"]) == {"ok"}
