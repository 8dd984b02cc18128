"""A stranger's way from an export to a report: what is met on it says what to do."""

from __future__ import annotations

import re
import signal

import polars as pl
import pytest
from typer.testing import CliRunner

import bitlaw as bl
from bitlaw import ConfigError, DataError, Runs, import_runs
from bitlaw.cli import runs
from bitlaw.cli.main import app
from bitlaw.planning.answer import quantity
from bitlaw.report.view import View
from bitlaw.runs import guess, read_runs


def rows(sizes=(1e7, 3e7, 9e7, 3e8), tokens=(2e8, 1e9, 5e9)):
    wobble = (1.001, 0.999, 1.0005, 1.0, 0.9985)
    cells = [(n, d) for n in sizes for d in tokens]
    return [
        {"params": n, "tokens": d, "loss": (1.8 + 480 * n**-0.35 + 2100 * d**-0.37) * wobble[k % 5]}
        for k, (n, d) in enumerate(cells)
    ]


@pytest.fixture(scope="module")
def fitted():
    return bl.fit("chinchilla", Runs.from_rows(rows()), hold_out=bl.largest(), draws=60)


def put(folder, text, name="runs.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def said(*arguments):
    return str(CliRunner().invoke(app, [str(word) for word in arguments]).exception)


# ---- in


GERMAN = (
    "Kennung;Datum;Größe (Mio.);Token;Verlust;;\r\n"
    "L1;02.11.2025;12,4;500.000.000;4,8314;;\r\n"
    ";;;;;;\r\n"
    "L2;03.11.2025;1.200,5;2,1 B;4;;\r\n"
)
COLUMNS = {"id": "Kennung", "params": "Größe (Mio.) in M", "tokens": "Token in quantity", "loss": "Verlust"}


def test_semicolons_decimal_commas_and_empty_columns_come_in(tmp_path):
    came = import_runs(put(tmp_path, GERMAN), COLUMNS, separator=";", decimal_comma=True)
    found = came.runs.frame.select("id", "params", "tokens", "loss").rows()
    assert found == [("L1", 12.4e6, 5e8, 4.8314), ("L2", 1200.5e6, 2.1e9, 4.0)]


def test_decimal_commas_and_separators_are_refused_with_the_flag_that_reads_them(tmp_path):
    path = put(tmp_path, GERMAN)
    with pytest.raises(DataError, match="--decimal-comma"):
        import_runs(path, COLUMNS, separator=";")
    with pytest.raises(DataError, match="--separator ';'"):
        read_runs(path)
    with pytest.raises(ConfigError, match="one character"):
        import_runs(path, COLUMNS, separator=";;")
    with pytest.raises(DataError, match="a column has no name"):
        import_runs(put(tmp_path, "params,tokens,loss,\n1e6,2e7,3,\n1e6,2e7,3,x\n"))


def test_problems_that_are_alike_are_told_once(tmp_path):
    lines = [f"1e6,2e7,{word}" for word in ("a", "b", "c", "d", "e")] + ["1e6,2e7,-1", "1e6,2e7,3"]
    path = put(tmp_path, "params,tokens,loss\n" + "\n".join(lines) + "\n")
    with pytest.raises(DataError) as error:
        read_runs(path)
    text = str(error.value)
    assert "line 2, column loss: 'a' is not a number" in text and "and 4 more like it" in text
    assert "'b'" not in text and "line 7, column loss: -1 is out of range" in text


EXPORT = (
    '"Name","State","model.n_params_m","train.total_tokens","eval.total_tokens","precision.weight_bits",'
    '"ptq.bits","eval/loss"\n'
    '"a","finished","31.5","1000000000","7","16","","4.1"\n'
    '"b","running","31.5","2000000000","7","4","","3.9"\n'
    '"c","crashed","31.5","4000000000","7","4","",""\n'
    '"a-q","finished","31.5","1000000000","7","16","3","4.3"\n'
)
BITS = ["--map", "w_format=precision.weight_bits in int", "--map", "post_format=ptq.bits in int"]


def test_nested_columns_of_bits_are_all_asked_about_and_never_lost(tmp_path):
    words = said("runs", "import", put(tmp_path, EXPORT), "-y")
    assert "w_format=precision.weight_bits in int" in words and "post_format=ptq.bits in int" in words


def test_runs_that_have_not_finished_are_told_and_can_be_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, EXPORT)
    out = CliRunner().invoke(app, ["runs", "import", "runs.csv", *BITS, "--set", "count=total"])
    shown = " ".join(out.stderr.split())
    assert "2 of 4 runs are not finished (1 crashed, 1 running)" in shown and "trunk=COLUMN" in shown
    assert "tokens=train.total_tokens" in str(out.exception)
    for word in ("'w_format=precision.weight_bits in int'", "--set count=total"):  # what was said is kept
        assert word in str(out.exception)
    more = ["-y", "--map", "status=State in state", "--keep-good", "-o", "in.csv"]
    assert CliRunner().invoke(app, ["runs", "import", "runs.csv", *BITS, *more]).exit_code == 0
    frame = read_runs("in.csv").frame
    assert frame["status"].to_list() == ["ok", "failed", "ok"] and frame["loss"].to_list() == [4.1, None, 4.3]
    with pytest.raises(ConfigError, match="cannot be in 'state'"):
        import_runs("runs.csv", {"loss": "State in state"})


def test_what_is_missing_is_said_before_guesses_are_asked_about(tmp_path):
    path = put(tmp_path, "n_params,eval/loss\n1e6,3\n")
    assert "gives tokens" in said("runs", "import", path)


def test_tokens_of_evaluation_are_no_training_tokens():
    assert guess.rank("eval.total_tokens", "tokens") is None
    assert guess.rank("tokens", "tokens") < guess.rank("trainer.total_tokens", "tokens")


def test_the_question_about_guesses_can_be_interrupted(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(signal, "siginterrupt", lambda *call: calls.append(call))
    monkeypatch.setattr(runs.typer, "confirm", lambda *a, **k: calls.append("asked") or False)
    raw = bl.runs.read_raw(put(tmp_path, "n_params,tokens,loss\n1e6,2e7,3\n"))
    proposal = bl.runs.propose(raw, bl.runs.read_mapping())
    with pytest.raises(ConfigError, match="nothing was imported"):
        runs._confirm(proposal, ["runs.csv"], [("-o", "x.csv")])
    assert calls == [(signal.SIGINT, True), "asked"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("runs.xlsx", "PK", "save it from its program as `CSV UTF-8`"),
        ("runs.csv", "PK\x03\x04,b\n", "spreadsheet or an archive"),
        ("fit.json", "{}", "bitlaw plan --fit"),
        ("runs.csv", "Name,params,tokens,loss\na,1,2,3\n", "takes columns of any names"),
    ],
)
def test_wrong_files_say_where_they_belong(tmp_path, name, text, words):
    with pytest.raises(DataError, match=re.escape(words)) as error:
        read_runs(put(tmp_path, text, name))
    assert len(str(error.value)) < 500


# ---- fit, compare, plan


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (pl.col("loss") * 100, "perplexities, or per cent"),
        (pl.col("params") / 1e6, "params are at most 300"),
        (pl.col("tokens") / 1e9, "tokens are at most 5"),
        (pl.col("tokens") / 1e5, "columns params and tokens swapped"),
        (pl.col("loss"), ""),
    ],
)
def test_units_that_cannot_be_meant_are_told(change, words):
    table = Runs(Runs.from_rows(rows()).frame.with_columns(change))
    notes = " ".join(bl.fit("chinchilla", table, draws=0).notes)
    assert words in notes if words else not re.search("per cent|at most|swapped", notes)


def test_gaps_that_nobody_measured_are_told():
    table = rows() + [row | {"post_format": "int4", "loss": row["loss"] + 0.1} for row in rows()]
    with pytest.raises(
        bl.FitError, match=r"12 rows quantised after training have none \(column gap"
    ) as error:
        bl.compare(Runs.from_rows(table), what="gap")
    assert len(str(error.value)) < 500


def test_budgets_of_isoflop_are_read(tmp_path):
    Runs.from_rows(rows()).frame.select("params", "tokens", "loss").write_csv(tmp_path / "runs.csv")
    assert "has 0 sizes within" in said("isoflop", tmp_path / "runs.csv", "--budget", "1e10")


def test_a_saved_fit_suggests_a_budget_of_its_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Runs.from_rows(rows()).frame.select("params", "tokens", "loss").write_csv("runs.csv")
    ask = ["fit", "runs.csv", "--law", "chinchilla", "--no-hold-out", "--save", "a fit.json"]
    assert (
        CliRunner()
        .invoke(app, ask)
        .stdout.endswith(
            "bitlaw plan --fit 'a fit.json' --budget 9e+19\n"  # 10 x 6 x 3e8 x 5e9
        )
    )


def test_other_laws_are_not_asked_of_two_sizes_and_the_plan_is_made_all_the_same():
    table = Runs.from_rows(rows(sizes=(1e7, 1e8), tokens=(2e8, 5e8, 1e9, 2e9, 5e9)))
    found = bl.plan(bl.fit("chinchilla", table, draws=40), budget=1e20, runs=table)
    assert [o.law for o in found.others] == [f"chinchilla, {o}" for o in ("lad", "log-squares", "squares")]
    assert "cannot hold out 1 of 2 sizes" in found.notes[-1]


@pytest.mark.slow
def test_rows_of_another_fit_are_told_and_no_held_out_row_is_looked_for_in_them(fitted, tmp_path):
    other = Runs.from_rows(rows()[:5])
    assert fitted.held_out.index and View.of(other, fitted).held == {}
    assert len(View.of(Runs.from_rows(rows()), fitted).held) == len(fitted.held_out.index)
    bl.write_report(tmp_path / "report.md", other, fitted)
    assert "not the rows that the fit was made from" in (tmp_path / "report.md").read_text()
    found = bl.plan(fitted, budget=1e20, runs=Runs.from_rows(rows()[:6]))
    assert any("not the rows that the fit was made from" in note for note in found.notes)


def test_no_limit_is_no_number():
    assert quantity("tokens", 5.99e20) == quantity("tokens_per_param", 1e19) == "without end"
    assert quantity("params", 5e12) == "5T"


# ---- out


def test_folders_that_there_are_not_are_named(fitted, tmp_path):
    with pytest.raises(DataError, match="make it first"):
        bl.write_report(tmp_path / "no" / "report.html", None, fitted)
    with pytest.raises(DataError, match="make the folder .*no first"):
        fitted.save(tmp_path / "no" / "fit.json")
    (tmp_path / "file").write_text("")
    fitted.save(tmp_path / "fit.json")
    ask = ["plan", "--fit", tmp_path / "fit.json", "--budget", "1e20", "--toml", tmp_path / "file" / "x.toml"]
    assert "cannot write" in said(*ask)


def test_text_is_as_wide_as_a_narrow_terminal(fitted, monkeypatch):
    assert max(map(len, str(fitted).splitlines())) > 60
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    for text in (str(fitted), str(bl.plan(fitted, budget=1e20))):
        assert max(map(len, text.splitlines())) <= 60 and "…" not in text
