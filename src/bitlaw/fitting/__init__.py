"""A law on rows: estimates, intervals, and what the rows cannot tell."""

from .compare import Comparison, compare
from .estimate import fit
from .examine import examine
from .result import Estimate, Fit, HeldOut, load_fit
from .split import Split, largest

__all__ = [
    "Comparison",
    "Estimate",
    "Fit",
    "HeldOut",
    "Split",
    "compare",
    "examine",
    "fit",
    "largest",
    "load_fit",
]
