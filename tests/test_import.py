"""Anybody's table comes in: mapped as told, guessed openly, every cell checked, none lost without a word."""

from __future__ import annotations

import csv
import datetime
import io
import math
import os
import pty
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bitlaw import ConfigError, DataError, Store, import_runs, read_runs
from bitlaw.cli.main import app
from bitlaw.runs import COLUMN, Runs
from bitlaw.runs.check import check, check_column, parse_cell
from bitlaw.runs.convert import convert
from bitlaw.runs.guess import plain, unit_in
from bitlaw.runs.mapping import as_toml, read_mapping
from bitlaw.runs.raw import column_of, from_records
from bitlaw.runs.where import parse_where

HEAD = "params,tokens,loss"
MESSY = (
    "Name,State,size (B),D tokens,val ppl,bits,note\n"
    "a,finished,0.4,8B,20.1,4,x\n"
    "b,finished,1.0,20B,17.3,8,=cmd\n"
    'c,crashed,"1,000",20B,nan,16,y\n'
    "d,finished,7,140B,0.5,16,z\n"
)
BITS = {"w_format": "bits in int"}


def put(tmp_path, text, name="runs.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def run(*words):
    return CliRunner().invoke(app, ["runs", "import", *map(str, words)])


# ---- mapping


def test_what_is_said_is_done_with_units_and_constants(tmp_path):
    path = put(tmp_path, 'size (B),seen,"ppl, wiki",dtype\n0.4,8,20,bfloat16\n7,140,8,torch.float8_e4m3fn\n')
    columns = {
        "params": "size (B) in B",
        "tokens": "seen in 1e9",
        "loss": "ppl, wiki in ppl",
        "w_format": "dtype in dtype",
    }
    came = import_runs(path, columns, {"count": "total", "unique_tokens": "3B"})
    frame = came.runs.frame
    assert frame["params"].to_list() == [4e8, 7e9]
    assert frame["tokens"].to_list() == [8e9, 1.4e11]
    assert frame["loss"].to_list() == pytest.approx([math.log(20), math.log(8)], rel=1e-15)
    assert frame["w_format"].to_list() == ["bf16", "e4m3"]
    assert frame["count"].to_list() == ["total"] * 2 and frame["unique_tokens"].to_list() == [3e9] * 2


def test_a_column_whose_name_ends_like_a_unit_is_found_as_it_is():
    frame = pl.DataFrame({"params in B": [1e9], "tokens": [2e9], "loss": [3.0]})
    assert import_runs(frame, {"params": "params in B"}).runs.frame["params"][0] == 1e9
    assert import_runs(frame, {"params": "params in B in B"}).runs.frame["params"][0] == 1e18


@pytest.mark.parametrize(
    ("ours", "unit", "cell", "value"),
    [
        ("params", "M", "350", 3.5e8),
        ("params", "B", "8.03", 8.03e9),
        ("params", "quantity", "7B", 7e9),
        ("tokens", "quantity", "20,000,000", 2e7),
        ("tokens", "Gi", "2", 2.0**31),
        ("flops", "1e18", "3", 3e18),
        ("loss", "bits", "1", math.log(2)),
        ("loss", "ppl", "1", 0.0),
        ("error", "percent", "25", 0.25),
        ("error", "accuracy", "0.75", 0.25),
        ("error", "accuracy%", "75", 0.25),
        ("seconds", "hours", "2", 7200.0),
        ("w_format", "int", "4", "int4"),
        ("w_format", "int", "16", "bf16"),
        ("w_format", "fp", "8.0", "e4m3"),
        ("w_format", "dtype", "torch.bfloat16", "bf16"),
        ("post_format", "gguf", "Q4_K_M", "int4"),
        ("post_format", "gguf", "iq3_xxs", "int3"),
        ("post_format", "gguf", "TQ1_0", "ternary"),
        ("post_format", "gguf", "F16", None),
    ],
)
def test_units(ours, unit, cell, value):
    turned, flaws = convert(pl.Series([cell, " ", None]), ours, unit)
    assert turned.to_list() == [value, None, None] and not flaws


@pytest.mark.parametrize(
    ("ours", "unit", "cell", "words"),
    [
        ("params", "B", "1,000", "without units or commas"),
        ("params", "quantity", "7Q", "cannot read"),
        ("loss", "ppl", "0.5", "no perplexity"),
        ("loss", "ppl", "inf", "not finite"),
        ("w_format", "int", "4.5", "number of bits"),
        ("w_format", "int", "true", "not a number"),
        ("w_format", "fp", "5", "no usual float"),
        ("post_format", "gguf", "Q9_X", "no type of llama.cpp"),
    ],
)
def test_a_cell_that_is_not_in_its_unit_is_a_flaw_and_not_a_value(ours, unit, cell, words):
    turned, flaws = convert(pl.Series([cell]), ours, unit)
    assert turned.to_list() == [None]
    assert [flaw.row for flaw in flaws] == [0] and words in flaws[0].reason


def test_values_of_a_mapping_file_are_texts_for_texts(tmp_path):
    path = put(
        tmp_path,
        'ignore = ["note"]\n[columns]\nw_format = { column = "precision", values = { "low" = "nvfp4", "high" = "" } }\n'
        'params = "N in M"\n[constants]\ncount = "non_embedding"\n',
        "map.toml",
    )
    frame = pl.DataFrame({"N": [1, 2], "tokens": [1e9] * 2, "loss": [3.0] * 2, "precision": ["low", "high"]})
    with pytest.raises(ConfigError, match="no column 'note' to ignore"):
        import_runs(frame, path)
    frame = frame.with_columns(pl.lit("x").alias("note"))
    came = import_runs(frame, path)
    assert came.runs.frame["w_format"].to_list() == ["nvfp4", None]
    assert came.runs.frame["params"].to_list() == [1e6, 2e6]
    with pytest.raises(DataError, match="row 2, column precision: 'mid' is not among the values"):
        import_runs(frame.with_columns(pl.Series("precision", ["low", "mid"])), path)


def test_a_mapping_is_read_back_as_it_was_written(tmp_path):
    text = 'a "quoted" \\ name\n\x7f'
    columns = {"params": {"column": text, "unit": "B"}, "w_format": {"column": "x", "values": {"4": "int4"}}}
    said = read_mapping({**columns, "tokens": {"column": "size in B"}}, {"count": "total"}, ["b", "a"])
    path = put(tmp_path, as_toml(said.rules, said.ignored), "map.toml")
    again = read_mapping([str(path)])
    assert again == said


@pytest.mark.parametrize(
    ("columns", "constants", "words"),
    [
        (["params"], (), "write OURS=THEIRS"),
        (["parms=N"], (), "did you mean 'params'"),
        (["params=M"], (), "no column 'M' to make params of"),
        (["params=N in Q"], (), "no unit 'Q'"),
        (["params=N in int"], (), "cannot be in 'int'"),
        (["w_format=N in B"], (), "cannot be in 'B'"),
        (["seed=N in quantity"], (), "cannot be in 'quantity'"),
        (["params=N in -1"], (), "no unit '-1'"),
        ({"params": 3}, (), "cannot read what params is"),
        ({"params": {"column": "N", "units": "B"}}, (), "cannot read what params is"),
        ({"params": {"column": "N", "unit": "B", "values": {}}}, (), "a unit and values"),
        (["params=N"], ["params=8B"], "leave one out"),
        ([], ["count=all"], "not one of"),
        ([], ["params=big"], "not a number"),
        ([], ["params=-8B"], "not a number"),
        ([], ["seed="], "value is missing"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(columns, constants, words):
    frame = pl.DataFrame({"N": [1e9], "tokens": [2e9], "loss": [3.0]})
    with pytest.raises(ConfigError, match=re.escape(words)):
        import_runs(frame, columns, constants)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[colums]\n", "did you mean 'columns'"),
        ("columns = 3\n", "must be a table"),
        ("[columns]\nparams = 1\n", "cannot read what params is"),
        ("[columns]\nparams = 'N'\nparams = 'M'\n", "not valid TOML"),
        ("[constants]\ncont = 'total'\n", "did you mean 'count'"),
    ],
)
def test_a_mapping_file_that_cannot_be_meant_is_refused(tmp_path, text, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        read_mapping([str(put(tmp_path, text, "map.toml"))])
    with pytest.raises(ConfigError, match="there is no file"):
        read_mapping([str(tmp_path / "absent.toml")])


# ---- guesses


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("N", "params"),
        ("config/n_params", "params"),
        ("Model Size", "params"),
        ("params.numParams", "params"),
        ("D", "tokens"),
        ("train_tokens", "tokens"),
        ("eval/loss", "loss"),
        ("summary.val_loss", "loss"),
        ("val-ppl", "loss"),
    ],
)
def test_well_known_names_are_guessed_and_not_believed(name, ours):
    table = {"params": [1e9, 2e9], "tokens": [2e9, 3e9], "loss": [3.0, 2.9]}
    table[name] = table.pop(ours)
    frame = pl.DataFrame(table)
    with pytest.raises(DataError, match=re.escape(f"{ours}={name}")):
        import_runs(frame)
    came = import_runs(frame, accept_guesses=True)
    assert [(r.ours, r.theirs) for r in came.proposal.guesses] == [(ours, name)]


def test_single_letters_count_only_as_capitals():
    assert (plain("N"), plain("n"), unit_in("d_model")) == ("N", "_n", ("d_model", ""))
    with pytest.raises(ConfigError, match="gives params"):
        import_runs(pl.DataFrame({"n": [1], "tokens": [2.0], "loss": [3.0]}), accept_guesses=True)


def test_our_own_names_are_no_guesses_in_a_table_and_the_rest_is_listed(tmp_path):
    came = import_runs(put(tmp_path, f"{HEAD},extra\n1e6,2e7,3,x\n"))
    assert not came.proposal.guesses and came.proposal.unused == ("extra",)


@pytest.mark.parametrize("name", ["bits", "weight_bits", "precision", "w_format", "kv_bits"])
def test_bits_are_never_guessed_and_never_lost(tmp_path, name):
    path = put(tmp_path, f"{HEAD},{name}\n1e6,2e7,3,4\n1e6,2e7,3,16\n")
    with pytest.raises(ConfigError, match="count as 16 bits"):
        import_runs(path, accept_guesses=True)
    assert import_runs(path, ignore=[name]).runs.bits("w").to_list() == [1e6, 1e6]
    ours = "kv_format" if name == "kv_bits" else "w_format"
    assert import_runs(path, {ours: f"{name} in fp"}).runs.frame[ours].to_list() == ["e2m1", "bf16"]


def test_names_of_formats_are_asked_about_whatever_the_column_is_called(tmp_path):
    path = put(tmp_path, f"{HEAD},fmt\n1e6,2e7,3,int4\n")
    with pytest.raises(ConfigError, match="seems to name formats"):
        import_runs(path)
    unknown = put(tmp_path, f"{HEAD},quant\n1e6,2e7,3,nf3\n")
    with pytest.raises(ConfigError, match=r'values = \{ "nf3" = "int3" \}'):
        import_runs(unknown, accept_guesses=True)
    harmless = put(tmp_path, f"{HEAD},precision\n1e6,2e7,3,bf16-mixed\n")
    assert import_runs(harmless, accept_guesses=True).runs.frame["w_format"].to_list() == [None]


def test_sizes_that_look_like_billions_are_remarked_on():
    came = import_runs(pl.DataFrame({"params": [7.0], "tokens": [1e12], "loss": [2.0]}))
    assert any('"params=params in B"' in remark for remark in came.proposal.remarks)


def test_what_is_missing_is_said_with_what_there_is():
    with pytest.raises(ConfigError, match=r"gives params and tokens; its other columns: wide"):
        import_runs(pl.DataFrame({"wide": [1.0], "loss": [3.0]}))


# ---- cells


ADVERSARIAL = [
    ("nan", "not finite"),
    ("NaN", "not finite"),
    ("inf", "not finite"),
    ("-Infinity", "not finite"),
    ("1e400", "not finite"),
    ("-1", "out of range"),
    ("0", "out of range"),
    ("1_000", "not a number"),
    ("٣", "not a number"),
    ("１２", "not a number"),
    ("20M", "not a number"),
    ("16;DROP TABLE runs", "not a number"),
    ("=cmd|calc", "not a number"),
    ("@SUM(A1)", "not a number"),
    ("20,000,000", "not a number"),
    ("0x10", "not a number"),
    ("1e", "not a number"),
    ("1 2", "not a number"),
    ("3\x00", "not a number"),
    ("true", "not a number"),
    ("−1", "not a number"),
]


def test_every_bad_cell_is_reported_with_line_column_value_and_reason(tmp_path):
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(["id", *HEAD.split(",")])
    for k, (cell, _) in enumerate(ADVERSARIAL):
        for column in range(3):
            row = ["1e6", "2e7", "3"]
            row[column] = cell
            writer.writerow([f"{k}-{column}", *row])
    writer.writerow(["good", "1e6", "2e7", "3"])
    path = put(tmp_path, "\ufeff" + buffer.getvalue())
    came = import_runs(path, keep_good=True)
    assert came.runs.frame["id"].to_list() == ["good"] and came.left_out == 3 * len(ADVERSARIAL)
    found = {(p.place, p.column): p for p in came.problems}
    assert len(found) == len(came.problems) == 3 * len(ADVERSARIAL)
    for k, (_, words) in enumerate(ADVERSARIAL):
        for column, name in enumerate(HEAD.split(",")):
            problem = found[f"line {2 + 3 * k + column}", name]
            assert words in problem.reason and problem.value.isprintable()
    with pytest.raises(DataError, match=f"and {3 * len(ADVERSARIAL) - 10} more"):
        import_runs(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"id,{HEAD}\na,1e6,2e7,3\na,1e6,2e7,4\n", "line 2, column id: two rows have the id 'a'"),
        (f"id,{HEAD}\na,1e6,2e7,3\na,1e6,2e7,4\n", "line 3, column id: two rows have the id 'a'"),
        (f"id,{HEAD}\na\x00b,1e6,2e7,3\n", "line 2, column id: holds a NUL"),
        (f"{HEAD}\n1e6,2e7\n", "line 2 has 2 cells, its header 3"),
        (f"{HEAD}\n1e6,2e7,3,4\n", "line 2 has 4 cells"),
        (f"{HEAD},gap\n1e6,2e7,3,0.1\n", "line 2 has a gap but no post_format"),
        (f"{HEAD}\n1e6,2e7,\n", "line 2 has no loss"),
        (f'{HEAD}\n"1e6,2e7,3\n', "CSV"),
        (f"{HEAD},loss\n1,2,3,4\n", "twice"),
        (f"{HEAD},\n1,2,3,4\n", "a column has no name"),
        ("params;tokens;loss\n1;2;3\n", "';'"),
        (f"{HEAD}\n", "no rows"),
        ("", "is empty"),
        (",".join(f"c{k}" for k in range(1_000_000)) + "\n", "more than 10,000 columns"),
        (f"{HEAD}\n" + "1,2,3," * 3_000_000, "longer than 16,000,000 characters"),
        (f"{HEAD}\n1,2,{'3' * 1_000_001}\n", "field larger than field limit"),
    ],
    ids=lambda value: value[:24].replace("\n", " "),
)
def test_a_table_that_cannot_be_used_says_where_and_why(tmp_path, text, words):
    with pytest.raises(DataError, match=re.escape(words)):
        import_runs(put(tmp_path, text))


def test_of_rows_that_are_the_same_in_every_cell_one_is_kept(tmp_path):
    text = f"id,{HEAD}\na,1e6,2e7,3\nb,1e6,2e7,3\na,1e6,2e7,3\nc,1e6,2e7,3\nc,1e6,2e7,4\nc,1e6,2e7,3\n"
    came = import_runs(put(tmp_path, text), keep_good=True)
    assert came.runs.frame["id"].to_list() == ["a", "b"]
    assert [p.place for p in came.problems] == ["line 4", "line 5", "line 6", "line 7"]
    assert "is there twice" in came.problems[0].reason and "two rows have" in came.problems[1].reason
    bad = f"id,{HEAD},seed\na,1e6,2e7,3,x\na,1e6,2e7,3,\n"  # of a bad row and a good one the good one is kept
    assert import_runs(put(tmp_path, bad), keep_good=True).runs.frame["id"].to_list() == ["a"]


@pytest.mark.parametrize(
    ("column", "cells", "ours"),
    [
        ("act_dtype", ("bfloat16", "int8"), "a_format=act_dtype in dtype"),
        ("kv_cache_dtype", ("auto", "float8_e4m3fn"), "kv_format"),
        ("activation_bits", ("16", "8"), "a_format=activation_bits in int"),
        ("emb_precision", ("16", "8"), "emb_format=emb_precision in int"),
        ("grad_bits", ("16", "8"), "grad_format=grad_bits in int"),
        ("scheme", ("W8A8", "W4A16"), "for each part"),
        ("act_quant", ("W8A8", "none"), "act_quant"),
    ],
)
def test_no_column_that_names_formats_is_lost(tmp_path, column, cells, ours):
    """Beside another that does: one of the weights."""
    rows = "".join(f"1e6,2e7,3,{w},{cell}\n" for w, cell in zip(("bfloat16", "int8"), cells, strict=True))
    path = put(tmp_path, f"{HEAD},weight_dtype,{column}\n{rows}")
    with pytest.raises(ConfigError, match=re.escape(column)) as asked:
        import_runs(path, accept_guesses=True)
    assert ours in str(asked.value)
    came = import_runs(path, accept_guesses=True, ignore=[column])
    assert came.runs.frame["w_format"].to_list() == ["bf16", "int8"]
    assert f"not used: {column}" in str(came)


@pytest.mark.parametrize(
    ("cells", "rule"),
    [
        (("16", "4"), "fmt in int"),
        (("bf16", "int4"), "fmt"),
        (("F16", "Q4_0"), "fmt in gguf"),
        (("half", "q4"), {"column": "fmt", "values": {"half": "bf16", "q4": "int4"}}),
    ],
)
def test_sixteen_bits_after_training_are_no_quantisation(tmp_path, cells, rule):
    """Nor is what such a row says of a gap one."""
    lines = [f"a,,1e6,2e7,3,3,{cells[0]}", f"b,a,1e6,2e7,3.1,3,{cells[1]}"]
    path = put(tmp_path, "\n".join([f"id,parent,{HEAD},before,fmt", *lines]) + "\n")
    came = import_runs(path, {"post_format": rule, "gap": "loss minus before"}, accept_guesses=True)
    assert came.runs.frame["post_format"].to_list() == [None, "int4"]
    assert came.runs.frame["gap"].to_list() == [None, pytest.approx(0.1)]


def test_the_loss_of_a_gap_is_the_one_after(tmp_path):
    path = put(tmp_path, "params,tokens,fmt,val_loss_int4,val_loss\n1e6,2e7,int4,3.2,3.0\n")
    came = import_runs(
        path, {"gap": "val_loss_int4 minus val_loss", "post_format": "fmt"}, accept_guesses=True
    )
    assert came.runs.frame.select("loss", "gap").row(0) == (3.2, pytest.approx(0.2))
    with pytest.raises(DataError, match="guesses: loss=val_loss_int4"):
        import_runs(path, {"gap": "val_loss_int4 minus val_loss", "post_format": "fmt"})


def test_a_table_of_bad_lines_alone_is_refused_in_words(tmp_path):
    path = put(tmp_path, "params,tokens,fmt,after,before\n1,2\n")
    with pytest.raises(DataError, match="line 2"):
        import_runs(path, {"gap": "after minus before", "post_format": "fmt"}, accept_guesses=True)


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("embedding_type", ("learned", "rotary")),
        ("act_type", ("gelu", "swiglu2")),
        ("arm", ("a1", "a2")),
        ("cache_format", ("paged", "plain")),
    ],
)
def test_columns_that_only_sound_like_formats_are_no_matter(tmp_path, column, cells):
    path = put(tmp_path, f"{HEAD},{column}\n1e6,2e7,3,{cells[0]}\n1e6,3e7,3,{cells[1]}\n")
    assert len(import_runs(path, accept_guesses=True).runs) == 2


def test_a_second_column_of_formats_can_only_be_ignored(tmp_path):
    path = put(tmp_path, f"{HEAD},w_format,post_format,dtype\n1e6,2e7,3,int8,int4,float8_e5m2\n")
    with pytest.raises(ConfigError, match="--ignore 'dtype'") as asked:
        import_runs(path, accept_guesses=True)
    assert "post_format =" not in str(asked.value)


def test_losses_before_and_after_quantisation_are_asked_about(tmp_path):
    path = put(tmp_path, "params,tokens,val_loss,wbits,ppl_after\n1e6,2e7,3,4,22\n")
    columns = {"post_format": "wbits in int"}
    with pytest.raises(ConfigError, match='--map "loss=ppl_after in ppl"'):
        import_runs(path, columns, accept_guesses=True)
    came = import_runs(path, columns | {"loss": "ppl_after in ppl"}, accept_guesses=True)
    assert came.runs.frame["loss"][0] == pytest.approx(math.log(22))
    with pytest.raises(ConfigError, match="cannot be in 'ppl'"):
        import_runs(path, columns | {"gap": "ppl_after in ppl"}, accept_guesses=True)


def test_a_gap_is_the_difference_of_two_columns(tmp_path):
    path = put(
        tmp_path, "params,tokens,fmt,before,after\n1e6,2e7,int4,20,22\n1e6,3e7,int4,18,x\n1e6,4e7,int3,,19\n"
    )
    said = {"gap": "after minus before in ppl", "loss": "after in ppl", "post_format": "fmt"}
    came = import_runs(path, said, keep_good=True)
    assert came.runs.frame["gap"].to_list() == [pytest.approx(math.log(1.1)), None]
    assert [p.place for p in came.problems] == ["line 3", "line 3"]
    swapped = import_runs(
        path, {"gap": "before minus after", "loss": "after in ppl", "post_format": "fmt"}, keep_good=True
    )
    assert "of after" in swapped.problems[0].reason or "of after" in swapped.problems[1].reason
    assert came.proposal.unused == () and "after minus before" in came.proposal.table()[0]["theirs"]
    (tmp_path / "m.toml").write_text(as_toml(came.proposal.rules))
    again = import_runs(path, [str(tmp_path / "m.toml")], keep_good=True)
    assert again.runs.frame.equals(came.runs.frame)
    bits = import_runs(path, said | {"gap": "after minus before in bits"}, keep_good=True)
    assert bits.runs.frame["gap"][0] == pytest.approx(2 * math.log(2))
    for wrong, words in [
        ({"loss": "after minus before"}, "only a gap"),
        ({"gap": "after minus befor"}, "'befor'"),
        ({"gap": {"column": "after", "minus": "before", "values": {"22": "1"}}}, "listed values"),
        ({"gap": {"column": "after", "minus": 3}}, "cannot read what gap is"),
    ]:
        with pytest.raises(ConfigError, match=words):
            import_runs(path, wrong, accept_guesses=True)


def test_losses_that_may_be_perplexities_are_remarked_on(tmp_path):
    came = import_runs(
        put(tmp_path, "params,tokens,val_loss\n1e6,2e7,12.4\n1e6,3e7,11\n"), accept_guesses=True
    )
    assert any("perplexity" in remark for remark in came.proposal.remarks)
    assert "perplexity" in str(came)


def test_other_encodings_and_separators_are_told_apart(tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes(f"id,{HEAD}\na,1,2,3\né,1,2,3\n".encode("latin-1"))
    with pytest.raises(DataError, match="line 3 is no UTF-8; save it as `CSV UTF-8`"):
        import_runs(path)
    assert len(import_runs(put(tmp_path, "params;tokens;loss\n1;2;3\n"), separator=";").runs) == 1
    assert len(import_runs(put(tmp_path, "params\ttokens\tloss\n1\t2\t3\n", "x.tsv")).runs) == 1


CELLS = st.one_of(
    st.sampled_from([cell for cell, _ in ADVERSARIAL]),
    st.sampled_from(
        ["", " ", "\x1c", "1", "1.", ".5", "+5", " 7\t", "1E5", "1e-400", "9007199254740993", "1e22", "int4"]
    ),
    st.floats(allow_nan=True).map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.text(st.characters(codec="utf-8"), max_size=8),
)
NAMES = ["params", "tokens", "loss", "seed", "w_format", "status", "corpus", "gap_se"]


def alone(name, cell):
    """A cell as a single look sees it: its value, and whether it is bad."""
    try:
        return parse_cell(COLUMN[name], cell), False
    except ValueError:
        return None, True


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(*[CELLS] * len(NAMES)), min_size=1, max_size=12))
def test_every_cell_is_in_the_output_or_in_the_report(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("import") / "runs.csv"
    lines, line = [], 1
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["id", *NAMES])
        for k, row in enumerate(rows):
            writer.writerow([f"r{k}", *row])
            line += 1 + sum(len(re.findall("\r\n|\r|\n", cell)) for cell in row)
            lines.append(f"line {line}")
    try:
        came = import_runs(path, {"w_format": "w_format"}, keep_good=True)
        problems, out = came.problems, {r["id"]: r for r in came.runs.frame.iter_rows(named=True)}
    except DataError as error:
        problems, out = error.problems, {}
    found = {(p.place, p.column) for p in problems}
    for k, row in enumerate(rows):
        looks = {name: alone(name, cell) for name, cell in zip(NAMES, row, strict=True)}
        bad = {name for name, (_, wrong) in looks.items() if wrong}
        assert {column for place, column in found if place == lines[k] and column} == bad
        if f"r{k}" in out:
            assert not bad and all(out[f"r{k}"][name] == value for name, (value, _) in looks.items())
        else:
            assert bad or (lines[k], "") in found


@settings(max_examples=150, deadline=None)
@given(st.lists(CELLS, max_size=30), st.sampled_from([*NAMES, "params_mlp", "w_granularity", "gap"]))
def test_bulk_takes_what_a_single_look_takes(cells, name):
    values, flaws = check_column(COLUMN[name], pl.Series(cells, dtype=pl.String))
    looks = [alone(name, cell) for cell in cells]
    assert values.to_list() == [value for value, _ in looks]
    assert [flaw.row for flaw in flaws] == [k for k, (_, bad) in enumerate(looks) if bad]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(), st.integers(-(2**53), 2**53).map(float)), max_size=20),
    st.sampled_from(["params", "seed", "gap", "corpus", "w_sparsity"]),
)
def test_bulk_takes_numbers_like_a_single_look(cells, name):
    values, flaws = check_column(COLUMN[name], pl.Series(cells, dtype=pl.Float64))
    looks = [alone(name, cell) for cell in cells]
    assert values.to_list() == [value for value, _ in looks]
    assert [flaw.row for flaw in flaws] == [k for k, (_, bad) in enumerate(looks) if bad]


def test_a_column_of_anything_but_formats_is_refused_in_time():
    frame = pl.DataFrame({"w_format": [f"e{k}" for k in range(5000)]})
    flaws = [f for f in check(frame)[1] if f.column == "w_format"]
    assert len(flaws) == 5000 and "more than 1,000 different" in flaws[-1].reason


@pytest.mark.parametrize("columns", ["status,params,tokens,loss", "params,tokens,loss,status"])
def test_a_loss_that_is_lost_overrules_a_status(tmp_path, columns):
    values = {"params": "1e6", "tokens": "2e7"}
    lines = [
        ",".join({**values, "loss": loss, "status": "ok"}[name] for name in columns.split(","))
        for loss in ("nan", "3")
    ]
    came = import_runs(put(tmp_path, "\n".join([columns, *lines])), diverged=True)
    assert came.runs.frame["status"].to_list() == ["diverged", "ok"] and came.diverged == 1


def test_a_diverged_run_is_one_only_when_that_is_said(tmp_path):
    path = put(tmp_path, f"{HEAD}\n1e6,2e7,nan\n1e6,2e7,3\n1e6,2e7,n/a\n")
    with pytest.raises(DataError, match="line 2, column loss: nan is not finite"):
        import_runs(path)
    came = import_runs(path, diverged=True, keep_good=True)
    assert came.runs.frame["status"].to_list() == ["diverged", None] and came.diverged == 1
    assert [p.place for p in came.problems] == ["line 4"]


# ---- frames


def test_frames_of_pandas_polars_and_arrow_give_the_same():
    table = {"N": [1e6, 2e6], "tokens": [2e7, 2e7], "loss": [3.1, 2.9], "id": ["a", "b"]}
    pandas = pd.DataFrame({**table, "w_format": ["int4", None], "seed": [1, None]})
    polars = pl.DataFrame({**table, "w_format": ["int4", None], "seed": [1, None]})
    frames = [pandas, polars, pa.table(polars.to_dict(as_series=False))]
    came = [import_runs(frame, {"params": "N"}).runs.frame for frame in frames]
    assert all(frame.equals(came[0]) for frame in came)
    assert came[0]["w_format"].to_list() == ["int4", None] and came[0]["seed"].to_list() == [1, None]


def test_what_pandas_hides_in_a_column_of_objects_is_seen():
    frame = pd.DataFrame({"params": [1e6, "2e6", True], "tokens": 2e7, "loss": [3.0, 2.9, float("nan")]})
    came = import_runs(frame, keep_good=True)
    assert came.runs.frame["params"].to_list() == [1e6, 2e6]
    assert [(p.place, p.column) for p in came.problems] == [("row 3", "params")]
    with pytest.raises(DataError, match="row 1 has no loss"):
        import_runs(pd.DataFrame({"params": [1e6], "tokens": 2e7, "loss": [float("nan")]}))


def test_columns_of_dates_lists_and_records_are_text_and_never_a_traceback():
    day = datetime.date(2026, 1, 2)
    frame = pl.DataFrame({"params": [1e6], "tokens": [2e7], "loss": [3.0], "started": [day], "id": [[1, 2]]})
    frame = frame.with_columns(pl.struct(pl.lit(4).alias("seed")).alias("config"))
    came = import_runs(frame, {"seed": "config.seed"})
    assert came.runs.frame["started"][0] == "2026-01-02" and came.runs.frame["id"][0] == "[1, 2]"
    assert came.runs.frame["seed"][0] == 4
    odd = frame.with_columns(loss=pl.Series([day]), tokens=pl.Series([object()], dtype=pl.Object))
    with pytest.raises(
        DataError, match="row 1, column tokens: .*row 1, column loss: '2026-01-02' is not a number"
    ):
        import_runs(odd, {"seed": "config.seed"})


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path):
    path = put(tmp_path, f"{HEAD},\x1b[31mred,N\x07umParams\n1e6,2e7,\x1b[2J,1,2\n")
    refused = run(path)
    said = refused.stderr + str(refused.exception)
    assert "\\x1b[2J" in said and "\x1b[31m" not in said and "\x07" not in said


def test_a_file_is_not_written_over_itself(tmp_path):
    path = put(tmp_path, f"{HEAD}\n1e6,2e7,3\n")
    assert "name another file" in str(run(path, "-o", path).exception)


def test_several_sources_become_one_table(tmp_path):
    a = put(tmp_path, f"{HEAD}\n1e6,2e7,3\n", "a.csv")
    b = put(tmp_path, f"{HEAD},seed\n2e6,2e7,x,1\n3e6,2e7,2,2\n", "b.csv")
    came = import_runs([a, b], keep_good=True)
    assert came.runs.frame["seed"].to_list() == [None, 2]
    assert str(came.problems[0]).startswith(f"{b}, line 2, column loss")
    with pytest.raises(DataError, match="name a source"):
        import_runs([])


# ---- the command line


def test_guesses_are_shown_and_refused_until_confirmed(tmp_path):
    path, out = put(tmp_path, MESSY), tmp_path / "runs.parquet"
    words = [path, "-o", out, "--map", "w_format=bits in int", "--keep-good"]
    refused = run(*words)
    assert "--map 'params=size (B) in B'" in str(refused.exception) and not out.exists()
    for text in ("size (B)", "quantity", "Not used: State, note"):
        assert text in refused.stderr
    done = run(*words, "--yes", "--problems", tmp_path / "p.csv", "--save-map", tmp_path / "m.toml")
    assert done.exit_code == 0, done.exception
    assert "Wrote 2 rows" in done.stdout and "2 were left out" in done.stdout and "bitlaw fit" in done.stdout
    assert read_runs(out).frame["w_format"].to_list() == ["int4", "int8"]
    problems = pl.read_csv(tmp_path / "p.csv")
    assert problems["place"].to_list() == ["line 4", "line 4", "line 5"]
    again = run(path, "-o", out, "--map", tmp_path / "m.toml", "--keep-good", "--json")
    assert again.exit_code == 0 and '"left_out": 2' in again.stdout


def test_strict_refuses_the_whole_and_lists_all(tmp_path):
    path, out = put(tmp_path, f"{HEAD}\n1e6,2e7,3\n=1+1,2e7,3\n"), tmp_path / "o.csv"
    refused = run(path, "-o", out, "--problems", tmp_path / "p.csv")
    assert isinstance(refused.exception, DataError) and refused.exception.exit_code == 3
    assert not out.exists()
    assert pl.read_csv(tmp_path / "p.csv").row(0)[:3] == ("line 3", "params", "'=1+1")


@pytest.mark.slow
def test_a_person_at_a_terminal_is_asked(tmp_path):
    path = put(tmp_path, "N,tokens,loss\n1e6,2e7,3\n")
    for answer, code in (("y", 0), ("n", 2)):
        master, slave = pty.openpty()
        os.write(master, f"{answer}\n".encode())
        command = [
            sys.executable,
            "-m",
            "bitlaw",
            "runs",
            "import",
            str(path),
            "-o",
            str(tmp_path / f"{answer}.csv"),
        ]
        done = subprocess.run(command, stdin=slave, capture_output=True, text=True)
        os.close(master)
        os.close(slave)
        assert done.returncode == code, done.stderr
        assert "Are the guesses right?" in done.stderr
        assert (tmp_path / f"{answer}.csv").exists() == (code == 0)


def test_a_store_takes_what_is_new(tmp_path):
    path, store = (
        put(tmp_path, f"id,{HEAD},status\na,1e6,2e7,3,\nb,1e6,2e7,,failed\n"),
        tmp_path / "runs.sqlite",
    )
    assert "Wrote 2 rows" in run(path, "-o", store).stdout
    put(tmp_path, f"id,{HEAD}\na,1e6,2e7,9\nc,1e6,2e7,4\n")
    said = run(path, "-o", store).stdout
    assert "Wrote 1 rows" in said and "1 rows were there already" in said
    assert Store(store).runs().frame["loss"].to_list() == [3.0, None, 4.0]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("absent.csv", "no file or folder"),
        ("neptune:x", "no reader is called 'neptune'"),
        ("wandb:", "write what to read after it"),
        ("https://wandb.ai/me/x", "write a word before it"),
        ("x.docx", "cannot tell what"),
        ("folder", "cannot tell what is in"),
    ],
)
def test_a_source_that_nobody_knows_says_what_there_is(tmp_path, monkeypatch, source, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.docx").write_text("x")
    (tmp_path / "folder").mkdir()
    assert words in str(run(source).exception)
    assert words in str(run(source).exception) and run(source).exception.exit_code in (2, 3)


def test_help_has_an_example_of_each_source():
    said = run("--help").output
    for word in (
        "wandb",
        "mlflow",
        "tensorboard:",
        "trackio:",
        "trainer_state.json",
        "lm-eval",
        "llama.cpp",
        "--map",
    ):
        assert word in said


# ---- what a review found


@pytest.mark.parametrize("cell", ["16", " 4", 16, 8.0])
def test_bits_without_a_format_are_refused_wherever_rows_come_in(cell, tmp_path):
    row = {"params": 1e6, "tokens": 2e7, "loss": 3.0, "w_format": cell}
    with pytest.raises(DataError, match="says how many bits, not of which format"):
        Runs.from_rows([row])
    with pytest.raises(DataError, match="says how many bits, not of which format"):
        read_runs(put(tmp_path, f"{HEAD},w_format\n1e6,2e7,3,{int(float(cell))}\n"))
    with pytest.raises(ConfigError, match="says how many bits"):
        parse_where(f"w_format={int(float(cell))}")


def test_rows_in_python_are_checked_like_rows_in_files():
    row = {"params": 1e6, "tokens": 2e7, "loss": 3.0}
    came = Runs.from_rows(
        [{**row, "w_format": "INT4", "steps": np.int64(5), "trunk": " "}, {**row, "loss": np.float32(2)}]
    )
    assert (
        came.frame["w_format"][0] == "int4" and came.frame["steps"][0] == 5 and came.frame["trunk"][0] is None
    )
    for column, value, words in (
        ("steps", 10.5, "not a whole number"),
        ("flops", 10**400, "not finite"),
        ("id", "\ud800", "half a character"),
        ("id", "evil\rgood", "would move a cursor"),
        ("method", b"\x00\xff", "neither text nor a number"),
        ("loss", 1.5e300, "out of range"),
    ):
        with pytest.raises(DataError, match=words):
            Runs.from_rows([{**row, column: value}])


def test_nan_is_no_format():
    for frame in (
        pl.DataFrame(
            {"params": [1e6] * 2, "tokens": [2e7] * 2, "loss": [3.0, 2.9], "w_format": [math.nan] * 2}
        ),
        pl.DataFrame({"params": [1e6] * 2, "tokens": [2e7] * 2, "loss": [3.0, 2.9], "bits": [4.0, math.nan]}),
    ):
        mapping = {} if "w_format" in frame.columns else {"w_format": "bits in int"}
        with pytest.raises((ConfigError, DataError), match="(?i)nan"):
            import_runs(frame, mapping)


def test_what_is_read_is_not_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = put(tmp_path, f"{HEAD},note\n1e6,2e7,3,x\n")
    before = path.read_bytes()
    (tmp_path / "link.csv").symlink_to(path)
    for words in (
        ("runs.csv", "-o", tmp_path / "runs.csv"),
        ("./runs.csv", "-o", "link.csv"),
        ("runs.csv", "-o", "x.csv", "--problems", "./runs.csv"),
        ("runs.csv", "-o", "x.csv", "--save-map", "../" + tmp_path.name + "/runs.csv"),
    ):
        assert "is what is read" in str(run(*words).exception)
    convert = ["runs", "convert", "runs.csv", "./runs.csv", "--spreadsheet"]
    assert "is what is read" in str(CliRunner().invoke(app, convert).exception)
    assert path.read_bytes() == before


def test_a_saved_map_keeps_what_shall_stay_empty(tmp_path):
    path = put(tmp_path, f"{HEAD},lr\n1e6,2e7,3,0.001\n")
    said = run(
        path, "-o", tmp_path / "a.csv", "--map", "learning_rate=", "--save-map", tmp_path / "m.toml", "--yes"
    )
    assert said.exit_code == 0 and 'learning_rate = ""' in (tmp_path / "m.toml").read_text()
    assert run(path, "-o", tmp_path / "b.csv", "--map", tmp_path / "m.toml", "--yes").exit_code == 0
    assert read_runs(tmp_path / "b.csv").frame["learning_rate"][0] is None


def test_what_else_was_measured_of_a_diverged_run_is_lost_with_it(tmp_path):
    path = put(tmp_path, f"{HEAD},loss_se,bpb\n1e6,2e7,nan,nan,inf\n1e6,2e7,3,0.1,4\n")
    came = import_runs(path, diverged=True)
    assert came.diverged == 1 and came.runs.frame["bpb"].to_list() == [None, 4.0]
    with pytest.raises(DataError, match="not finite"):  # of a run that has a loss it is a bad cell
        import_runs(put(tmp_path, f"{HEAD},bpb\n1e6,2e7,3,nan\n"), diverged=True)


def test_decimal_commas_take_no_time_and_are_remarked_on_where_there_are_none(tmp_path):
    path = put(tmp_path, f'{HEAD},note\n1e6,2e7,"3,1",1{" " * 200_000},x\n'.replace(",x", ";x"))
    assert import_runs(path, decimal_comma=True).runs.frame["loss"][0] == 3.1
    came = import_runs(put(tmp_path, f"{HEAD}\n1e6,2e7,3.125\n1e6,3e7,3.250\n"), decimal_comma=True)
    assert came.runs.frame["loss"].to_list() == [3125.0, 3250.0]
    assert any("3.125 is read as 3125" in note for note in came.notes)


def test_odd_tables_end_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, f"{HEAD}\n1e6,2e7,3\n", "~nobody-of-that-name.csv")
    assert run("~nobody-of-that-name.csv", "-o", "out.csv").exit_code == 0
    twice = pl.DataFrame(
        {"config": [{"a": 1}], "config.a": [2], "params": [1e6], "tokens": [2e7], "loss": [3.0]}
    )
    with pytest.raises(DataError, match=r"two columns are called 'config\.a'"):
        import_runs(twice)
    put(tmp_path, f"\n  \nsep=;\n{HEAD.replace(',', ';')}\n1e6;2e7;3\n1e6;2e7;bad\n", "excel.csv")
    with pytest.raises(DataError, match="line 6, column loss"):
        import_runs("excel.csv")
    name = os.fsdecode(b"caf\xe9.csv")
    words = [
        sys.executable,
        "-m",
        "bitlaw",
        "runs",
        "import",
        "excel.csv",
        "--keep-good",
        "-o",
        name,
        "--problems",
        name + "x",
    ]
    done = subprocess.run(words, capture_output=True)
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        0,
        b"Wrote 1 rows to caf\\udce9.csv; 1 were left out",
    ), done
    assert len(read_runs(name)) == 1
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(DataError, match="lists within lists"):
        column_of([deep])


def test_a_password_in_a_source_is_not_repeated(monkeypatch):
    raw = from_records(
        [("run", {"n_params": 1e6, "train_tokens": 2e7, "eval/loss": 3.0})], "MLflow", "MLflow"
    )
    monkeypatch.setattr("bitlaw.runs.read_raw", lambda *a, **k: raw)
    said = str(run("mlflow:http://me:s3cret@host:5000").exception)
    assert "mlflow:http://host:5000" in said and "s3cret" not in said
