"""From a law to a decision: sizes, tokens and bits under a budget, how long recovery takes, and how sure it is."""

from .answer import Answer, Option, Plan
from .ask import plan
from .optimum import frontier
from .record import Record, read_record
from .recovery import Recovery, recovery

__all__ = ["Answer", "Option", "Plan", "Record", "Recovery", "frontier", "plan", "read_record", "recovery"]
