"""How much of what quantisation costs is only lost confidence, and comes back with a calibrator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from .arrays import Array, Integers, blocks, log_softmax, read_clusters, read_labels, read_logits
from .fit import Method, calibrate
from .metrics import Interval, bootstrap_interval, resampled
from .objective import Objective
from .scaling import Calibrator, Temperature


@dataclass(frozen=True)
class GapSplit:
    """A gap in loss, nats a sample, in two parts that add up to it.

    Attributes:
        gap: loss of the quantised model less that of the original.
        recoverable: what calibrating both takes off the gap; below zero where it widens it.
        remaining: loss of the quantised model less that of the original, both calibrated.
        one_sided: loss of the quantised model, calibrated, less that of the original as it is.
        share: recoverable / gap; its interval means little where the gap's holds zero.
        before: the original model's calibrator.
        after: the quantised model's.
        measured: which samples the gap is measured on (n,); the calibrators were fitted to the others.
    """

    gap: Interval
    recoverable: Interval
    remaining: Interval
    one_sided: Interval
    share: Interval
    before: Calibrator
    after: Calibrator
    measured: NDArray[np.bool_]


def split_gap(
    before: Any,
    after: Any,
    labels: Any,
    clusters: Any,
    *,
    method: Method = "temperature",
    objective: Objective = "cross_entropy",
    groups: Any = None,
    validation: float = 0.2,
    level: float = 0.9,
    draws: int = 1000,
    seed: int = 0,
) -> GapSplit:
    """Split the loss gap between a model and its quantised copy into what a calibrator recovers and what stays.

        gap         = L(after) - L(before)
        remaining   = L(c_a(after)) - L(c_b(before))
        recoverable = gap - remaining

    Both calibrators, c_a and c_b, are fitted on some clusters, and all losses measured on the others, sample by
    sample. Both models are calibrated, because the honest question is what quantisation did: a model that was
    miscalibrated before would gain from a calibrator without having been quantised, and `one_sided`, which
    calibrates only the quantised model, counts that gain as recovered. It answers another question, whether a
    calibrated small model may stand in for the original as it is served today, and can be below zero.

    Args:
        before: logits of the original model (n, K).
        after: logits of the quantised model on the same samples (n, K).
        labels: the true class, or next token, of each (n,).
        clusters: the document, or window of text, of each (n,); they are kept whole.
        method: of calibration, as in `calibrate`.
        objective: of calibration. Only cross-entropy is the loss that the gap is made of; another may raise the loss of
            both models, and the share then means nothing (docs/log.md).
        groups: group of each class (K,).
        validation: share of the clusters that calibrators are fitted to, drawn at random.
        level: of the intervals.
        draws: of the bootstrap over the measured clusters. Calibrators are taken as fitted: the intervals do not hold
            what another validation set would have made of them.
        seed: of the draw of clusters, and of the bootstrap.

    Raises:
        DataError: arrays that do not fit together, or fewer than two clusters on either side.
        ConfigError: an impossible share, level, method or objective.

    >>> rng = np.random.default_rng(0)
    >>> before = rng.normal(0, 2, (4000, 5))
    >>> labels = np.array([rng.choice(5, p=p) for p in np.exp(log_softmax(before))])
    >>> split = split_gap(before, 3 * before, labels, np.arange(4000) // 40)  # overconfident, and nothing else
    >>> split.gap.value > 0.1, abs(split.share.value - 1) < 0.02
    (True, True)
    """
    if not 0 < validation < 1:
        raise ConfigError(f"the share for validation must lie between 0 and 1, not {validation}; try 0.2")
    z_before, z_after = read_logits(before), read_logits(after)
    if z_before.shape != z_after.shape:
        raise DataError(
            f"the models must be given the same samples and classes; their logits are {z_before.shape} and "
            f"{z_after.shape}"
        )
    y, member = read_labels(labels, z_before), read_clusters(clusters, len(z_before))
    count = int(member.max()) + 1
    taken = round(validation * count)
    if min(taken, count - taken) < 2:
        raise DataError(
            f"{count} clusters leave {taken} to fit calibrators to and {count - taken} to measure; each needs two"
        )
    chosen = np.zeros(count, bool)
    chosen[np.random.default_rng(seed).permutation(count)[:taken]] = True
    inside = chosen[member]
    before_c, after_c = (
        calibrate(z[inside], y[inside], method, objective, groups, seed) for z in (z_before, z_after)
    )
    as_is = Temperature(1.0)
    raw_b, raw_a = (_losses(as_is, z[~inside], y[~inside]) for z in (z_before, z_after))
    cal_b, cal_a = (
        _losses(before_c, z_before[~inside], y[~inside]),
        _losses(after_c, z_after[~inside], y[~inside]),
    )
    terms = np.stack([raw_a - raw_b, (raw_a - cal_a) - (raw_b - cal_b), cal_a - cal_b, cal_a - raw_b], axis=1)
    place = np.unique(member[~inside], return_inverse=True)[1]
    sums = np.stack([np.bincount(place, term) for term in terms.T], axis=1)
    size = np.bincount(place).astype(float)
    stacks = resampled(len(size), level, draws, seed)
    drawn = np.concatenate([counts @ sums / (counts @ size)[:, None] for counts in stacks])
    values = terms.mean(axis=0)
    gap, recoverable, remaining, one_sided = (
        bootstrap_interval(float(v), d, level, "clusters", len(size))
        for v, d in zip(values, drawn.T, strict=True)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        share = bootstrap_interval(
            float(values[1] / values[0]), drawn[:, 1] / drawn[:, 0], level, "clusters", len(size)
        )
    return GapSplit(gap, recoverable, remaining, one_sided, share, before_c, after_c, ~inside)


def _losses(calibrator: Calibrator, z: Any, y: Integers) -> Array:
    """Loss of each sample (n,), in nats."""
    parts = [-log_softmax(calibrator.apply(z[rows]))[np.arange(len(y[rows])), y[rows]] for rows in blocks(z)]
    return np.concatenate(parts)
