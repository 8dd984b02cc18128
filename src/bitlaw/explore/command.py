"""The commands that do on a terminal what is on the screen."""

from __future__ import annotations

from collections.abc import Sequence

from ..runs.where import Condition
from ..shell import join, path


def command(verb: str, source: str, conditions: Sequence[Condition], *words: str) -> str:
    """A command line that can be pasted.

    >>> from bitlaw.runs.where import parse_where
    >>> command("fit", "my runs.csv", [parse_where("params>=1M")], "--law", "kumar")
    "bitlaw fit 'my runs.csv' --law kumar --where 'params >= 1e+06'"
    """
    chosen = [word for condition in conditions for word in ("--where", str(condition))]
    return join(["bitlaw", verb, path(source), *words, *chosen])
