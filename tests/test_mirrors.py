"""Rows as the trackers themselves read them back; and a tracker that fails costs one warning."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys

import pytest

from bitlaw import ConfigError
from bitlaw.lab.sweep import mirror, mirrors

ROWS = [
    {
        "id": "a1",
        "params": 4000,
        "tokens": 8192,
        "w_format": "int4",
        "loss": 3.25,
        "parent": None,
        "status": "ok",
    },
    {
        "id": "b2",
        "params": 6000,
        "tokens": 8192,
        "status": "diverged",
        "reason": "the loss is nan",
        "loss": None,
    },
]


def send(name: str, folder, **variables: str) -> None:
    """Mirror the rows from a process of its own: trackers leave threads, sockets and warnings behind."""
    code = (
        "import logging, sys; from pathlib import Path; from bitlaw.lab.sweep import mirror\n"
        f"with mirror(sys.argv[1], 'sweep-x', Path(sys.argv[2])) as show: show({ROWS!r})"
    )
    command = [sys.executable, "-c", code, name, str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **variables}, timeout=100
    )
    assert done.returncode == 0 and "shows no more" not in done.stderr, done.stderr


def test_without_a_name_nothing_is_mirrored_and_a_wrong_one_is_refused(tmp_path):
    with mirror(None, "x", tmp_path) as show:
        show(ROWS)
    with pytest.raises(ConfigError, match="choose one of wandb"), mirror("neptune", "x", tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_mirror_that_fails_warns_once(tmp_path, monkeypatch, caplog):
    def broken(project, folder):
        def show(*_):
            raise OSError("no route to host")

        return show

    monkeypatch.setitem(mirrors.MIRRORS, "json", broken)
    with mirror("json", "x", tmp_path) as show:
        for _ in range(3):
            show(ROWS)
    assert [record.getMessage() for record in caplog.records] == [
        "the mirror json failed and shows no more: OSError: no route to host"
    ]


@pytest.mark.slow
def test_mlflow_reads_the_rows(tmp_path):
    pytest.importorskip("mlflow")
    send("mlflow", tmp_path, MLFLOW_TRACKING_URI="")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        runs = dict(database.execute("SELECT name, run_uuid FROM runs").fetchall())
        assert set(runs) == {"a1", "b2"}
        assert database.execute("SELECT run_uuid, key, value FROM metrics").fetchall() == [
            (runs["a1"], "loss", 3.25)
        ]
        params = database.execute("SELECT run_uuid, key, value FROM params").fetchall()
    database.close()
    assert (runs["a1"], "w_format", "int4") in params and (runs["b2"], "status", "diverged") in params


@pytest.mark.slow
def test_tensorboard_reads_the_rows(tmp_path):
    pytest.importorskip("tensorboard")
    send("tensorboard", tmp_path)
    code = (
        "import sys; from tensorboard.backend.event_processing.event_accumulator import EventAccumulator as E\n"
        "e = E(sys.argv[1]); e.Reload(); print([s.value for s in e.Scalars('loss')])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "tensorboard" / "sweep-x" / "a1")]
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == "[3.25]"


@pytest.mark.slow
def test_wandb_keeps_the_rows_offline(tmp_path):
    pytest.importorskip("wandb")
    send("wandb", tmp_path, WANDB_MODE="offline", WANDB_SILENT="true")
    kept = {path.stem: path.read_bytes() for path in tmp_path.rglob("*.wandb")}
    assert set(kept) == {"run-a1", "run-b2"}
    assert b"w_format" in kept["run-a1"] and b"3.25" in kept["run-a1"]


@pytest.mark.slow
def test_trackio_reads_the_rows(tmp_path):
    pytest.importorskip("trackio")
    send("trackio", tmp_path, TRACKIO_DIR=str(tmp_path))
    (path,) = tmp_path.rglob("*sweep-x*.db")
    with sqlite3.connect(path) as database:
        kept = database.execute("SELECT run_name, metrics FROM metrics").fetchall()
    database.close()
    assert kept[0][0] == "a1" and b"3.25" in kept[0][1]
