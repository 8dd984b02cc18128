"""What a fit minimises.

    sum_i rho( r_i / sigma_block )

over two blocks of rows. A loss row has r = log(predicted) - log(measured). A row with a paired gap has
r = asinh(predicted / 2s) - asinh(measured / 2s) with s its measurement error: a log ratio for gaps well
above the noise, a difference in units of the noise below it; so gaps keep their sign, and none is
dropped before a logarithm. rho is Huber's, quadratic up to delta and linear beyond; always a sum, never a
mean, so that no stopping rule depends on the number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..laws import Law, Parameter
from ..laws.compiled import Function
from ..laws.terms import TRAINED_PARTS

Array = NDArray[np.float64]
HUBER = 1.345  # 95 % efficient for normal noise (Huber 1981)


@dataclass(frozen=True)
class Block:
    """Rows of one kind.

    Attributes:
        kind: `loss` or `gap`.
        data: inputs of the law by column, each (n,).
        measured: loss or gap (n,), in nats a token.
        noise: for gaps, their standard error (n,); for losses, unused.
        cluster: number of the cluster each row belongs to (n,).
        row: index of each row in the run table (n,).
    """

    kind: str
    data: Mapping[str, Array]
    measured: Array
    noise: Array
    cluster: NDArray[np.int64]
    row: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.measured)

    def take(self, keep: NDArray[np.bool_]) -> Block:
        """The rows marked."""
        return replace(
            self,
            data={name: column[keep] for name, column in self.data.items()},
            measured=self.measured[keep],
            noise=self.noise[keep],
            cluster=self.cluster[keep],
            row=self.row[keep],
        )

    def link(self, value: Array) -> Array:
        """Put losses or gaps on the scale where residuals are taken."""
        return np.log(value) if self.kind == "loss" else np.arcsinh(value / (2 * self.noise))

    def link_slope(self, value: Array) -> Array:
        """Derivative of `link`."""
        return 1 / value if self.kind == "loss" else 1 / np.hypot(value, 2 * self.noise)


@dataclass(frozen=True)
class Problem:
    """A law, rows, and everything that fixes the objective.

    Inputs are divided by `centre` where the law's linear terms are homogeneous in them. This is a change
    of unit that the linear parameters absorb; it takes the correlation of A with alpha from .999 to where
    damped steps do not mind it.

    Attributes:
        law: the law.
        blocks: its rows.
        free: indices of the parameters to be found.
        base: all parameters in centred units (p,); those that are not free keep these values.
        sigma: noise of each block on the link scale; residuals are divided by it.
        delta: where Huber's loss turns linear, in units of sigma.
        centre: what the inputs were divided by.
        middle: geometric mean of sizes and tokens, the unit of parameters that are measured in them.
    """

    law: Law
    blocks: tuple[Block, ...]
    free: NDArray[np.int64]
    base: Array
    sigma: tuple[float, ...]
    delta: float
    centre: Mapping[str, float]
    middle: Mapping[str, float]

    @property
    def low(self) -> Array:
        """Lower bounds of the free parameters, as coordinates."""
        return self._bounds("low", 1e-9)

    @property
    def high(self) -> Array:
        """Upper bounds of the free parameters, as coordinates."""
        return self._bounds("high", 1e6)

    @property
    def linear(self) -> NDArray[np.int64]:
        """Free parameters that enter the loss linearly."""
        return np.array(
            [k for k in self.law.compiled.total.linear if k in set(self.free.tolist())], dtype=np.int64
        )

    def _bounds(self, side: str, linear: float) -> Array:
        """Linear parameters of a centred law are in units of the loss, so their bounds are too."""
        typical = float(np.median(self.blocks[0].measured))
        chosen = set(self.linear.tolist()) if self.centre else set()
        out = []
        for k in self.free:
            parameter = self.law.parameters[k]
            value = linear * typical if k in chosen else getattr(parameter, side) * self.unit(parameter)
            out.append(np.log(value) if parameter.positive else value)
        return np.array(out)

    def unit(self, parameter: Parameter) -> float:
        """What bounds and starting range of a parameter are multiples of."""
        return 1.0 if self.centre or parameter.scale_of is None else self.middle[parameter.scale_of]

    def theta(self, u: Array) -> Array:
        """All parameters, centred units, from coordinates of the free ones (..., f)."""
        theta = np.broadcast_to(self.base, (*u.shape[:-1], len(self.base))).copy()
        positive = np.array([self.law.parameters[k].positive for k in self.free])
        theta[..., self.free] = np.where(positive, np.exp(np.where(positive, u, 0.0)), u)
        return theta

    def coordinates(self, theta: Array) -> Array:
        """Coordinates of the free parameters from all parameters in centred units."""
        chosen = theta[..., self.free]
        positive = np.array([self.law.parameters[k].positive for k in self.free])
        return np.where(positive, np.log(np.where(positive, chosen, 1.0)), chosen)

    def function(self, block: Block) -> Function:
        """The function that predicts a block's rows."""
        return self.law.compiled.total if block.kind == "loss" else self.law.compiled.gap

    def targets(self) -> Array:
        """What is measured, on the link scale (n,)."""
        return np.concatenate([block.link(block.measured) for block in self.blocks])

    def scales(self) -> Array:
        """Noise of each row on the link scale (n,)."""
        return np.concatenate([np.full(len(b), s) for b, s in zip(self.blocks, self.sigma, strict=True)])

    def clusters(self) -> NDArray[np.int64]:
        """Cluster of each row (n,)."""
        return np.concatenate([block.cluster for block in self.blocks])

    def predictions(self, u: Array) -> Array:
        """Predictions on the link scale (..., n); NaN outside the law's domain."""
        theta = self.theta(u)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.concatenate([b.link(self.function(b)(theta, b.data)) for b in self.blocks], axis=-1)

    def linearised(self, u: Array) -> tuple[Array, Array]:
        """Predictions on the link scale (..., n) and their derivatives by the coordinates (..., n, f)."""
        theta = self.theta(u)
        positive = np.array([self.law.parameters[k].positive for k in self.free])
        chain = np.where(positive, theta[..., self.free], 1.0)
        values, slopes = [], []
        with np.errstate(all="ignore"):  # trial points may leave the domain; the solver steps back from NaN
            for block in self.blocks:
                value, jacobian = self.function(block).jacobian(theta, block.data)
                values.append(block.link(value))
                slope = block.link_slope(value)[..., None] * jacobian[..., self.free]
                slopes.append(slope * chain[..., None, :])
        return np.concatenate(values, axis=-1), np.concatenate(slopes, axis=-2)

    def cost(self, residuals: Array) -> Array:
        """The objective from residuals in units of sigma (..., n); infinite where any is not finite."""
        size = np.abs(residuals)
        terms = np.where(size <= self.delta, 0.5 * size**2, self.delta * (size - 0.5 * self.delta))
        return np.where(np.isfinite(residuals).all(-1), terms.sum(-1), np.inf)

    def weights(self, residuals: Array) -> Array:
        """Weights that make least squares take Huber's step: 1 inside delta, delta / |r| outside."""
        return self.delta / np.maximum(np.abs(residuals), self.delta)

    def decentre(self, theta: Array) -> Array:
        """Turn parameters in centred units into the law's own."""
        return _rescaled(self.law, theta, self.centre, +1)

    def recentre(self, theta: Array) -> Array:
        """Turn the law's own parameters into centred units."""
        return _rescaled(self.law, theta, self.centre, -1)


def middles(block: Block) -> dict[str, float]:
    """Geometric means of sizes and tokens, and the units of what is measured in them."""
    middle = {c: float(np.exp(np.log(block.data[c]).mean())) for c in ("params", "tokens")}
    return {**middle, "unique_tokens": middle["tokens"], "params/tokens": middle["params"] / middle["tokens"]}


def centre_of(law: Law, middle: Mapping[str, float]) -> Mapping[str, float]:
    """Return what sizes and tokens may be divided by: their middles, or nothing.

    Nothing where the law is not the same law in other units: then no change of its parameters can make up
    for the division. This is tried out at two points rather than derived.
    """
    theta = np.array(
        [
            (np.sqrt(p.start[0] * p.start[1]) if p.positive else sum(p.start) / 2 + 0.1)
            * (middle[p.scale_of] if p.scale_of else 1.0)
            for p in law.parameters
        ]
    )
    moved = _rescaled(law, theta, middle, -1)
    for shift in (1.0, 7.0):
        for point in _points(law, middle, shift):
            here = law.compiled.total(theta, point)
            there = law.compiled.total(moved, _centred(point, middle))
            if not np.allclose(here, there, rtol=1e-9):
                return {}
    return middle


def _points(law: Law, middle: Mapping[str, float], shift: float = 1.0) -> list[dict[str, Array]]:
    """Points between them at which every term of a law is alive: quantised before or after, and each label."""
    points = []
    labels = [i.column for i in law.inputs if i.label is not None]
    for marked in (None, *labels):
        for quantized in ({"post_bits": 4.0}, {f"{part}_bits": 12.0 for part in TRAINED_PARTS}):
            point = {}
            for i in law.inputs:
                value = quantized.get(i.column, i.default)
                value = middle.get(i.column, 1.0) * shift if value is None else value
                point[i.column] = np.array([1.0 if i.column == marked else value])
            points.append(point)
    return points


def _centred(point: Mapping[str, Array], middle: Mapping[str, float]) -> dict[str, Array]:
    return {name: value / middle.get(name, 1.0) for name, value in point.items()}


def _rescaled(law: Law, theta: Array, middle: Mapping[str, float], power: int) -> Array:
    """Turn parameters into the law's own units (+1) or into units of the middle (-1)."""
    if not middle:
        return theta
    out = np.array(theta)
    for k, p in enumerate(law.parameters):
        if p.scale_of:
            out[..., k] *= middle[p.scale_of] ** power
    raw, centred = (out, theta) if power > 0 else (theta, out)
    basis, linear = law.compiled.total.basis, list(law.compiled.total.linear)
    ratio = np.ones((*theta.shape[:-1], len(linear)))
    for point in _points(law, middle):
        here, there = basis(raw, point)[1][..., 0, :], basis(centred, _centred(point, middle))[1][..., 0, :]
        alive = np.isfinite(here) & np.isfinite(there) & (here != 0) & (there != 0)
        ratio = np.where(alive, there / np.where(alive, here, 1.0), ratio)
    out[..., linear] *= ratio**power
    return out
