"""The tables of the thousandth study are made from the rows that the package carries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "studies" / "thousandth" / "findings.py"
SECTIONS = (
    "What there is",
    "What it took",
    "Noise of seeds (16 bits)",
    "What training in low precision costs, against tokens",
    "Losses that training raises",
    "Mixed settings and one part at a time",
    "Effective share of parameters, one part in low precision",
    "Forms of the weights' precision, each size held out in turn",
    "Compute-optimal bits by law",
    "The gap of 16-bit models",
    "The unified law, effective N in the gap (GPTQ)",
    "Gaps by schedule (16-bit models, RTN and GPTQ at 3 and 4 bits)",
    "Held out: larger models",
    "What formats cost",
    "A second text: source code",
)


@pytest.mark.slow
def test_every_section_has_its_tables():
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    of = dict(part.split("\n", 1) for part in done.stdout.split("\n## ")[1:])
    for name in SECTIONS:
        assert "| " in of[name] or "Not trained yet." in of[name], name
    assert "nan" not in done.stdout.split()
    assert "Traceback" not in done.stderr
