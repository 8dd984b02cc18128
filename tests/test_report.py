"""The page: whole, offline, and safe with hostile names."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser

import polars as pl
import pytest
from conftest import synthetic_sweep

import bitlaw as bl
from bitlaw import Runs
from bitlaw.fitting.compare import without_precision
from bitlaw.laws import kumar
from bitlaw.report import write_report

EVIL = "<script>document.title='owned'</script>\"><img src=x onerror=document.title='owned'>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    runs = synthetic_sweep(0, paired=True, post_of_low=False)
    frame = runs.frame.with_columns(
        pl.when(pl.col("id") == "run-3").then(pl.lit(EVIL)).otherwise(pl.col("id")).alias("id"),
        pl.lit(EVIL).alias("corpus"),
    )
    runs = Runs(frame, EVIL)
    fit = bl.fit("kumar", runs, hold_out=bl.largest(), draws=80)
    plans = [bl.plan(fit, budget=1e21), bl.plan(fit, params="220M", quantize_to="int4")]
    comparison = bl.compare(runs, [kumar, without_precision(kumar)])
    write_report(
        folder / "report.html", runs, fit, comparison=comparison, plans=plans, title=EVIL, command=EVIL
    )
    return folder / "report.html", fit, plans


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.addresses, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href")]
        if tag not in ("meta", "img", "br", "!doctype"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


def test_the_page_is_whole_and_reaches_for_nothing(page):
    text = page[0].read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert "script" not in tags.seen
    assert tags.seen.count("img") >= 6
    assert all(a.startswith("data:image/svg+xml;base64,") for a in tags.addresses)
    assert text.endswith("</html>\n")
    assert list(page[0].parent.iterdir()) == [page[0]]


def test_names_from_the_table_are_text(page):
    text = page[0].read_text()
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;" in text


def test_the_page_says_what_was_found(page):
    text, fit, plans = page[0].read_text(), page[1], page[2]
    for words in ("<math", "Held out", "interval", "residual bootstrap", "kumar without precision"):
        assert words in text
    for e in fit.estimates:
        assert e.parameter.name in text
    assert f"{plans[0]['bits'].value:.2f}" in text


def test_the_page_opens_in_a_browser_without_a_network(page, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path}",
        "--dump-dom",
    ]
    out = subprocess.run([browser, *flags, page[0].as_uri()], capture_output=True, text=True, timeout=60)
    title = re.search(r"<title>(.*?)</title>", out.stdout, re.S).group(1)
    assert "owned" in title  # the text of the name, escaped ...
    assert title.startswith("&lt;script&gt;")  # ... and not the work of a script
    assert "Methods" in out.stdout
