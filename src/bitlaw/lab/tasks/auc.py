"""The area under the ROC curve, with its standard error."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from ...errors import DataError


def auc(labels: ArrayLike, scores: ArrayLike) -> tuple[float, float]:
    """Return the probability that a positive scores above a negative, ties counting half, and its standard error.

    The error is that of rows drawn anew, by placement values (DeLong, DeLong & Clarke-Pearson 1988): with V the share
    of negatives below each positive, and W the share of positives above each negative,

        se^2 = var(V) / positives + var(W) / negatives

    Args:
        labels: true or false, (rows,).
        scores: (rows,); only their order matters.

    Raises:
        DataError: fewer than two rows of a label, or scores that are not finite.

    >>> value, error = auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    >>> value, round(error, 3)
    (0.75, 0.354)
    """
    y, s = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    positives, negatives = int(y.sum()), int((~y).sum())
    if min(positives, negatives) < 2 or not np.isfinite(s).all():
        raise DataError(
            f"an AUC needs finite scores and two rows of each label, not {positives} and {negatives}"
        )
    ranks = rankdata(s)
    above = (ranks[y] - rankdata(s[y])) / negatives
    below = 1 - (ranks[~y] - rankdata(s[~y])) / positives
    variance = above.var(ddof=1) / positives + below.var(ddof=1) / negatives
    return float(above.mean()), math.sqrt(variance)
