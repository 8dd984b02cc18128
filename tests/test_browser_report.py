"""The report in a real browser: opened from disk with the network off, read, moved, and looked over for faults."""

from __future__ import annotations

import json
import shlex

import pytest
from test_report import evil_report
from typer.testing import CliRunner

from bitlaw.cli.main import app

pytestmark = pytest.mark.slow
LOOKS = [(width, scheme) for width in (1440, 390) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path, _, fit, _, _ = evil_report(tmp_path_factory.mktemp("browser"))
    fit.save(path.with_name("fit.json"))
    return path, fit


@pytest.fixture
def opened(browser, report, monkeypatch):
    """Opens the page at a width and scheme; afterwards there was no fault, and no request but for the file."""
    monkeypatch.chdir(report[0].parent)
    faults, requests, contexts = [], [], []

    def open_at(width=1440, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            offline=True,
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(report[0].as_uri())
        page.wait_for_selector("#planner svg.main-svg")
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert faults == []
    assert set(requests) == {report[0].as_uri()}


def until(page, truth):
    """Wait for an expression; playwright's own way evaluates text in the page, which its policy forbids."""
    for _ in range(100):
        if page.evaluate(truth):
            return
        page.wait_for_timeout(50)
    raise AssertionError(truth)


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_the_page_has_no_serious_fault_of_accessibility(opened, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    page = opened(width, scheme)
    if (width, scheme) == LOOKS[0]:  # the table of all rows is long
        for summary in page.query_selector_all("summary"):
            summary.click()
    found = axe.Axe().run(page).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_names_from_the_table_are_shown_and_not_run(opened):
    page = opened()
    assert page.title().startswith("<script>document.title")
    assert page.inner_text("h1").startswith("<script>document.title")
    assert page.query_selector("main img") is None


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_every_figure_is_drawn_in_the_colours_of_the_page(opened, width, scheme):
    page = opened(width, scheme)
    figures = page.query_selector_all("figure")
    assert len(figures) > 5
    ink = {"light": "rgb(27, 29, 32)", "dark": "rgb(228, 230, 233)"}[scheme]
    for figure in figures:
        title = figure.query_selector(".xtitle, .ytitle")
        assert title.evaluate("(e) => getComputedStyle(e).fill") == ink
        box, canvas = figure.bounding_box(), figure.query_selector(".main-svg").bounding_box()
        assert canvas["width"] <= box["width"] + 1


def test_the_scheme_may_change_while_the_page_is_open(opened):
    page = opened(1440, "light")
    page.emulate_media(color_scheme="dark")
    until(page, "getComputedStyle(document.querySelector('figure .xtitle')).fill === 'rgb(228, 230, 233)'")


def test_axes_switch_and_figures_fit_the_printed_page(opened):
    page = opened()
    button = page.query_selector(".scales button")
    pressed = button.get_attribute("aria-pressed")
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") != pressed
    page.emulate_media(media="print", color_scheme="dark")
    until(page, "document.querySelector('figure .main-svg').clientWidth === 640")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf(format="A4").startswith(b"%PDF")


def value(page, name, key="value"):
    text = page.get_attribute(f"output[data-name={name}]", f"data-{key}")
    return json.loads(text) if text else None


def compare_with_python(page, fit):
    """The numbers of the panel against those of the command that it shows."""
    command = page.inner_text("code[data-name=command]")
    words = shlex.split(command)
    out = CliRunner().invoke(app, [*words[1:], "--json"])
    assert out.exit_code == 0, (command, out.exception)
    said = {a["name"]: a for a in json.loads(out.output)["answers"]}
    tolerance = (
        1e-9 if "--params" in words and value(page, "tokens") == value(page, "tokens", "bought") else 3e-5
    )
    assert value(page, "loss") == pytest.approx(said["loss"]["value"], rel=1e-9)
    assert value(page, "size") == pytest.approx(said["params"]["value"], rel=tolerance)
    assert value(page, "tokens") == pytest.approx(said["tokens"]["value"], rel=tolerance)
    if "--params" not in words:
        near = [said["params"]["near_low"], said["params"]["near_high"]]
        assert value(page, "best", "interval") == pytest.approx(near, rel=1e-4)
    bits = {}
    scheme = words[words.index("--bits") + 1]
    for part, options in page.evaluate(
        "JSON.parse(document.getElementById('planner-data').textContent).controls"
        ".map((c) => [c.part, c.options.map((o) => [o.name, o.columns])])"
    ):
        control = page.query_selector(f"#planner [data-name={part}]")
        name, columns = options[int(control.input_value())]
        bits |= columns
        assert part == "post" or name in scheme
    at = {"params": value(page, "size"), "tokens": value(page, "tokens"), **bits}
    assert value(page, "loss") == pytest.approx(float(fit.predict(**at)), rel=1e-12)
    assert value(page, "loss", "interval") == pytest.approx([float(x) for x in fit.band(**at)], rel=1e-11)
    if "--quantize-to" in words:
        assert value(page, "gap") == pytest.approx(said["gap"]["value"], rel=1e-4)
        assert value(page, "gap", "interval") == pytest.approx(
            [float(x) for x in fit.band("gap", **at)], rel=1e-11
        )
    shown = float(page.inner_text("output[data-name=loss]"))
    assert shown == pytest.approx(said["loss"]["value"], abs=5.1e-5)
    return words


def test_every_slider_moves_the_numbers_as_python_has_them(opened, report):
    page, fit = opened(), report[1]
    compare_with_python(page, fit)
    names = page.eval_on_selector_all("#planner [data-name]", "(all) => all.map((e) => e.dataset.name)")
    sliders = [n for n in names if page.query_selector(f"#planner input[type=range][data-name={n}]")]
    assert {"budget", "params", "w", "a", "kv", "served"} <= set(sliders)
    for name in sliders:
        before = page.inner_text("code[data-name=command]")
        page.focus(f"#planner input[data-name={name}]")
        key = "ArrowRight" if name in ("budget", "params", "served") else "ArrowLeft"
        for _ in range(8):
            page.keyboard.press(key)
        page.wait_for_timeout(150)
        assert page.inner_text("code[data-name=command]") != before, name
        compare_with_python(page, fit)


def test_formats_after_training_fields_and_the_best_size(opened, report):
    page, fit = opened(390, "dark"), report[1]
    page.select_option("#planner select[data-name=post]", label="int4")
    until(
        page, "document.querySelector('#planner [data-name=command]').textContent.includes('--quantize-to')"
    )
    assert compare_with_python(page, fit)[-2:] == ["--quantize-to", "int4"]
    page.fill("#planner [data-name=budget-field]", "2.5e19")
    page.keyboard.press("Tab")
    page.fill("#planner [data-name=params-field]", "120M")
    page.keyboard.press("Tab")
    command = "document.querySelector('#planner [data-name=command]').textContent"
    until(page, f"{command}.includes('--params')")
    words = compare_with_python(page, fit)
    assert words[words.index("--params") + 1] == "1.2e8"
    assert words[words.index("--budget") + 1] == "2.5e19"
    page.check("#planner [data-name=best]")
    until(page, f"!{command}.includes('--params')")
    assert "--params" not in compare_with_python(page, fit)
    page.fill("#planner [data-name=budget-field]", "much")
    page.keyboard.press("Tab")
    assert page.get_attribute("#planner [data-name=budget-field]", "aria-invalid") == "true"
    told = page.get_attribute("#planner [data-name=budget-field]", "aria-describedby")
    assert "like 3e9" in page.inner_text(f"#{told}:not([hidden])")
    assert (
        page.evaluate("document.activeElement.dataset.name") != "budget-field"
    )  # one may go elsewhere first
    page.fill("#planner [data-name=budget-field]", "1e20")
    page.keyboard.press("Tab")
    page.wait_for_selector(f"#{told}", state="hidden")


def test_a_state_outside_the_law_says_so(opened):
    page = opened()
    page.focus("#planner input[data-name=a]")
    page.keyboard.press("Home")
    page.wait_for_selector("#planner .outside:not([hidden])")
    assert "too few bits" in page.inner_text("#planner .outside")
    assert not page.is_visible("#planner output[data-name=loss]")
    page.keyboard.press("End")
    page.wait_for_selector("#planner output[data-name=loss]")


def test_the_command_can_be_copied(opened):
    page = opened()
    page.click("#planner .command button")
    until(page, "document.querySelector('#planner .command button').textContent === 'Copied'")
