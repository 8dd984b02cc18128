"""From a small validation set to a calibrator: every method under every objective, with exact gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from ..errors import ConfigError, FitError, nearest
from .arrays import Array, Integers, blocks, log_softmax, read_groups, read_labels, read_logits
from .objective import OBJECTIVES, Objective, Weighting, sample_losses, slopes, tune
from .scaling import FURTHEST, Calibrator, ClassTemperature, Ensemble, Parametric, Temperature

Method: TypeAlias = Literal["temperature", "class_temperature", "ensemble", "parametric"]
METHODS: tuple[str, ...] = get_args(Method)
NETWORKS = 4  # seeded starts of parametric scaling, each of which begins at the best single temperature
ROUNDS = 100  # of class-wise weighting, which settles in far fewer


def calibrate(
    logits: Any,
    labels: Any,
    method: Method = "temperature",
    objective: Objective = "cross_entropy",
    groups: Any = None,
    seed: int = 0,
) -> Calibrator:
    """Fit a calibrator to samples that the model was not trained on.

    Under `class_wise` classes without samples are passed over, and the mean and deviation that normalise class
    losses are held still while an optimiser runs, which so sees one smooth objective; alpha and beta are tuned once,
    after the first round, and rounds go on until mean and deviation are those of the losses they lead to. (The
    authors' code reweights inside L-BFGS, whose line search then compares two objectives.)

    Args:
        logits: (n, K), finite.
        labels: the true class of each sample (n,).
        method: `temperature`, `class_temperature`, `ensemble` or `parametric`.
        objective: `cross_entropy`, `label_smoothing`, `focal` or `class_wise`.
        groups: group of each class (K,), numbered from 0: class temperatures and class losses are then those of
            groups, as they should be where classes are many; None takes classes one by one.
        seed: of the random starts of `parametric`.

    Returns:
        A calibrator, whose `apply` scales logits. Temperatures lie between 1/1000 and 1000: a model that is right on
        every sample has no best one, and gets an end of that.

    Raises:
        DataError: logits, labels or groups that do not fit together.
        ConfigError: an unknown method or objective.
        FitError: no optimum was found.

    >>> calibrate([[4.0, 0.0]] * 4, [0, 0, 0, 1]).apply([[4.0, 0.0]]).round(3)  # right three times out of four
    array([[1.099, 0.   ]])
    """
    for name, known, what in ((method, METHODS, "method"), (objective, OBJECTIVES, "objective")):
        if name not in known:
            raise ConfigError(f"there is no {what} {name!r}: {nearest(name, known)}")
    z = read_logits(logits)
    y, g = read_labels(labels, z), read_groups(groups, z.shape[1])
    problem = _Problem(z, y, np.unique(g[y], return_inverse=True)[1], objective)
    if objective != "class_wise":
        return _lowest(problem, _starts(problem, method, g, seed))
    first = problem.class_means(Temperature(1.0))
    problem = replace(problem, weighting=Weighting.of(first))
    found = _lowest(problem, _starts(problem, method, g, seed))
    losses = problem.class_means(found)
    alpha, beta = tune(first, losses)
    for _ in range(ROUNDS):
        weighting = Weighting.of(losses, alpha, beta)
        if problem.weighting is not None and weighting.near(problem.weighting):
            return found
        problem = replace(problem, weighting=weighting)
        found = _lowest(problem, [found])
        losses = problem.class_means(found)
    raise FitError("class-wise weights did not settle; use the objective cross_entropy, or fewer groups")


@dataclass(frozen=True)
class _Problem:
    """Logits (n, K), true classes (n,), which class loss each belongs to (n,), and what is to be made small."""

    z: Any
    y: Integers
    member: Integers
    objective: str
    weighting: Weighting | None = None

    def class_means(self, calibrator: Calibrator) -> Array:
        """Mean loss of each class that has samples."""
        return self._means(self._losses(calibrator))

    def value_and_slope(self, calibrator: Calibrator) -> tuple[float, Array]:
        """The objective, and its derivative by the coordinates (p,)."""
        losses = self._losses(calibrator)
        if self.weighting is None:
            value, share = float(losses.mean()), np.full(len(losses), 1 / len(losses))
        else:
            means, count = self._means(losses), np.bincount(self.member)
            value = self.weighting.value(means)
            share = (self.weighting.weights(means) / count / len(count))[self.member]
        slope = np.zeros_like(calibrator.coordinates())
        for rows in blocks(self.z):
            z = self.z[rows].astype(float)
            y = calibrator.apply(z)
            by_y = share[rows, None] * slopes(self.objective, log_softmax(y), self.y[rows])
            slope += calibrator.pull(z, y, by_y)
        return value, slope

    def _losses(self, calibrator: Calibrator) -> Array:
        parts = [
            sample_losses(self.objective, log_softmax(calibrator.apply(self.z[rows])), self.y[rows])
            for rows in blocks(self.z)
        ]
        return np.concatenate(parts)

    def _means(self, losses: Array) -> Array:
        means: Array = np.bincount(self.member, losses) / np.bincount(self.member)
        return means


def _starts(problem: _Problem, method: str, groups: Integers, seed: int) -> list[Calibrator]:
    """Where fits begin: at no change where there is one optimum, else around the best single temperature."""
    if method == "temperature":
        return [Temperature(1.0)]
    if method == "class_temperature":
        return [ClassTemperature(np.ones(groups.max() + 1), groups)]
    single = _lowest(problem, [Temperature(1.0)])
    t = float(np.exp(single.coordinates()[0]))
    if method == "ensemble":
        return [Ensemble(t, weights) for weights in ((0.98, 0.01, 0.01), (0.5, 0.25, 0.25))]
    rng = np.random.default_rng(seed)
    return [Parametric.start(problem.z, t, rng) for _ in range(NETWORKS)]


def _lowest(problem: _Problem, starts: list[Calibrator]) -> Calibrator:
    """The best of the optima found from some starts, by L-BFGS-B.

    Raises:
        FitError: none is finite.
    """
    from scipy.optimize import minimize

    lowest, best = np.inf, None
    for start in starts:
        u = np.clip(start.coordinates(), -FURTHEST, FURTHEST)
        found = minimize(
            lambda u, start=start: problem.value_and_slope(start.moved(u)),
            u,
            jac=True,
            method="L-BFGS-B",
            bounds=[(-FURTHEST, FURTHEST)] * len(u),
            options={"maxiter": 1000, "maxfun": 2000, "ftol": 1e-12, "gtol": 1e-7},
        )
        if found.fun < lowest:
            lowest, best = float(found.fun), start.moved(found.x)
    if best is None:
        raise FitError("no calibrator has a finite loss on these samples; look for logits beyond 1e300")
    return best
