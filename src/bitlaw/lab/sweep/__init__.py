"""From a ladder to cells to rows: which runs there are, and workers that make them."""

from .after import After
from .again import TRAINED, Again, Repeat, draw, made_by, make_again, seed_noise
from .engine import run_sweep
from .folders import quantize_folder
from .ladder import SweepConfig, trunks
from .large import train_large
from .mirrors import mirror
from .on_ray import RayTeam
from .place import alone, clear, own_place
from .plan import Planned, Tally, measured_speed, planned, speeds, work_left
from .processes import Processes
from .rows import row_ids
from .team import Team
from .tuned import Tuned, tune_folder

__all__ = [
    "TRAINED",
    "After",
    "Again",
    "Planned",
    "Processes",
    "RayTeam",
    "Repeat",
    "SweepConfig",
    "Tally",
    "Team",
    "Tuned",
    "alone",
    "clear",
    "draw",
    "made_by",
    "make_again",
    "measured_speed",
    "mirror",
    "own_place",
    "planned",
    "quantize_folder",
    "row_ids",
    "run_sweep",
    "seed_noise",
    "speeds",
    "train_large",
    "trunks",
    "tune_folder",
    "work_left",
]
