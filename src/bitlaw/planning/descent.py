"""Training in function space: what a linearised model does at each step of an optimiser.

    a <- a - eta G^T dL/df,   f = f_0 + G a

which is f <- f - eta Theta dL/df with Theta = G G^T, one step per step of training. Mini-batches are drawn among the
examples, so their noise needs no model of its own. Several replicas go side by side, each with weights of its own for
the examples: bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .record import Array, Record


@dataclass(frozen=True)
class Method:
    """An optimiser at a constant rate.

    Attributes:
        learning_rate: eta.
        momentum: of gradient descent, as torch has it: v <- m v + g; of Adam beta1: v <- m v + (1 - m) g, and v over
            1 - m^t is what moves the weights.
        batch: examples a step; None means all of them.
        adam: whether it is Adam, its scale frozen in the record.
    """

    learning_rate: float
    momentum: float = 0.0
    batch: int | None = None
    adam: bool = False

    def limit(self, sharpness: float) -> float:
        """The rate from which on it is unstable where the largest curvature is this.

        2 (1 + m) / curvature for gradient descent with momentum m; 1 / (1 - m) times that for Adam's running mean.

        >>> Method(0.1, momentum=0.5).limit(1.0)
        3.0
        """
        plain = 2 * (1 + self.momentum) / sharpness if sharpness > 0 else np.inf
        return float(plain / (1 - self.momentum) if self.adam else plain)


class Part:
    """Some examples of a record, with as many of its directions as are asked for."""

    def __init__(self, record: Record, rows: slice, directions: int) -> None:
        self.loss = record.loss
        self.f = record.outputs[rows]
        self.y = record.targets[rows]
        self.count = len(self.f)
        factor = record.factor[rows, ..., :directions]
        self.G = np.ascontiguousarray(factor).reshape(self.count, -1, factor.shape[-1])  # (W, T C, K)

    def outputs(self, a: Array) -> Array:
        """Where some replicas (R, K) are in function space, (R, W, T, C)."""
        flat = a @ self.G.reshape(-1, self.G.shape[-1]).T
        out: Array = self.f + flat.reshape(len(a), *self.f.shape)
        return out

    def losses(self, f: Array, y: Array | None = None) -> Array:
        """Mean loss of each example (R, W)."""
        y = self.y if y is None else y
        if self.loss == "mse":
            out: Array = np.square(f - y).mean((-2, -1))
            return out
        top = f.max(-1, keepdims=True)
        total = np.log(np.exp(f - top).sum(-1)) + top[..., 0]
        mean: Array = (total - np.take_along_axis(f, y[None, ..., None], -1)[..., 0]).mean(-1)
        return mean

    def slopes(self, f: Array, y: Array | None = None) -> Array:
        """The slope of each example's loss in its outputs (R, W, T, C)."""
        y = self.y if y is None else y
        if self.loss == "mse":
            out: Array = 2 * (f - y) / (f.shape[-2] * f.shape[-1])
            return out
        r = softmax(f)
        place = np.broadcast_to(y[None, ..., None], (*f.shape[:-1], 1))
        np.put_along_axis(r, place, np.take_along_axis(r, place, -1) - 1, -1)
        r /= f.shape[-2]
        return r

    def gradient(self, f: Array, weights: Array) -> Array:
        """G^T dL/df of the weighted mean loss (R, K)."""
        r = self.slopes(f) * (weights / weights.sum(1, keepdims=True))[..., None, None]
        out: Array = r.reshape(len(f), -1) @ self.G.reshape(-1, self.G.shape[-1])
        return out

    def some_gradient(self, a: Array, drawn: Array) -> Array:
        """The same of the examples that one replica (K,) drew (B,)."""
        G = self.G[drawn]
        f = self.f[drawn] + (G @ a).reshape(len(drawn), *self.f.shape[1:])
        r = self.slopes(f[None], self.y[drawn])[0] / len(drawn)
        out: Array = r.reshape(-1) @ G.reshape(-1, G.shape[-1])
        return out

    def curvature(self) -> Array:
        """G^T L'' G of the mean loss at the start (K, K)."""
        G = self.G.reshape(-1, self.f.shape[-1], self.G.shape[-1])
        if self.loss == "mse":
            flat = G.reshape(-1, G.shape[-1])
            squares: Array = 2 * flat.T @ flat / len(flat)
            return squares
        p = softmax(self.f).reshape(-1, self.f.shape[-1], 1)
        mean = (p * G).sum(1)
        rooted = (np.sqrt(p) * G).reshape(-1, G.shape[-1])
        out: Array = (rooted.T @ rooted - mean.T @ mean) / len(mean)
        return out


def softmax(f: Array) -> Array:
    """Probabilities of logits, over the last dimension."""
    p = np.exp(f - f.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    out: Array = p
    return out


def descend(
    train: Part, measured: Part, method: Method, weights: tuple[Array, Array], rng: np.random.Generator
) -> Iterator[tuple[Array, Array]]:
    """Yield the loss of the measured examples of each replica (R,), and where it is (R, K), before each step.

    Args:
        train: examples that train.
        measured: examples whose loss is asked for; may be the same object.
        method: how steps are made.
        weights: of both kinds of examples in each replica (R, W), bootstrap counts.
        rng: what mini-batches are drawn by.
    """
    replicas = len(weights[0])
    a = np.zeros((replicas, train.G.shape[-1]), train.f.dtype)
    v = np.zeros_like(a)
    m, t = method.momentum, 0
    # A wider type would take all else along.
    weights = weights[0].astype(a.dtype), weights[1].astype(a.dtype)
    chances = np.float64(weights[0]) / weights[0].sum(1, keepdims=True, dtype=float)
    while True:
        f = measured.outputs(a)
        yield (measured.losses(f) * weights[1]).sum(1) / weights[1].sum(1), a
        if method.batch is not None:
            draws = [rng.choice(train.count, method.batch, p=chance) for chance in chances]
            g = np.stack([train.some_gradient(*pair) for pair in zip(a, draws, strict=True)])
        else:
            g = train.gradient(f if train is measured else train.outputs(a), weights[0])
        t += 1
        v = m * v + ((1 - m) * g if method.adam else g)
        a = a - method.learning_rate * (v / (1 - m**t) if method.adam and m else v)
