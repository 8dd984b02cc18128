"""The explorer without a browser: what it answers, what it refuses, how it follows a store."""

from __future__ import annotations

import contextlib
import csv
import http.client
import io
import json
import re
import shlex
import socket
import time
from urllib.parse import quote

import pytest
from explorer import HOSTILE, explorer, rows, store
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from typer.testing import CliRunner

from bitlaw import BitlawError, ConfigError, Store, read_runs, write_runs
from bitlaw.cli.main import app as cli
from bitlaw.explore import HOST, Live, application, found_here, listen, new_token, server
from bitlaw.explore.app import ASSETS
from bitlaw.explore.guard import HEADERS
from bitlaw.explore.jobs import FORGOTTEN_SECONDS, Jobs
from bitlaw.runs import Leases
from bitlaw.runs.where import where

TOKEN, PORT = "token-of-the-tests", 4711
PATHS = (
    "",
    "state",
    "rows",
    "run",
    "facets",
    "selection",
    "laws",
    "fit",
    "compare",
    "job",
    "part",
    "runs.csv",
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return store(tmp_path_factory.mktemp("explore") / "runs.sqlite", 300)


@pytest.fixture(scope="module")
def client(stored):
    with TestClient(application(Live(stored), TOKEN, PORT), base_url=f"http://{HOST}:{PORT}") as made:
        yield made


def get(client, path, **values):
    return client.get(f"/{TOKEN}/{path}", params=values)


def job(client, path, **values):
    """A job, when it is done."""
    found = get(client, path, **values).json()
    deadline = time.monotonic() + 60
    while found["state"] in ("waiting", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
        found = get(client, "job", key=found["key"]).json()
    return found


# ---- who may ask


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil:4711", "", "[::1]:4711"]
)
def test_a_foreign_host_is_refused(client, host):
    answer = client.get(f"/{TOKEN}/state", headers={"host": host})
    assert answer.status_code == 421
    assert "runs" not in answer.json()


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"]
)
def test_nothing_but_reading_is_possible(client, method):
    for path in ("", "rows", "fit"):
        answer = client.request(method, f"/{TOKEN}/{path}")
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD"


def test_a_body_is_refused(client):
    assert client.request("GET", f"/{TOKEN}/rows", content=b"x").status_code == 413


@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "é", "%00"])
def test_without_the_token_nothing_is_there(client, token):
    for path in PATHS:
        answer = client.get(f"/{token}/{path}")
        assert answer.status_code == 404
    assert client.get(f"/{TOKEN}").status_code == 404


def test_the_token_is_compared_in_constant_time(client, monkeypatch):
    asked = []
    compare = lambda a, b: (asked.append((a, b)), a == b)[1]  # noqa: E731
    monkeypatch.setattr("bitlaw.explore.guard.hmac.compare_digest", compare)
    get(client, "state")
    assert asked == [(TOKEN.encode(), TOKEN.encode())]
    assert len(new_token()) >= 32 and new_token() != new_token()


@pytest.mark.parametrize(
    "path",
    [
        "../etc/passwd",
        "..%2f..%2fetc/passwd",
        "assets/../app.py",
        "assets/..%2fapp.py",
        "assets/%2e%2e/app.py",
    ]
    + [
        "assets/index.html",
        "assets//etc/passwd",
        "assets/main.js/",
        "rows/",
        "runs.csv/..",
        "assets/main.js%00",
    ],
)
def test_no_path_leads_out_of_the_fixed_ones(client, path):
    assert client.get(f"/{TOKEN}/{path}").status_code == 404


@pytest.mark.parametrize("path", [*PATHS, "nothing", "assets/main.js", "assets/plotly.js"])
def test_every_answer_carries_the_headers_and_no_cookie(client, path):
    for token in (TOKEN, "wrong"):
        answer = client.get(f"/{token}/{path}")
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
        assert not {"set-cookie", "access-control-allow-origin", "server"} & set(answer.headers)
        assert client.head(f"/{token}/{path}").status_code == answer.status_code
    policy = HEADERS["content-security-policy"]
    assert policy.startswith("default-src 'self';") and "unsafe-eval" not in policy and "http" not in policy


def test_long_questions_are_refused(client):
    assert get(client, "rows", where="id in " + "a," * 14_000 + "a").status_code == 414
    assert client.get(f"/{TOKEN}/{'a' * 300}").status_code == 414
    assert get(client, "rows", where=["seed = 1"] * 61).status_code == 400


def test_the_page_and_all_its_parts_are_served(client):
    page = get(client, "").text
    named = set(re.findall(r'(?:src|href)="assets/([^"]+)"', page))
    scripts = {name for name in ASSETS if name.endswith(".js")}
    imported = set()
    for name in [*scripts, *named]:
        answer = get(client, f"assets/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].split(";")[0] in ("text/javascript", "text/css")
        if name in scripts:
            imported |= set(re.findall(r'from "\./([^"]+)"', answer.text))
            assert "innerHTML" not in answer.text and "eval(" not in answer.text
            assert len(answer.text.splitlines()) < 300
    assert imported <= scripts and set(ASSETS) <= named | imported
    assert (
        not re.search(r"<script[^>]*>[^<]", page) and "http" not in page
    )  # no script in the page, no address


# ---- what it answers


def test_rows_are_filtered_sorted_and_paged(client, stored):
    table = read_runs(stored)
    found = get(
        client, "rows", where=["w_format in int4,int8", "status = ok"], sort="loss", down="1", limit="20"
    ).json()
    meant = where(table, ["w_format in int4,int8", "status = ok"]).frame.sort("loss", descending=True)
    assert found["shown"] == len(meant)
    assert found["ids"] == meant["id"].to_list()[:20]
    next_ = get(
        client, "rows", where="w_format in int4,int8", sort="loss", down="1", limit="20", offset="20"
    ).json()
    assert not set(next_["ids"]) & set(found["ids"])
    last = get(client, "rows", sort="loss", offset="280", limit="20", columns="id,loss").json()
    assert last["rows"][-1][1] is None  # empty cells stand at the end
    assert get(client, "selection", where="id not in " + json.dumps(HOSTILE[0])).json()["chosen"] == 299


def test_commands_ask_for_what_is_on_the_screen(client):
    said = get(client, "selection", law="chinchilla", interval="0.95", what="gap").json()["commands"]
    assert all("--law chinchilla --interval 0.95" in said[name] for name in ("fit", "report"))
    assert said["compare"].endswith("--gaps")
    assert "--gaps" not in get(client, "selection").json()["commands"]["compare"]


@pytest.mark.parametrize(
    ("path", "values", "words"),
    [
        ("rows", {"where": "parms > 1"}, "did you mean 'params'"),
        ("rows", {"sort": "x"}, "there is no column"),
        ("rows", {"columns": "id,__class__"}, "there is no column"),
        ("rows", {"offset": "-1"}, "whole number"),
        ("rows", {"limit": "1e9"}, "whole number"),
        ("rows", {"limit": "101"}, "whole number"),
        ("rows", {"file": "/etc/passwd"}, "a question takes"),
        ("fit", {"law": "/etc/passwd.toml"}, "in the catalogue"),
        ("fit", {"law": "kumar", "interval": "nan"}, "between 0 and 1"),
        ("fit", {"where": "params > 1T"}, "no run is chosen"),
        ("compare", {"what": "x"}, "what is one of"),
        ("rows", {"where": ["seed = 0"] * 61}, "at most 60 conditions"),
    ],
)
def test_wrong_questions_are_answered_with_one_sentence(client, path, values, words):
    answer = get(client, path, **values)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_names_that_mean_harm_stay_text(client):
    for name in HOSTILE:
        run = get(client, "run", id=name)
        assert run.headers["content-type"] == "application/json"
        assert run.json()["facts"][0]["value"] == name
    assert get(client, "run", id="nobody").status_code == 404


def test_the_choice_as_a_file_is_the_choice(client, stored, tmp_path):
    answer = get(client, "runs.csv", where="seed = 1")
    assert answer.headers["content-disposition"] == 'attachment; filename="runs.csv"'
    (tmp_path / "runs.csv").write_bytes(answer.content)
    assert read_runs(tmp_path / "runs.csv").frame.equals(where(read_runs(stored), ["seed = 1"]).frame)
    assert len(list(csv.reader(io.StringIO(answer.text)))) > 50


@pytest.mark.slow
def test_a_fit_is_that_of_the_command_beside_it(client, stored):
    asked = {"law": "chinchilla", "where": ["params < 400M", f"id not in {json.dumps(HOSTILE[0])}"]}
    done = job(client, "fit", **asked)
    assert done["state"] == "done", done
    part = {name: get(client, "part", key=done["key"], name=name) for name in done["parts"]}
    shown = part["fit"].json()
    words = shlex.split(shown["commands"]["fit"])
    assert words[:3] == ["bitlaw", "fit", str(stored)] and words.count("--where") == 2
    out = CliRunner().invoke(cli, [w for w in words[1:] if w not in ("--save", "fit.json")] + ["--json"])
    said = json.loads(out.stdout)
    assert said["estimates"] == shown["estimates"] and said["rows"] == shown["rows"]
    assert said["interval"] == shown["interval"]
    residuals = part["residuals"].json()
    assert sum(map(len, residuals["ids"])) == sum(len(t["x"]) for t in residuals["chart"]["data"])
    assert part["law"].headers["content-type"].startswith("text/javascript")
    assert part["law"].text.startswith("export default (runtime) => ({")
    assert part["panel"].json()["law"] and len(part["charts"].json()) >= 3
    assert get(client, "fit", **asked).json()["state"] == "done"  # kept
    again = job(
        client, "fit", **asked | {"where": [*asked["where"], "params > 1"]}
    )  # the same rows, asked otherwise
    words = get(client, "part", key=again["key"], name="fit").json()["commands"]["fit"]
    assert shlex.split(words).count("--where") == 3
    assert get(client, "part", key=done["key"], name="nothing").status_code == 404


def test_a_fit_that_cannot_be_made_says_why(client):
    done = job(client, "fit", law="kumar", where="id contains 000003")
    assert done["state"] == "failed" and "needs at least" in done["error"]


def test_a_file_can_be_explored_too_and_is_read_again(tmp_path):
    path = tmp_path / "runs.csv"
    table = read_runs(store(tmp_path / "runs.sqlite", 30))
    write_runs(table, path)
    live = Live(path)
    before = live.look(0)
    assert live.look(0) is before  # unchanged, so not read again
    write_runs(where(table, ["seed = 0"]), path)
    assert len(live.look(0).runs) < len(before.runs)
    path.write_text("params,tokens,loss\n1e6,2e7,nan\n")
    spoilt = live.look(0)
    assert "line 2, column loss" in spoilt.problem and len(spoilt.runs)
    write_runs(table, path)
    assert live.look(0).problem == "" and len(live.look(0).runs) == 30


# ---- a sweep that runs


def test_a_store_is_followed_and_read_only_when_it_has_changed(where, tmp_path):
    kept = Store(where)
    made = rows(30)
    kept.add(made[:10])
    live = Live(where)
    first = live.look(0)
    leases = Leases(kept)
    lease = leases.claim(["work"], "worker-1")
    assert [x.worker for x in live.look(0).leases] == ["worker-1"]
    assert live.look(0).read == first.read  # who is at work does not change the rows
    leases.add(lease, made[10:12])
    second = live.look(0)
    assert second.read == first.read + 1 and len(second.runs) == 12 and second.version != first.version
    kept.forget(made[0]["id"])
    assert len(live.look(0).runs) == 11
    kept.add([{**made[0], "loss": made[0]["loss"] + 1}])
    assert len(live.look(0).runs) == 12 and live.look(0).version != second.version


def test_the_state_is_sent_when_something_has_changed_and_only_then(tmp_path):
    path = store(tmp_path / "runs.sqlite", 30)
    ends = {"ok": 28, "diverged": 1, "failed": 1}  # of cells, however many rows there are
    goal = lambda: {"cells": 40, **ends, "left": 10, "seconds_left": 123.4}  # noqa: E731
    live = Live(path)
    client = TestClient(application(live, TOKEN, PORT, goal), base_url=f"http://{HOST}:{PORT}")
    answer = get(client, "state")
    data, tag = answer.json(), answer.headers["etag"]
    assert data["rows"] == 30 and data["status"] == {"ok": 30, "diverged": 0, "failed": 0}
    assert data["goal"] == {"cells": 40, "left": 10, "status": ends, "seconds_left": 120}
    again = client.get(f"/{TOKEN}/state", headers={"if-none-match": tag})
    assert again.status_code == 304 and again.content == b""
    failed = {"id": "new", "params": 1e6, "tokens": 2e7, "status": "failed", "reason": HOSTILE[0]}
    Store(path).add([failed])
    live.look(0)
    data = client.get(f"/{TOKEN}/state", headers={"if-none-match": tag}).json()
    assert data["newest"][0]["id"] == "new" and data["failures"][0]["reason"] == HOSTILE[0]


@pytest.mark.parametrize("name", ["runs.csv", "rows.parquet"])
def test_a_folder_of_a_table_can_be_explored(name, tmp_path):
    table = read_runs(store(tmp_path / "runs.sqlite", 20))
    (tmp_path / "study").mkdir()
    write_runs(table, tmp_path / "study" / name)
    assert len(Live(tmp_path / "study").look().runs) == 20
    assert len(read_runs(tmp_path / "study")) == 20 and found_here(tmp_path / "study").endswith(name)
    with pytest.raises(BitlawError, match=r"empty.*runs\.sqlite"):
        (tmp_path / "empty").mkdir()
        Live(tmp_path / "empty")


def test_what_is_here_is_found(tmp_path):
    with pytest.raises(ConfigError, match="no runs in this folder"):
        found_here(tmp_path)
    write_runs(read_runs(store(tmp_path / "study-a" / "runs.sqlite", 20)), tmp_path / "runs.csv")
    assert found_here(tmp_path) == str(tmp_path / "study-a" / "runs.sqlite")  # a store before a table
    store(tmp_path / "study-b" / "runs.sqlite", 20)
    with pytest.raises(ConfigError, match=r"several run stores.*study-a.*study-b"):
        found_here(tmp_path)


# ---- jobs


def test_jobs_are_done_in_turn_kept_and_given_up_when_nobody_waits(monkeypatch):
    jobs, released = Jobs(("fit",)), []

    def slow(report):
        while not released:
            report(0.5, "slowly")
            time.sleep(0.005)
        return {"a": b"1"}

    def until(name, state):
        deadline = time.monotonic() + 60
        while (found := jobs.find(name)) is not None and found.state != state:
            assert time.monotonic() < deadline, (name, found.state)
            time.sleep(0.001)

    first = jobs.begin("fit", "first", slow)
    until("first", "running")
    assert jobs.begin("fit", "first", slow) is first
    for k in range(8):
        jobs.begin("fit", f"{k}", lambda report: {})
    with pytest.raises(ConfigError, match="8 fits wait already"):
        jobs.begin("fit", "more", slow)
    first.asked -= 2 * FORGOTTEN_SECONDS
    until("7", "done")
    assert first.state == "failed" and "given up" in first.error and jobs.find("first") is None
    broken = jobs.begin("fit", "broken", lambda report: {}["x"])
    until("broken", "failed")
    assert "not foreseen (KeyError)" in broken.error
    for k in range(40):
        jobs.begin("fit", f"kept-{k}", lambda report: {})
        until(f"kept-{k}", "done")
    assert jobs.find("kept-0") is None and jobs.find("kept-39") is not None


# ---- the server itself


def test_it_listens_at_this_machine_alone():
    with listen() as listening:
        assert listening.getsockname()[0] == "127.0.0.1"
        with pytest.raises(ConfigError, match="cannot listen at 127.0.0.1"):
            listen(listening.getsockname()[1])
    assert server(lambda *_: None).config.proxy_headers is False


@pytest.mark.slow
def test_the_verb_prints_an_address_and_ctrl_c_ends_it_quietly(stored, tmp_path):
    with explorer(str(stored)) as address:
        port = int(address.split(":")[2].split("/")[0])
        others = [a for a in _addresses() if not a.startswith("127.")]
        for other in others:
            with pytest.raises(OSError):
                socket.create_connection((other, port), timeout=1)
        with socket.create_connection((HOST, port)) as slow:  # a connection that says nothing holds up nobody
            slow.sendall(b"GET / HT")
            with socket.create_connection((HOST, port)) as quick:
                target = address.removeprefix(f"http://{HOST}:{port}")
                quick.sendall(f"GET {target}state HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n".encode())
                assert quick.recv(12) == b"HTTP/1.1 200"
            with socket.create_connection((HOST, port)) as large:
                large.settimeout(5)
                large.sendall(b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 100_000)
                assert b" 4" in large.recv(12)


def test_an_empty_folder_is_told_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no runs in this folder" in str(CliRunner().invoke(cli, ["explore"]).exception)


def _addresses():
    return {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}


@pytest.mark.slow
def test_slow_clients_are_sent_away(stored):
    with explorer(str(stored)) as address:
        port = int(address.split(":")[2].split("/")[0])
        sockets = [socket.create_connection((HOST, port)) for _ in range(40)]
        began = time.monotonic()
        while time.monotonic() - began < 14:  # a byte a second, for ever
            for each in sockets:
                with contextlib.suppress(OSError):
                    each.sendall(b"G")
            time.sleep(1)
        ended = 0
        for each in sockets:
            each.settimeout(1)
            try:
                ended += each.recv(1) in (b"", b"H")
            except ConnectionError:
                ended += 1
            each.close()
        assert ended == len(sockets)


@pytest.mark.slow
def test_a_connection_that_is_used_is_kept(stored):
    with explorer(str(stored)) as address:
        kept = http.client.HTTPConnection(HOST, int(address.split(":")[2].split("/")[0]))
        kept.connect()
        own, began = kept.sock, time.monotonic()
        while time.monotonic() - began < 14:
            kept.request("GET", f"/{address.split('/')[3]}/state")
            answer = kept.getresponse()
            answer.read()
            assert answer.status == 200 and kept.sock is own
            time.sleep(1.7)
        kept.close()


# ---- anything at all


_word = st.text(max_size=20) | st.sampled_from(
    ["..", "%2e%2e", "%00", "where", "params>=1", "id in a,b", "1", "kumar", "\r\n"]
)
_path = st.lists(st.sampled_from([TOKEN, *PATHS, "assets", "main.js"]) | _word, max_size=4)
_query = st.lists(
    st.tuples(st.sampled_from(["where", "sort", "limit", "key", "name", "law", "id"]) | _word, _word),
    max_size=4,
)
_header = st.tuples(
    st.sampled_from(["host", "origin", "if-none-match", "range", "x-forwarded-host", "cookie"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
)
METHODS = ("GET",) * 6 + ("HEAD", "POST", "DELETE", "BREW")


def check(client, method, parts, query, headers):
    path = "/".join(quote(part, safe="%./") for part in parts)
    answer = client.request(
        method, f"http://{HOST}:{PORT}/{path}", params=query, headers=dict(headers), follow_redirects=False
    )
    assert answer.status_code in (200, 304, 400, 404, 405, 413, 414, 421), (answer.status_code, path)
    if answer.status_code in (200, 304):
        assert method in ("GET", "HEAD")
        left = [p for p in answer.request.url.path.split("/") if p]  # the client resolves `..` before it asks
        assert left[0] == TOKEN and "/".join(left[1:]) in (*PATHS, "assets/main.js"), parts


@given(st.sampled_from(METHODS), _path, _query, st.lists(_header, max_size=2))
@example("GET", [TOKEN, "", TOKEN, ".."], [], [])
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_request_is_answered_or_refused(client, method, parts, query, headers):
    check(client, method, parts, query, headers)


@pytest.mark.slow
def test_ten_thousand_requests_are_answered_or_refused(client):
    @given(st.sampled_from(METHODS), _path, _query, st.lists(_header, max_size=2))
    @settings(max_examples=5000, deadline=None)
    def anything(method, parts, query, headers):
        check(client, method, parts, query, headers)

    @given(st.sampled_from(PATHS), _query)
    @settings(max_examples=5000, deadline=None)
    def with_the_token(path, query):
        check(client, "GET", [TOKEN, path], query, [])

    anything()
    with_the_token()
