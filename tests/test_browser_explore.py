"""The explorer in a real browser, on a store of 2,000 runs: used as people use it, and looked over for faults."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time

import pytest
from explorer import HOSTILE, explorer, rows, store
from typer.testing import CliRunner

from bitlaw import load_fit, plan, read_runs
from bitlaw.cli.main import app
from bitlaw.runs.where import where

pytestmark = pytest.mark.slow
LOOKS = [(width, scheme) for width in (1440, 390) for scheme in ("light", "dark")]
TABS = ("runs", "fit", "compare", "plan", "sweep", "export")
PATIENCE = 180_000  # milliseconds, for work in the background


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return store(tmp_path_factory.mktemp("explore") / "runs.sqlite", 2000)


@pytest.fixture(scope="module")
def address(stored):
    with explorer("runs.sqlite", cwd=stored.parent) as found:
        yield found


@pytest.fixture
def opened(browser, address):
    """Opens the page; afterwards there was no fault, no request elsewhere, and no question took a second to answer."""
    faults, requests, contexts, seconds = [], [], [], {}

    def ended(request):
        path = request.url.removeprefix(address).split("?")[0]
        if path.startswith("assets/"):  # files: their time is the browser's, which opens twenty at once
            return
        seconds[path] = max(seconds.get(path, 0.0), request.timing["responseEnd"] / 1000)

    def open_at(width=1440, scheme="light", at=address):
        look = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
        context = browser.new_context(**look, reduced_motion="reduce", permissions=["clipboard-read"])
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.on("requestfinished", ended)
        page.goto(at)
        page.wait_for_selector("table.runs tbody tr")
        until(page, "document.getElementById('chosen').textContent")
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert faults == []
    assert all(url.startswith(("http://127.0.0.1:", "data:")) for url in requests)
    print("slowest answers, in seconds:", {path: round(s, 3) for path, s in seconds.items()})
    assert max(seconds.values()) < 1


def until(page, expression, arg=None, timeout=10_000):
    """Wait until an expression holds; playwright's own way evaluates text in the page, which its policy forbids."""
    deadline = time.monotonic() + timeout / 1000
    while not page.evaluate(expression, arg):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def tab(page, name):
    page.click(f"#tab-{name}")
    page.wait_for_selector(f"#view-{name}:not([hidden])")


def chosen(page, number):
    until(page, "n => document.getElementById('chosen').textContent.startsWith(n)", arg=f"{number:,} of")


def fitted(page, law="kumar"):
    tab(page, "fit")
    until(page, "/can be fitted/.test(document.getElementById('law-note').textContent)", timeout=PATIENCE)
    page.select_option("#law", law)
    page.click("#fit-go")
    page.wait_for_selector("#fit-result h2", timeout=PATIENCE)
    page.wait_for_selector("#fit-result svg.main-svg")


def test_filter_fit_leave_out_plan_and_export(opened, stored, tmp_path, monkeypatch):
    page = opened()
    table = read_runs(stored)

    page.fill("#params-1", "220M")
    page.check("fieldset:has(legend:text-is('Status')) >> text=ok")
    conditions = ["status in ok", "params <= 220M"]
    chosen(page, len(where(table, conditions)))
    page.click("#sort-loss")
    until(page, "document.querySelector('th[aria-sort]')")
    first = page.inner_text("table.runs tbody tr:first-child th")
    assert first == where(table, conditions).frame.sort("loss")["id"][0]
    page.click("#page-next")
    until(page, "document.querySelector('.pages span').textContent.startsWith('51 to 100')")
    page.uncheck("table.runs tbody tr:first-child input")
    chosen(page, len(where(table, conditions)) - 1)

    fitted(page)
    page.click("#fit-result button[aria-label^='Leave out']")  # the run that lies farthest off
    page.wait_for_selector("#fit-stale:not([hidden])")
    chosen(page, len(where(table, conditions)) - 2)
    page.click("#fit-stale button")
    page.wait_for_selector("#fit-stale", state="detached")
    page.wait_for_selector("#fit-stale", state="hidden", timeout=PATIENCE)
    command = page.inner_text("#fit-result .command code")
    assert command.count("--where") == 3

    box = page.query_selector("[id='chart-residuals'] .nsewdrag")  # a click on a point leaves its run out too
    box.scroll_into_view_if_needed()
    spot = page.evaluate(
        """() => { const c = document.getElementById("chart-residuals"), l = c._fullLayout, t = c.data[0];
        const k = t.y.indexOf(Math.max(...t.y)), r = c.getBoundingClientRect();
        return [r.left + l.xaxis._offset + l.xaxis.d2p(t.x[k]), r.top + l.yaxis._offset + l.yaxis.d2p(t.y[k])]; }"""
    )
    for left_out in (3, 2, 3):  # and the next click takes it in again
        page.mouse.move(spot[0] + 60, spot[1])
        page.mouse.move(*spot)
        page.wait_for_timeout(500)  # or it is a double click
        page.mouse.click(*spot)
        chosen(page, len(where(table, conditions)) - left_out)

    shown = {
        row.query_selector("th").inner_text(): row.query_selector("td").inner_text()
        for row in page.query_selector_all("#fit-result [aria-label='Constants of the law'] tbody tr")
    }
    monkeypatch.chdir(stored.parent)  # what is on the screen is what the command says, there
    done = CliRunner().invoke(app, shlex.split(command)[1:])
    assert done.exit_code == 0, done.exception
    fit = load_fit(stored.parent / "fit.json")
    assert shown == {name: f"{value:.4g}" for name, value in fit.values.items()}

    tab(page, "plan")
    page.wait_for_selector(".panel svg.main-svg")
    field = page.locator("input[data-name='budget-field']")
    field.fill("1e21")
    field.press("Enter")
    until(
        page,
        "/1e\\+?21|1000000000000000000000/.test(document.querySelector('code[data-name=command]').textContent)",
    )
    answer = plan(fit, budget=1e21, bits="bf16")
    loss = float(page.get_attribute("output[data-name='loss']", "data-value"))
    assert loss == pytest.approx(answer["loss"].value, rel=1e-6)
    best = float(page.get_attribute("output[data-name='best']", "data-value"))
    assert best == pytest.approx(answer["params"].value, rel=1e-3)

    tab(page, "export")
    page.wait_for_selector("#csv")
    with page.expect_download() as download:
        page.click("#csv")
    download.value.save_as(tmp_path / "chosen.csv")
    assert len(read_runs(tmp_path / "chosen.csv")) == len(where(table, conditions)) - 3
    words = [shlex.split(line.inner_text()) for line in page.query_selector_all("#view-export code")]
    assert [w[1] for w in words] == ["fit", "compare", "report"]
    page.reload()  # the address holds what was chosen
    chosen(page, len(where(table, conditions)) - 3)


def test_a_filter_that_was_cleared_can_be_set_again(opened, stored):
    page = opened()
    table = read_runs(stored)
    page.check("fieldset:has(legend:text-is('Status')) >> text=failed")
    page.fill("#search", "abc")
    until(page, "document.getElementById('active').textContent.includes('2 conditions')")
    page.click("text=Clear the filter")
    chosen(page, len(table))
    until(
        page, "document.getElementById('search').value === '' && !document.querySelector('#filters :checked')"
    )
    page.check("fieldset:has(legend:text-is('Status')) >> text=failed")
    chosen(page, len(where(table, ["status in failed"])))


def test_an_address_keeps_the_order_and_a_spoilt_one_is_none(opened):
    page = opened()
    page.click("#sort-tokens")
    until(page, "document.querySelector('th[aria-sort]')")
    page.reload()
    until(page, "document.querySelector('th[aria-sort]') && document.querySelector('#sort-tokens')")
    page.evaluate('() => { location.hash = encodeURIComponent(\'{"filters": {"search": "abc"}}\'); }')
    page.reload()
    chosen(page, 2000)
    assert page.input_value("#search") == "" and not page.query_selector("th[aria-sort]")


def test_a_server_that_comes_back_is_no_longer_said_to_have_ended(opened):
    page = opened()
    page.evaluate("() => { window.kept = fetch; window.fetch = () => Promise.reject(new Error('gone')); }")
    until(page, "document.getElementById('live').textContent.includes('has ended')")
    page.evaluate("() => { window.fetch = window.kept; }")
    until(page, "document.getElementById('live').textContent.startsWith('2,000 runs')")


def test_laws_are_compared_in_the_background(opened, stored, monkeypatch):
    page = opened()
    page.fill("#more", "w_format = bf16\na_format = bf16\nkv_format = bf16\npost_format = none\nseed = 1")
    number = len(where(read_runs(stored), page.input_value("#more").split("\n")))
    chosen(page, number)
    tab(page, "compare")
    page.click("#compare-go")
    page.wait_for_selector("#compare-result progress")
    tab(page, "runs")  # the page goes on meanwhile
    page.click("#sort-loss")
    until(page, "document.querySelector('th[aria-sort]')")
    tab(page, "compare")
    page.wait_for_selector("#compare-result table", timeout=PATIENCE)
    shown = [
        cell.inner_text() for cell in page.query_selector_all("#compare-result .scroll >> nth=0 >> tbody th")
    ]
    monkeypatch.chdir(stored.parent)
    words = shlex.split(page.inner_text("#compare-result .command code"))
    said = json.loads(CliRunner().invoke(app, [*words[1:], "--json"]).stdout)["rankings"][0]
    assert shown == [e["name"] for e in (*said["laws"], *said["baselines"])]


SWEEP = """
import sys, time
sys.path.insert(0, {tests!r})
from explorer import rows
from bitlaw import Store
from bitlaw.runs import Leases
store = Store({store!r})
leases = Leases(store)
for k, row in enumerate(rows(200, seed=7)[:{number}]):
    lease = leases.claim(["a trunk"], "worker-of-the-test")
    leases.add(lease, [row | {{"started": "2026-01-01T00:00:00+00:00"}}])
    time.sleep(0.2)
failed = {{"id": "lost", "params": 1e6, "tokens": 2e7, "status": "failed", "reason": {reason!r}}}
leases.add(lease, [failed])
time.sleep(3)
leases.release(lease)
"""


def test_a_sweep_that_runs_shows_up_live(opened, tmp_path):
    path = store(tmp_path / "runs.sqlite", 2000)
    code = SWEEP.format(
        tests=str((__import__("pathlib").Path(__file__)).parent),
        store=str(path),
        number=40,
        reason=HOSTILE[1],
    )
    with explorer(str(path)) as at:
        page = opened(at=at)
        fitted(page)
        tab(page, "sweep")
        assert "Nobody is at work" in page.inner_text("#view-sweep")
        sweep = subprocess.Popen([sys.executable, "-c", code])
        try:
            page.wait_for_selector("#view-sweep >> text=worker-of-the-test", timeout=20_000)
            ok = "Number(document.querySelector('dd[data-name=ok]').textContent.replaceAll(',', ''))"
            before = page.evaluate(ok)
            until(page, f"{ok} > {before}", timeout=10_000)  # by itself, without a reload
            newest = page.inner_text("#view-sweep [aria-label='Newest runs'] tbody th")
            assert newest in {row["id"] for row in rows(200, seed=7)}
            page.wait_for_selector("#view-sweep [aria-label='Failures'] >> text=onerror", timeout=40_000)
            assert sweep.wait(30) == 0
            page.wait_for_selector("#view-sweep >> text=Nobody is at work", timeout=10_000)
        finally:
            sweep.kill()
            sweep.wait()
        assert page.inner_text("#live") == "2,041 runs"
        tab(page, "fit")
        page.wait_for_selector("#fit-stale:not([hidden])")
        tab(page, "runs")
        until(page, "document.querySelector('.pages span').textContent.endsWith('of 2,041')")
        assert page.title().startswith(str(path))  # no name has run
        page.close()


def test_names_that_mean_harm_are_text(opened):
    page = opened()
    page.fill("#search", "owned")
    chosen(page, len(HOSTILE))
    assert [e.inner_text() for e in page.query_selector_all("table.runs tbody th")] == list(HOSTILE)
    for name in HOSTILE:
        page.click(f"table.runs button.link:text-is({json.dumps(name)})")
        page.wait_for_selector("dialog[open]")
        assert page.inner_text("#detail-title") == name
        page.keyboard.press("Escape")
    page.uncheck("table.runs tbody tr:first-child input")
    tab(page, "export")
    until(page, "document.querySelector('#view-export code').textContent.includes('not in')")
    words = shlex.split(page.inner_text("#view-export code"))
    assert f"id not in {json.dumps(HOSTILE[0])}" in words
    assert (
        page.evaluate("document.querySelectorAll('img, svg:not(.main-svg), body script:not([type])').length")
        == 0
    )
    assert "owned" not in page.title()


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_no_view_has_a_serious_fault_of_accessibility(opened, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    page = opened(width, scheme)

    def look():
        found = axe.Axe().run(page).response["violations"]
        serious = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
        assert serious == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    if width < 960:
        page.click("#filter > summary")
    page.click("#columns > summary")
    look()
    page.click("table.runs tbody tr:first-child button.link")
    page.wait_for_selector("dialog[open]")
    look()
    page.keyboard.press("Escape")
    page.check("fieldset:has(legend:text-is('Status')) >> text=ok")
    fitted(page, "chinchilla")
    for name in TABS:
        tab(page, name)
        page.wait_for_timeout(300)
        look()


def test_the_keyboard_is_enough(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.focus("#tab-runs")
    for name in (*TABS[1:], TABS[0]):
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.id") == f"tab-{name}"
        assert page.get_attribute(f"#view-{name}", "hidden") is None
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.focus("#sort-tokens")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('th[aria-sort]')")
    assert page.evaluate("document.activeElement.id") == "sort-tokens"  # the table was made anew below it
    assert re.search("ascending", page.get_attribute("th[aria-sort]", "aria-sort"))
    time.sleep(2.5)  # the page asks again every other second, and takes nothing away
    assert page.evaluate("document.activeElement.id") == "sort-tokens"
