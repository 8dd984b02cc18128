"""What is released is whole: a wheel with all files of the package, which answers without the clone."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
VERSION = version("bitlaw")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (ROOT / ".git").exists(), reason="compares with what git tracks, and this is no clone"
    ),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=300)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The wheel's files in a folder of their own, found before the clone's."""
    folder = tmp_path_factory.mktemp("installed")
    with ZipFile(wheel) as files:
        files.extractall(folder)
    return folder


def run(installed: Path, *command: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel):
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "src"], capture_output=True, text=True, check=True
    ).stdout.split()
    with ZipFile(wheel) as files:
        names = files.namelist()
    info = f"bitlaw-{VERSION}.dist-info/"
    assert {n for n in names if not n.startswith(info)} == {n.removeprefix("src/") for n in tracked}
    assert {f"{info}licenses/LICENSE", f"{info}entry_points.txt"} <= set(names)


def test_the_wheel_answers_from_its_own_files(installed, tmp_path):
    """Data, hardware, the demo's configuration and the report's assets come from the wheel."""
    assert str(installed) in run(installed, "-c", "import bitlaw; print(bitlaw.__file__)", cwd=tmp_path)
    rows = "import bitlaw as bl; bl.datasets.thousandth().to_pandas().to_csv('runs.csv', index=False)"
    run(installed, "-c", rows, cwd=tmp_path)
    bitlaw = ("-m", "bitlaw")
    assert VERSION in run(installed, *bitlaw, "--version", cwd=tmp_path)
    assert "h100" in run(installed, *bitlaw, "hardware", cwd=tmp_path)
    fit = (*bitlaw, "fit", "runs.csv", "--law", "chinchilla", "--draws", "20", "--save", "fit.json")
    assert "alpha" in run(installed, *fit, cwd=tmp_path)
    report = (*bitlaw, "report", "fit.json", "--runs", "runs.csv", "-o", "report.html")
    run(installed, *report, cwd=tmp_path)
    assert "<svg" in (tmp_path / "report.html").read_text(encoding="utf-8")
