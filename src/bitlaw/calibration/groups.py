"""Classes that are too many to be looked at one by one, put together by how often they occur."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError
from .arrays import Integers


def frequency_groups(counts: Any, groups: int = 10) -> Integers:
    """Return the frequency group of each class (K,): 0 holds the most frequent, all equally many classes.

    Classes that never occur join the rarest; so ten groups are the deciles of the classes that do occur.

    Args:
        counts: how often each class occurs in text that is not evaluated, such as the training text (K,).
        groups: how many.

    Raises:
        DataError: counts that are not so, or fewer classes that occur than groups.

    >>> frequency_groups([5, 0, 90, 40, 7], groups=2)
    array([1, 1, 0, 0, 1])
    """
    found = np.asarray(counts)
    if found.ndim != 1 or found.dtype.kind not in "iuf" or not (np.isfinite(found) & (found >= 0)).all():
        raise DataError("counts must be one number, zero or more, for each class")
    seen = int((found > 0).sum())
    if not 1 <= groups <= seen:
        raise DataError(f"{seen} classes that occur cannot make {groups} groups; try fewer groups")
    out = np.full(len(found), groups - 1)
    ranked = np.argsort(-found, kind="stable")[:seen]
    out[ranked] = np.arange(seen) * groups // seen
    return out
