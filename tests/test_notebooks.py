"""The notebooks of examples/ run, show tables, and are kept without outputs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
QUICKSTART, PLANNER = FOLDER / "quickstart.ipynb", FOLDER / "planner.py"


def test_notebooks_are_kept_without_outputs():
    code = [c for c in json.loads(QUICKSTART.read_text())["cells"] if c["cell_type"] == "code"]
    assert code and all(not c["outputs"] and c["execution_count"] is None for c in code)


@pytest.mark.slow
def test_quickstart_runs_in_jupyter():
    client, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(QUICKSTART, as_version=4)
    client.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(FOLDER)}}).execute()
    data = [o["data"] for c in notebook.cells for o in c.get("outputs", []) if "data" in o]
    assert sum("<table" in shown.get("text/html", "") for shown in data) == 4  # runs, fit, comparison, plan
    assert any("image/png" in shown for shown in data)
    assert "parameters; loss" in data[-1]["text/plain"]


@pytest.mark.slow
def test_planner_runs_in_marimo():
    pytest.importorskip("marimo")

    def python(*arguments: str) -> str:
        out = subprocess.run([sys.executable, *arguments], cwd=FOLDER, capture_output=True, text=True)
        assert out.returncode == 0, out.stdout + out.stderr
        return out.stdout

    python(str(PLANNER))
    python("-m", "marimo", "check", "--strict", str(PLANNER))
    tables = python(
        "-c",
        "from planner import app\n"
        "outputs, _ = app.run()\n"
        "print(sum('<table' in o._repr_html_() for o in outputs if hasattr(o, '_repr_html_')))",
    )
    assert int(tables) == 4  # runs, fit, and two plans
