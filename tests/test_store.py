"""Stores keep every row, on a file and on a server: the same tests on both."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from bitlaw import DataError, Store, StoreError, read_runs
from bitlaw.runs import Leases, Runs, sqlite

ROW = {"id": "a", "params": 1e6, "tokens": 2e7, "loss": 3.1}


def test_a_store_keeps_every_column_in_order(where, sweep):
    store = Store(where)
    rows = list(reversed(sweep.frame.to_dicts()))
    store.add(rows[:200])
    store.add(rows[200:])
    again = store.runs().frame
    assert again.drop("status").equals(sweep.frame.reverse().drop("status"))
    assert read_runs(where).frame.equals(again)
    assert Store(where, read_only=True).ids() == set(sweep.frame["id"])


def test_the_longest_numbers_survive(where):
    row = {**ROW, "params": 1.2345678901234567e300, "seed": 2**62 + 1, "reason": "ä\n'; DROP TABLE runs"}
    Store(where).add([row])
    (kept,) = Store(where).runs().frame.to_dicts()
    assert {key: kept[key] for key in row} == row


def test_a_row_is_stored_once_and_a_bad_one_stores_none(where):
    store = Store(where)
    store.add([ROW])
    store.add([{**ROW, "loss": 9.9}])
    with pytest.raises(DataError):
        store.add([{**ROW, "id": "b"}, {**ROW, "id": "c", "loss": float("nan")}])
    assert store.runs().frame["loss"].to_list() == [3.1]


#: Written by 0.1.0, and never again: its losses, and what they are of.
KEPT = Path(__file__).parent / "data" / "store-0.1.0.sqlite"
KEPT_ROWS = {
    1.8375042589648345: (30288.0, 1500160.0, "bf16", None, None),
    1.7275705884796926: (30288.0, 3000320.0, "bf16", None, None),
    3.4114814496385364: (30288.0, 1500160.0, "bf16", "int2", "awq"),
    1.991808918449813: (30288.0, 1500160.0, "bf16", "int3", "awq"),
}


def test_a_store_of_the_first_version_is_read_and_goes_on(tmp_path):
    path = tmp_path / "runs.sqlite"
    shutil.copy(KEPT, path)
    frame = read_runs(path).frame
    of = frame.select("params", "tokens", "w_format", "post_format", "method").rows()
    assert dict(zip(frame["loss"], of, strict=True)) == KEPT_ROWS
    Store(path).add([{**ROW, "id": "one more"}])
    assert read_runs(path).frame.height == len(KEPT_ROWS) + 1


@pytest.mark.parametrize(
    "change",
    ["loss = 'text'", "loss = -1", "status = 'fine'", "loss = NULL", "tokens = 0", "loss = 9e307 * 10"],
)
def test_the_database_itself_refuses_nonsense(where, change):
    store = Store(where)
    store.add([ROW])
    with pytest.raises(sa.exc.DBAPIError), store.database.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE runs SET {change}")


def test_a_read_only_store_is_not_written(where):
    with pytest.raises(StoreError, match="there is no run store|nothing is stored yet"):
        Store(where, read_only=True)
    Store(where).add([ROW])
    kept = Store(where, read_only=True)
    for write in (lambda: kept.add([{**ROW, "id": "b"}]), lambda: kept.forget("a")):
        with pytest.raises(StoreError, match="cannot write"):
            write()
    assert kept.ids() == {"a"}


def test_forgotten_rows_take_their_children_with_them(where):
    store = Store(where)
    child = {**ROW, "id": "a-int4", "parent": "a", "post_format": "int4", "gap": 0.1}
    grandchild = {**child, "id": "a-int4-int2", "parent": "a-int4"}
    average = {**ROW, "id": "a-swa", "trunk": "t", "average": "swa"}
    store.add(
        [{**ROW, "trunk": "t"}, child, grandchild, average, {**child, "id": "a-swa-int4", "parent": "a-swa"}]
    )
    store.add([{**ROW, "id": "b"}, {**ROW, "id": "a-other", "trunk": "t"}])
    assert (store.forget("a"), store.forget("a")) == (5, 0)
    assert store.statuses() == {"b": "ok", "a-other": "ok"}


def test_rows_without_ids_of_several_tables_stay_apart(where):
    """And the same table once more adds nothing."""
    store = Store(where)
    plain = {key: value for key, value in ROW.items() if key != "id"}
    tables = [
        Runs.from_rows([{**plain, "loss": loss} for loss in losses])
        for losses in ((3.1, 3.0), (2.5, 2.4, 2.4))
    ]
    assert [store.take(table) for table in (*tables, *tables)] == [2, 3, 0, 0]
    for loss in (1.9, 1.8):
        store.add([{**plain, "loss": loss}])
    store.add([{**ROW, "id": "row-9"}])  # given is given
    assert "row-9" in store.ids() and store.forget("row-9") == 1
    parents = Runs.from_rows(
        [{**plain, "loss": 1.5}, {**ROW, "id": "c", "parent": "row-1", "post_format": "int4", "gap": 0.1}]
    )
    assert store.take(parents) == 2
    child = store.runs().frame.filter(id="c")
    assert child["parent"][0] in store.ids() and store.forget(child["parent"][0]) == 2
    assert sorted(store.runs().frame["loss"]) == [1.8, 1.9, 2.4, 2.4, 2.5, 3.0, 3.1]


def test_an_older_store_gets_the_columns_that_came_since(where):
    store = Store(where)
    store.add([ROW])
    with store.database.engine.begin() as connection:
        for column in ("w_group", "error"):
            connection.exec_driver_sql(f"ALTER TABLE runs DROP COLUMN {column}")
    assert Store(where, read_only=True).runs().frame["w_group"].to_list() == [None]
    store = Store(where)
    store.add([{**ROW, "id": "b", "w_group": 32, "error": 0.5}])
    assert store.runs().frame["w_group"].to_list() == [None, 32]


WRITER = """
import sys
from bitlaw import Store
where, me = sys.argv[1:]
sys.stdin.readline()
store = Store(where)
for k in range(200):
    rows = [{"id": f"{me}-{k}", "params": 1.0, "tokens": 1.0, "loss": 1.0}]
    store.add([*rows, {"id": f"shared-{k}", "params": 1.0, "tokens": 1.0, "loss": 1.0}])
"""


@pytest.mark.slow
def test_eight_writers_lose_and_double_nothing(where):
    """Each stores 200 rows of its own, and 200 that all of them store; they open the store together too."""
    team = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, where, str(me)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for me in range(8)
    ]
    errors = [process.communicate(b"go\n")[1].decode() for process in team]
    assert [process.returncode for process in team] == [0] * 8, errors
    ids = [row["id"] for row in Store(where).runs().frame.to_dicts()]
    wanted = [f"{me}-{k}" for me in (*range(8), "shared") for k in range(200)]
    assert sorted(ids) == sorted(wanted)


# ---- what goes wrong


@pytest.mark.parametrize("read_only", [True, False])
def test_foreign_and_newer_databases_are_left_alone(server, tmp_path, read_only):
    foreign, newer = server.database("foreign" + tmp_path.name), server.database("newer" + tmp_path.name)
    Store(newer).close()
    import psycopg

    with psycopg.connect(newer) as connection:
        connection.execute("UPDATE bitlaw_store SET version = 99")
    with psycopg.connect(foreign) as connection:
        connection.execute("CREATE TABLE runs (x integer)")
    with pytest.raises(StoreError, match="newer bitlaw"):
        Store(newer, read_only=read_only)
    with pytest.raises(StoreError, match="not a bitlaw run store"):
        Store(foreign, read_only=read_only)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:secret@127.0.0.1:1/runs",
        "postgresql://me@127.0.0.1:1/runs?password=secret",
        "postgresql://me:secret@127.0.0.1:port/runs",
        "postgres://me:secret@127.0.0.1:1/runs?secret",
    ],
)
def test_passwords_are_not_said(address):
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError) as caught:
        Store(address)
    assert "secret" not in str(caught.value)
    assert "run store" in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:top@secret@host/runs",
        "POSTGRESQL://me:secret@host/runs",
        "PostgreSQL://me:secret@host/runs",
        "postgre://me:secret@host/runs",
        "mysql://me:secret@host/runs",
        "postgresql:/me:secret@host/runs",
        Path("postgresql://me:secret@host/runs"),
    ],
)
@pytest.mark.parametrize("open_", [Store, read_runs])
def test_addresses_that_are_not_understood_are_not_repeated(open_, address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="postgresql://user@host") as caught:
        open_(address)
    assert "secret" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["C:/me@home/runs.sqlite", "me@home/runs:2.sqlite", "12:30@home.sqlite"])
def test_files_with_signs_of_addresses_are_files(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Store(name).add([ROW])
    assert len(read_runs(name)) == 1


def test_what_a_killed_writer_left_half_done_does_not_lock_readers_out(tmp_path):
    """The journal of a transaction that was cut off: a reader alone may not roll it back."""
    store = Store(tmp_path / "runs.sqlite")
    store.add([{**ROW, "id": str(k), "config": "x" * 3000} for k in range(100)])
    with sqlite3.connect(tmp_path / "runs.sqlite", isolation_level=None) as connection:
        connection.execute("PRAGMA cache_size = 5")  # so that it writes before it commits
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE runs SET loss = 9.0, config = 'y' || config")
        (tmp_path / "killed").mkdir()
        for name in ("runs.sqlite", "runs.sqlite-journal"):
            shutil.copy(tmp_path / name, tmp_path / "killed" / name)
        connection.execute("ROLLBACK")
    connection.close()
    frame = Store(tmp_path / "killed" / "runs.sqlite", read_only=True).runs().frame
    assert frame["loss"].to_list() == [3.1] * 100


def test_a_file_that_another_program_holds_is_said(tmp_path, monkeypatch):
    store = Store(tmp_path / "runs.sqlite")
    monkeypatch.setattr(sqlite, "WAIT_SECONDS", 0.1)
    with sqlite3.connect(tmp_path / "runs.sqlite", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="cannot write .* locked by another program for 0 s; close it"):
            store.add([ROW])
        with pytest.raises(StoreError, match="cannot open .* locked by another program"):
            Store(tmp_path / "runs.sqlite")
        other.execute("ROLLBACK")
    other.close()
    store.add([ROW])


@pytest.mark.slow
def test_a_server_that_is_restarted_loses_nothing(server, where, caplog):
    if "postgresql" not in where:
        pytest.skip("a file has no server")
    said: list[int] = []
    store = Store(where)
    errors: list[BaseException] = []

    def write() -> None:
        try:
            for k in range(10**6):
                store.add([{**ROW, "id": str(k)}])
                said.append(k)
                if stop.is_set():
                    return
        except BaseException as error:
            errors.append(error)

    stop = threading.Event()
    thread = threading.Thread(target=write)
    thread.start()
    for mode in ("fast", "immediate"):
        time.sleep(0.3)
        server.stop(mode)
        time.sleep(0.8)
        server.start()
        before = len(said)
        deadline = time.monotonic() + 20
        while len(said) < before + 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(said) > before
    stop.set()
    thread.join()
    assert not errors
    assert {int(i) for i in store.ids()} >= set(said)
    assert "does not answer" in caplog.text and "answers again" in caplog.text


@pytest.mark.slow
def test_a_server_that_stays_away_is_given_up(server, where):
    if "postgresql" not in where:
        pytest.skip("a file has no server")
    store = Store(where)
    server.stop()
    try:
        with pytest.raises(StoreError, match="for 2 s"):
            store.database.run("write to", lambda c: c.exec_driver_sql("SELECT 1"), patience=2.0)
        began = time.monotonic()
        with pytest.raises(StoreError, match="is the server running"):
            Store(where)
        assert time.monotonic() - began < 10  # it does not wait, as it does for a server that it has met
    finally:
        server.start()


@pytest.mark.slow
def test_who_has_patience_opens_a_store_whose_server_is_restarted(server, where):
    if "postgresql" not in where:
        pytest.skip("a file has no server")
    Store(where).add([ROW])
    server.stop("immediate")
    later = threading.Timer(1.0, server.start)
    later.start()
    try:
        assert Store(where, patience=120.0).ids() == {ROW["id"]}
    finally:
        later.join()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root, to mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_said_and_costs_nothing_that_was_stored(small_disk):
    store, stored = Store(small_disk / "runs.sqlite"), 0
    with pytest.raises(StoreError, match=r"cannot write to the run store .*full"):
        while stored < 10_000:
            store.add([{**ROW, "id": str(stored), "config": "x" * 5000}])
            stored += 1
    assert stored > 20
    assert store.ids() == {str(k) for k in range(stored)}
    with sqlite3.connect(small_disk / "runs.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_disk_that_may_only_be_read_is_said(small_disk):
    path = small_disk / "runs.sqlite"
    Store(path).add([ROW])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="cannot write to the run store .*readonly"):
        Store(path).add([{**ROW, "id": "b"}])
    with pytest.raises(StoreError, match="cannot write to the run store .*readonly"):
        Leases(Store(path)).claim(["w"], "me")
    assert Store(path, read_only=True).ids() == {"a"}


@pytest.mark.slow
def test_no_acknowledged_row_is_lost_to_kill_9(where):
    code = (
        "import sys; from bitlaw import Store\n"
        "store = Store(sys.argv[1])\n"
        "k = len(store.ids())\n"
        "while True:\n"
        "    store.add([{'id': str(k), 'params': 1.0, 'tokens': 1.0, 'loss': 1.0}]); print(k, flush=True); k += 1\n"
    )
    said = -1
    for round_ in range(15):
        process = subprocess.Popen([sys.executable, "-c", code, where], stdout=subprocess.PIPE, text=True)
        first = process.stdout.readline()
        time.sleep(0.02 * round_)
        process.send_signal(signal.SIGKILL)
        lines = [first, *process.communicate()[0].split()]
        said = max([said, *(int(line) for line in lines if line.strip())])
        ids = {int(i) for i in Store(where).ids()}
        assert ids >= set(range(said + 1))
