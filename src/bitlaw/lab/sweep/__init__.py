"""From a ladder to cells to rows: which runs there are, and workers that make them."""

from .after import After
from .folders import quantize_folder
from .ladder import SweepConfig, trunks
from .rows import row_ids
from .workers import run_sweep, work_left

__all__ = [
    "After",
    "SweepConfig",
    "quantize_folder",
    "row_ids",
    "run_sweep",
    "trunks",
    "work_left",
]
