"""From a law to a decision: sizes, tokens and bits under a budget, how sure it is, and what it costs on hardware."""

from .answer import Answer, Option, Plan
from .ask import plan
from .cost import Achieved, achieved_from, bit_flops, train_seconds, train_work
from .hardware import Hardware, hardware
from .optimum import frontier
from .serve import Cache, Serving, serve

__all__ = [
    "Achieved",
    "Answer",
    "Cache",
    "Hardware",
    "Option",
    "Plan",
    "Serving",
    "achieved_from",
    "bit_flops",
    "frontier",
    "hardware",
    "plan",
    "serve",
    "train_seconds",
    "train_work",
]
