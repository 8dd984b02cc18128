"""Conditions on rows, as text: what they mean, how they are written, what is refused."""

from __future__ import annotations

import contextlib
import json
import time

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bitlaw import ConfigError, DataError, Runs, write_runs
from bitlaw.cli.main import app
from bitlaw.runs.schema import COLUMN
from bitlaw.runs.where import ANY, ORDER, SIGNS, Condition, matching, parse_where, where

HOSTILE = '<script>alert(1)</script>, "x"'
ROWS = Runs.from_rows(
    [
        {"id": "a", "params": 1e6, "tokens": 2e7, "loss": 3.1, "seed": 0, "corpus": "Wiki text"},
        {"id": "b", "params": 2e6, "tokens": 2e7, "loss": 3.0, "seed": 1, "w_format": "int4", "trunk": "t,1"},
        {"id": "c", "params": 4e6, "tokens": 2e7, "loss": 2.9, "w_format": "bf16", "post_format": "int4"},
        {"id": HOSTILE, "params": 8e6, "tokens": 2e7, "status": "failed", "reason": "none"},
    ]
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("params>=2M", [1, 2, 3]),
        ("params < 2e6", [0]),
        ("params = 4000000", [2]),
        ("params in 1e6,4M", [0, 2]),
        ("w_format = bf16", [0, 2, 3]),  # an empty cell means that
        ("w_format = none", [0, 3]),
        ("w_format != int4", [0, 2, 3]),
        ("post_format = none", [0, 1, 3]),
        ("post_format != int4", [0, 1, 3]),
        ("post_format in none, int4", [0, 1, 2, 3]),
        ("status = ok", [0, 1, 2]),
        ("status not in ok,diverged", [3]),
        ("seed = 1", [1]),
        ("seed != 1", [0, 2, 3]),
        ("seed<=0", [0]),  # nothing is known of empty cells
        ("loss = none", [3]),
        ('reason = "none"', [3]),
        ('trunk = "t,1"', [1]),
        ("trunk = t,1", [1]),
        ("corpus contains WIKI", [0]),
        ("any contains wiki", [0]),
        ("any contains <script>", [3]),
        ("id not in a,b", [2, 3]),
        (f"id in {json.dumps(HOSTILE)},a", [0, 3]),
    ],
)
def test_conditions_mean_what_they_say(text, rows):
    condition = parse_where(text)
    assert matching(ROWS, [condition]).frame["id"].to_list() == [ROWS.frame["id"][k] for k in rows]
    assert parse_where(str(condition)) == condition


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("parms > 3", "did you mean 'params'"),
        ("params", "cannot read the condition"),
        ("params contains 3", "contain nothing"),
        ("id < b", "no order"),
        ("any = b", "some column contains"),
        ("params >= nan", "cannot read 'nan'"),
        ("params >= 1e999", "not a number"),
        ("loss >= 1_0", "not a number"),
        ("loss >= ٣", "not a number"),
        ("params = none,1", "not a number"),
        ("params > none", "compared with = or !="),
        ("w_format = int99x", "unknown format"),
        ("status = okay", "did you mean 'ok'"),
        ("id in", "cannot read the values"),
        ("id in a,,b", "cannot read the values"),
        ('id in "a', "cannot read the values"),
        ('id = "a","b"', "takes one value"),
        ('id = "\\ud800"', "quote it as JSON does"),
        ("id =", "has no value"),
        ("__class__ = 1", "unknown column"),
        ("id = " + "a" * 70_000, "cannot read"),
    ],
)
def test_what_cannot_be_read_is_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        parse_where(text)


def test_that_no_row_is_left_is_said_with_the_condition_that_left_none():
    with pytest.raises(DataError, match=r"none has params > 1e\+09"):
        where(ROWS, ["seed = 1", "params > 1B"])
    with pytest.raises(DataError, match="none meets all of"):
        where(ROWS, ["seed = 1", "params > 2M"])


@given(
    st.text(max_size=60)
    | st.builds("{} {} {}".format, st.sampled_from([*COLUMN, ANY]), st.sampled_from(SIGNS), st.text())
)
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_condition_that_can_be_asked_or_refused(text):
    try:
        condition = parse_where(text)
    except ConfigError:
        return
    assert parse_where(str(condition)) == condition
    assert len(matching(ROWS, [condition])) <= len(ROWS)


@given(
    st.sampled_from([c for c in COLUMN.values() if c.kind == "text" and not c.choices]),
    st.lists(st.text(), min_size=1),
)
@settings(max_examples=60, deadline=None)
def test_every_text_can_be_written_and_read_back(column, words):
    condition = Condition(column.name, "in", tuple(words))
    assert parse_where(str(condition)) == condition


def test_no_text_takes_long():
    for text in (
        "id in a" + " " * 65_000 + '"',
        "id in " + "a," * 32_000,
        'id in "' + "\\" * 65_000,
        "a" * 65_000,
    ):
        began = time.process_time()
        with contextlib.suppress(ConfigError):
            parse_where(text)
        assert time.process_time() - began < 1


def test_orders_are_signs_and_expressions_are_never_null():
    assert set(ORDER) < set(SIGNS)
    for text in ("loss > 1", "trunk contains x", "seed in 1,none", "any contains q", "gap != none"):
        assert ROWS.frame.select(parse_where(text).expression().alias("x"))["x"].null_count() == 0
        assert ROWS.frame.select(parse_where(text).expression().alias("x"))["x"].dtype == pl.Boolean


def test_an_empty_cell_contains_what_it_means():
    runs = Runs.from_rows([{"params": 1e6, "tokens": 2e7, "loss": 3.0}])
    for text in ("w_format = bf16", "w_format contains bf", "status contains ok"):
        assert len(where(runs, [text])) == 1
    assert not len(matching(runs, [parse_where("any contains bf16")]))  # looks at what is written


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("where") / "runs.csv"
    rows = [
        {
            "params": n,
            "tokens": d,
            "loss": (1.8 + 480 * n**-0.35 + 2100 * d**-0.37) * (1 + 0.001 * (k % 3 - 1)),
        }
        for k, (n, d) in enumerate((n, 2e8 * 2**j) for n in (1e7, 2e7, 4e7, 8e7) for j in range(5))
    ]
    write_runs(Runs.from_rows(rows), path)
    return path


def test_verbs_take_the_rows_that_are_meant(table, tmp_path):
    run = CliRunner().invoke
    fit = ["fit", str(table), "--law", "chinchilla", "--no-hold-out", "--where", "params<=40M", "--json"]
    assert json.loads(run(app, fit).stdout)["rows"] == {"loss": 15}
    compare = ["compare", str(table), "--law", "chinchilla", "--where", "params<=40M", "--json"]
    assert json.loads(run(app, compare).stdout)["rankings"][0]["rows"] == 5
    run(app, ["fit", str(table), "--law", "chinchilla", "--save", str(tmp_path / "fit.json")])
    plan = ["plan", "--fit", str(tmp_path / "fit.json"), "--budget", "1e20"]
    assert "--where chooses among the rows of --runs" in str(run(app, [*plan, "--where", "seed=1"]).exception)
    asked = [*plan, "--runs", str(table), "--where", "params > 1T"]
    assert "no row is left" in str(run(app, asked).exception)
    assert "unknown column" in str(run(app, ["compare", str(table), "--where", "parms>1"]).exception)


@pytest.mark.parametrize(
    ("text", "left", "again"),
    [
        ("tokens >= params", [2e6, 4e6], "tokens >= params"),
        ("tokens>=20*params", [4e6], "tokens >= 20*params"),
        ("tokens < 0.5 * params", [1e6], "tokens < 0.5*params"),
        ("tokens = 5*params", [2e6], "tokens = 5*params"),
        ("flops > params", [], "flops > params"),
    ],
)
def test_columns_are_compared_with_columns(text, left, again):
    runs = Runs.from_rows(
        [{"params": n, "tokens": d, "loss": 3} for n, d in ((1e6, 4e5), (2e6, 1e7), (4e6, 4e8))]
    )
    read = parse_where(text)
    assert str(read) == again and parse_where(again) == read
    assert matching(runs, [read]).frame["params"].to_list() == left


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tokens > corpus", "holds text"),
        ("tokens > x*params", "not a number"),
        ("tokens > none*params", "no number before"),
    ],
)
def test_comparisons_of_columns_that_cannot_be_say_why(text, words):
    with pytest.raises(ConfigError, match=words):
        parse_where(text)
