"""Sweeps on a real Ray cluster of two nodes give the rows that they give here, whoever is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from servers import RayNode, children
from test_claims import job, stable

from bitlaw import ConfigError, LabError, Store, StoreError
from bitlaw.cli.job import team_of
from bitlaw.lab.sweep import RayTeam, run_sweep
from bitlaw.runs import running

TOML = """
[sweep]
sizes = [4_000, 6_000]
budgets = [50_000, 100_000, 150_000]
schemes = ["16", "w4"]
post_formats = ["int3"]
seeds = [0, 1]
batch_size = 4
seq_len = 64
eval_tokens = 4096
"""


def test_options_that_contradict_each_other_are_refused():
    for on, device, cpus, gpus, words in [
        ("rays", "auto", None, None, "'ray:ADDRESS'"),
        ("here:1", "auto", None, None, "'ray:ADDRESS'"),
        ("here", "auto", 2.0, None, "belong to --on ray"),
    ]:
        with pytest.raises(ConfigError, match=words):
            team_of(on, device, cpus, gpus)
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match="drop one"):
        RayTeam(gpus=0.5, device="cpu")


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> list[tuple]:
    """The rows, made by processes here."""
    folder = tmp_path_factory.mktemp("calm")
    configs, after = job(folder / "s.toml", TOML)
    run_sweep(configs, Store(folder / "runs.sqlite"), folder / "here", after=after, workers=2)
    rows = stable(str(folder / "runs.sqlite"))
    assert len(rows) == 24 + 12
    return rows


@pytest.fixture
def nodes():
    """Two nodes of one core on this machine; the second says that it has a GPU."""
    pytest.importorskip("ray", reason="needs pip install 'bitlaw[ray]'")
    head = RayNode(None)
    started = [head]
    try:
        started.append(RayNode(head, "--num-gpus=1"))
        yield started
    finally:
        for node in reversed(started[1:]):
            node.kill()
        head.remove()


def actors(node: RayNode) -> list[int]:
    """The processes of a node that are a worker's."""
    return [pid for pid, name in children(node.raylet or -1).items() if name.startswith("ray::Seat")]


def sweep(folder: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "bitlaw", "sweep", "run", str(folder / "s.toml"), *options]
    with (folder / "log").open("w") as log:
        return subprocess.Popen([*command, "--folder", str(folder / "here")], stdout=log, stderr=log)


def stored(folder: Path) -> int:
    """How many rows there are; none while the store is being made."""
    try:
        return len(Store(folder / "here" / "runs.sqlite", read_only=True).ids())
    except StoreError:
        return 0


def ends_well(process: subprocess.Popen, folder: Path, calm: list[tuple]) -> None:
    assert process.wait(timeout=200) == 0, (folder / "log").read_text()[-3000:]
    store = folder / "here" / "runs.sqlite"
    assert stable(str(store)) == calm
    assert not running(Store(store))
    left = {path.name for path in (folder / "here").rglob("*") if path.is_file()}
    assert left == {"runs.sqlite", ".lock"}, left


@pytest.mark.slow
def test_two_nodes_give_the_rows_of_one_machine(calm, nodes, tmp_path, request):
    job(tmp_path / "s.toml", TOML)
    where = ("--on", f"ray:{nodes[0].client}", "--device", "cpu")
    process = sweep(tmp_path, *where, "--cpus-per-worker", "0.5", "--workers", "4")
    request.addfinalizer(process.kill)
    most = [0, 0]
    while process.poll() is None:
        most = [max(n, len(actors(node))) for n, node in zip(most, nodes, strict=True)]
        time.sleep(0.2)
    ends_well(process, tmp_path, calm)
    assert most == [2, 2]
    code = (
        "import sys; from bitlaw.lab.sweep import RayTeam\n"
        "team = RayTeam(sys.argv[1], cpus=0.1, gpus=0.25); print(team.places(), team.device)"
    )
    command = [sys.executable, "-c", code, nodes[0].address]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert said.stdout.split() == ["4", "cuda"], said.stderr


@pytest.mark.slow
def test_actors_and_nodes_that_are_killed_change_no_row(calm, nodes, tmp_path, request):
    """A third node joins, the second is killed, the third takes its place; actors are killed all the while."""
    job(tmp_path / "s.toml", TOML)
    where = ("--on", f"ray:{nodes[0].address}", "--device", "cpu")
    process = sweep(tmp_path, *where, "--workers", "2")
    request.addfinalizer(process.kill)
    kills, rng = 0, random.Random(0)
    order: list[int] = []

    def alive() -> list[int]:
        """The actors there are, the oldest first."""
        there = [pid for node in nodes for pid in actors(node)]
        order.extend(pid for pid in there if pid not in order)
        return sorted(there, key=order.index)

    def kill_an_actor() -> None:
        """Kill the oldest: three killed before they had begun would end the sweep, and rightly."""
        nonlocal kills
        if there := alive():
            with suppress(ProcessLookupError):
                os.kill(there[0], signal.SIGKILL)
                kills += 1

    def until(rows: int, *busy: RayNode) -> None:
        """Wait until so many rows are stored and some nodes have an actor."""
        while not (stored(tmp_path) >= rows and all(map(actors, busy)) and alive()):
            assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.1)

    until(1, *nodes)
    kill_an_actor()
    nodes.append(RayNode(nodes[0]))
    until(3, *nodes[:2])
    nodes.pop(1).kill()
    kills += 1
    until(4, *nodes)
    while process.poll() is None:
        kill_an_actor()
        rows = stored(tmp_path)
        while (
            process.poll() is None and stored(tmp_path) < rows + 2
        ):  # a cell's, and that of its quantised copy
            alive()
            time.sleep(0.1)
        with suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, 5))
    ends_well(process, tmp_path, calm)
    assert kills >= 4
    print(f"{kills} kills")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Ray Client connection timed out")
def test_a_cluster_that_is_not_there_is_a_sentence():
    """Not `auto`: that would find the cluster of a test beside this one, and fall with it."""
    pytest.importorskip("ray", reason="needs pip install 'bitlaw[ray]'")
    with pytest.raises(LabError, match="ray start"):
        RayTeam("ray://127.0.0.1:9")
