"""From a law to a decision: sizes, tokens and bits under a budget, how sure it is, what it costs, how long it takes."""

from .answer import Answer, Option, Plan
from .ask import plan
from .candidates import Trunk
from .cost import Achieved, achieved_from, bit_flops, train_seconds, train_work
from .design import Design, Narrowed, next_runs
from .frontiers import frontier, serving_frontier
from .hardware import Hardware, hardware
from .record import Record, read_record
from .recovery import Recovery, recovery
from .serve import Cache, Serving, serve

__all__ = [
    "Achieved",
    "Answer",
    "Cache",
    "Design",
    "Hardware",
    "Narrowed",
    "Option",
    "Plan",
    "Record",
    "Recovery",
    "Serving",
    "Trunk",
    "achieved_from",
    "bit_flops",
    "frontier",
    "hardware",
    "next_runs",
    "plan",
    "read_record",
    "recovery",
    "serve",
    "serving_frontier",
    "train_seconds",
    "train_work",
]
