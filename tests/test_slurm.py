"""The array job of `examples/slurm` on a real Slurm of one node gives the rows that processes here give."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from servers import Slurm
from test_claims import SMALL, job, stable

from bitlaw import Store
from bitlaw.lab.sweep import run_sweep
from bitlaw.runs import running

TEMPLATE = Path(__file__).parents[1] / "examples" / "slurm" / "sweep.sbatch"
TOML = SMALL.replace("[3]", "[3, 4]")


@pytest.fixture
def slurm():
    if not all(map(shutil.which, Slurm.PROGRAMS)):
        pytest.skip("needs Slurm: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("needs root: slurmd starts jobs as their users")
    cluster = Slurm(cpus=2)
    yield cluster
    cluster.remove()


@pytest.mark.slow
def test_an_array_job_gives_the_rows_of_one_machine(slurm, server, tmp_path):
    """Two elements; the first is cancelled in the middle, gives its claim back, and the other does its work."""
    configs, after = job(tmp_path / "s.toml", TOML)
    run_sweep(configs, Store(tmp_path / "calm.sqlite"), tmp_path / "calm", after=after, workers=2)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bitlaw").write_text(f'#!/bin/sh\nexec {sys.executable} -m bitlaw "$@"\n')
    (tmp_path / "bin" / "bitlaw").chmod(0o755)
    where = server.database("slurm")
    Store(where).close()
    variables = {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "SWEEP": str(tmp_path / "s.toml"),
        "FOLDER": str(tmp_path / "here"),
        "BITLAW_STORE": where,
    }
    logs = f"--output={tmp_path}/%a.log"
    number = slurm.call("sbatch", "--parsable", "--array=0-1", logs, str(TEMPLATE), **variables).strip()

    def said() -> str:
        return slurm.call("squeue") + "".join(log.read_text() for log in sorted(tmp_path.glob("*.log")))

    deadline = time.monotonic() + 200
    while not (len(running(Store(where))) == 2 and Store(where).ids()):
        assert time.monotonic() < deadline, said()
        time.sleep(0.1)
    slurm.call("scancel", f"{number}_0")
    while slurm.call("squeue", "-h", "-j", number, check=False).strip():
        assert time.monotonic() < deadline, said()
        time.sleep(0.5)
    assert "Stopped." in (tmp_path / "0.log").read_text(), said()
    assert "8 cells: 8 ok" in (tmp_path / "1.log").read_text(), said()
    assert stable(where) == stable(str(tmp_path / "calm.sqlite"))
    assert not running(Store(where))
