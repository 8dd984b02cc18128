"""The whole road, small: from text to a report, killed on the way, and taken up again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest

from bitlaw import ConfigError, FitError, Store, StoreError, load_fit, read_runs
from bitlaw.study import read_study, run_study

TOML = """
name = "small"
[sweep]
sizes = [4_000, 6_000, 9_000]
budgets = [20_000, 30_000, 45_000]
schemes = ["16", "w4", "w3", "w2"]
post_formats = ["int2", "int3", "int4"]
batch_size = 4
seq_len = 64
eval_tokens = 8192
[fit]
draws = 60
[plan]
budget = "1e10 flops"
quantize_to = ["int3"]
"""
STABLE = (
    "id",
    "trunk",
    "params",
    "tokens",
    "w_format",
    "post_format",
    "loss",
    "loss_se",
    "gap",
    "gap_se",
    "eval_sha256",
)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("study") / "small.toml"
    path.write_text(TOML)
    return path


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, run_study(read_study(str(small)), folder)


def rows(folder: Path) -> list[tuple]:
    return sorted(read_runs(folder).frame.select(STABLE).rows(), key=lambda row: row[0])


def test_a_study_goes_from_text_to_a_report(finished):
    folder, outcome = finished
    trained = outcome.runs.frame.filter(pl.col("post_format").is_null())
    assert trained.height == 3 * 3 * 4
    assert outcome.runs.frame.height - trained.height == 3 * 3 * 3
    assert outcome.runs.frame["loss"].is_between(1, 6).all()
    assert outcome.fit.rows == {"loss": 36, "gap": 27}
    assert outcome.fit.clusters == 12
    assert outcome.fit.held_out.rows == 12
    assert {p["loss"].value > 0 for p in outcome.plans} == {True}
    for name in ("report.html", "fit.json", "plan.json", "runs.sqlite"):
        assert (folder / name).stat().st_size > 500
    svg, png, pdf = (
        {p.stem for p in (folder / "figures").glob(f"*.{kind}")} for kind in ("svg", "png", "pdf")
    )
    assert (
        svg == png == pdf >= {"effective-parameters", "compute-optimal", "learning-curves", "sweep-progress"}
    )
    assert load_fit(folder / "fit.json").values == outcome.fit.values
    assert not list((folder / "checkpoints").glob("*"))


def test_rows_say_where_they_come_from(finished):
    frame = read_runs(finished[0]).frame
    row = frame.filter(pl.col("w_format") == "int4").row(0, named=True)
    assert row["params"] == row["params_attention"] + row["params_mlp"] + row["params_norm"]
    assert row["flops"] > row["flops_6nd"] > 0
    assert (row["count"], row["schedule"], row["eval_tokens"], row["eval_batch"]) == (
        "non_embedding",
        "constant",
        8192,
        16,
    )
    assert 0 < row["learning_rate_end"] < row["learning_rate"]
    post = frame.filter(pl.col("post_format") == "int3").row(0, named=True)
    parent = frame.filter(pl.col("id") == post["parent"]).row(0, named=True)
    assert post["gap"] == pytest.approx(post["loss"] - parent["loss"], abs=1e-12)
    assert post["trunk"] == parent["trunk"]
    assert 3 < post["bpw"] < 4


@pytest.mark.slow
def test_a_second_run_trains_nothing_and_says_the_same(small, finished):
    folder, outcome = finished
    before = rows(folder)
    again = run_study(read_study(str(small)), folder)
    assert rows(folder) == before
    assert again.fit.values == outcome.fit.values


@pytest.mark.slow
def test_another_seed_gives_other_numbers(small, tmp_path):
    text = (
        small.read_text()
        .replace("[4_000, 6_000, 9_000]", "[4_000]")
        .replace('"16", "w4", "w3", "w2"', '"16"')
    )
    text = (
        text.replace("[plan]", "").replace('budget = "1e10 flops"', "").replace('quantize_to = ["int3"]', "")
    )
    path = tmp_path / "one.toml"
    path.write_text(text.replace("[fit]", '[fit]\nlaw = "chinchilla"'))
    losses = []
    for seed in (0, 1):
        with pytest.raises(FitError, match="rows cannot determine"):
            run_study(read_study(str(path), seed=seed), tmp_path / str(seed))
        losses.append(read_runs(tmp_path / str(seed)).frame["loss"].to_list())
    assert all(a != b for a, b in zip(*losses, strict=True))


def start(small: Path, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "bitlaw", "study", str(small), "--out", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until_it_has_rows(folder: Path) -> None:
    deadline = time.monotonic() + 200
    while True:
        with suppress(StoreError):  # there is none yet, or it is being made
            if Store(folder / "runs.sqlite", read_only=True).ids():
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def kill_and_rerun(small: Path, folder: Path, moments: list[float]) -> int:
    """Kill a study some seconds after it has rows, each time, run it to its end, and return how many kills hit it."""
    hits = 0
    for moment in moments:
        process = start(small, folder)
        until_it_has_rows(folder)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        hits += process.returncode == -signal.SIGKILL
    process = start(small, folder)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return hits


@pytest.mark.slow
def test_a_killed_study_goes_on_to_the_same_bits(small, finished, tmp_path):
    assert kill_and_rerun(small, tmp_path / "killed", [0.0]) == 1
    assert rows(tmp_path / "killed") == rows(finished[0])


@pytest.mark.slow
def test_a_study_killed_ten_times_has_the_same_rows(small, finished, tmp_path):
    draw = random.Random(7)
    assert kill_and_rerun(small, tmp_path / "killed", [draw.uniform(0.0, 7.0) for _ in range(10)]) > 0
    assert rows(tmp_path / "killed") == rows(finished[0])
    leftovers = [p for p in (tmp_path / "killed").rglob("*") if "tmp-" in p.name]
    assert leftovers == []


@pytest.mark.slow
def test_a_killed_worker_is_replaced(small, finished, tmp_path):
    """The parent notices, hires another, and the rows are the same."""
    process = start(small, tmp_path / "hurt")
    killed = False
    for _ in range(200):
        time.sleep(0.1)
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
        )
        pids = [int(p) for p in children.stdout.split()]
        if pids and (tmp_path / "hurt" / "checkpoints").exists():
            for pid in pids[-1:]:
                os.kill(pid, signal.SIGKILL)
            killed = True
            break
    output = process.communicate(timeout=300)[0]
    assert killed
    assert process.returncode == 0, output
    assert rows(tmp_path / "hurt") == rows(finished[0])


@pytest.mark.slow
def test_control_c_stops_with_a_sentence_and_loses_nothing(small, finished, tmp_path):
    process = start(small, tmp_path / "stopped")
    until_it_has_rows(tmp_path / "stopped")
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert "run the same command to go on" in output
    assert "Traceback" not in output
    kill_and_rerun(small, tmp_path / "stopped", [])
    assert rows(tmp_path / "stopped") == rows(finished[0])


def test_two_studies_do_not_share_a_folder(small, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / ".lock").touch()
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="another study is running"):
            run_study(read_study(str(small)), tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("sizes", "sises", "did you mean 'sizes'"),
        ("[plan]", "[plans]", "did you mean 'plan'"),
        ('"w4"', '"w0"', "2 to 16 bits"),
        ('"w4"', '"w99"', "2 to 16 bits"),
        ('"int3"', '"int1"', "2 to 16 bits"),
        ("20_000", '"lots"', "integer"),
        ("[4_000", "[-4", "positive"),
        ('name = "small"', 'name = "../x"', "letters, digits"),
        ('name = "small"', "name = 3", "letters, digits"),
        ("draws = 60", "draws = 1", "greater than or equal to 50"),
        ("[fit]", "[fit", "not valid TOML"),
        ("draws = 60", "draws = true", "draws"),
        ("draws = 60", "draws = 60\ndraws = 60", "not valid TOML"),
    ],
)
def test_a_study_file_with_a_mistake_is_refused(old, new, words, tmp_path):
    path = tmp_path / "bad.toml"
    assert old in TOML
    path.write_text(TOML.replace(old, new, 1))
    with pytest.raises(ConfigError, match=words) as caught:
        read_study(str(path))
    assert "bad.toml" in str(caught.value) or "2 to 16" in words


def test_mistakes_are_found_before_training(tmp_path):
    path = tmp_path / "late.toml"
    path.write_text(TOML.replace("[fit]", '[fit]\nlaw = "kumr"'))
    with pytest.raises(ConfigError, match="did you mean 'kumar'"):
        run_study(read_study(str(path)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_quick_study_is_as_large_as_promised():
    sweep = read_study("quick").sweep
    weights = {s for s in sweep.schemes if s == "16" or s.startswith("w")}
    assert len(sweep.sizes) >= 4
    assert len(sweep.budgets) >= 3
    assert len(weights) >= 6
    assert {f"int{bits} channel" for bits in (2, 3, 4, 6, 8)} == set(sweep.post_formats)
    assert any(s.startswith("a") for s in sweep.schemes)
    assert any(s.startswith("kv") for s in sweep.schemes)
