"""What a calibrator is fitted to: losses of samples, and their slopes by logits.

cross_entropy     l = -log p_y
label_smoothing   l = -(1 - e) log p_y - e / K sum_k log p_k,     e = 0.05
focal             l = -(1 - p_y)^3 log p_y                        (Lin et al. 2017, 1708.02002)
class_wise        cross-entropy, whose class means are weighted by how far they lie from their mean
                  (Jung et al., "Scaling of Class-wise Training Losses for Post-hoc Calibration", ICML 2023)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from .arrays import Array, Integers

Objective: TypeAlias = Literal["cross_entropy", "label_smoothing", "focal", "class_wise"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)
SMOOTHING = 0.05
GAMMA = 3.0


def sample_losses(objective: str, log_p: Array, y: Integers) -> Array:
    """Loss of each sample (n,) from log probabilities (n, K)."""
    own = log_p[np.arange(len(y)), y]
    if objective == "label_smoothing":
        smoothed: Array = -(1 - SMOOTHING) * own - SMOOTHING * log_p.mean(axis=1)
        return smoothed
    loss: Array = -((-np.expm1(own)) ** GAMMA) * own if objective == "focal" else -own
    return loss


def slopes(objective: str, log_p: Array, y: Integers) -> Array:
    """Derivative of each sample's loss by its logits (n, K)."""
    place = np.arange(len(y)), y
    out: Array = np.exp(log_p)
    if objective == "label_smoothing":
        out -= SMOOTHING / log_p.shape[1]
        out[place] -= 1 - SMOOTHING
        return out
    out[place] -= 1
    if objective == "focal":
        own = log_p[place]
        wrong = -np.expm1(own)
        out *= (wrong**GAMMA - GAMMA * wrong ** (GAMMA - 1) * np.exp(own) * own)[:, None]
    return out


def class_weights(losses: Array, alpha: float = 1.0, beta: float = 1.5) -> Array:
    """Weights of classes from their mean losses (K,): above one where a class does worse than the mean.

        w = beta sigmoid(n / alpha) - beta / 2 + 1,   n = (loss - mean) / standard deviation

    They lie between 1 - beta / 2 and 1 + beta / 2.

    >>> class_weights(np.array([1.0, 2.0, 3.0])).round(3)
    array([0.591, 1.   , 1.409])
    """
    return Weighting.of(losses, alpha, beta).weights(losses)


@dataclass(frozen=True)
class Weighting:
    """Class-wise scaling with the mean and deviation of losses, alpha and beta held still.

    The authors weight class losses l by w(n) and let gradients through l only. That field, sum_i w_i dl_i, is the
    gradient of an objective, which an optimiser can be given:

        sum_i s (alpha beta log(1 + exp(n_i / alpha)) + (1 - beta / 2) n_i),   n_i = (l_i - mean) / s

    It is convex and rising in every l_i, so convex wherever they are.
    """

    mean: float
    deviation: float
    alpha: float = 1.0
    beta: float = 1.5

    @classmethod
    def of(cls, losses: Array, alpha: float = 1.0, beta: float = 1.5) -> Weighting:
        """Take mean and deviation from class losses."""
        return cls(float(losses.mean()), float(losses.std()), alpha, beta)

    def near(self, other: Weighting) -> bool:
        """Whether another is the same, but for a hundred-thousandth of the mean loss."""
        off = abs(self.mean - other.mean) + abs(self.deviation - other.deviation)
        return off <= 1e-5 * self.mean and (self.alpha, self.beta) == (other.alpha, other.beta)

    def normal(self, losses: Array) -> Array:
        """Losses in deviations from their mean; zero where all are alike."""
        if self.deviation < 1e-12 * max(1.0, abs(self.mean)):
            return np.zeros_like(losses)
        out: Array = (losses - self.mean) / self.deviation
        return out

    def weights(self, losses: Array) -> Array:
        """Weight of each class (K,)."""
        out: Array = 1 + self.beta / 2 * np.tanh(self.normal(losses) / (2 * self.alpha))
        return out

    def value(self, losses: Array) -> float:
        """The objective, a mean over classes."""
        n = self.normal(losses)
        if not n.any():
            return float(losses.mean())
        soft = self.alpha * self.beta * np.logaddexp(0, n / self.alpha)
        return float(self.deviation * (soft + (1 - self.beta / 2) * n).mean())


def tune(first: Array, losses: Array) -> tuple[float, float]:
    """Alpha and beta whose weights would bring all class losses nearest to their mean.

        min || first - (beta sigmoid(n / alpha) - beta / 2) (losses - first) - mean(losses) ||,
        0.1 <= alpha <= ln(K) / 2,  1.5 <= beta <= 2,   by SLSQP from (1, 1.5)

    Args:
        first: class losses before the first round of fitting (K,).
        losses: and after it (K,).

    >>> tune(np.array([1.0, 2.0, 3.0]), np.array([1.2, 1.6, 1.9]))[1] >= 1.5
    True
    """
    from scipy.optimize import Bounds, minimize

    # the weight less one is (beta / 2) tanh(n / 2 alpha)
    normal, moved, off = Weighting.of(losses).normal(losses), losses - first, first - losses.mean()
    top = max(0.1, float(np.log(len(losses)) / 2))

    def distance(x: Array) -> tuple[float, Array]:
        bend = np.tanh(normal / (2 * x[0]))
        rest = off - x[1] / 2 * bend * moved
        size = float(np.linalg.norm(rest))
        by_alpha = x[1] / 2 * (1 - bend**2) * normal / (2 * x[0] ** 2) * moved
        by_beta = -bend * moved / 2
        return size, np.array([rest @ by_alpha, rest @ by_beta]) / max(size, 1e-300)

    bounds = Bounds([0.1, 1.5], [top, 2.0], keep_feasible=True)
    found = minimize(distance, [min(1.0, top), 1.5], jac=True, method="SLSQP", bounds=bounds)
    alpha, beta = np.clip(found.x, bounds.lb, bounds.ub)
    return float(alpha), float(beta)
