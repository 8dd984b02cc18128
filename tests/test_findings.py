"""The tables of the thousandth study are made from the rows that the package carries."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from bitlaw.datasets import STAGES, thousandth

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
STAGE_OF = {
    "Held out: larger models": "held-out",
    "What formats cost": "formats",
    "A second text: source code": "code",
}


@pytest.mark.slow
def test_every_section_has_its_tables():
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    of = dict(part.split("\n", 1) for part in done.stdout.split("\n## ")[1:])
    trained = {stage: thousandth(stage).frame.height > 0 for stage in STAGES}
    for name in SECTIONS:
        waits = not trained.get(STAGE_OF.get(name, "core"), True)
        assert ("Not trained yet." in of[name]) if waits else of[name].count("\n|") > 2, name
    core = thousandth("core").frame
    ends = core.filter(pl.col("parent").is_null())
    assert (
        f"| core | {core['trunk'].n_unique()} | {ends['config'].n_unique()} | {ends.height} |" in done.stdout
    )
    assert not re.search(r"\bnan", done.stdout)
