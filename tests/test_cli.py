"""The command line as strangers use it."""

from __future__ import annotations

import io
import json
import logging
import re
import shlex
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout

import pytest
import typer
from typer.testing import CliRunner

from bitlaw import Store, read_runs, write_runs
from bitlaw.cli.judge import VERBS
from bitlaw.cli.main import app, main

GOOD = "id,params,tokens,loss\n"


def bitlaw(*arguments, cwd="."):
    """The command line in this process, as a start takes seconds: exit code, output and errors."""
    out, err, handlers = io.StringIO(), io.StringIO(), logging.root.handlers[:]
    code = 0
    with pytest.MonkeyPatch.context() as patch, chdir(cwd), redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["bitlaw", *map(str, arguments)])
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        finally:
            logging.root.handlers[:] = handlers
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def test_it_is_a_process_of_its_own():
    """As `python -m bitlaw`, with warnings as errors: what it prints, says and ends with is as in this process."""
    for arguments in (["plan", "--law", "kumar-2024", "--budget", "1e22"], ["fit", "absent.csv"]):
        command = [sys.executable, "-W", "error", "-m", "bitlaw", *arguments]
        done, here = subprocess.run(command, capture_output=True, text=True), bitlaw(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (here.returncode, here.stdout, here.stderr)


def test_help_is_there_at_once():
    """Rooms are read when a verb needs them, so that --help and completion do not wait for libraries."""
    code = "import sys, bitlaw.cli.main; print(*sorted({'polars', 'numpy', 'torch', 'sympy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_plan_needs_no_training():
    out = bitlaw("plan", "--law", "kumar-2024", "--budget", "1e22")
    assert out.returncode == 0, out.stderr
    assert "7.00" in out.stdout
    assert "16.9B" in out.stdout
    assert out.stderr == ""


def test_plans_come_as_json():
    out = bitlaw("plan", "--law", "kumar-2024", "--params", "30M", "--quantize-to", "int3", "--json")
    answers = {a["name"]: a for a in json.loads(out.stdout)["answers"]}
    assert answers["tokens"]["value"] == pytest.approx(5.325e9, rel=1e-3)
    assert answers["tokens"]["low"] is None


def test_anybodys_table_is_fitted_kept_and_planned_with(sweep, tmp_path):
    write_runs(sweep, tmp_path / "runs.csv")
    out = bitlaw("fit", "runs.csv", "--law", "kumar", "--save", "fit.json", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    assert "Held out, the largest size" in out.stdout
    assert "kumar without precision" in out.stdout
    out = bitlaw("plan", "--fit", "fit.json", "--budget", "1e21", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    assert "90% confidence" in out.stdout


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ("a,1e6,2e7,nan\n", "line 2, column loss"),
        ("a,1e6,2e7,inf\n", "line 2, column loss"),
        ("a,-1e6,2e7,3\n", "line 2, column params"),
        ("a,big,2e7,3\n", "line 2, column params"),
        ("a,1e6,2e7,3\na,1e6,2e7,4\n", "two rows have the id 'a'"),
        ("a,1e6,2e7,3\na,1e6,2e7,3\n", "the row 'a' is there twice"),
        ("", "no rows"),
    ],
)
def test_wrong_tables_end_with_one_sentence(cells, words, tmp_path):
    (tmp_path / "runs.csv").write_text(GOOD + cells)
    out = bitlaw("fit", "runs.csv", "--save", "fit.json", cwd=tmp_path)
    assert out.returncode == 3
    assert words in out.stderr
    assert len(out.stderr.strip().splitlines()) == 1
    assert out.stdout == ""
    assert not (tmp_path / "fit.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["fit", "absent.csv"], 3, "no file"),
        (["fit", "empty.csv"], 3, "is empty"),
        (["fit", "unknown.csv"], 3, "unknown column"),
        (["fit", "few.csv"], 4, "needs at least"),
        (["fit", "few.csv", "--law", "kumr"], 2, "did you mean 'kumar'"),
        (["fit", "few.csv", "--interval", "7"], 2, "between 0 and 1"),
        (["fit", "few.csv", "--count", "totl"], 2, "did you mean 'total'"),
        (["plan"], 2, "--law"),
        (["plan", "--law", "kumar-2024"], 2, "budget"),
        (["plan", "--law", "kumar-2024", "--budget", "1e20", "--bits", "0"], 2, "2 to 16 bits"),
        (["plan", "--law", "kumar-2024", "--budget", "1e20", "--bits", "99"], 2, "2 to 16 bits"),
        (["plan", "--law", "kumar-2024", "--budget", "1e20", "--bits", "int3"], 5, "use more bits"),
        (["plan", "--fit", "absent.json", "--budget", "1e20"], 3, "cannot read"),
        (["plan", "--fit", "empty.csv", "--budget", "1e20"], 3, "not JSON"),
        (["study", "absent.toml"], 2, "built-in"),
        (["study", "unknown.toml"], 2, "did you mean 'sweep'"),
        (["study", "quick", "--corpus", "notext", "--out", "s"], 3, "text"),
        (["study", "quick", "--corpus", "absent", "--out", "s"], 3, "does not exist"),
        (["runs", "show", "rubbish.sqlite"], 6, "rubbish.sqlite"),
        (["runs", "convert", "few.csv", "x.txt"], 3, "ends in"),
        (["laws", "show", "kumarr"], 2, "did you mean"),
        (["report", "few.csv"], 4, "needs at least"),
    ],
)
def test_wrong_input_ends_with_one_sentence_and_nothing_half_written(arguments, code, words, tmp_path):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "unknown.csv").write_text("params,tokens,loss,bogus\n1,2,3,4\n")
    (tmp_path / "few.csv").write_text(GOOD + "a,1e6,2e7,3\n")
    (tmp_path / "unknown.toml").write_text("[sweeps]\n")
    (tmp_path / "rubbish.sqlite").write_text("this is no database, although it is longer than a header " * 20)
    (tmp_path / "notext").mkdir()
    (tmp_path / "notext" / "image.bin").write_bytes(bytes(range(256)) * 1000)
    before = sorted(p.name for p in tmp_path.iterdir())
    out = bitlaw(*arguments, cwd=tmp_path)
    assert out.returncode == code, (out.stdout, out.stderr)
    assert words in out.stderr
    assert len(out.stderr.strip().splitlines()) == 1, out.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_help_teaches_and_the_verbs_are_what_they_were():
    runner = CliRunner()
    verbs = {c.name or c.callback.__name__ for c in app.registered_commands}
    groups = {g.name for g in app.registered_groups}
    assert verbs == {
        "study",
        "fit",
        "plan",
        "report",
        "explore",
        "formats",
        "hardware",
        "quantize",
        "generate",
        "emulate",
        "allocate",
        "train",
        "tune",
        *(verb.__name__ for verb in VERBS),
    }
    assert groups == {"runs", "laws", "task", "sweep", "corpus"}
    for verb in verbs:
        result = runner.invoke(app, [verb, "--help"])
        assert result.exit_code == 0
        assert "bitlaw " in result.output, verb  # an example


def test_every_verb_of_every_group_has_help():
    commands = [((), typer.main.get_command(app))]
    for path, command in commands:
        commands += [((*path, verb), below) for verb, below in getattr(command, "commands", {}).items()]
        out = CliRunner().invoke(app, [*path, "--help"])
        assert out.exit_code == 0 and "Usage: " in out.output, path
    assert len(commands) > 40


def helps(name):
    """The help of an argument or option, by verb."""
    found, commands = {}, [("bitlaw", typer.main.get_command(app))]
    for path, command in commands:
        commands += [(f"{path} {verb}", below) for verb, below in getattr(command, "commands", {}).items()]
        for parameter in command.params:
            if parameter.name == name:
                found[path] = parameter.help
    return found


def test_verbs_say_the_same_of_what_they_share():
    (text,) = {*helps("corpus").values(), *helps("text").values(), helps("source")["bitlaw corpus show"]}
    assert all(kind in text for kind in ("Folder", ".jsonl", "hf:", "package:"))
    assert all("postgresql://" in said for said in helps("runs").values())
    folder = helps("folder")["bitlaw train"]
    assert "all processes" in folder and "models" in folder and "runs.sqlite" in folder


def test_laws_are_listed_and_shown():
    listed = bitlaw("laws", "list").stdout
    assert "kumar-unified" in listed
    assert "kumar-2024" in listed
    shown = bitlaw("laws", "show", "kumar-2024").stdout
    for text in ("gamma_w = 2.6745", "N_eff", "30M to 220M", "Domain:"):
        assert text in shown


def test_the_schema_is_listed():
    out = bitlaw("runs", "schema").stdout
    assert "w_format" in out
    assert "nats/token" in out


def test_a_table_is_shown_and_converted(sweep, tmp_path):
    write_runs(sweep, tmp_path / "runs.csv")
    assert "trained" in bitlaw("runs", "show", "runs.csv", cwd=tmp_path).stdout
    assert bitlaw("runs", "convert", "runs.csv", "runs.parquet", cwd=tmp_path).returncode == 0
    assert (
        len(json.loads(bitlaw("runs", "show", "runs.parquet", "--json", "--rows", "3", cwd=tmp_path).stdout))
        == 3
    )


def test_formats_are_listed():
    listed = CliRunner().invoke(app, ["formats"]).output
    for name in ("int4", "e4m3", "mxfp4", "nvfp4", "ternary", "midrise2"):
        assert re.search(rf"^{name} ", listed, re.M)
    found = {line["name"]: line for line in json.loads(CliRunner().invoke(app, ["formats", "--json"]).output)}
    assert found["nvfp4"]["bpw"] == pytest.approx(4.5, abs=1e-4)
    assert found["midrise2"]["status"] == "experimental"


def test_a_report_of_a_database_can_be_passed_on(secret, table, tmp_path):
    Store(secret).add(read_runs(table / "runs.csv").frame.to_dicts())
    page = tmp_path / "report.html"
    out = CliRunner().invoke(app, ["report", secret, "--out", str(page), "--law", "chinchilla"])
    assert out.exit_code == 0, out.exception
    assert "bitlaw report postgresql://" in page.read_text()
    assert "secret" not in page.read_text() + out.output


def test_the_command_in_a_studys_report_can_be_pasted(monkeypatch, tmp_path):
    said = []

    def stop(*_, command, **__):
        said.append(command)
        raise KeyboardInterrupt

    monkeypatch.setattr("bitlaw.study.run_study", stop)
    words = ["study", "quick", "--out", str(tmp_path / "my $HOME"), "--corpus", "a; b.txt", "--seed", "0"]
    assert CliRunner().invoke(app, words).exit_code == 130
    assert shlex.split(said[0]) == ["bitlaw", *words]


# ---- the verbs that judge


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Runs of five sizes at six budgets, as a file."""
    folder = tmp_path_factory.mktemp("judge")
    rows = ["params,tokens,loss"]
    for n in (1e7, 2e7, 4e7, 8e7, 16e7):
        for k in range(6):
            d = 2e8 * 2**k
            rows.append(
                f"{n:g},{d:g},{(1.8 + 480 * n**-0.35 + 2100 * d**-0.37) * (1 + 0.001 * ((7 * k) % 5 - 2))}"
            )
    (folder / "runs.csv").write_text("\n".join(rows) + "\n")
    assert (
        CliRunner()
        .invoke(
            app, ["fit", str(folder / "runs.csv"), "--law", "chinchilla", "--save", str(folder / "fit.json")]
        )
        .exit_code
        == 0
    )
    return folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compare", "runs.csv", "--law", "chinchilla", "--law", "kaplan"), "mean abs. error"),
        (("compare", "runs.csv", "--hold-out", "longest", "--criteria"), "BIC"),
        (("protocol", "runs.csv"), "predicts the largest model"),
        (("backtest", "runs.csv", "--share", "0.5"), "a guess"),
        (("shift", "runs.csv", "runs.csv"), "No shift is seen"),
        (("isoflop", "runs.csv"), "Approach 2"),
        (("forecast", "fit.json", "--params", "300M", "--tokens", "6B"), "prediction interval"),
        (("fit", "runs.csv", "--law", "chinchilla", "--objective", "lad"), "Least absolute deviation"),
        (("fit", "runs.csv", "--law", "chinchilla", "--borrow", "fit.json", "--free", "E"), "borrowed"),
    ],
)
def test_verbs_that_judge(table, monkeypatch, arguments, words):
    monkeypatch.chdir(table)
    out = CliRunner().invoke(app, list(arguments))
    assert out.exit_code == 0, out.exception
    assert words in out.stdout
    out = CliRunner().invoke(app, [*arguments, "--json"])
    assert out.exit_code == 0
    found = json.loads(out.stdout, parse_constant=lambda word: pytest.fail(word))
    assert found and next(iter(found.values() if isinstance(found, dict) else found))
    if arguments[0] == "forecast":  # 1.8 + 480 N^-.35 + 2100 D^-.37
        assert found["loss"] == pytest.approx(2.8241, rel=0.003)
    if arguments[0] == "isoflop":
        assert "0.5" in out.stdout  # .37 / .72 = .514


def test_options_of_verbs_that_judge_do_what_they_say(table, monkeypatch):
    monkeypatch.chdir(table)

    def asked(*words):
        out = CliRunner().invoke(app, [*words, "--json"])
        assert out.exit_code == 0, out.output
        return json.loads(out.stdout)

    plain = asked("protocol", "runs.csv")
    assert asked("protocol", "runs.csv", "--last", "0.5") != plain
    assert asked("isoflop", "runs.csv", "--approach", "2") == asked("isoflop", "runs.csv")
    out = CliRunner().invoke(app, ["isoflop", "runs.csv", "--approach", "1"])
    assert "longer training curves" in str(
        out.exception
    )  # an envelope needs curves, which these rows are not


def test_a_table_for_spreadsheets_runs_nothing(tmp_path):
    (tmp_path / "runs.csv").write_text("id,params,tokens,loss\n=1+1,1e6,2e7,3.1\n")
    for words, cell in (((), "=1+1"), (("--spreadsheet",), "'=1+1")):
        out = CliRunner().invoke(
            app, ["runs", "convert", str(tmp_path / "runs.csv"), str(tmp_path / "out.csv"), *words]
        )
        assert out.exit_code == 0, out.output
        assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith(cell)


def test_a_corpus_that_there_is_not_is_no_download():
    out = CliRunner().invoke(app, ["corpus", "get", "rcf"])
    assert out.exit_code != 0 and "did you mean 'rfc'" in f"{out.output}{out.exception}"


def test_a_forecast_is_pinned_before_and_scored_after_the_run(table, monkeypatch):
    monkeypatch.chdir(table)
    ask = ["forecast", "fit.json", "--params", "300M", "--tokens", "6B", "--pin", "pinned.json"]
    assert "bitlaw score pinned.json" in CliRunner().invoke(app, ask).stdout
    assert "inside" in CliRunner().invoke(app, ["score", "pinned.json", "2.82"]).stdout
    assert "not overwritten" in str(CliRunner().invoke(app, ask).exception)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compare", "runs.csv", "--hold-out", "bigest"), "unknown split"),
        (("fit", "runs.csv", "--objective", "lads"), "no objective 'lads'"),
        (("fit", "runs.csv", "--method", "jackknife"), "no interval method"),
        (("fit", "runs.csv", "--delta", "-1"), "delta must be positive"),
        (
            ("forecast", "fit.json", "--params", "1B", "--tokens", "1B", "--w", "int4"),
            "does not read the format of w",
        ),
        (("score", "runs.csv", "2.9"), "not a pinned forecast"),
    ],
)
def test_wrong_judging_ends_with_one_sentence(table, monkeypatch, arguments, words):
    monkeypatch.chdir(table)
    assert words in str(CliRunner().invoke(app, list(arguments)).exception)
