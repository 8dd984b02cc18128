"""Calibrators: small frozen values that turn logits into logits whose confidence can be trusted more.

Each also tells its coordinates, free numbers that an optimiser may move, and pulls the slope of a loss by the scaled
logits back to them, so that one optimiser serves all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..errors import DataError
from .arrays import Array, Integers, group_sums, log_softmax, read_logits

LAYERS = (2, 2, 2, 2, 1)  # widths of the network of parametric scaling
LARGEST = 10  # logits that it looks at
FURTHEST = math.log(1000.0)  # of log t, and of every other coordinate, from zero


class Calibrator(Protocol):
    """What every calibrator can do."""

    def apply(self, logits: Any) -> Array:
        """Scale logits (n, K), of any offset a sample."""

    def coordinates(self) -> Array:
        """Free numbers (p,)."""

    def moved(self, u: Array) -> Calibrator:
        """The calibrator with other coordinates."""

    def pull(self, z: Array, y: Array, slope: Array) -> Array:
        """Slope by the coordinates (p,), from logits, scaled logits and a slope by the latter, all (n, K)."""


@dataclass(frozen=True)
class Temperature:
    """z / t: one temperature for all (Guo et al. 2017, 1706.04599). It keeps the argmax.

    >>> Temperature(2.0).apply([[4.0, 0.0]])
    array([[2., 0.]])
    """

    t: float

    def apply(self, logits: Any) -> Array:
        """Divide logits (n, K) by the temperature."""
        scaled: Array = read_logits(logits).astype(float) / self.t
        return scaled

    def coordinates(self) -> Array:
        """The logarithm of t."""
        return np.log([self.t])

    def moved(self, u: Array) -> Temperature:
        """Take another log t."""
        return Temperature(float(np.exp(u[0])))

    def pull(self, z: Array, y: Array, slope: Array) -> Array:
        """By dy / dlog t = -y."""
        return np.array([-np.vdot(slope, y)])


@dataclass(frozen=True, eq=False)
class ClassTemperature:
    """(z_k - mean z) / t_g(k): a temperature for each class or group of classes. It may change the argmax.

    Dividing classes by different numbers would otherwise depend on a constant that may be added to all logits of a
    sample without any change of its probabilities; so that constant is taken out first.

    Attributes:
        t: temperatures (G,).
        groups: group of each class (K,).
    """

    t: Array
    groups: Integers

    def apply(self, logits: Any) -> Array:
        """Divide logits (n, K), less their mean, by their class's temperature."""
        z = _classes(logits, len(self.groups))
        out: Array = (z - z.mean(axis=1, keepdims=True)) / self.t[self.groups]
        return out

    def coordinates(self) -> Array:
        """The logarithm of t."""
        return np.log(self.t)

    def moved(self, u: Array) -> ClassTemperature:
        """Take other log t."""
        return ClassTemperature(np.exp(u), self.groups)

    def pull(self, z: Array, y: Array, slope: Array) -> Array:
        """dy_k / dlog t_g(k) = -y_k."""
        out: Array = -group_sums((slope * y).sum(axis=0)[None], self.groups)[0]
        return out


@dataclass(frozen=True, eq=False)
class Ensemble:
    """log(w_0 softmax(z / t) + w_1 softmax(z) + w_2 / K): three opinions mixed (Zhang et al. 2020, 2003.07329).

    It keeps the argmax. Probabilities are mixed, as in that paper: the same mixture of logits would be a temperature.

    Attributes:
        t: temperature of the first opinion.
        weights: of the three, above zero, summing to one.
    """

    t: float
    weights: tuple[float, float, float]

    def apply(self, logits: Any) -> Array:
        """Log probabilities (n, K) of the mixture."""
        parts = self._parts(read_logits(logits).astype(float))
        return np.logaddexp(np.logaddexp(parts[0], parts[1]), parts[2])

    def _parts(self, z: Array) -> tuple[Array, Array, float]:
        first, second, third = np.log(self.weights)
        return (
            first + log_softmax(z / self.t),
            second + log_softmax(z),
            float(third - np.log(z.shape[1])),
        )

    def coordinates(self) -> Array:
        """The logarithm of t, and those of the last two weights over the first."""
        w = np.log(self.weights)
        return np.array([np.log(self.t), w[1] - w[0], w[2] - w[0]])

    def moved(self, u: Array) -> Ensemble:
        """Take other coordinates."""
        w = np.exp(log_softmax(np.array([[0.0, u[1], u[2]]])))[0]
        return Ensemble(float(np.exp(u[0])), (float(w[0]), float(w[1]), float(w[2])))

    def pull(self, z: Array, y: Array, slope: Array) -> Array:
        """By way of the share that each opinion has in each probability."""
        parts = self._parts(z)
        shared = [slope * np.exp(part - y) for part in parts]
        by_weight = np.array([s.sum() for s in shared])
        hot = np.exp(log_softmax(z / self.t))
        by_first = shared[0] - hot * shared[0].sum(axis=1, keepdims=True)
        free = by_weight - np.array(self.weights) * by_weight.sum()
        return np.array([-np.vdot(by_first, z) / self.t, free[1], free[2]])


@dataclass(frozen=True, eq=False)
class Parametric:
    """z / t(z), where log t = b tanh(network / b) of the ten largest logits (after Tomani et al. 2021, 2102.12182).

    It keeps the argmax. The logits are taken less their mean, so that an offset of all changes nothing, in units of
    `scale`; layers have 2, 2, 2, 2 and 1 units, with ReLU between them; b = log 1000, so that a sample unlike those
    that it was fitted to gets a temperature, too.
    Its forty-odd weights want more than a few hundred samples (docs/log.md).

    Attributes:
        scale: what the network's inputs are divided by.
        layers: weights (out, in + 1) of each layer, the last column being its bias.
    """

    scale: float
    layers: tuple[Array, ...]

    @classmethod
    def start(cls, z: Array, t: float, rng: np.random.Generator) -> Parametric:
        """A network that gives the temperature t whatever the logits, with random hidden units."""
        inputs = _largest(z)
        layers, width = [], inputs.shape[1]
        for units in LAYERS:
            weights = rng.normal(0, np.sqrt(2 / width), (units, width + 1))
            weights[:, -1] = 0.1  # few units of two layers are so dead from the start
            layers.append(weights)
            width = units
        layers[-1] = np.zeros_like(layers[-1])
        layers[-1][0, -1] = FURTHEST * math.atanh(max(-0.999, min(0.999, math.log(t) / FURTHEST)))
        return cls(float(inputs.std()) or 1.0, tuple(layers))

    def temperatures(self, logits: Any) -> Array:
        """The temperature of each sample (n,)."""
        z = read_logits(logits)
        inputs = self.layers[0].shape[1] - 1
        if min(LARGEST, z.shape[1]) != inputs:
            raise DataError(
                f"this calibrator looks at the {inputs} largest logits of a sample; these have {z.shape[1]} in all"
            )
        temperatures: Array = np.exp(FURTHEST * np.tanh(self._forward(z.astype(float))[-1][:, 0] / FURTHEST))
        return temperatures

    def apply(self, logits: Any) -> Array:
        """Divide each sample's logits (n, K) by its own temperature."""
        t = self.temperatures(logits)
        scaled: Array = np.asarray(logits, float) / t[:, None]
        return scaled

    def coordinates(self) -> Array:
        """All weights."""
        return np.concatenate([layer.ravel() for layer in self.layers])

    def moved(self, u: Array) -> Parametric:
        """Take other weights."""
        ends = np.cumsum([layer.size for layer in self.layers])[:-1]
        parts = zip(np.split(u, ends), self.layers, strict=True)
        return Parametric(self.scale, tuple(part.reshape(layer.shape) for part, layer in parts))

    def pull(self, z: Array, y: Array, slope: Array) -> Array:
        """Back through the network; dy / dlog t = -y."""
        values = self._forward(z)
        back = -(slope * y).sum(axis=1, keepdims=True) * (1 - np.tanh(values[-1] / FURTHEST) ** 2)
        out = []
        for layer, inputs in zip(self.layers[::-1], values[-2::-1], strict=True):
            out.append(np.hstack([back.T @ inputs, back.sum(axis=0)[:, None]]).ravel())
            back = back @ layer[:, :-1] * (inputs > 0)
        return np.concatenate(out[::-1])

    def _forward(self, z: Array) -> list[Array]:
        """Inputs of every layer, and what the last gives (n, 1)."""
        values = [_largest(z) / self.scale]
        for depth, layer in enumerate(self.layers, 1):
            x = values[-1] @ layer[:, :-1].T + layer[:, -1]
            values.append(np.maximum(x, 0) if depth < len(self.layers) else x)
        return values


def _largest(z: Array) -> Array:
    """The largest logits of each sample, in falling order, less their mean."""
    top = -np.partition(-z, LARGEST - 1, axis=1)[:, :LARGEST] if z.shape[1] > LARGEST else z
    top = -np.sort(-top, axis=1)
    out: Array = top - top.mean(axis=1, keepdims=True)
    return out


def _classes(logits: Any, classes: int) -> Array:
    z = read_logits(logits)
    if z.shape[1] != classes:
        raise DataError(f"this calibrator was fitted to {classes} classes; these logits have {z.shape[1]}")
    return z.astype(float)
