"""A law on rows: estimates, intervals, and what the rows cannot tell."""

from .backtest import Backtest, backtest
from .compare import all_for, compare
from .contour import Contour, contours
from .downstream import Downstream, downstream
from .estimate import fit
from .examine import examine
from .forecast import Forecast, forecast, load_forecast
from .influence import Influence, influence
from .isoflop import isoflop
from .path import OptimalPath
from .profiles import Profile, profiles
from .protocol import Protocol, protocol
from .ranking import Comparison
from .result import Estimate, Fit, HeldOut, load_fit
from .shift import Shift, shift
from .split import Split, cheapest, largest, longest, lowest_bits

__all__ = [
    "Backtest",
    "Comparison",
    "Contour",
    "Downstream",
    "Estimate",
    "Fit",
    "Forecast",
    "HeldOut",
    "Influence",
    "OptimalPath",
    "Profile",
    "Protocol",
    "Shift",
    "Split",
    "all_for",
    "backtest",
    "cheapest",
    "compare",
    "contours",
    "downstream",
    "examine",
    "fit",
    "forecast",
    "influence",
    "isoflop",
    "largest",
    "load_fit",
    "load_forecast",
    "longest",
    "lowest_bits",
    "profiles",
    "protocol",
    "shift",
]
