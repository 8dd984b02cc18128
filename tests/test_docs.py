"""What the README says can be done, can be done."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import synthetic_sweep

from bitlaw import Store, write_runs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    runs = synthetic_sweep(0, paired=True, post_of_low=False)
    write_runs(runs, folder / "runs.csv")
    Store(folder / "study-quick" / "runs.sqlite").add(runs.frame.to_dicts())
    return folder


def test_the_readmes_shell_commands_run(workshop):
    blocks = re.findall(r"```\n(.*?)```", README, re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("bitlaw ")]
    ran = 0
    for line in lines:
        if "study" not in line:
            out = subprocess.run(
                [sys.executable, "-m", *line.split()], cwd=workshop, capture_output=True, text=True
            )
            assert out.returncode == 0, (line, out.stderr)
            ran += 1
    assert ran == 4


def test_the_readmes_python_runs(workshop):
    (block,) = re.findall(r"```python\n(.*?)```", README, re.S)
    out = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], cwd=workshop, capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    assert "90% interval" in out.stdout


def test_links_and_paths_in_the_docs_exist():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
    for path in re.findall(r"`((?:src|docs)/[^`*]+)`", README):
        assert (ROOT / path).exists(), path


def test_make_targets_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)$", README, re.M):
        assert f"\n{target}:" in makefile


@pytest.mark.parametrize("page", ["laws", "schema"])
def test_generated_pages_are_what_the_code_says(page):
    import runpy

    made = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    assert (ROOT / "docs" / f"{page}.md").read_text() == made[page](), "run: python docs/generate.py"
