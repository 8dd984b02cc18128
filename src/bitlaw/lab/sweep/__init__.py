"""From a ladder to cells to rows: which runs there are, and workers that make them."""

from .ladder import SweepConfig, trunks
from .workers import run_sweep, work_left

__all__ = ["SweepConfig", "run_sweep", "trunks", "work_left"]
