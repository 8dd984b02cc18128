"""Files from strangers: nothing but a sentence or a checked value comes out, and nothing is run.

The fast tests look at hundreds of files, the slow ones at tens of thousands; with the laws of one's own in
`test_own_law.py` the slow ones are more than a hundred thousand.
"""

from __future__ import annotations

import csv
import io
import math
import random
import time
from decimal import Decimal

import pytest
from laws_of_ones_own import HOSTILE
from watch import watched

from bitlaw import BitlawError, ConfigError, DataError, Runs, Scheme, parse_format, read_runs
from bitlaw.runs import COLUMNS
from bitlaw.study import Study, read_study

BOUND = 20.0  # seconds for any one file, on a busy machine
CSV = (
    "id,status,trunk,parent,seed,params,count,tokens,w_format,w_group,post_format,loss,loss_se,gap,gap_se,error,width\n"
    "a,ok,t1,,0,1e6,non_embedding,2e7,int4,128,,3.1,0.01,,,0.7,64\n"
    "b,,t1,a,9007199254740993,2000000,total,20000000.5,,,int3,2.95,1e-3,-0.002,1e-4,,128\n"
    '"c, d",diverged,"t ""2""",,7,1E+6,,4.0e7,bf16,,,,,,,,\n'
    "e,failed,,,1,+3e6,matmul, 5e7 ,int8,32,,,,,,,\n"
)
STUDY = """
name = "small"
[sweep]
sizes = [4_000, 6_000, 9_000]
budgets = [20_000, 30_000, 45_000]
schemes = ["16", "w4", "a8", "w3kv2"]
post_formats = ["int2", "int3", "int4"]
batch_size = 4
seq_len = 64
eval_tokens = 8192
seed = 3
[fit]
law = "kumar"
interval = 0.9
draws = 60
[plan]
budget = "1e10 flops"
quantize_to = ["int3"]
"""
CELLS = (
    *(
        "nan",
        "inf",
        "-inf",
        "1e400",
        "1e-400",
        "-0",
        "0",
        "1_000",
        "0x10",
        "1e5",
        "1,5",
        "1.5",
        "٣",
        "１",
        "½",
    ),
    *(
        "True",
        "None",
        "null",
        "NaN",
        "1e",
        "e1",
        "--1",
        "+1",
        " 1",
        "1 ",
        ".5",
        "5.",
        "1d3",
        "infinity",
        "1j",
        "0b1",
    ),
    *(
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551617",
        "1.0000000000000001",
    ),
    *(
        "int4",
        "int04",
        "int99",
        "int-4",
        "4",
        "bf16",
        "INT4",
        "fp8",
        "w4",
        "=1+1",
        "@SUM(1)",
        "ok",
        "diverged",
    ),
    *(
        ",",
        '"',
        '""',
        '",',
        "\n",
        "\r",
        "\r\n",
        "\x00",
        "\ufeff",
        "\u2028",
        "\x1a",
        "\t",
        ";",
        "'",
        "id",
        "loss",
        "params",
    ),
)
PIECES = tuple(piece.encode("utf-8", "surrogatepass") for piece in (*CELLS, *HOSTILE))
TOML = tuple(
    piece.encode()
    for piece in (
        *(
            "true",
            "nan",
            "inf",
            "-1",
            "1e400",
            "0",
            "9" * 5000,
            "2020-01-01",
            "[",
            "[[",
            "]",
            "{",
            "}",
            '"',
            "'''",
            "=",
            ".",
        ),
        *(
            "[sweep]",
            "[plan]\n",
            "name = 1\n",
            "sizes = []\n",
            "a.b.c = 1\n",
            "#",
            "\\",
            "\\u0000",
            "\n",
            "\r",
            "\x00",
            '"w4"',
        ),
        *(
            '"int3"',
            '"w99"',
            '"16"',
            "0.5",
            "1_0",
            "0x1F",
            "12:00",
            "[[fit]]",
            "[fit.law]",
            "law = {}",
            "{a=1}",
            "a." * 400,
        ),
    )
)


def spoilt(rng: random.Random, raw: bytes, pieces: tuple[bytes, ...]) -> bytes:
    """The bytes with some edits, or bytes of no kind at all."""
    kind = rng.random()
    if kind < 0.03:
        return rng.randbytes(rng.randrange(200))
    if kind < 0.06:
        return b"".join(rng.choice(pieces) for _ in range(rng.randrange(40)))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(raw) + 1)
        end = min(len(raw), at + rng.choice((0, 0, 1, 1, 2, 4, 12, 60)))
        new = rng.choice(
            (b"", raw[at:end] * 2, rng.choice(pieces), rng.choice(pieces), rng.randbytes(rng.randrange(3)))
        )
        raw = raw[:at] + new + raw[end:]
    return raw


def spoilt_cell(rng: random.Random) -> bytes:
    """The good table with one or two cells that hold something odd: these reach the columns' own checks."""
    rows = list(csv.reader(io.StringIO(CSV)))
    for _ in range(rng.choice((1, 1, 2))):
        row = rng.choice(rows[1:] if rng.random() < 0.95 else rows)
        row[rng.randrange(len(row))] = rng.choice(
            (rng.choice(CELLS), repr(rng.uniform(-1, 1) * 10 ** rng.uniform(-9, 20)))
        )
    out = io.StringIO()
    csv.writer(out, lineterminator=rng.choice(("\n", "\r\n"))).writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


KIND = {column.name: column.kind for column in COLUMNS}


def says_what_the_file_says(runs: Runs, raw: bytes) -> None:
    """Read the file again by Python's own reader, and compare every cell that is given."""
    lines = csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
    header = [name.strip() for name in next(lines)]
    rows = [row for row in lines if any(cell.strip() for cell in row)]  # lines of commas alone are empty
    assert len(rows) == len(runs)
    for name in KIND:
        got = runs.frame[name].to_list()
        if name not in header:
            assert name == "id" or got == [None] * len(rows)
            continue
        for row, value in zip(rows, got, strict=True):
            cell = row[header.index(name)].strip()
            if not cell:
                assert value is None or name == "id"
            elif KIND[name] == "number":
                assert math.isfinite(value)
                assert (value, cell.isascii(), "_" in cell) == (float(cell), True, False)
            elif KIND[name] == "integer":
                assert (Decimal(value), "_" in cell) == (Decimal(cell), False)
            else:
                assert value == (parse_format(cell).name if KIND[name] == "format" else cell)


def read_strange_tables(folder, count: int, seed: int) -> int:
    """Read that many files; returns how many were tables."""
    rng, taken = random.Random(seed), 0
    path = folder / "strange.csv"
    path.write_text(CSV)
    read_runs(path)  # so that all modules are imported before the watch begins
    for _ in range(count):
        raw = spoilt_cell(rng) if rng.random() < 0.5 else spoilt(rng, CSV.encode(), PIECES)
        path.write_bytes(raw)
        began = time.perf_counter()
        with watched() as done:
            try:
                runs = read_runs(path)
            except DataError as error:
                runs = str(error)
        assert done == [], raw
        assert time.perf_counter() - began < BOUND, raw
        if isinstance(runs, Runs):
            taken += 1
            says_what_the_file_says(runs, raw)
    return taken


def read_strange_studies(folder, count: int, seed: int) -> int:
    """Read that many files; returns how many were studies."""
    rng, taken = random.Random(seed), 0
    path = folder / "strange.toml"
    path.write_text(STUDY)
    read_study(str(path))
    for _ in range(count):
        path.write_bytes(raw := spoilt(rng, STUDY.encode(), TOML + PIECES))
        began = time.perf_counter()
        with watched() as done:
            try:
                study = read_study(str(path))
            except ConfigError as error:
                study = str(error)
        assert done == [], raw
        assert time.perf_counter() - began < BOUND, raw
        if isinstance(study, Study):
            taken += 1
            assert all(type(n) is int and n > 0 for n in (*study.sweep.sizes, *study.sweep.budgets))
            assert all(Scheme.parse(scheme) for scheme in study.sweep.schemes)
            assert math.isfinite(study.fit.interval)
    return taken


def test_the_watch_sees_what_is_run():
    with watched() as done:
        eval("1")
        open("/dev/null", "w").close()
    assert [act.split()[0] for act in done] == ["exec", "write"]
    with watched() as done:
        compile("1 + 1", "", "eval")
        open("/dev/null").close()
    assert done == []


def test_strange_tables_are_read_right_or_refused(tmp_path):
    assert 5 < read_strange_tables(tmp_path, 300, 0) < 250


def test_strange_studies_are_read_right_or_refused(tmp_path):
    assert 5 < read_strange_studies(tmp_path, 300, 0) < 250


@pytest.mark.slow
def test_forty_thousand_strange_tables(tmp_path):
    assert read_strange_tables(tmp_path, 40_000, 1) > 4000


@pytest.mark.slow
def test_twenty_thousand_strange_studies(tmp_path):
    assert read_strange_studies(tmp_path, 20_000, 1) > 1000


def test_whole_numbers_are_not_rounded(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(CSV)
    assert read_runs(path).frame["seed"].to_list() == [0, 2**53 + 1, 7, 1]
    path.write_text(CSV.replace("9007199254740993", "9223372036854775808"))
    with pytest.raises(BitlawError, match="too large"):
        read_runs(path)
