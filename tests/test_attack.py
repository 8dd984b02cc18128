"""Files and folders that were made to hang, to fill the memory, or to read what they should not: refused in words."""

from __future__ import annotations

import json
import math
import os
import random
import re
import time

import polars as pl
import pytest
import sympy as sp
from conftest import synthetic_sweep
from markdown_it import MarkdownIt
from test_browser_attack import PAYLOADS

import bitlaw as bl
from bitlaw import BitlawError, import_runs, load_fit, read_runs
from bitlaw.errors import DataError
from bitlaw.report.blocks import Code, Equations, Heading, Items, Table, Text
from bitlaw.report.markdown import markdown
from bitlaw.runs.export import without_formulas
from bitlaw.runs.raw import MAX_CELLS

MAP = {"params": "params", "tokens": "tokens", "loss": "loss"}


def parquet(path, **columns):
    table = {"params": [1e6, 2e6], "tokens": [2e7, 2e7], "loss": [3.1, 3.0]}
    pl.DataFrame(table | columns).write_parquet(path)
    return path


def refused(source, words, seconds=5.0, **how):
    began = time.process_time()  # of this process alone: a busy machine is no fault
    with pytest.raises(BitlawError, match=words):
        import_runs(source, **how)
    assert time.process_time() - began < seconds


# ---- Parquet


def test_a_small_parquet_file_of_many_rows_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pl.select(pl.repeat(1.0, MAX_CELLS + 1).alias("loss")).write_parquet(path, statistics=False)
    assert path.stat().st_size < 2e6
    refused(path, "200,000,001 rows of 1 columns are more")


def test_columns_of_lists_are_left_out_with_a_word(tmp_path):
    path = parquet(tmp_path / "a.parquet", steps=[[1, 2], [3]], model=[{"heads": [1], "width": 8}] * 2)
    came = import_runs(path, MAP, accept_guesses=True)
    assert len(came.runs) == 2
    assert "columns of lists are left out: steps, model" in came.notes


def test_damaged_parquet_files_end_no_process(tmp_path):
    raw, rng, read = parquet(tmp_path / "a.parquet").read_bytes(), random.Random(0), 0
    path = tmp_path / "b.parquet"
    for _ in range(8):
        damaged = bytearray(raw)
        for _ in range(3):
            damaged[rng.randrange(4, len(raw) - 8)] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read += len(read_runs(path))
        except DataError as error:
            assert len(str(error)) < 900
    assert read < 16


def test_no_module_is_taken_from_the_folder_one_stands_in(tmp_path, monkeypatch):
    parquet(tmp_path / "a.parquet")
    (tmp_path / "polars.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    assert len(read_runs("a.parquet")) == 2
    assert not (tmp_path / "run").exists()


# ---- texts and records


def test_a_log_of_one_long_line_takes_no_time(tmp_path):
    path = tmp_path / "a.log"
    path.write_text("Final estimate: PPL = 5.0 +/- 0.1\n" + "loaded meta data " * 100_000)
    refused(path, "these columns are guesses")


def test_a_header_of_dashes_takes_no_time(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('step,"' + " - " * 30_000 + '\nx",b\n1,2,3\n')
    refused(path, "a column's name has 90,00. characters")


@pytest.mark.slow
def test_a_wide_header_takes_seconds_and_not_minutes(tmp_path):
    path = tmp_path / "a.csv"
    header = ",".join(f"c{k} {'ppl loss ' * 3}" for k in range(5000))
    path.write_text(f"{header}\n{','.join(['1'] * 5000)}\n")
    refused(path, "gives params and tokens and loss", 60)


def test_a_wide_record_beside_many_empty_ones_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{f"c{k}": 1 for k in range(9000)}] + [{}] * 30_000))
    refused(path, "30,001 rows of 9,000 columns, more than anybody trains")


def test_a_scalar_that_promises_a_shape_without_end_is_left_out(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    def scalar(tag, sizes):
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=n) for n in sizes])
        tensor = TensorProto(dtype=1, float_val=[3.0], tensor_shape=shape)
        plugin = SummaryMetadata.PluginData(plugin_name="scalars")
        return Summary.Value(tag=tag, tensor=tensor, metadata=SummaryMetadata(plugin_data=plugin))

    writer = EventFileWriter(str(tmp_path))
    for tag, sizes in (("loss", []), ("bomb", [10**6, 10**6])):
        writer.add_event(Event(step=1, summary=Summary(value=[scalar(tag, sizes)])))
    writer.close()
    came = import_runs(tmp_path, {"loss": "loss"}, {"params": "1M", "tokens": "20M"}, accept_guesses=True)
    assert came.runs.frame["loss"].to_list() == [3.0] and "bomb" not in str(came.as_json())


# ---- saved fits


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("fit") / "fit.json"
    bl.fit("chinchilla", synthetic_sweep(0), draws=20).save(path)
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("ranges", "params"), [0, 0], "does not lie between"),
        (("ranges", "tokens"), [-5, 1e9], "does not lie between"),
        (("ranges", "params"), [1e6, 1e308], "does not lie between"),
        (("ranges", "params"), [1e9, 1e6], "no interval"),
        (("notes",), ["n"] * 1001, "more than 1000 notes"),
        (("notes",), ["n" * 10_001], "longer than 10,000"),
        (("provenance", "source"), "\x1b[2J", "not printable"),
        (("interval", "method"), "x" * 9_000, "is not a complete fit"),
        (("bitlaw_fit",), "x" * 100_000, "another version"),
        (("draws",), [[1.0], [1.0, 2.0]], "not a complete fit"),
        (("draws",), [], "no draws of 5"),
        (("draws",), [[math.nan] * 5], "not a finite number"),
        (("draws",), [[1e400] * 5], "not a finite number"),
        (("law", "precision"), {"w": "<b>"}, "not a complete fit"),
        (("law", "labels"), {"w_format": ["\x1b[2J"]}, "printable"),
        (("law", "labels"), {"w_format": [f"int{k}" for k in range(5000)]}, "at most 500"),
    ],
)
def test_a_strange_fit_is_refused_in_a_few_words(saved, tmp_path, place, value, words):
    data = json.loads(json.dumps(saved))
    within = data
    for key in place[:-1]:
        within = within[key]
    within[place[-1]] = value
    if place == ("law", "labels"):
        data["law"]["precision"] = {"w": "efficiency"}
    (tmp_path / "fit.json").write_text(json.dumps(data))
    began = time.process_time()
    with pytest.raises(DataError, match=words) as refused:
        load_fit(tmp_path / "fit.json")
    assert len(str(refused.value)) < 600 and str(refused.value).isprintable()
    assert time.process_time() - began < 2


# ---- folders


def test_what_is_no_file_is_not_read(tmp_path):
    for name, make in (("zero", lambda p: p.symlink_to("/dev/zero")), ("pipe", os.mkfifo)):
        folder = tmp_path / name
        folder.mkdir()
        for file in ("trainer_state.json", "fit.json", "results_1.json"):
            make(folder / file)
        refused(folder, "cannot tell what is in")
        refused(folder / "trainer_state.json", "no regular file")
        with pytest.raises(DataError, match="no regular file"):
            load_fit(folder / "fit.json")


def test_links_in_a_folder_lead_to_no_file_outside(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("the key")
    run = tmp_path / "mlruns" / "0" / "run-1"
    for place in ("params", "metrics"):
        (run / place).mkdir(parents=True)
    (run.parent / "meta.yaml").write_text("name: sweep\n")
    (run / "meta.yaml").write_text("run_name: !!python/object/apply:os.system ['touch pwned']\n")
    (run / "params" / "corpus").symlink_to(secret)
    (run / "params" / "params").write_text("1e6")
    (run / "params" / "lr").symlink_to(run / "params" / "params")  # within the folder
    (run / "metrics" / "loss").write_text("1 3.1 1\n")
    came = import_runs(
        tmp_path / "mlruns", {"loss": "loss", "params": "params"}, {"tokens": "20M"}, accept_guesses=True
    )
    assert "the key" not in str(came.runs.frame.to_dicts())
    assert came.runs.frame["corpus"].to_list() == [None]
    assert came.runs.frame["learning_rate"].to_list() == [1e6]
    assert list(tmp_path.iterdir()) and not list(tmp_path.rglob("pwned"))


# ---- Markdown, LaTeX, spreadsheets

MARKS = (
    "- item",
    "+ item",
    "* x",
    "1. one",
    "1) one",
    "---",
    "===",
    "***",
    "> q",
    "    code",
    "```",
    "~~~",
    "# h",
    "\\",
)
MARKS += (
    "[x]: http://evil.example",
    "[x](http://evil.example)",
    "![x](http://evil.example/p.png)",
    "<http://evil.example>",
)
MARKS += (
    "a|b",
    "a\\|b",
    "| a |\n| --- |",
    "x\n---",
    "&copy; &#60;b>",
    "$x$",
    "`$x$`",
    "<!-- x -->",
    "\t- x",
    "-",
    "1.",
)


def test_markdown_shows_text_as_text():
    render = MarkdownIt("commonmark", {"html": True}).enable("table").render
    for text in (*PAYLOADS, *MARKS):
        assert re.fullmatch(r"<p>[^<]*</p>\n", render(markdown([Text(text)], "f"))), text
        blocks = [Heading(text), Text(text, "lead"), Items([text, text]), Code(text)]
        blocks += [
            Table([text, "b"], [[text, "1"]], [1], caption=text),
            Equations({"L": sp.Symbol(text) + 1}),
        ]
        tags = re.findall(r"<([a-z0-9]+)", render(markdown(blocks, "f")))
        cells = ["p", "table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]
        assert tags == ["h2", "p", "strong", "ul", "li", "li", "pre", "code", *cells, "pre", "code"], (
            text,
            tags,
        )


def test_latex_is_given_no_command(tmp_path):
    harm = (
        r"\write18{touch pwned}",
        r"\input{/etc/passwd}",
        r"^^5cinput{x}",
        "a\u2028\\def",
        "%",
        r"\end{tabular}",
        "$",
        "&",
    )
    rows = [{"id": text, "trunk": text, "params": 1e6, "tokens": 2e7, "loss": 3.1} for text in harm]
    bl.write_runs(bl.Runs.from_rows(rows), tmp_path / "a.tex")
    text = (tmp_path / "a.tex").read_text()
    commands = set(re.findall(r"\\[A-Za-z]+", text))
    known = {r"\usepackage", r"\begin", r"\end", r"\toprule", r"\midrule", r"\bottomrule"}
    assert commands <= known | {r"\textbackslash", r"\textasciicircum"}, commands
    assert "^" not in text and text.count("\\end{") == 1 and len(text.splitlines()) == 7 + len(harm)


def test_spreadsheets_run_no_cell(tmp_path):
    harm = (
        "=1+1",
        "+1",
        "-1",
        "@x",
        "\t=1",
        "\n=1",
        "\r=1",
        "＝1+1",
        "＋1",
        "－1",
        "＠x",
        "=cmd|' /C calc'!A0",
    )
    kept = without_formulas(pl.DataFrame({"id": harm}))["id"]
    assert all(cell.startswith("'") for cell in kept)
