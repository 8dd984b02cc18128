"""SQLite files that were made to do harm: nothing in them runs, writes, deletes or grows."""

from __future__ import annotations

import sqlite3
import struct
import time
from contextlib import closing

import pytest

from bitlaw import BitlawError, Store, StoreError, import_runs, read_runs
from bitlaw.errors import DataError

ROW = {"id": "a", "params": 1e6, "tokens": 2e7, "loss": 3.1}
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT"
LONG = "reason TEXT GENERATED ALWAYS AS (printf('%.*c', 40000000, 'x'))"
COLUMNS = "id TEXT, params REAL, tokens REAL, loss REAL"
PAGE = 4096
VIEW = "reads no views, no triggers"


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "runs.sqlite"
    kept = Store(path)
    kept.add([ROW])
    kept.close()
    return path


def changed(path, text):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(text)
        connection.commit()


def journal(path, victim):
    """A journal of no pages that names another file, which SQLite would delete after rolling back."""
    magic, name = bytes.fromhex("d9d505f920a163d7"), str(victim).encode()
    head = magic + struct.pack(">IIIII", 0, 1, path.stat().st_size // PAGE, 512, PAGE)
    lock = 0x40000000 // PAGE + 1
    tail = struct.pack(">I", lock) + name + struct.pack(">II", len(name), sum(name)) + magic
    path.with_name(f"{path.name}-journal").write_bytes(head.ljust(512, b"\0") + tail)


def test_a_journal_deletes_no_file(stored, tmp_path):
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    for read in (read_runs, import_runs, Store):
        journal(stored, victim)
        with pytest.raises(BitlawError, match="names another file|readonly"):
            read(stored)
        assert victim.read_text() == "precious"
    journal(stored, victim)
    with closing(sqlite3.connect(stored)) as careless:  # what would have come to pass
        careless.execute("SELECT count(*) FROM runs").fetchone()
    assert not victim.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"CREATE VIEW runs AS {ENDLESS} x AS id, 1.0 AS params, 1.0 AS tokens, 1.0 AS loss FROM c", VIEW),
        ("CREATE VIEW runs AS SELECT old.* FROM old", VIEW),
        (f"CREATE TABLE runs ({COLUMNS}, {LONG})", "computed columns"),
        ("CREATE VIRTUAL TABLE runs USING fts5(id, params, tokens, loss)", "virtual tables"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_not_read(stored, text, words):
    changed(stored, f"ALTER TABLE runs RENAME TO old; {text}")
    began = time.monotonic()
    with pytest.raises(StoreError, match=words):
        read_runs(stored)
    assert time.monotonic() - began < 5


def test_a_table_that_computes_hinders_nobody_who_does_not_read_it(stored):
    changed(stored, f"CREATE TABLE spans (a, {LONG})")  # MLflow's own databases have such a one
    assert len(read_runs(stored)) == 1


def test_a_trigger_does_not_run(stored):
    changed(stored, "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM runs; END")
    with pytest.raises(StoreError, match=VIEW):
        Store(stored).add([ROW | {"id": "b"}])
    assert len(read_runs(stored)) == 1


def test_trackers_files_are_guarded_too(tmp_path):
    path = tmp_path / "mlflow.db"
    runs = "CREATE TABLE runs (run_uuid, name, status, experiment_id, lifecycle_stage, start_time)"
    rest = "CREATE TABLE experiments (experiment_id, name); CREATE TABLE params (key, value, run_uuid)"
    changed(path, f"{runs}; {rest}; INSERT INTO runs VALUES ('a', 'a', 'FINISHED', 1, 'active', 1)")
    changed(
        path,
        f"CREATE VIEW latest_metrics AS {ENDLESS} 'loss' AS key, x AS value, 'a' AS run_uuid, 0 AS is_nan FROM c",
    )
    with pytest.raises(DataError, match=VIEW):
        import_runs(f"mlflow:{path}", {"loss": "loss"})
    changed(
        path,
        "DROP VIEW latest_metrics; CREATE VIRTUAL TABLE latest_metrics USING fts5(key, value, run_uuid, is_nan)",
    )
    with pytest.raises(DataError, match="virtual tables"):
        import_runs(path, {"loss": "loss"})
