"""The explorer's port, spoken to in raw bytes by whoever can reach it: answered where it may be, else refused."""

from __future__ import annotations

import random
import re
import socket
import threading
import time

import pytest
from explorer import explorer, store
from starlette.testclient import TestClient

from bitlaw import write_runs
from bitlaw.explore import HOST, Live, application
from bitlaw.explore.guard import HEADERS
from bitlaw.runs import read_runs

PLAIN = ("", "state", "rows", "facets", "selection", "runs.csv", "assets/main.js", "assets/page.css")
ALIKE = {"st%61te": "state", "%72ows": "rows"}  # written otherwise, and the same
ASTRAY = (
    "../state",
    "./state",
    "/state",
    "state/",
    "state%00",
    "STATE",
    "assets/../state",
    "..%2fstate",
    "rows;x",
)
ASTRAY += (
    "assets/..%2f..%2fapp.py",
    "%2e%2e/%2e%2e/etc/passwd",
    "assets/%2fetc%2fpasswd",
    "\\state",
    "a" * 300,
)
ASTRAY += ("runs.csv/..", "assets/main.js%20", "assets//main.js", "%c0%ae%c0%ae/state")
STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")


class Raw:
    """A port and its token."""

    def __init__(self, address: str) -> None:
        self.token = address.split("/")[3]
        self.port = int(address.split(":")[2].split("/")[0])
        self.host = f"{HOST}:{self.port}"

    def ask(self, raw: bytes) -> bytes:
        """Everything that comes back until the connection ends."""
        with socket.create_connection((HOST, self.port), timeout=5) as sent:
            out = b""
            try:
                sent.sendall(raw)
                while part := sent.recv(65_536):
                    out += part
            except ConnectionError:  # it was ended while we still spoke
                pass
            return out

    def get(
        self, target: str = "state", *, host: str | None = None, method: str = "GET", rest: str = ""
    ) -> bytes:
        host = self.host if host is None else host
        head = f"{method} /{self.token}/{target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{rest}\r\n"
        return self.ask(head.encode("latin-1"))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    path = store(tmp_path_factory.mktemp("raw") / "runs.sqlite", 60)
    with explorer(str(path)) as address:
        yield Raw(address)


def statuses(answer: bytes) -> list[int]:
    return [int(found) for found in STATUS.findall(answer)]


def foreign(raw: Raw) -> list[str]:
    names = (
        "127.1",
        "127.0.0.2",
        "[::1]",
        "0",
        "0x7f000001",
        "2130706433",
        "localhost.",
        "127.0.0.1.",
        "evil.example",
    )
    names += (
        "localhost.evil.example",
        "127.0.0.1@evil.example",
        "u@127.0.0.1",
        "127.0.0.1%00",
        "127.0.0.1/",
        "*",
    )
    hosts = [f"{name}:{raw.port}" for name in names]
    return [
        *hosts,
        "",
        HOST,
        "localhost",
        f"{raw.host}0",
        f"{HOST}:0{raw.port}",
        f"{raw.host},evil.example",
        f"{HOST}:",
    ]


# ---- by hand


@pytest.mark.slow
def test_hosts_by_which_we_are_known_and_no_others(raw):
    for host in (raw.host, f"localhost:{raw.port}", f"LOCALHOST:{raw.port}"):
        assert statuses(raw.get(host=host)) == [200]
    for host in foreign(raw):
        answer = raw.get(host=host)
        assert statuses(answer) == [421], (host, answer[:200])
        assert b'"rows"' not in answer
    assert statuses(raw.ask(f"GET /{raw.token}/state HTTP/1.0\r\n\r\n".encode())) == [421]
    for twice in (raw.host, "evil.example"):
        assert statuses(raw.get(rest=f"Host: {twice}\r\n")) == [400]


@pytest.mark.slow
def test_a_body_brings_no_second_request_with_it(raw):
    inner = f"GET /{raw.token}/state HTTP/1.1\r\nHost: {raw.host}\r\n\r\n"
    other = "Transfer-Encoding"
    lengths = (
        f"Content-Length: {len(inner)}",
        "Content-Length: -1",
        "Content-Length: +0",
        "Content-Length: 0x0",
    )
    lengths += (
        f"{other}: chunked",
        f"Content-Length: 0\r\n{other}: chunked",
        f"{other} : chunked",
        f"{other}: xchunked",
    )
    lengths += (f"Content-Length: 0\r\nContent-Length: {len(inner)}",)
    for length in lengths:
        for target in ("", raw.token + "/state"):
            head = f"GET /{target} HTTP/1.1\r\nHost: {raw.host}\r\n{length}\r\n\r\n"
            answer = raw.ask((head + inner).encode())
            assert len(statuses(answer)) == 1 and statuses(answer)[0] in (400, 413), (length, answer[:200])


@pytest.mark.slow
def test_what_is_no_request_gets_no_rows(raw):
    secret = f"/{raw.token}/state"
    for junk in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        bytes(range(256)) * 40,
        b"\r\n" * 50,
        f"GET http://evil.example{secret} HTTP/1.1\r\nHost: {raw.host}\r\n\r\n".encode(),
        f"GET {secret} HTTP/1.1\r\nHost: {raw.host}\r\nX: a\x00b\r\n\r\n".encode(),
        f"GET {secret}\r\n\r\n".encode(),
        f"GET {secret} HTTP/1.1\r\nHost: {raw.host}\r\n".encode() + b"x: y\r\n" * 40_000,
        f"GET {secret} HTTP/1.1\r\nHost: {raw.host}\r\nx: ".encode() + b"y" * 400_000,
    ):
        answer = raw.ask(junk)
        assert b'"rows"' not in answer and not {200, 500} & set(statuses(answer)), (junk[:80], answer[:200])
    assert statuses(raw.get()) == [200]  # it is still there


@pytest.mark.slow
def test_the_token_shows_in_nothing_that_is_sent_back(raw):
    for target in (
        "",
        "state",
        "rows",
        "facets",
        "selection",
        "runs.csv",
        "nothing",
        "rows?sort=x",
        "assets/main.js",
    ):
        assert raw.token.encode() not in raw.get(target)


# ---- ten thousand


def made(raw: Raw, rng: random.Random) -> tuple[bytes, tuple[int, ...]]:
    """A request, and the statuses that it may be answered with."""
    good = lambda: rng.random() < 0.8  # noqa: E731
    bad_host = None if good() else rng.choice(foreign(raw))
    bad_method = (
        None
        if good()
        else rng.choice(["POST", "PUT", "get", "CONNECT", "TRACE", "OPTIONS", "PROPFIND", "H\x80"])
    )
    token = raw.token
    if not good():
        token = rng.choice(
            [
                "",
                token[:-1],
                token + "x",
                token.swapcase(),
                token[::-1],
                "..",
                "%2e%2e",
                f"./{token}",
                f"/{token}",
            ]
        )
    known = rng.choice(PLAIN)
    target = known
    if not good():
        target = rng.choice([*ASTRAY, *ALIKE, "".join(chr(rng.randrange(33, 256)) for _ in range(20))])
        target = target.replace("?", "x").replace("#", "x")
        known = ALIKE.get(target, target if target in PLAIN else None)
    rest, body = "", False
    if not good():
        rest = rng.choice(
            ["Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: x\r\n"]
        )
        body = True
    for _ in range(rng.randrange(3)):
        name = rng.choice(
            ["Origin", "X-Forwarded-Host", "X-HTTP-Method-Override", "Range", "Cookie", "Referer", "Upgrade"]
        )
        rest += (
            f"{name}: {rng.choice(['evil.example', 'DELETE', 'bytes=0-', 'websocket', '127.0.0.1', '*'])}\r\n"
        )
    host = raw.host if bad_host is None else bad_host
    head = (
        f"{bad_method or 'GET'} /{token}/{target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{rest}\r\n"
    )
    head += "abc" if body else ""
    wrong = [bad_host is not None, bool(bad_method), body, token != raw.token, known is None]
    if sum(wrong) != 1:
        return head.encode("latin-1"), (400, 404, 405, 413, 414, 421) if any(wrong) else (200,)
    status = ((421,), (405, 400), (413, 400), (404,), (400, 404, 414))[wrong.index(True)]
    return head.encode("latin-1"), status


@pytest.mark.slow
def test_ten_thousand_raw_requests_are_answered_or_refused(raw):
    rng, counts = random.Random(7), {True: 0, False: 0}
    for _ in range(10_000):
        asked, may = made(raw, rng)
        answer = raw.ask(asked)
        found = statuses(answer)
        counts[may == (200,)] += 1
        assert len(found) == 1 and found[0] in may, (asked, may, answer[:300])
        if found == [200]:
            head = answer.split(b"\r\n\r\n")[0].decode().lower()
            assert all(f"{name}: {value}".lower() in head for name, value in HEADERS.items())
    assert min(counts.values()) > 1000


# ---- a store that changes under it


@pytest.mark.slow
def test_a_source_that_is_taken_away_or_spoilt_is_told_of(tmp_path):
    path = store(tmp_path / "runs.sqlite", 30)
    whole = path.read_bytes()
    table = tmp_path / "runs.parquet"
    write_runs(read_runs(path), table)
    for source, content in ((path, whole), (table, table.read_bytes())):
        live = Live(source)
        client = TestClient(
            application(live, "t", 1), base_url=f"http://{HOST}:1", raise_server_exceptions=False
        )

        def asked(live=live, client=client):
            live.look(0)
            answers = [client.get(f"/t/{p}") for p in ("state", "rows", "facets", "runs.csv", "laws")]
            assert {answer.status_code for answer in answers} == {200}
            return answers[0].json()

        spoilt = [
            b"",
            content[: len(content) // 2],
            b"\0" * 4096,
            content[:200] + bytes(range(256)) * 8 + content[2248:],
        ]
        for ruin in spoilt:
            source.write_bytes(ruin)
            state = asked()
            assert state["rows"] == 30 and state["problem"]
        source.unlink()
        assert asked()["problem"]
        source.mkdir()
        assert asked()["problem"]
        source.rmdir()
        source.symlink_to("/dev/zero")
        assert asked()["problem"]
        source.unlink()
        source.write_bytes(content)
        assert asked()["problem"] == ""


@pytest.mark.slow
def test_many_ask_while_the_source_comes_and_goes(tmp_path):
    path = store(tmp_path / "runs.sqlite", 30)
    whole, stop, bad = path.read_bytes(), threading.Event(), []
    with explorer(str(path)) as address:
        raw = Raw(address)

        def ask():
            while not stop.is_set():
                for target in ("state", "rows?where=loss%20%3E%202", "facets", "laws", "fit?law=chinchilla"):
                    found = statuses(raw.get(target))
                    if found not in ([200], [400], [503]):
                        bad.append((target, found))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for each in threads:
            each.start()
        for _ in range(8):
            path.write_bytes(b"spoilt" * 999)
            time.sleep(0.6)
            path.unlink()
            time.sleep(0.6)
            path.write_bytes(whole)
            time.sleep(0.6)
        stop.set()
        for each in threads:
            each.join()
        assert bad == []
        time.sleep(1)
        assert b'"problem":""' in raw.get("state")
