"""What the tests of the explorer share: rows from a published law, a store of them, and the server as a process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from conftest import TRUTH

from bitlaw import Store
from bitlaw.laws import kumar_unified

HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</script><svg onload=document.title='owned'>, 'a' b",
)
SIZES = (30e6, 60e6, 110e6, 220e6, 400e6)
TRAINED: list[dict[str, str]] = [{}, {}]
TRAINED += [{"w_format": f"int{b}"} for b in (3, 4, 5, 6, 8)]
TRAINED += [{"a_format": f"int{b}"} for b in (4, 5, 6, 8)]
TRAINED += [{"kv_format": f"int{b}"} for b in (3, 4, 5, 6)]


def rows(number: int, seed: int = 0, noise: float = 0.003) -> list[dict[str, Any]]:
    """Rows of a sweep drawn from the published law; ten to a trunk, some quantised after training, some failed."""
    rng = np.random.default_rng(seed)
    out: list[dict[str, Any]] = []
    while len(out) < number:
        trunk = len(out) // 10
        n, d = SIZES[trunk % len(SIZES)], float(f"{np.exp(rng.uniform(np.log(1.5e9), np.log(2.6e10))):.3g}")
        base = f"{seed:02x}{trunk:04x}"
        for branch in range(10):
            formats = dict(TRAINED[rng.integers(len(TRAINED))])
            row = {"id": f"{base}-{branch}", "trunk": base, "params": n, "tokens": d, "seed": trunk % 3}
            row |= {"started": "2026-01-02T03:04:05+00:00", "seconds": 60.0, "corpus": "synthetic"}
            inputs = {c[:-7] + "_bits": float(v[3:]) for c, v in formats.items()}
            if not formats and rng.random() < 0.8:
                formats = {"post_format": f"int{rng.integers(3, 7)}"}
                inputs = {"post_bits": float(formats["post_format"][3:])}
                gap = float(kumar_unified.predict_gap(TRUTH, params=n, tokens=d, **inputs))
                row |= {"gap": gap * float(np.exp(0.05 * rng.standard_normal())), "gap_se": 0.05 * gap}
            loss = float(kumar_unified.predict(TRUTH, params=n, tokens=d, **inputs))
            row |= formats | {"loss": loss * float(np.exp(noise * rng.standard_normal()))}
            if trunk % 20 == 19 and branch == 0:
                lost = {"status": "failed", "reason": "3 workers were lost on it", "gap": None, "loss": None}
                row |= lost | {"gap_se": None}
            out.append(row)
    return out[:number]


def store(path: Path, number: int) -> Path:
    """A store of such rows, of which the first are named by those who mean harm."""
    made = rows(number)
    for row, name in zip(made, HOSTILE, strict=False):
        row |= {"id": name, "trunk": name, "reason": name if row.get("status") else None}
    kept = Store(path)
    kept.add(made)
    kept.close()
    return path


@contextmanager
def explorer(*arguments: str, cwd: Path | None = None) -> Iterator[str]:
    """The explorer as a process of its own; its address."""
    command = [sys.executable, "-m", "bitlaw", "explore", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/[\w-]+/", line)
        assert found, (line, process.stderr and process.stderr.read())
        yield found[0]
    finally:
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=20)
    assert said == ("", ""), said  # Ctrl-C ends it without a word
    assert process.returncode == 0
