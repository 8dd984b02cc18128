"""Logits, labels, groups and clusters: read once, refused where they cannot be meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

Array: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
BLOCK = 2**21  # numbers worked on at a time: 16 MB, whatever the number of classes


def read_logits(logits: Any) -> NDArray[Any]:
    """Return logits (n, K) as they are stored; they become float64 a block at a time.

    Raises:
        DataError: not two dimensions, fewer than two classes, no samples, not real numbers, or not finite.
    """
    z = np.asarray(logits)
    if z.ndim != 2 or z.shape[0] < 1 or z.shape[1] < 2:
        raise DataError(
            f"logits must be (samples, classes) with at least two classes, not of shape {z.shape}; "
            "tokens of several texts go one below the other"
        )
    if z.dtype.kind not in "fiu":
        raise DataError(f"logits must be real numbers, not {z.dtype}")
    for rows in blocks(z):
        if not np.isfinite(z[rows]).all():
            raise DataError("logits must be finite; leave out samples with NaN, and give masked classes -1e4")
    return z


def read_labels(labels: Any, z: NDArray[Any]) -> Integers:
    """Return the true class of each sample (n,).

    Raises:
        DataError: not one whole number a sample, or outside the classes.
    """
    y = _whole("labels", labels, len(z), "samples")
    if y.min() < 0 or y.max() >= z.shape[1]:
        raise DataError(
            f"labels must lie between 0 and {z.shape[1] - 1}, not {y.min()} to {y.max()}; "
            "leave out samples without a class"
        )
    return y


def read_groups(groups: Any, classes: int) -> Integers:
    """Return the group of each class (K,); None makes every class a group of its own.

    Raises:
        DataError: not one whole number a class, or numbers with a hole.
    """
    if groups is None:
        return np.arange(classes)
    g = _whole("groups", groups, classes, "classes")
    if not np.array_equal(np.unique(g), np.arange(g.max() + 1)):
        raise DataError(
            "groups must be numbered from 0 without a hole; np.unique(..., return_inverse=True) does"
        )
    return g


def read_clusters(clusters: Any, n: int) -> Integers:
    """Return the cluster of each sample (n,), numbered from 0; None makes every sample its own.

    Raises:
        DataError: not one a sample, or fewer than two clusters.
    """
    if clusters is None:
        member = np.arange(n)
    else:
        names = np.asarray(clusters)
        if names.shape != (n,):
            raise DataError(f"clusters must name one for each of {n} samples, not be of shape {names.shape}")
        member = np.unique(names, return_inverse=True)[1]
    if member.max() < 1:
        raise DataError("an interval needs at least two samples, in at least two clusters")
    return member


def blocks(z: NDArray[Any]) -> Iterator[slice]:
    """Slices of samples of about `BLOCK` numbers each."""
    size = max(1, BLOCK // z.shape[1])
    return (slice(k, k + size) for k in range(0, len(z), size))


def log_softmax(y: Array) -> Array:
    """Logarithms of the probabilities of rows of logits (n, K).

    >>> log_softmax(np.array([[1000.0, 1000.0]])).round(4)
    array([[-0.6931, -0.6931]])
    """
    y = y - y.max(axis=1, keepdims=True)
    out: Array = y - np.log(np.exp(y).sum(axis=1, keepdims=True))
    return out


def group_sums(values: Array, groups: Integers) -> Array:
    """Sum columns (n, K) within groups, to (n, G)."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    out: Array = np.add.reduceat(values[:, order], starts, axis=1)
    return out


def _whole(what: str, values: Any, count: int, of: str) -> Integers:
    found = np.asarray(values)
    if found.shape != (count,) or found.dtype.kind not in "iu":
        raise DataError(
            f"{what} must be one whole number for each of the {count} {of}, not {found.dtype} of shape {found.shape}"
        )
    return found.astype(np.int64)
