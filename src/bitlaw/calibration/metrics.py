"""How far confidence can be trusted: calibration errors and proper scores, with intervals.

Every measure is a function of sums over samples: of a loss, or of (hit - confidence) within each bin. A bootstrap draw
weights the sums of whole clusters, so thousands of draws cost one matrix product, and all measures share the draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import ConfigError, nearest
from .arrays import (
    BLOCK,
    Array,
    Integers,
    blocks,
    group_sums,
    log_softmax,
    read_clusters,
    read_groups,
    read_labels,
    read_logits,
)

BINS = 15  # equal widths, closed above, as in Guo et al. 2017 (1706.04599)


@dataclass(frozen=True)
class Interval:
    """A measured value, and the ends of its interval at a level, by a method, of a kind."""

    value: float
    low: float
    high: float
    level: float
    method: str
    kind: str = "confidence"


@dataclass(frozen=True)
class Bin:
    """Samples whose confidence lies in (low, high], how sure they are and how often right; NaN where there are none."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def nll(logits: Any, labels: Any) -> float:
    """Mean negative log likelihood, nats a sample.

    >>> round(nll([[0.0, 0.0], [0.0, 0.0]], [0, 1]), 4)
    0.6931
    """
    return _value("nll", logits, labels)


def brier(logits: Any, labels: Any) -> float:
    """Mean squared distance of probabilities from the outcome, sum_k (p_k - [y = k])^2: between 0 and 2.

    >>> brier([[0.0, 0.0]], [1])
    0.5
    """
    return _value("brier", logits, labels)


def accuracy(logits: Any, labels: Any) -> float:
    """Share of samples whose largest logit is the true class's.

    >>> accuracy([[2.0, 1.0], [2.0, 1.0]], [0, 1])
    0.5
    """
    return _value("accuracy", logits, labels)


def ece(logits: Any, labels: Any, bins: int = BINS) -> float:
    """Expected calibration error, sum_b n_b / n |accuracy_b - confidence_b|, confidence being the largest probability.

    It is above zero on finite samples even of a perfectly calibrated model.

    >>> round(ece([[4.0, 0.0]] * 4, [0, 0, 0, 1]), 3)  # sure to 98 %, right to 75 %
    0.232
    """
    return _value("ece", logits, labels, bins=bins)


def classwise_ece(logits: Any, labels: Any, groups: Any = None, bins: int = BINS) -> float:
    """Mean over classes of the calibration error of each class's own probability (Kull et al. 2019, 1910.12656).

    With `groups` (K,), of each group's probability, the sum of its classes': what to take of large vocabularies.

    >>> round(classwise_ece([[4.0, 0.0]] * 4, [0, 0, 0, 1]), 3)
    0.232
    """
    return _value("classwise_ece", logits, labels, groups, bins)


def class_losses(logits: Any, labels: Any, groups: Any = None) -> Array:
    """Mean negative log likelihood of the samples of each class (K,), or each group of classes (G,).

    A class without samples has none: NaN.

    >>> class_losses([[0.0, 0.0, 0.0]], [1]).round(4)
    array([   nan, 1.0986,    nan])
    """
    z, y, g = _read(logits, labels, groups)
    return _class_means(_total("class_loss_spread", z, y, g))


def class_loss_spread(logits: Any, labels: Any, groups: Any = None) -> float:
    """Standard deviation of `class_losses`, over the classes that have samples.

    >>> class_loss_spread([[0.0, 0.0], [0.0, 0.0]], [0, 1])
    0.0
    """
    return _value("class_loss_spread", logits, labels, groups)


def reliability(logits: Any, labels: Any, bins: int = BINS) -> tuple[Bin, ...]:
    """Table of how often predictions of each confidence are right: what a reliability diagram draws.

    >>> [b.count for b in reliability([[4.0, 0.0]] * 4, [0, 0, 0, 1], bins=2)]
    [0, 4]
    """
    z, y, _ = _read(logits, labels, None, bins)
    count, sure, right = np.zeros(bins), np.zeros(bins), np.zeros(bins)
    for rows in blocks(z):
        log_p = log_softmax(z[rows].astype(float))
        confidence = np.exp(log_p.max(axis=1))
        place = _bin(confidence, bins)
        count += np.bincount(place, minlength=bins)
        sure += np.bincount(place, confidence, bins)
        right += np.bincount(place, log_p.argmax(axis=1) == y[rows], bins)
    sure, right = (np.divide(s, count, out=np.full(bins, np.nan), where=count > 0) for s in (sure, right))
    return tuple(
        Bin(k / bins, (k + 1) / bins, int(count[k]), float(sure[k]), float(right[k])) for k in range(bins)
    )


def measure(
    logits: Any,
    labels: Any,
    names: Sequence[str] = ("ece", "classwise_ece", "nll", "brier", "accuracy", "class_loss_spread"),
    *,
    groups: Any = None,
    clusters: Any = None,
    bins: int = BINS,
    level: float = 0.9,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Measure the confidence of predictions, with bootstrap intervals.

    Args:
        logits: (n, K).
        labels: the true class of each sample (n,).
        names: what to measure, by the names of the functions of this room.
        groups: group of each class (K,), for the class-wise measures; None takes classes one by one.
        clusters: what each sample belongs to (n,), such as its document; None takes samples as independent.
        bins: of the calibration errors.
        level: of the intervals.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        An interval for each name, widened where samples or clusters are few; of values that are all the same it is a
        point. Means have percentile intervals; calibration errors and the spread, which
        resampling pushes upwards once more, basic ones (2 value - quantiles), cut at zero, which may lie below the
        value. Near zero those are too narrow: in simulations they held an ECE that chance alone had made half of
        the time, one well above that about nine times in ten (docs/log.md).

    Raises:
        DataError: logits, labels, groups or clusters that do not fit together.
        ConfigError: an unknown name, or an impossible level, number of draws or bins.

    >>> found = measure([[1.0, 0.0]] * 30, [0, 0, 1] * 10)["accuracy"]
    >>> found.low < found.value < found.high, round(found.value, 3), found.method
    (True, 0.667, "percentile bootstrap over samples, widened as Student's t is")
    """
    z, y, g = _read(logits, labels, groups, bins)
    for name in names:
        if name not in _MEASURES:
            raise ConfigError(f"there is no measure {name!r}: {nearest(name, _MEASURES)}")
    member = read_clusters(clusters, len(y))
    over = "samples" if clusters is None else "clusters"
    size = np.bincount(member).astype(float)
    sums = _sums(names, z, y, g, bins, member)
    drawn: dict[str, list[Array]] = {name: [] for name in names}
    for counts in resampled(len(size), level, draws, seed):
        for name in names:
            drawn[name].append(_MEASURES[name].finish(counts @ sums[name], counts @ size))
    out = {}
    for name in names:
        value = float(_MEASURES[name].finish(sums[name].sum(axis=0), size.sum()))
        found = bootstrap_interval(
            value, np.concatenate(drawn[name]), level, over, len(size), _MEASURES[name].biased
        )
        most = 1.0 if name == "accuracy" else math.inf
        out[name] = replace(found, low=max(0.0, found.low), high=min(most, found.high))
    return out


def resampled(clusters: int, level: float, draws: int, seed: int) -> Iterator[Array]:
    """Stacks of how often each cluster is drawn (draws of a stack, clusters), with replacement.

    Raises:
        ConfigError: an impossible level or number of draws.
    """
    if not 0 < level < 1 or draws < 10:
        raise ConfigError(
            f"level must lie between 0 and 1 and draws be at least 10, not {level} and {draws}; try 0.9 and 1000"
        )
    rng = np.random.default_rng(seed)
    stack = max(1, BLOCK // clusters)
    for start in range(0, draws, stack):
        yield rng.multinomial(clusters, np.full(clusters, 1 / clusters), min(stack, draws - start)).astype(
            float
        )


def bootstrap_interval(
    value: float, drawn: Array, level: float, over: str, units: int, biased: bool = False
) -> Interval:
    """Interval from the values of bootstrap draws (draws,): percentile, or basic where draws are biased upwards.

    Draws of G units are too narrow by sqrt((G - 1) / G), and normal where Student's t is due: ends are moved away from
    the value by sqrt(G / (G - 1)) t / z, 5.4 times as far at two units and 90 %, 1.05 times at 30.
    """
    from scipy.special import ndtri, stdtrit

    drawn = drawn[np.isfinite(drawn)]
    ends = (np.quantile(drawn, (1 + side * level) / 2) if len(drawn) else np.nan for side in (-1, 1))
    upper = 0.5 + level / 2
    wider = float(stdtrit(units - 1, upper) / ndtri(upper)) * math.sqrt(units / (units - 1))
    low, high = (value + wider * (float(end) - value) for end in ends)
    if biased:
        low, high = max(0.0, 2 * value - high), max(0.0, 2 * value - low)
    kind = "basic" if biased else "percentile"
    return Interval(value, low, high, level, f"{kind} bootstrap over {over}, widened as Student's t is")


# ---- sums over samples, and what is made of them

Parts = tuple[Integers, Array]  # columns and values, each (n,) or (n, j)


def _nll(log_p: Array, y: Integers, groups: Integers, bins: int) -> Parts:
    return np.zeros_like(y), -_of(log_p, y)


def _brier(log_p: Array, y: Integers, groups: Integers, bins: int) -> Parts:
    p = np.exp(log_p)
    return np.zeros_like(y), (p**2).sum(axis=1) - 2 * _of(p, y) + 1


def _accuracy(log_p: Array, y: Integers, groups: Integers, bins: int) -> Parts:
    return np.zeros_like(y), (log_p.argmax(axis=1) == y).astype(float)


def _ece(log_p: Array, y: Integers, groups: Integers, bins: int) -> Parts:
    confidence = np.exp(log_p.max(axis=1))
    return _bin(confidence, bins), (log_p.argmax(axis=1) == y) - confidence


def _classwise(log_p: Array, y: Integers, groups: Integers, bins: int) -> Parts:
    p = group_sums(np.exp(log_p), groups)
    off = -p
    off[np.arange(len(y)), groups[y]] += 1
    return np.arange(p.shape[1]) * bins + _bin(p, bins), off / p.shape[1]


def _spread(log_p: Array, y: Integers, groups: Integers, bins: int) -> Parts:
    loss, group = -_of(log_p, y), groups[y]
    columns = np.stack([group, group + groups.max() + 1], axis=1)
    return columns, np.stack([loss, np.ones_like(loss)], axis=1)


def _class_means(sums: Array) -> Array:
    total, count = np.split(sums, 2, axis=-1)
    means: Array = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return means


@dataclass(frozen=True)
class _Measure:
    """Parts of each sample, how many sums there are (of groups and bins), what is made of sums (..., m) and n (...)."""

    parts: Callable[[Array, Integers, Integers, int], Parts]
    width: Callable[[int, int], int]
    finish: Callable[[Array, Any], Array]
    biased: bool = False


def _mean(sums: Array, n: Any) -> Array:
    out: Array = sums[..., 0] / n
    return out


def _error(sums: Array, n: Any) -> Array:
    out: Array = np.abs(sums).sum(axis=-1) / n
    return out


def _deviation(sums: Array, n: Any) -> Array:
    out: Array = np.nanstd(_class_means(sums), axis=-1)
    return out


_MEASURES = {
    "nll": _Measure(_nll, lambda groups, bins: 1, _mean),
    "brier": _Measure(_brier, lambda groups, bins: 1, _mean),
    "accuracy": _Measure(_accuracy, lambda groups, bins: 1, _mean),
    "ece": _Measure(_ece, lambda groups, bins: bins, _error, biased=True),
    "classwise_ece": _Measure(_classwise, lambda groups, bins: groups * bins, _error, biased=True),
    "class_loss_spread": _Measure(_spread, lambda groups, bins: 2 * groups, _deviation, biased=True),
}


def _sums(
    names: Iterable[str], z: Any, y: Integers, groups: Integers, bins: int, member: Integers
) -> dict[str, Any]:
    """Sums over the samples of each cluster: for each measure a sparse matrix (C, m)."""
    from scipy.sparse import coo_array

    clusters = int(member.max()) + 1
    out: dict[str, Any] = {}
    for rows in blocks(z):
        log_p = log_softmax(z[rows].astype(float))
        for name in names:
            measure = _MEASURES[name]
            columns, values = measure.parts(log_p, y[rows], groups, bins)
            of = np.broadcast_to(member[rows] if values.ndim == 1 else member[rows, None], values.shape)
            places = of.ravel(), columns.ravel()
            shape = clusters, measure.width(int(groups.max()) + 1, bins)
            part = coo_array((values.ravel(), places), shape).tocsr()
            out[name] = out[name] + part if name in out else part
    return out


def _total(name: str, z: Any, y: Integers, groups: Integers, bins: int = BINS) -> Array:
    """Sums over all samples (m,)."""
    total: Array = _sums([name], z, y, groups, bins, np.zeros_like(y))[name].toarray()[0]
    return total


def _value(name: str, logits: Any, labels: Any, groups: Any = None, bins: int = BINS) -> float:
    z, y, g = _read(logits, labels, groups, bins)
    return float(_MEASURES[name].finish(_total(name, z, y, g, bins), len(y)))


def _read(logits: Any, labels: Any, groups: Any, bins: int = BINS) -> tuple[Any, Integers, Integers]:
    if bins < 1:
        raise ConfigError(f"a calibration error needs at least one bin, not {bins}; try {BINS}")
    z = read_logits(logits)
    return z, read_labels(labels, z), read_groups(groups, z.shape[1])


def _bin(p: Array, bins: int) -> Integers:
    place: Integers = np.clip(np.ceil(p * bins).astype(np.int64) - 1, 0, bins - 1)
    return place


def _of(values: Array, y: Integers) -> Array:
    """The value of each row's own class."""
    own: Array = values[np.arange(len(y)), y]
    return own
