"""A thousand kills at random moments, over trainer, stores and sweeps: nothing acknowledged is lost, nothing changes.

The moments come from seeded generators, the machine adds its own chance. The children of trainer and stores are forked
from a process that has imported everything (kills.py), so that a kill costs a fraction of a second. Kills of Ray's
actors and nodes, and of PostgreSQL, are elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kills import Nursery, row
from test_claims import TOML, stable
from test_train import SCHEMES

from bitlaw import Store
from bitlaw.lab.corpus import read_corpus
from bitlaw.lab.sweep import After, run_sweep, trunks, work_left
from bitlaw.lab.train import checkpoint
from bitlaw.runs import running
from bitlaw.study import read_study

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
TRAINER, STORES, SWEEPS = 200, 175, 25  # kills of each of three formats, two databases, two databases
DAMAGE = 0.15  # share of kills after which the newest checkpoint is damaged on purpose


@pytest.fixture(scope="module")
def nursery():
    with Nursery() as one:
        yield one


# ---- the trainer


def intact(path: Path) -> bool:
    """Whether a checkpoint is whole, looked at from outside."""
    try:
        told = json.loads((path / "MANIFEST.json").read_text())
        data = (path / "state.safetensors").read_bytes()
    except (OSError, ValueError):
        return False
    return told["run"] != "another" and hashlib.sha256(data).hexdigest() == told["sha256"]


def damage(path: Path, rng: random.Random, scratch: Path) -> None:
    """Spoil a checkpoint in one of the ways in which disks and people do."""
    state, manifest = path / "state.safetensors", path / "MANIFEST.json"
    data = bytearray(state.read_bytes())
    match rng.choice(["torn", "truncated", "flipped", "swapped", "renamed"]):
        case "torn":
            manifest.write_bytes(manifest.read_bytes()[: rng.randrange(20)])
        case "truncated":
            state.write_bytes(data[: rng.randrange(len(data))])
        case "flipped":
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            state.write_bytes(data)
        case "swapped":
            told = checkpoint.load(path.parent, json.loads(manifest.read_text())["run"], 10**9)
            shutil.rmtree(path)
            shutil.rmtree(scratch, ignore_errors=True)
            checkpoint.save(scratch, "another", *told)
            (scratch / path.name).rename(path)
        case "renamed":  # an older one under the name of the newest
            older = sorted(p for p in path.parent.glob("step-*") if ".tmp" not in p.name and p < path)
            shutil.rmtree(path)
            if older:
                shutil.copytree(older[-1], path)
            else:
                path.mkdir()


def resumable(folder: Path) -> dict[str, int]:
    """Where each segment must go on: the newest intact step; as found from outside."""
    steps: dict[str, int] = {}
    for place in folder.glob("*"):
        named = {int(path.name[5:]): path for path in place.glob("step-*") if ".tmp" not in path.name}
        good = [
            step
            for step, path in named.items()
            if intact(path) and json.loads((path / "MANIFEST.json").read_text())["step"] == step
        ]
        steps[place.name] = max(good, default=0)
    return steps


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_trainer_that_is_killed_arrives_at_the_same_tensors(nursery, scheme, tmp_path):
    rng, before = random.Random(scheme), nursery.kills
    rounds = damaged = torn = 0
    while nursery.kills < before + TRAINER:
        here = tmp_path / str(rounds)
        config = {"scheme": scheme, "seed": rounds, "budgets": [120 * 256, 240 * 256], "averages": "swa:50:5"}
        there = {"do": "train", "folder": f"{here}/calm", "ends": f"{here}-calm", "log": f"{here}-calm.log"}
        began = time.monotonic()
        nursery.begin({**there, "config": config, "every": 1e9})
        assert nursery.wait() == 0
        span = max(0.2, (time.monotonic() - began) / 10)
        folder, log = here / "fire", Path(f"{here}.log")
        log.touch()
        fire = {
            "do": "train",
            "folder": str(folder),
            "ends": f"{here}-fire",
            "log": str(log),
            "config": config,
        }
        status, spoilt = -9, None
        while status != 0:
            wanted, read = resumable(folder), len(log.read_text())
            status = nursery.live(fire, rng.uniform(0, span))
            assert status in (0, -signal.SIGKILL)
            said = log.read_text()[read:].splitlines()
            for place, step in wanted.items():
                found = [int(line.split()[-1]) for line in said if line.startswith(f"{place} begins at")]
                assert not found or found[0] == step, said
                if found and spoilt and spoilt.parent.name == place:
                    assert any(f"checkpoint {spoilt} is damaged" in line for line in said), said
                    spoilt, damaged = None, damaged + 1
            torn += any(folder.glob("*/*.tmp-*"))
            newest = max(folder.glob("*/step-*[0-9]"), key=lambda path: path.stat().st_mtime, default=None)
            usable = newest is not None and ".tmp" not in newest.name and intact(newest)
            if status and usable and spoilt is None and rng.random() < DAMAGE:
                damage(newest, rng, here / "scratch")
                spoilt = newest
        assert Path(f"{here}-fire").read_text() == Path(f"{here}-calm").read_text()
        left = [path.name for path in (folder / "trunk").iterdir()]
        assert len(left) <= checkpoint.KEEP + 1 and not any(".tmp" in name for name in left)
        rounds += 1
    kills = nursery.kills - before
    print(
        f"trainer, {scheme}: {kills} kills in {rounds} runs, {torn} found half a checkpoint, {damaged} damaged since"
    )
    assert kills >= TRAINER and torn >= 5 and damaged >= 5


# ---- stores


@pytest.mark.slow
def test_rows_of_writers_that_are_killed_are_there_as_they_were(where, tmp_path):
    """Two writers at once, with leases and without; three rows a transaction."""
    rng = random.Random(where.split(":")[0])
    hot, deaths = 0, 0
    Store(where).close()
    with Nursery() as one, Nursery() as two:
        team = {"one": one, "two": two}
        while one.kills + two.kills < STORES:
            for me, nursery in team.items():
                nursery.begin({"do": "write", "where": where, "me": me, "said": str(tmp_path / me)})
            for nursery in random.Random(deaths).sample([one, two], 2):
                assert nursery.end(rng.uniform(0, 0.3)) == -signal.SIGKILL
                hot += Path(f"{where}-journal").exists()
                deaths += 1
            if deaths % 50 == 0:
                check_rows(where, tmp_path, team)
        kills = one.kills + two.kills
    stored = check_rows(where, tmp_path, team)
    if "postgresql" not in where:
        with sqlite3.connect(where) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
        assert {path.name for path in tmp_path.iterdir()} == {"one", "two", "runs.sqlite"}
    print(f"stores, {where.split(':')[0][-10:]}: {kills} kills, {stored} rows, {hot} journals left behind")
    assert kills >= STORES and stored > 3 * STORES


def check_rows(where: str, folder: Path, team) -> int:
    """Everything that was acknowledged is there, in whole transactions, with the values that it was written with."""
    frame = Store(where, read_only=True).runs().frame
    ids = frame["id"].to_list()
    assert len(ids) == len(set(ids))
    for me in team:
        said = {int(k) for k in (folder / me).read_text().split()} if (folder / me).exists() else set()
        stored = {int(id_.split("-")[1]) for id_ in ids if id_.startswith(f"{me}-")}
        assert stored >= said and len(stored - said) <= sum(nursery.kills for nursery in team.values())
        assert sorted(id_ for id_ in ids if id_.startswith(f"{me}-")) == sorted(
            f"{me}-{k}-{part}" for k in stored for part in range(3)
        )
    for kept in frame.select("id", "params", "tokens", "loss").to_dicts():
        me, k, part = kept["id"].split("-")
        assert kept == row(me, int(k), int(part))
    return len(ids)


# ---- sweeps


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A sweep, its text, and the table that it gives undisturbed."""
    folder = tmp_path_factory.mktemp("calm")
    (folder / "text").mkdir()
    for name in ("argparse", "typing", "inspect", "tarfile"):
        shutil.copy(Path(os.__file__).with_name(f"{name}.py"), folder / "text")
    (folder / "fire.toml").write_text(TOML)
    config = read_study(str(folder / "fire.toml")).sweep
    text = str(folder / "text")
    configs, after = trunks(config, read_corpus(text)), After.of(config, folder)
    store = str(folder / "calm.sqlite")
    run_sweep(configs, Store(store), folder / "calm", corpus_path=text, after=after, workers=2)
    return folder, configs, after, stable(store)


def workers_of(engine: int) -> list[int]:
    """The processes that an engine has started to work."""
    found = []
    for child in Path(f"/proc/{engine}/task/{engine}/children").read_text().split():
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            found.append(int(child))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_sweeps_whose_engines_and_workers_are_killed_give_the_same_table(where, calm, tmp_path, request):
    """Two engines of two workers each; what is killed is a worker, an engine, or an engine with its workers."""
    folder, configs, after, table = calm
    command = [sys.executable, "-m", "bitlaw", "sweep", "work", "--config", str(folder / "fire.toml")]
    command += ["--store", where, "--folder", str(tmp_path / "here"), "--lease", "10", "--workers", "2"]
    command += ["--corpus", str(folder / "text")]
    log = (tmp_path / "log").open("w+")
    request.addfinalizer(log.close)
    rng, counts, rounds = random.Random(where.split(":")[0]), {"worker": 0, "engine": 0, "group": 0}, 0
    store = Store(where)
    deadline = time.monotonic() + 500

    def start() -> subprocess.Popen:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        request.addfinalizer(process.kill)
        return process

    def kill(process: subprocess.Popen, kind: str) -> bool:
        try:
            if kind == "worker":
                os.kill(rng.choice(workers_of(process.pid)), signal.SIGKILL)
            else:
                (os.killpg if kind == "group" else os.kill)(process.pid, signal.SIGKILL)
        except (OSError, IndexError):  # it has no worker yet, or none any more
            return False
        return True

    while sum(counts.values()) < SWEEPS:
        team, seen = [start(), start()], 0
        while work_left(configs, after, store.statuses()):
            assert time.monotonic() < deadline, log.name
            waited = time.monotonic() + 10  # for a row since the last kill; longer than most starts take
            while len(store.ids()) <= seen and time.monotonic() < waited:
                time.sleep(0.1)
            time.sleep(rng.uniform(0, 1.5))
            seen = len(store.ids())
            place, kind = rng.randrange(2), rng.choice(["worker", "worker", "engine", "group"])
            if team[place].poll() is None and kill(team[place], kind):
                counts[kind] += 1
            for k, process in enumerate(team):  # one gives up after three unborn workers
                if kind != "worker" and k == place:
                    process.wait()
                if process.poll():
                    team[k] = start()
        codes = [process.wait(timeout=120) for process in team]
        log.seek(0)
        assert codes == [0, 0], log.read()[-3000:]
        assert stable(where) == table
        over = (
            time.monotonic() + 15
        )  # one killed between its last row and the release leaves a lease to run out
        while running(store):
            assert time.monotonic() < over
            time.sleep(0.5)
        rounds += 1
        for id_ in store.ids() if sum(counts.values()) < SWEEPS else ():
            store.forget(id_)
    # The last to be killed may have left a checkpoint: the next start clears it away.
    subprocess.run(command, stdout=log, stderr=log, check=True)
    assert {path.name for path in (tmp_path / "here").rglob("*") if path.is_file()} == {".lock"}
    print(f"sweeps, {where.split(':')[0][-10:]}: {counts} killed in {rounds} rounds")


# ---- workers that are stuck


@pytest.mark.slow
def test_a_worker_that_is_stuck_is_replaced(calm, tmp_path, caplog):
    """It is stopped as it gives its first row; its engine lives, and would renew its lease for ever."""
    folder, configs, after, table = calm
    stopped: list[int] = []

    def stop(rows) -> None:
        if not stopped:
            (worker,) = multiprocessing.active_children()
            os.kill(worker.pid, signal.SIGSTOP)
            stopped.append(worker.pid)

    store, ours = Store(tmp_path / "runs.sqlite"), configs[:2]
    with caplog.at_level(logging.WARNING):
        run_sweep(
            ours,
            store,
            tmp_path / "here",
            corpus_path=str(folder / "text"),
            after=after,
            workers=1,
            silence_seconds=20.0,
            on_rows=stop,
        )
    assert "has said nothing for 20 s; another takes its place" in caplog.text
    assert not Path(f"/proc/{stopped[0]}").exists()
    cells = {config.trunk_id() for config in ours}
    assert stable(str(tmp_path / "runs.sqlite")) == [line for line in table if line[1] in cells]
    assert not running(store)
