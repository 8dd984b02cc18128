"""The documentation builds without a warning, its links lead somewhere, and no page loads anything from elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
LOADS = {"img": "src", "script": "src", "iframe": "src", "source": "src", "object": "data", "link": "href"}
NO_LOAD = {"next", "prev", "canonical"}  # a link element that only names


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, as `make docs` builds it."""
    pytest.importorskip("material")
    folder = tmp_path_factory.mktemp("site")
    out = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert out.returncode == 0 and "WARNING" not in out.stderr, out.stderr
    return folder


class Page(HTMLParser):
    """What a page links to, what it loads, and its anchors."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = {"", "__skip"}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors.add(values.get("id") or "")
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        rel = set((values.get("rel") or "").split())
        if tag in LOADS and values.get(LOADS[tag]) and not rel & NO_LOAD:
            self.loads.append(values[LOADS[tag]])


def test_every_link_and_every_anchor_is_there(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 50
    missing = []
    for path, page in pages.items():
        base = site if path.name == "404.html" else path.parent
        for link in page.links + page.loads:
            where = urlsplit(link)
            if where.scheme or where.netloc:
                continue
            to = (
                (base / unquote(where.path.lstrip("/") if base == site else where.path)).resolve()
                if where.path
                else path
            )
            to = to / "index.html" if to.is_dir() else to
            if not to.is_file() or (to in pages and unquote(where.fragment) not in pages[to].anchors):
                missing.append((str(path.relative_to(site)), link))
    assert missing == []


def test_nothing_is_loaded_from_elsewhere(site):
    for path in site.rglob("*.html"):
        foreign = [url for url in Page(path).loads if urlsplit(url).scheme or urlsplit(url).netloc]
        assert foreign == [], path
    for path in site.rglob("*.css"):
        assert "url(http" not in path.read_text() and "@import" not in path.read_text(), path


def test_equations_need_no_script(site):
    text = (site / "laws.html").read_text()
    assert text.count("<math") > 30 and "$$" not in text and "arithmatex" not in text


def test_pages_of_measurements_stand_in_one(site):
    text = (site / "how-good.html").read_text()
    assert "Designs that leave a direction open" in text and "log P" in text and "include:" not in text


@pytest.mark.slow
def test_in_a_browser_opened_from_disk(site, browser):
    """Search finds, both colour schemes show, no page is wider than a phone, nothing is asked of a network."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = context.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    wide = []
    for path in sorted(set(site.rglob("*.html")) - {site / "404.html"}):
        page.goto(path.as_uri())
        if page.evaluate("document.documentElement.scrollWidth") > 390:
            wide.append(path.name)
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto((site / "index.html").as_uri())
    page.locator(".md-search__input").press_sequentially("overtraining")
    page.locator(".md-search-result__link").first.wait_for(timeout=10_000)
    assert "laws.html" in (page.locator(".md-search-result__link").first.get_attribute("href") or "")
    context.close()
    assert (wide, said) == ([], [])
    assert [url for url in asked if not url.startswith(("file://", "data:", "blob:"))] == []
