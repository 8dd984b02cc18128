"""The report: whole, offline, safe with hostile names, as a page and as Markdown."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser

import polars as pl
import pytest
from conftest import synthetic_sweep
from typer.testing import CliRunner

import bitlaw as bl
from bitlaw import Runs
from bitlaw.cli.main import app
from bitlaw.errors import ConfigError
from bitlaw.fitting.compare import without_precision
from bitlaw.laws import chinchilla, kumar
from bitlaw.report import write_report

EVIL = "<script>document.title='owned'</script>\"><img src=x onerror=document.title='owned'>"


def evil_report(folder, name="report.html"):
    """A report of rows whose names are markup."""
    runs = synthetic_sweep(0, paired=True, post_of_low=False)
    frame = runs.frame.with_columns(
        pl.when(pl.col("id") == "run-3").then(pl.lit(EVIL)).otherwise(pl.col("id")).alias("id"),
        pl.lit(EVIL).alias("corpus"),
    )
    runs = Runs(frame, EVIL)
    fit = bl.fit("kumar", runs, hold_out=bl.largest(), draws=80)
    plans = [bl.plan(fit, budget=1e21), bl.plan(fit, params="220M", quantize_to="int4")]
    comparison = bl.compare(runs, [kumar, without_precision(kumar)])
    made = {"comparison": comparison, "plans": plans, "title": EVIL, "command": EVIL}
    write_report(folder / name, runs, fit, **made)
    return folder / name, runs, fit, plans, comparison


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return evil_report(tmp_path_factory.mktemp("page"))


class Tags(HTMLParser):
    VOID = ("meta", "img", "br", "input")

    def __init__(self):
        super().__init__()
        self.seen, self.addresses, self.open, self.scripts = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href")]
        if tag == "script":
            self.scripts.append([dict(attrs), ""])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1][1] += data


def parsed(text):
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    return tags


def test_the_page_is_whole_and_reaches_for_nothing(report):
    path, text = report[0], report[0].read_text()
    tags = parsed(text)
    assert tags.addresses == []
    assert not set(tags.seen) & {"link", "iframe", "img", "object"}
    assert text.endswith("</html>\n")
    assert list(path.parent.iterdir()) == [path]


def test_the_page_runs_its_own_scripts_and_no_others(report):
    tags = parsed(report[0].read_text())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', report[0].read_text()).group(1)
    assert policy.startswith("default-src 'none'; ")
    assert "'unsafe-inline'" not in policy.replace("style-src 'unsafe-inline'", "")
    codes = [code for attributes, code in tags.scripts if attributes == {}]
    hashes = {base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in codes}
    assert set(re.findall(r"'sha256-([^']*)'", policy)) == hashes
    assert len(codes) == 4  # plotly once, the runtime, the law, ours


def test_figures_are_data_with_a_name_and_a_caption(report):
    text = report[0].read_text()
    data = {
        a["id"]: json.loads(code) for a, code in parsed(text).scripts if a.get("type") == "application/json"
    }
    figures = re.findall(r'<figure data-chart="([^"]*)">', text)
    assert len(figures) > 5
    assert set(figures) | {"planner-data"} == set(data)
    for name in figures:
        assert data[name]["data"]
        assert f'id="{name}-caption"' in text
    assert text.count('role="img" aria-label=') == len(figures)


def test_names_from_the_table_are_text(report):
    text = report[0].read_text()
    outside = re.sub(r"(?s)<script[ >].*?</script>", "", text)
    assert "document.title='owned'" not in outside.replace("&#x27;", "")
    assert "<img" not in outside
    assert "&lt;script&gt;" in outside
    for attributes, code in parsed(text).scripts:
        if attributes:
            assert "<" not in code


def test_the_page_puts_the_decision_first_and_says_what_was_found(report):
    path, _, fit, plans, _ = report
    text = path.read_text()
    places = [text.index(f"<h2>{word}</h2>") for word in ("Answers", "Evidence", "Methods")]
    assert places == sorted(places)
    assert places[0] < text.index('class="lead"') < places[1]
    for words in ("<math", "Held out", "interval", "residual bootstrap", "kumar without precision"):
        assert words in text
    for e in fit.estimates:
        assert e.parameter.name in text
    assert f"{plans[0]['bits'].value:.2f}" in text


@pytest.mark.slow
def test_a_report_comes_as_markdown_with_its_figures(report, tmp_path):
    _, runs, fit, plans, comparison = report
    path = tmp_path / "my report.md"
    write_report(path, runs, fit, comparison=comparison, plans=plans[:1], title=EVIL, command="a ``` b")
    text = path.read_text()
    assert "\\<script\\>" in text
    assert not re.search(r"(?<!\\)<", re.sub(r"(?s)```math.*?```", "", text))
    assert "````\na ``` b\n````" in text
    linked = re.findall(r"!\[[^\]]*\]\(my%20report-figures/([^)]*)\)", text)
    assert len(linked) > 5
    assert all((tmp_path / "my report-figures" / name).stat().st_size > 1000 for name in linked)
    for e in fit.estimates:
        assert e.parameter.name.replace("_", "\\_") in text


def test_a_saved_fit_has_a_report_without_rows(report, tmp_path):
    _, _, fit, _, _ = report
    fit.save(tmp_path / "fit.json")
    out = CliRunner().invoke(app, ["report", str(tmp_path / "fit.json"), "-o", str(tmp_path / "r.html")])
    assert out.exit_code == 0, out.exception
    text = (tmp_path / "r.html").read_text()
    assert "figures of them are left out" in text
    assert "No budget was given" in text
    assert "<figure" not in text
    data = json.loads(re.search(r'id="planner-data">(.*?)</script>', text).group(1))
    assert data["command"] == ["bitlaw", "plan", "--fit", str(tmp_path / "fit.json")]


@pytest.mark.slow
def test_the_command_in_a_report_makes_it_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bl.write_runs(
        synthetic_sweep(0).filter(pl.col("w_format").is_null() & (pl.col("tokens") < 1e10)), "my runs.csv"
    )
    words = [
        "report",
        "my runs.csv",
        "--out",
        "r.html",
        "--law",
        "chinchilla",
        "--law",
        "kaplan",
        "--budget",
        "1e20",
    ]
    assert CliRunner().invoke(app, words).exit_code == 0
    first = (tmp_path / "r.html").read_text()
    (command,) = re.findall(r'<h3>How to make this again</h3>\s*<pre tabindex="0"><code>(.*?)</code>', first)
    said = shlex.split(command.replace("&#x27;", "'"))
    assert said == ["bitlaw", *words]
    before = re.search(r"<code>(bitlaw fit .*?)</code>", first).group(1).replace("&#x27;", "'")
    assert CliRunner().invoke(app, shlex.split(before)[1:]).exit_code == 0
    assert (tmp_path / "fit.json").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["report", "fit.json", "--law", "kumar"], 2, "has its law already"),
        (["report", "fit.json", "--compare"], 2, "--runs"),
        (["report", "runs.csv", "--runs", "runs.csv"], 2, "of a saved fit"),
        (["report", "fit.json", "--figures", "figures"], 2, "--runs runs.csv"),
        (["report", "fit.json", "--thorough"], 2, "--runs runs.csv"),
        (["report", "absent.json"], 3, "cannot read"),
    ],
)
def test_flags_that_play_no_part_are_refused(words, code, said):
    out = CliRunner().invoke(app, words)
    assert out.exception.exit_code == code
    assert said in str(out.exception)


def test_another_ending_is_refused(report, tmp_path):
    with pytest.raises(ConfigError, match=r"\.html or \.md"):
        write_report(tmp_path / "report.docx", report[1], report[2])
    assert list(tmp_path.iterdir()) == []


def test_hostile_labels_of_a_law_are_text(report, tmp_path):
    _, _, fit, _, _ = report
    law = chinchilla.with_precision(w="efficiency").for_labels({"w_format": [EVIL]})
    strange = replace(
        fit,
        law=law,
        estimates=tuple(replace(fit.estimates[0], parameter=p, value=0.5) for p in law.parameters),
        draws=fit.draws[:, : len(law.parameters)] * 0 + 0.5,
        held_out=None,
    )
    write_report(tmp_path / "r.html", None, strange, planner=())
    outside = re.sub(r"(?s)<script[ >].*?</script>", "", (tmp_path / "r.html").read_text())
    assert "<img" not in outside
    assert "onerror" in outside
    assert EVIL not in outside
    write_report(tmp_path / "r.md", None, strange, planner=())
    assert not re.search(r"(?<!\\)<", (tmp_path / "r.md").read_text())


def test_notebooks_show_names_as_text(report):
    _, runs, fit, plans, comparison = report
    strange = replace(comparison, left_out={EVIL: EVIL})
    for shown in (runs, fit, replace(plans[0], question=EVIL, notes=(EVIL,)), strange):
        text = shown._repr_html_()
        parsed(text)
        assert "<table>" in text
        assert "<script" not in text and "<img" not in text and "<style" not in text
    assert "&lt;script&gt;" in runs._repr_html_()
