"""What several tests share: synthetic sweeps with a known truth, and where public tables lie."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from servers import Server, programs

from bitlaw.laws import kumar_unified, published
from bitlaw.runs import Runs

BEGAN = time.monotonic()
collect_ignore = ["fuzz_law_text.py"]  # started by hand; its engine is not a dependency


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", type=float, help="skip the tests that would begin after this many minutes")


def pytest_runtest_setup(item: pytest.Item) -> None:
    minutes = item.config.getoption("--minutes")
    if minutes is not None and time.monotonic() - BEGAN > 60 * minutes:
        pytest.skip(f"{item.nodeid}: not begun in {minutes:g} minutes")


#: The robustness rates are unpublished; these stand in for them wherever a test needs some.
ASSUMED = {"C_w": 0.6, "C_a": 0.8, "C_kv": 0.7}
TRUTH = {**published("kumar-2024").values, **ASSUMED}
#: The paper's 18 cells: four sizes, five budgets, the longest for two sizes only.
CELLS = [
    (n, d) for n in (30e6, 60e6, 110e6, 220e6) for d in (1.5e9, 3e9, 6e9, 13e9, 26e9) if d < 26e9 or n < 100e6
]


def synthetic_sweep(seed: int, noise: float = 0.003, paired: bool = False, post_of_low: bool = True) -> Runs:
    """Draw 465 runs from the published law with offsets: training at every part's bits, and after training."""
    rng = np.random.default_rng(seed)
    trained = [{}]
    trained += [{"w_format": f"int{b}"} for b in (3, 4, 5, 6, 8, 12)]
    trained += [{"a_format": f"int{b}"} for b in (4, 5, 6, 8, 12)]
    trained += [{"kv_format": f"int{b}"} for b in (3, 4, 5, 6)]
    trained += [{p: f"int{b}" for p in ("w_format", "a_format", "kv_format")} for b in (4, 6, 8)]
    after = [({}, b) for b in (3, 4, 5, 6)]
    if post_of_low:
        after += [({"w_format": "int6"}, 4), ({"a_format": "int6"}, 4), ({"kv_format": "int5"}, 3)]
    rows = []
    for n, d in CELLS:
        for formats in trained:
            rows.append({"params": n, "tokens": d, **formats})
        for formats, bits in after:
            rows.append({"params": n, "tokens": d, **formats, "post_format": f"int{bits}"})
    rows = rows[:465] if post_of_low else rows
    for k, row in enumerate(rows):
        inputs = {c[:-7] + "_bits": float(v[3:]) for c, v in row.items() if c.endswith("_format")}
        size = {"params": row["params"], "tokens": row["tokens"]}
        exact = float(kumar_unified.predict(TRUTH, **size, **inputs))
        row["id"] = f"run-{k}"
        row["loss"] = exact * float(np.exp(noise * rng.standard_normal()))
        if paired and "post_format" in row:
            gap = float(kumar_unified.predict_gap(TRUTH, **size, **inputs))
            row["gap_se"] = 0.02 * gap + 1e-5
            row["gap"] = gap + row["gap_se"] * float(rng.standard_normal())
    return Runs.from_rows(rows)


@pytest.fixture(scope="session")
def sweep() -> Runs:
    """One synthetic sweep."""
    return synthetic_sweep(0)


@pytest.fixture(scope="session")
def public_data() -> Path:
    """The folder of public tables, which is not part of the project."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the public run tables, which are not part of the project")
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """A small base and a larger one, and what each was tuned to: `pairs.Pair`."""
    pytest.importorskip("torch")
    from pairs import make_pairs

    return make_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def server():
    """A PostgreSQL server, for as long as the tests run."""
    pytest.importorskip("psycopg")
    if programs() is None:
        pytest.skip("needs PostgreSQL's server: apt-get install postgresql")
    running = Server()
    yield running
    running.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request, tmp_path) -> str:
    """Where an empty store may be made: a file, and a database."""
    if request.param == "sqlite":
        return str(tmp_path / "runs.sqlite")
    return request.getfixturevalue("server").database(tmp_path.name.lower())


@pytest.fixture
def secret(server, tmp_path) -> str:
    """The address of an empty database, with a password in it; the server asks for none."""
    return server.database(tmp_path.name.lower()).replace("postgres@", "postgres:secret@")


@pytest.fixture(scope="module")
def browser():
    """Chromium, driven by playwright; of a module, since playwright's loop would be in the way of others' loops."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as engine:
        running = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        running.path = chromium
        yield running
        running.close()
