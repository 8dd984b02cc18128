"""From a ladder to cells to rows: which runs there are, and workers that make them."""

from .after import After
from .engine import run_sweep
from .folders import quantize_folder
from .ladder import SweepConfig, trunks
from .large import train_large
from .place import alone, own_place
from .plan import Planned, measured_speed, planned, speeds, work_left
from .rows import row_ids

__all__ = [
    "After",
    "Planned",
    "SweepConfig",
    "alone",
    "measured_speed",
    "own_place",
    "planned",
    "quantize_folder",
    "row_ids",
    "run_sweep",
    "speeds",
    "train_large",
    "trunks",
    "work_left",
]
