"""Every error bitlaw raises on purpose: what is wrong, which value, and what to try.

A message is one sentence a stranger can act on. The command line prints it and ends with the class's
`exit_code`; Python users catch `BitlawError` or one of its children. It also ends with 0 when all is done, with
1 after an error that nobody foresaw or a question answered with no, with 2 after a flag that does not exist, and with
130 when Ctrl-C stopped it, or SIGTERM a sweep; `bitlaw explore` ends by Ctrl-C alone, and with 0.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BitlawError(Exception):
    """The parent of all errors that bitlaw raises on purpose."""

    exit_code = 1


class ConfigError(BitlawError):
    """A setting, flag, format name or TOML file that cannot mean anything."""

    exit_code = 2


class DataError(BitlawError):
    """A table, row or corpus that cannot be used as it is."""

    exit_code = 3


class FitError(BitlawError):
    """Rows from which a law cannot be fitted, or a fit that found no optimum."""

    exit_code = 4


class LawError(BitlawError):
    """A question outside the domain of a law, where its equation says nothing."""

    exit_code = 5


class StoreError(BitlawError):
    """A run store that cannot be opened, read or written."""

    exit_code = 6


class NoStoreError(StoreError):
    """A run store that is to be read before anything was stored in it."""


class LabError(BitlawError):
    """Training or quantisation that cannot go on."""

    exit_code = 7


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint naming the closest known name, or the list of all of them.

    >>> nearest("chinchila", ["chinchilla", "kumar"])
    "did you mean 'chinchilla'?"
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(known)
