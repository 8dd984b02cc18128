"""How big, how many tokens, how many bits: precision-aware scaling laws, with error bars.

    import bitlaw as bl

    runs = bl.read_runs("runs.csv")
    fit = bl.fit("kumar", runs, hold_out=bl.largest())
    bl.plan(fit, budget="1e22 flops")

Names are loaded when they are first used: importing bitlaw costs almost nothing, and never imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import BitlawError, ConfigError, DataError, FitError, LabError, LawError, StoreError

if TYPE_CHECKING:
    from . import calibration, datasets, formats, laws
    from .fitting import (
        Comparison,
        Fit,
        backtest,
        compare,
        downstream,
        fit,
        forecast,
        isoflop,
        largest,
        load_fit,
        longest,
        lowest_bits,
        protocol,
        shift,
    )
    from .formats import Scheme, parse_format
    from .laws import Law, published
    from .planning import Plan, next_runs, plan
    from .report import write_report
    from .runs import Imported, Runs, Store, import_runs, read_runs, write_runs

_HOME = {
    "Comparison": "fitting",
    "Fit": "fitting",
    "Imported": "runs",
    "Law": "laws",
    "Plan": "planning",
    "Runs": "runs",
    "Scheme": "formats",
    "Store": "runs",
    "backtest": "fitting",
    "calibration": "",
    "compare": "fitting",
    "datasets": "",
    "downstream": "fitting",
    "fit": "fitting",
    "forecast": "fitting",
    "formats": "",
    "import_runs": "runs",
    "isoflop": "fitting",
    "largest": "fitting",
    "laws": "",
    "load_fit": "fitting",
    "longest": "fitting",
    "lowest_bits": "fitting",
    "next_runs": "planning",
    "parse_format": "formats",
    "plan": "planning",
    "protocol": "fitting",
    "published": "laws",
    "read_runs": "runs",
    "shift": "fitting",
    "write_report": "report",
    "write_runs": "runs",
}

__all__ = [
    "BitlawError",
    "Comparison",
    "ConfigError",
    "DataError",
    "Fit",
    "FitError",
    "Imported",
    "LabError",
    "Law",
    "LawError",
    "Plan",
    "Runs",
    "Scheme",
    "Store",
    "StoreError",
    "backtest",
    "calibration",
    "compare",
    "datasets",
    "downstream",
    "fit",
    "forecast",
    "formats",
    "import_runs",
    "isoflop",
    "largest",
    "laws",
    "load_fit",
    "longest",
    "lowest_bits",
    "next_runs",
    "parse_format",
    "plan",
    "protocol",
    "published",
    "read_runs",
    "shift",
    "write_report",
    "write_runs",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bitlaw' has no attribute {name!r}")
    home = _HOME[name]
    value = importlib.import_module(f".{home or name}", __name__)
    return getattr(value, name) if home else value


def __dir__() -> list[str]:
    return __all__
