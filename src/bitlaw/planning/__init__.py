"""From a law to a decision: sizes, tokens and bits under a budget, and how sure it is."""

from .answer import Answer, Option, Plan
from .ask import plan
frontier = None

__all__ = ["Answer", "Option", "Plan", "frontier", "plan"]
