"""Names that were made to be pasted, printed or listed: none runs, moves a cursor, or tells a secret."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import polars as pl
import pytest
import uvicorn
from explorer import explorer, rows
from test_javascript import node
from typer.testing import CliRunner

from bitlaw import Runs, Store, read_runs, write_runs
from bitlaw.cli.common import command_line
from bitlaw.cli.main import app
from bitlaw.cli.runs import _confirm
from bitlaw.errors import ConfigError, DataError
from bitlaw.explore.command import command
from bitlaw.runs.mapping import Rule
from bitlaw.runs.proposal import Proposal
from bitlaw.shell import join, printable

NAMES = (
    "x; touch pwned.csv",
    "$(touch pwned).csv",
    "`touch pwned`.csv",
    "a'; touch pwned; '.csv",
    "a'; touch pwned; \x07'.csv",
    'a"\'; touch pwned; \x03\n touch pwned\n.csv',
    "a\\'; touch pwned; \x1b]0;title\x07.csv",
    "\u202egpj.exe\u2069 \u2028.csv",
    "two\nlines\t.csv",
    "ünïcode 😀 \U000e0001.csv",
    "-rf", "--save=x.csv", "", "*", "~", "!!",
)  # fmt: skip
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def said_by_bash(line, tmp_path):
    """The words that bash makes of a line; nothing else has happened."""
    assert not UNSEEN.search(line)
    code = f'bitlaw() {{ printf "%s\\0" "$@"; }}\n{line}\n'
    path = tmp_path / "line.sh"
    path.write_text(code)
    out = subprocess.run(
        ["bash", str(path)], capture_output=True, cwd=tmp_path, env={"LC_ALL": "C.UTF-8"}, timeout=20
    )
    assert [p.name for p in tmp_path.iterdir()] == ["line.sh"] and not out.stderr
    return os.fsdecode(out.stdout).split("\0")[:-1]


def test_bash_makes_the_same_words_of_a_command(tmp_path):
    words = [*NAMES, os.fsdecode(b"half \xc3 of a letter")]
    assert said_by_bash(join(["bitlaw", *words]), tmp_path) == words


@pytest.mark.parametrize("name", [name for name in NAMES if name])
def test_commands_name_the_file_and_run_nothing_else(name, tmp_path):
    as_file = f"./{name}" if name.startswith("-") else name
    assert said_by_bash(command("fit", name, [], "--law", "kumar"), tmp_path) == [
        "fit",
        as_file,
        "--law",
        "kumar",
    ]
    line = command_line("report", name, ("--title", name))
    assert said_by_bash(line, tmp_path) == ["report", as_file, "--title", name]


@pytest.mark.parametrize("name", NAMES)
def test_the_command_to_say_guesses_runs_nothing_else(name, tmp_path):
    guess = Proposal((Rule("params", name, why="guess: by its name"),))
    with pytest.raises(ConfigError) as refused:
        _confirm(guess, [f"a{name}"], [("-o", "out.csv")])
    line = printable(str(refused.value)).partition("say them: ")[2]
    words = said_by_bash(line, tmp_path)
    assert words == ["runs", "import", f"a{name}", "-o", "out.csv", "--map", f"params={name}"]


def test_the_panel_quotes_as_a_shell_reads(tmp_path):
    code = (files("bitlaw.report") / "assets" / "planner.js").read_text(encoding="utf-8")
    code = (files("bitlaw.report") / "assets" / "numbers.js").read_text(encoding="utf-8") + code
    ask = """
    const words = JSON.parse(require("fs").readFileSync(0));
    const data = { theta: [1], draws: "", columns: [], controls: [], base: {}, command: words };
    const state = { budget: 1e21, params: null, served: 0, formats: {} };
    process.stdout.write(JSON.stringify(bitlaw.planner(data, {}).command(state)));
    """
    line = node(code + ask, ["bitlaw", *NAMES])
    assert said_by_bash(line, tmp_path) == [*NAMES, "--budget", "1e21"]


def test_what_is_printed_moves_no_cursor(tmp_path):
    name = "runs\x1b[2J\x1b]0;owned\x07\u202e.csv"
    out = subprocess.run(
        [sys.executable, "-m", "bitlaw", "runs", "show", name], capture_output=True, text=True, cwd=tmp_path
    )
    assert out.returncode == 3 and "there is no file runs\\x1b[2J" in out.stderr
    assert not UNSEEN.search(out.stderr.strip())
    write_runs(Runs.from_rows([{"params": 1e6, "tokens": 2e7, "loss": 3.1}]), tmp_path / name)
    assert "\\x1b[2J" in repr(read_runs(tmp_path / name)) and not UNSEEN.search(
        repr(read_runs(tmp_path / name))
    )


@pytest.mark.parametrize(
    "name", ["a\x1b[2J", "a\x9b2J", "a\x7f", "\u202etxt.exe", "\u2066a", "a\x00", "x" * 10_001]
)
def test_texts_of_a_table_hold_nothing_unseen_and_end(name, tmp_path):
    row = {"id": name, "params": 1e6, "tokens": 2e7, "loss": 3.1}
    words = "take it out|shorten it"
    with pytest.raises(DataError, match=words):
        Runs.from_rows([row])
    with pytest.raises(DataError, match=words):
        read_runs(pl.DataFrame([row]))
    if "\x00" in name:
        return
    path = tmp_path / "runs.csv"
    pl.DataFrame([row]).write_csv(path)
    with pytest.raises(DataError, match=words) as refused:
        read_runs(path)
    assert not UNSEEN.search(str(refused.value))
    kept = tmp_path / "runs.sqlite"
    Store(kept).add([row | {"id": "a"}])
    with closing(sqlite3.connect(kept)) as connection:
        connection.execute("UPDATE runs SET reason = ?", [name])
        connection.commit()
    with pytest.raises(DataError, match=words):
        read_runs(kept)


def test_lines_and_tabs_are_text(tmp_path):
    write_runs(
        Runs.from_rows([{"id": "a", "params": 1e6, "tokens": 2e7, "loss": 3.1, "reason": "a\n\tb"}]),
        tmp_path / "a.csv",
    )
    assert read_runs(tmp_path / "a.csv").frame["reason"].to_list() == ["a\n\tb"]


def test_the_token_is_not_in_the_list_of_processes(tmp_path, monkeypatch):
    """What a browser is started with can be read by everybody on the machine."""
    write_runs(Runs.from_rows(rows(10)), tmp_path / "runs.csv")
    browser, told = tmp_path / "browser.sh", tmp_path / "told"
    browser.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {told}.part; cp "${{1#file://}}" {told}.page\n'
                       f'stat -c %a "$(dirname "${{1#file://}}")" > {told}.mode; mv {told}.part {told}\n')  # fmt: skip
    browser.chmod(stat.S_IRWXU)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    with explorer("runs.csv", "--open", cwd=tmp_path) as address:
        for _ in range(200):
            if told.exists():
                break
            subprocess.run(["sleep", "0.05"])
        token = address.rstrip("/").rpartition("/")[2]
        assert told.read_text().startswith("file://") and token not in told.read_text()
        assert f'content="0;url={address}"' in (tmp_path / "told.page").read_text()
        assert (tmp_path / "told.mode").read_text().strip() == "700"
        folder = told.read_text().strip().removeprefix("file://").rpartition("/")[0]
    assert not Path(folder).exists()


def test_ctrl_c_while_the_explorer_starts_ends_it_without_a_word(tmp_path, monkeypatch):
    """At the worst moment, where the server is asked for and does not run yet: a lost coroutine is a warning."""
    write_runs(Runs.from_rows(rows(10)), tmp_path / "runs.csv")

    def interrupted(self: uvicorn.Config) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(uvicorn.Config, "get_loop_factory", interrupted)
    done = CliRunner().invoke(app, ["explore", str(tmp_path / "runs.csv")])
    assert done.exit_code == 0 and done.stdout.count("\n") == 1 and not done.stderr
