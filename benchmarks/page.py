"""What a report costs to build: CPU seconds beyond imports, and its weight, with 1,000 draws behind it.

    python benchmarks/page.py            # half a minute on one core, most of it the fit and the comparison

The rows are 414 synthetic runs of the tests, in training and after it. Each kind of page is built three times; the first
and the least time are given. The first holds what only a first page needs: reading plotly's script, compiling functions.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import bitlaw as bl
from bitlaw.report import write_report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from conftest import synthetic_sweep  # the truth of the tests


def main() -> None:
    import plotly.offline  # noqa: F401  (imports are not counted)

    runs = synthetic_sweep(0, paired=True, post_of_low=False)
    fit = bl.fit("kumar", runs, hold_out=bl.largest(), draws=1000)
    plans = [bl.plan(fit, budget=1e21), bl.plan(fit, params="220M", quantize_to="int4")]
    comparison = bl.compare(runs, ["kumar", "chinchilla"])
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in (("whole", runs), ("of a saved fit", None)):
            path, times = Path(folder) / "page.html", []
            for _ in range(3):
                began = time.process_time()
                write_report(path, rows, fit, comparison=comparison if rows else None, plans=plans)
                times.append(time.process_time() - began)
            found[name] = {
                "first": round(times[0], 2),
                "least": round(min(times), 2),
                "megabytes": round(path.stat().st_size / 1e6, 2),
            }
    print(json.dumps({"rows": len(runs), "draws": len(fit.draws), "pages": found}, indent=1))


if __name__ == "__main__":
    main()
