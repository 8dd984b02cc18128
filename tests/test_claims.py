"""Work is lent to one worker at a time, comes back when a worker is gone, and a sweep survives all that."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from bitlaw import ConfigError, Store, StoreError
from bitlaw.cli.main import app
from bitlaw.errors import NoStoreError
from bitlaw.lab import sweep
from bitlaw.lab.corpus import read_corpus, spread_windows
from bitlaw.lab.sweep import (
    After,
    alone,
    engine,
    own_place,
    place,
    planned,
    row_ids,
    run_sweep,
    trunks,
    work_left,
    workers,
)
from bitlaw.lab.sweep.engine import LOST_ENGINES
from bitlaw.lab.sweep.plan import undone
from bitlaw.lab.sweep.processes import Processes
from bitlaw.lab.sweep.rows import failed_row, failed_rows
from bitlaw.lab.sweep.team import Bench
from bitlaw.lab.train import train_trunk
from bitlaw.runs import Leases, running
from bitlaw.runs.leases import leases as leases_table
from bitlaw.study import read_study

ROW = {"id": "a", "params": 1e6, "tokens": 2e7, "loss": 3.1}


def test_work_is_lent_once_and_comes_back(where):
    store = Store(where)
    leases = Leases(store)
    a, b = leases.claim(["x", "y"], "a"), leases.claim(["x", "y"], "b")
    assert (a.work, b.work, leases.claim(["x", "y"], "c")) == ("x", "y", None)
    assert [(lease.work, lease.worker) for lease in running(Store(where, read_only=True))] == [
        ("x", "a"),
        ("y", "b"),
    ]
    assert all(55 < lease.left <= 60 for lease in running(store))
    leases.release(a)
    again = leases.claim(["x", "y"], "c")
    assert (again.work, again.attempts) == ("x", 1)


def test_a_worker_that_was_started_again_has_its_own_work(where):
    leases = Leases(Store(where))
    leases.claim(["x"], "a")
    assert leases.claim(["x"], "a").attempts == 2


def test_a_lease_that_ran_out_is_another_workers_and_its_rows_too(where):
    store = Store(where)
    long = Leases(store)

    def run_out():
        update = leases_table.update().values(expires=leases_table.c.expires - 2 * long.seconds)
        store.database.run("write to", lambda connection: connection.execute(update))

    lost = long.claim(["x"], "a")
    assert long.claim(["x"], "b") is None
    run_out()
    assert not running(store)
    assert long.add(lost, [ROW])  # it was late, but nobody had taken it
    run_out()
    held = long.claim(["x"], "b")
    assert held.attempts == 2
    assert not long.renew(lost)
    assert not long.add(lost, [{**ROW, "id": "b"}])
    long.release(lost)
    assert store.ids() == {"a"}
    assert long.add(held, [{**ROW, "id": "b"}]) and long.renew(held)
    assert store.ids() == {"a", "b"}


def test_claims_at_once_give_each_work_to_one(where):
    Leases(Store(where))
    works = [f"w{k}" for k in range(24)]
    taken: dict[str, list[str]] = {str(me): [] for me in range(6)}
    errors = []

    def claim(me: str) -> None:
        try:
            leases, mine = Leases(Store(where)), taken[me]
            while (lease := leases.claim([w for w in works if w not in mine], me)) is not None:
                mine.append(lease.work)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=claim, args=(me,)) for me in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(work for mine in taken.values() for work in mine) == sorted(works)


@pytest.mark.slow
def test_a_killed_workers_lease_is_taken(where):
    code = (
        "import sys, time; from bitlaw.runs import Leases, Store\n"
        "leases = Leases(Store(sys.argv[1]), 3.0)\n"
        "lease = leases.claim(['x'], 'a')\n"
        "while leases.renew(lease): print('held', flush=True); time.sleep(0.2)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, where], stdout=subprocess.PIPE, text=True)
    leases = Leases(Store(where))
    for _ in range(20):  # it renews past its first three seconds
        process.stdout.readline()
    assert leases.claim(["x"], "b") is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 10
    while (lease := leases.claim(["x"], "b")) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert lease is not None and lease.attempts == 2


def test_folders_are_of_one_process_and_their_names_last(tmp_path):
    pytest.importorskip("fcntl")
    with own_place(tmp_path) as (one, a), own_place(tmp_path) as (two, b):
        assert one != two and a != b
        with pytest.raises(StoreError, match="another study is running"), alone(one):
            pass
    with own_place(tmp_path) as (again, name):
        assert (again, name) == (one, a)


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSPC])
def test_folders_that_cannot_be_locked_or_written_are_said(tmp_path, monkeypatch, error):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    if error == errno.ENOLCK:  # as on some network disks; it must not look for a free folder for ever
        monkeypatch.setattr(fcntl, "flock", refuse)
    else:
        monkeypatch.setattr(place.os, "write", refuse)
    with pytest.raises(StoreError, match=os.strerror(error)), own_place(tmp_path):
        pass
    assert len(list(tmp_path.iterdir())) == 1


# ---- sweeps

TOML = """
[sweep]
sizes = [4_000, 6_000]
budgets = [8_000, 12_000]
schemes = ["16", "w8", "w4", "w3", "a6"]
post_formats = ["int3"]
seeds = [0, 1]
batch_size = 4
seq_len = 64
eval_tokens = 4096
"""
SMALL = (
    TOML.replace("4_000, 6_000", "4_000").replace('"w8", "w4", "w3", "a6"', '"w4"').replace("[0, 1]", "[3]")
)
STABLE = (
    "id",
    "trunk",
    "parent",
    "params",
    "tokens",
    "status",
    "loss",
    "loss_se",
    "gap",
    "kl",
    "eval_sha256",
)


def job(path: Path, text: str):
    path.write_text(text)
    config = read_study(str(path)).sweep
    return trunks(config, read_corpus(None)), After.of(config, path.parent)


def stable(where: str) -> list[tuple]:
    return sorted(Store(where).runs().frame.select(STABLE).rows(), key=lambda row: row[0])


def test_seeds_are_a_dial_of_a_sweep(tmp_path):
    configs, _ = job(tmp_path / "two.toml", TOML)
    assert len(configs) == len({c.seed for c in configs}) == 2 * 5 * 2
    alone_, _ = job(tmp_path / "one.toml", TOML.replace("seeds = [0, 1]", "seed = 1"))
    assert {c.trunk_id() for c in alone_} < {c.trunk_id() for c in configs}


def test_failed_and_diverged_cells_are_not_left(tmp_path):
    configs, after = job(tmp_path / "s.toml", SMALL)
    (sixteen,) = (c for c in configs if c.scheme == "16")
    cells = [sixteen.cell_id(branch) for branch in sixteen.branches()]
    (found,) = planned([sixteen], after, {cells[0]: "diverged", cells[1]: "ok"})
    assert (found.cells, found.done) == (2, 1)  # the second lacks its quantised copy
    assert work_left([sixteen], after, {cells[0]: "diverged", cells[1]: "failed"}) == 0


def test_averages_that_failed_are_not_left_and_have_no_copies(tmp_path):
    configs, after = job(
        tmp_path / "s.toml", SMALL.replace("post_formats", 'averages = "swa:20:1"\npost_formats')
    )
    (sixteen,) = (c for c in configs if c.scheme == "16")
    branch = sixteen.branches()[0]
    cell, average, copy, _ = row_ids(sixteen, branch, after)
    assert branch in undone(sixteen, after, {cell: "ok", average: "failed"})
    assert branch not in undone(sixteen, after, {cell: "ok", average: "failed", copy: "ok"})
    row = failed_row(sixteen, branch, "half of a pair \ud800, nothing \0", sixteen.averages)
    assert (row["id"], row["reason"]) == (average, "half of a pair ?, nothing ?")
    Store(tmp_path / "runs.sqlite").add([row])


def test_a_wrong_device_fails_no_cell_and_forgotten_cells_are_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job(tmp_path / "s.toml", SMALL)
    refused = CliRunner().invoke(app, ["sweep", "run", "s.toml", "--device", "gpu"])
    assert isinstance(refused.exception, ConfigError) and not Store("sweep-s/runs.sqlite").ids()
    monkeypatch.setattr(sweep, "run_sweep", lambda *_, **__: None)
    assert "4 cells: 4 forgotten; 0 of them" in CliRunner().invoke(app, ["sweep", "run", "s.toml"]).output


def engine_of(store: Store, folder: Path) -> engine._Engine:
    leases, nothing = Leases(store), lambda *_: None
    bench = Bench(None, "bytes", After(), folder)
    return engine._Engine([], store, Processes("cpu"), bench, "me", leases, 100.0, nothing, nothing)


def test_only_folders_of_work_are_cleared_away(tmp_path):
    for name in ("0123456789abcdef", "thesis"):
        (tmp_path / "here" / name).mkdir(parents=True)
    engine_of(Store(tmp_path / "runs.sqlite"), tmp_path / "here").tidy()
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["thesis"]


def test_silence_counts_while_an_engine_listens_and_a_worker_has_work(tmp_path, monkeypatch):
    """Workers that stand in for processes; the clock is set by hand."""
    one, now, buried = engine_of(Store(tmp_path / "runs.sqlite"), tmp_path), 1000.0, []
    monkeypatch.setattr(engine.time, "monotonic", lambda: now)
    monkeypatch.setattr(one, "bury", lambda worker, how, blame: buried.append(worker))

    def worker(config: object) -> SimpleNamespace:
        return SimpleNamespace(there=True, ready=True, leaving=False, config=config, silent=0.0)

    busy, idle, begins, waits = worker("a trunk"), worker(None), worker(None), worker(None)
    begins.ready, waits.ready, waits.there, one.watched = False, False, False, now
    one.workers = [busy, idle, begins, waits]  # the last is an actor that there is no room for yet
    now += 5000  # the engine was stopped, as its workers may have been
    one.watch()
    assert not buried and busy.silent == begins.silent == 2 * engine.POLL_SECONDS
    for _ in range(60):
        now += 2
        one.watch()
        if buried:
            break
    assert buried == [busy, begins] and 100 < busy.silent <= 102


def test_deaths_count_where_nobody_comes_further(tmp_path):
    configs, _ = job(tmp_path / "s.toml", SMALL)
    one, work = engine_of(Store(tmp_path / "runs.sqlite"), tmp_path), configs[0].work_id()
    for begun, told, deaths in ((0, 500, 0), (0, 400, 1), (0, 500, 1), (0, 501, 0)):
        one.deaths[work] = 1
        one.advance(SimpleNamespace(config=configs[0], tokens=begun), told)
        assert one.deaths.get(work, 0) == deaths


def test_what_fails_is_a_row_and_the_others_go_on(tmp_path, monkeypatch):
    """The worker's own loop, in this process: the end of one trunk cannot be scored, and another cannot be trained."""
    configs, after = job(tmp_path / "s.toml", SMALL)
    two, one = configs
    real_rows, real_train = workers.end_rows, workers.train_trunk

    def end_rows(config, end, *rest):
        if config == two and end.branch.tokens == 8_000:
            raise RuntimeError("CUDA out of memory")
        return real_rows(config, end, *rest)

    def train_trunk(config, *rest):
        if config == one:
            raise FloatingPointError("overflow")
        return real_train(config, *rest)

    monkeypatch.setattr(workers, "end_rows", end_rows)
    monkeypatch.setattr(workers, "train_trunk", train_trunk)
    ours, theirs = multiprocessing.Pipe()
    bench = Bench(None, "bytes", after, tmp_path)
    thread = threading.Thread(target=workers.work, args=(theirs, bench, "cpu"), daemon=True)
    thread.start()
    heard = []
    for config in (two, one):
        ours.send((config, set()))
        while not heard or heard[-1][0] not in ("done", "failed"):
            assert ours.poll(60)
            heard.append(ours.recv())
        heard.append(("", None))
    ours.send(None)
    thread.join()
    assert ("bad", (two.branches()[0], "RuntimeError: CUDA out of memory", "")) in heard
    assert [row["status"] for kind, content in heard if kind == "rows" for row in content] == ["ok", "ok"]
    assert ("failed", "FloatingPointError: overflow") in heard


def test_a_copy_that_cannot_be_made_is_a_row_beside_its_sound_model(tmp_path, monkeypatch):
    configs, after = job(tmp_path / "s.toml", SMALL.replace('["int3"]', '["int3", "int4"]'))
    (sixteen,) = (c for c in configs if c.scheme == "16")
    real = sweep.rows.try_settings

    def try_settings(before, settings, calibration):
        if settings[0].weights.format.name == "int3":
            raise RuntimeError("CUDA out of memory")
        return real(before, settings, calibration)

    monkeypatch.setattr(sweep.rows, "try_settings", try_settings)
    corpus = read_corpus(None)
    windows = spread_windows(corpus.evaluation, 4096, 64)
    end = next(train_trunk(sixteen, corpus, tmp_path))
    model, bad, good = sweep.rows.end_rows(sixteen, end, corpus, None, windows, after)
    assert [row["status"] for row in (model, bad, good)] == ["ok", "failed", "ok"]
    assert (bad["parent"], bad["post_format"], bad["reason"]) == (
        model["id"],
        "int3",
        "RuntimeError: CUDA out of memory",
    )
    store = Store(tmp_path / "runs.sqlite")
    store.add([model, bad, good])
    assert end.branch not in undone(sixteen, after, store.statuses())


def test_what_fails_beside_rows_that_are_there_is_said_in_those_that_are_not(tmp_path):
    configs, after = job(tmp_path / "s.toml", SMALL)
    (sixteen,) = (c for c in configs if c.scheme == "16")
    branch = sixteen.branches()[0]
    cell, copy = row_ids(sixteen, branch, after)
    (whole,) = failed_rows(sixteen, branch, "no memory", "", after, set())
    (part,) = failed_rows(sixteen, branch, "no memory", "", after, {cell})
    assert (whole["id"], part["id"], part["parent"], part["status"]) == (cell, copy, cell, "failed")
    Store(tmp_path / "runs.sqlite").add([{**whole, "status": "ok", "loss": 2.0}, part])
    assert branch not in undone(sixteen, after, {cell: "ok", copy: "failed"})


def stand_in(one: engine._Engine, said: list) -> None:
    """Put workers that only listen in the place of an engine's."""

    def start(slot: int, bench: object) -> SimpleNamespace:
        told = {"slot": slot, "config": None, "lease": None, "ready": True, "leaving": False, "begun": ()}
        return SimpleNamespace(**told, tokens=0, silent=0.0, there=True, tell=said.append)

    one.team = SimpleNamespace(end=lambda workers: None, start=start)
    one.hire(0)


def test_a_trunk_that_comes_further_survives_any_number_of_dead_workers(tmp_path):
    """An engine whose workers each come a little further, and die."""
    configs, _ = job(tmp_path / "s.toml", SMALL)
    store = Store(tmp_path / "runs.sqlite")
    one, work = engine_of(store, tmp_path), configs[0].work_id()
    one.left, said = [configs[0]], []
    stand_in(one, said)
    for life in range(25):
        one.assign()
        assert one.workers[0].lease.work == work
        one.hear(one.workers[0], "work", 100 * (life + 1))
        one.hear(one.workers[0], "gone", "exit code -9")
    assert len(said) == 25 and not store.ids()
    for _ in range(engine.DEATHS - 1):  # and now nobody comes further than the last, which died too
        one.assign()
        one.hear(one.workers[0], "gone", "exit code -9")
    assert set(store.statuses().values()) == {"failed"}
    assert "3 workers were lost" in store.runs().frame["reason"][0]


def test_a_trunk_on_which_machines_are_lost_is_given_up(tmp_path):
    configs, _ = job(tmp_path / "s.toml", SMALL)
    one = engine_of(Store(tmp_path / "runs.sqlite"), tmp_path)
    one.left = [configs[0]]
    stand_in(one, [])
    for life in range(engine.LOST_MACHINES):
        assert not one.store.ids(), life
        one.assign()
        one.hear(one.workers[0], "lost", "its node has died")
    assert "10 machines were lost" in one.store.runs().frame["reason"][0]


def test_a_plan_trains_no_cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job(tmp_path / "s.toml", SMALL)
    lines = json.loads(CliRunner().invoke(app, ["sweep", "plan", "s.toml", "--json"]).output)
    assert [(line["scheme"], line["cells"], line["done"]) for line in lines] == [("16", 2, 0), ("w4", 2, 0)]
    assert all(line["seconds_left"] > 0 and line["flops"] > 1e8 for line in lines)
    refused = CliRunner().invoke(app, ["sweep", "status", "s.toml"])
    assert isinstance(refused.exception, ConfigError)
    assert [path.name for path in tmp_path.iterdir()] == ["s.toml"]


def test_a_plan_is_made_before_anything_is_stored(where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job(tmp_path / "s.toml", SMALL)
    monkeypatch.setenv("BITLAW_STORE", where)
    planned = CliRunner().invoke(app, ["sweep", "plan", "s.toml"])
    assert "0 of 4 cells are done" in planned.output, planned.exception
    refused = CliRunner().invoke(app, ["sweep", "status", "s.toml"])
    assert "nothing is stored yet" in str(refused.exception)
    with pytest.raises(NoStoreError):
        Store(where, read_only=True)  # planning made none


def test_an_empty_file_holds_nothing_yet(tmp_path):
    (tmp_path / "runs.sqlite").touch()  # a writer was killed between making it and its table
    with pytest.raises(NoStoreError, match="nothing is stored yet"):
        Store(tmp_path / "runs.sqlite", read_only=True)


@pytest.mark.slow
def test_the_verbs_of_a_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configs, after = job(tmp_path / "s.toml", SMALL)

    def call(*arguments: str) -> str:
        outcome = CliRunner().invoke(app, ["sweep", *arguments])
        assert outcome.exit_code == 0, (outcome.output, outcome.exception)
        return outcome.output

    assert "0 of 4 cells are done" in call("plan", "s.toml")
    assert "4 cells: 4 ok; 4 of them made here" in call("work", "--config", "s.toml")
    ids = Store("sweep-s/runs.sqlite").ids()
    assert len(ids) == 6  # two of them quantised copies
    assert "4 of 4 cells are done" in call("plan", "s.toml")
    (sixteen,) = (c for c in configs if c.scheme == "16")
    cell = sixteen.cell_id(sixteen.branches()[0])
    assert "Removed 2 rows" in call("forget", cell, "--store", "sweep-s/runs.sqlite", "--yes")
    assert '"left": 1' in call("status", "s.toml", "--json")
    assert "0 of them made here" not in call("run", "s.toml", "--workers", "1")
    assert Store("sweep-s/runs.sqlite").ids() == ids
    assert not running(Store("sweep-s/runs.sqlite"))
    assert CliRunner().invoke(app, ["sweep", "forget", "no", "--store", "sweep-s/runs.sqlite"]).exit_code


@pytest.mark.slow
def test_a_sweep_under_fire_gives_the_same_table(where, tmp_path, request):
    """Forty cells, three engines; every few seconds one is killed, and its server restarted once."""
    configs, after = job(tmp_path / "chaos.toml", TOML)
    calm = tmp_path / "calm.sqlite"
    run_sweep(configs, Store(calm), tmp_path / "calm", after=after, workers=2)
    command = [sys.executable, "-m", "bitlaw", "sweep", "work", "--config", str(tmp_path / "chaos.toml")]
    command += ["--store", where, "--folder", str(tmp_path / "here"), "--lease", "10"]
    log = (tmp_path / "log").open("w+")
    request.addfinalizer(log.close)

    def start() -> subprocess.Popen:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    Store(where).close()
    team, kills, restarted, rng = [start() for _ in range(3)], 0, "postgresql" not in where, random.Random(0)
    deadline = time.monotonic() + 900
    while work_left(configs, after, Store(where).statuses()):
        assert time.monotonic() < deadline, log.name
        time.sleep(rng.uniform(5, 12))
        if not restarted and len(Store(where).ids()) > 10:
            server = request.getfixturevalue("server")
            server.stop("immediate")
            time.sleep(2)
            server.start()
            restarted = True
        victim = rng.randrange(3)
        # On a slow machine an engine may need longer than it is given to live: after ten its work is given up for lost.
        spared = any(lease.attempts > LOST_ENGINES / 2 for lease in running(Store(where)))
        if not spared and team[victim].poll() is None:
            whole = rng.random() < 0.5  # the engine alone, or its workers too
            (os.killpg if whole else os.kill)(team[victim].pid, signal.SIGKILL)
            team[victim].wait()
            kills += 1
            team[victim] = start()
    codes = [process.wait(timeout=120) for process in team]
    log.seek(0)
    assert codes == [0, 0, 0], log.read()[-3000:]
    assert restarted and kills >= 3
    assert stable(where) == stable(str(calm))
    assert len(stable(where)) == 40 + 8
    assert not running(Store(where))
    # The last to be killed may have left a checkpoint: the next start clears it away.
    subprocess.run(command, stdout=log, stderr=log, check=True)
    left = {path.name for path in (tmp_path / "here").rglob("*") if path.is_file()}
    assert left == {".lock"}
    print(f"{kills} kills")


@pytest.mark.slow
def test_sigterm_to_all_saves_state_and_gives_work_back(tmp_path):
    """As Slurm sends it: to the engine and to its workers."""
    (tmp_path / "s.toml").write_text(SMALL.replace("[8_000, 12_000]", "[4_000_000]"))
    store, here = tmp_path / "runs.sqlite", tmp_path / "here"
    command = [sys.executable, "-m", "bitlaw", "sweep", "work", "--config", str(tmp_path / "s.toml")]
    with subprocess.Popen(
        [*command, "--store", str(store), "--folder", str(here)],
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as engine:
        while "training" not in engine.stderr.readline():
            assert engine.poll() is None
        deadline = time.monotonic() + 120
        while not running(Store(store)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(2)
        os.killpg(engine.pid, signal.SIGTERM)
        _, said = engine.communicate(timeout=60)
    assert engine.returncode == 130 and "Stopped." in said
    assert not running(Store(store)) and not Store(store).ids()
    assert list(here.rglob("step-*/MANIFEST.json"))
