"""What a fit minimises.

    sum_i w_i rho( r_i / s_i )

A loss row has r = log(predicted) - log(measured), or the plain difference where raw losses are asked for. A
row with a paired gap has r = asinh(predicted / 2s) - asinh(measured / 2s) with s its measurement error: a log
ratio for gaps well above the noise, a difference in units of the noise below it; so gaps keep their sign,
and none is dropped before a logarithm. rho is Huber's, quadratic up to delta and linear beyond: least squares
where delta is infinite, least absolute deviation as it goes to zero. Always a sum, never a mean, so that no
stopping rule depends on the number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from ..laws import Law, Parameter
from ..laws.compiled import Function
from .centre import rescaled

Array = NDArray[np.float64]
Objective: TypeAlias = Literal["huber", "lad", "log-squares", "squares"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)
HUBER = 1.345  # 95 % efficient for normal noise (Huber 1981)


def robust_spread(residuals: Array, weight: Array | None = None) -> float:
    """Standard deviation of normal residuals, from their median size, which outliers do not move.

    With weights, half of the weight lies on either side of the median.

    >>> round(robust_spread(np.array([-1.0, 1.0, 9.0]), np.array([1.0, 1.0, 0.1])), 4)
    1.4826
    """
    size = np.abs(residuals)
    if weight is None or (weight == weight[0]).all():
        return 1.4826 * float(np.median(size))
    order = np.argsort(size)
    below = np.cumsum(weight[order]) / weight.sum()
    return 1.4826 * float(size[order][np.searchsorted(below, 0.5)])


def student_quantile(df: int, share: float) -> float:
    """Quantile of Student's t.

    >>> round(student_quantile(3, 0.95), 3)
    2.353
    """
    from scipy.special import stdtrit

    return float(stdtrit(df, share))


@dataclass(frozen=True)
class Block:
    """Rows of one kind.

    Attributes:
        kind: `loss` or `gap`.
        data: inputs of the law by column, each (n,).
        measured: loss or gap (n,), in nats per token.
        noise: for gaps, their standard error (n,); for losses, unused.
        weight: how much each row counts (n,).
        spread: noise of each row in units of the block's (n,).
        cluster: number of the cluster each row belongs to (n,).
        row: index of each row in the run table (n,).
        raw: whether residuals are plain differences.
    """

    kind: str
    data: Mapping[str, Array]
    measured: Array
    noise: Array
    weight: Array
    spread: Array
    cluster: NDArray[np.int64]
    row: NDArray[np.int64]
    raw: bool = False

    def __len__(self) -> int:
        return len(self.measured)

    def take(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> Block:
        """The rows marked."""
        return replace(
            self,
            data={name: column[keep] for name, column in self.data.items()},
            measured=self.measured[keep],
            noise=self.noise[keep],
            weight=self.weight[keep],
            spread=self.spread[keep],
            cluster=self.cluster[keep],
            row=self.row[keep],
        )

    def link(self, value: Array) -> Array:
        """Put losses or gaps on the scale where residuals are taken."""
        if self.raw:
            return value
        return np.log(value) if self.kind == "loss" else np.arcsinh(value / (2 * self.noise))

    def link_slope(self, value: Array) -> Array:
        """Derivative of `link`."""
        if self.raw:
            return np.ones_like(value)
        return 1 / value if self.kind == "loss" else 1 / np.hypot(value, 2 * self.noise)


@dataclass(frozen=True)
class Problem:
    """A law, rows, and everything that fixes the objective.

    Inputs are divided by `centre` where the law's linear terms are homogeneous in them. This is a change
    of unit that the linear parameters absorb.

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
    centre: Mapping[str, float] = field(default_factory=dict)
    middle: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def low(self) -> Array:
        """Lower bounds of the free parameters, as coordinates."""
        return self._bounds("low", 1e-9)

    @cached_property
    def high(self) -> Array:
        """Upper bounds of the free parameters, as coordinates."""
        return self._bounds("high", 1e6)

    @cached_property
    def linear(self) -> NDArray[np.int64]:
        """Free parameters that enter the loss linearly and cannot be negative."""
        free = set(self.free.tolist())
        linear = self.law.compiled.total.linear
        return np.array([k for k in linear if k in free and self.law.parameters[k].positive], dtype=np.int64)

    @cached_property
    def positive(self) -> NDArray[np.bool_]:
        """Which free parameters live on a log scale (f,)."""
        return np.array([self.law.parameters[k].positive for k in self.free], dtype=bool)

    @cached_property
    def reach(self) -> Array:
        """What the coordinates of free parameters on no log scale are multiples of; 1 for the others (f,).

        It is the largest value that a parameter may start from, for a step says little without a size to compare
        it to: on a log scale a step of 1 is a factor of e, and here it is as much as the parameter itself.
        """
        chosen = [self.law.parameters[k] for k in self.free]
        return np.array([1.0 if p.positive else max(map(abs, p.start)) * self.unit(p) or 1.0 for p in chosen])

    def _bounds(self, side: str, linear: float) -> Array:
        """Linear parameters of a centred law are in units of the loss, so their bounds are too."""
        typical = float(np.median(np.abs(self.blocks[0].measured))) or 1.0  # gaps may be negative
        chosen = set(self.linear.tolist()) if self.centre else set()
        out = []
        for k, reach in zip(self.free, self.reach, strict=True):
            parameter = self.law.parameters[k]
            value = linear * typical if k in chosen else getattr(parameter, side) * self.unit(parameter)
            out.append(np.log(value) if parameter.positive else value / reach)
        return np.array(out)

    def unit(self, parameter: Parameter) -> float:
        """What bounds and starting range of a parameter are multiples of."""
        return 1.0 if self.centre or parameter.scale_of is None else self.middle[parameter.scale_of]

    def theta(self, u: Array) -> Array:
        """All parameters, centred units, from coordinates of the free ones (..., f)."""
        theta = np.broadcast_to(self.base, (*u.shape[:-1], self.base.shape[-1])).copy()
        theta[..., self.free] = np.where(
            self.positive, np.exp(np.where(self.positive, u, 0.0)), u * self.reach
        )
        return theta

    def coordinates(self, theta: Array) -> Array:
        """Coordinates of the free parameters from all parameters in centred units."""
        chosen = theta[..., self.free]
        return np.where(self.positive, np.log(np.where(self.positive, chosen, 1.0)), chosen / self.reach)

    def chain(self, theta: Array) -> Array:
        """Derivatives of the free parameters by their coordinates (..., f)."""
        return np.where(self.positive, theta[..., self.free], self.reach)

    def function(self, block: Block) -> Function:
        """The function that predicts a block's rows."""
        return self.law.compiled.total if block.kind == "loss" else self.law.compiled.gap

    @cached_property
    def parts(self) -> tuple[tuple[Block, slice], ...]:
        """Each block, and where its rows stand among all."""
        ends = np.cumsum([len(block) for block in self.blocks]).tolist()
        return tuple((b, slice(end - len(b), end)) for b, end in zip(self.blocks, ends, strict=True))

    @cached_property
    def targets(self) -> Array:
        """What is measured, on the link scale, in units of the noise (n,)."""
        return np.concatenate([block.link(block.measured) for block in self.blocks]) / self.scales

    @cached_property
    def scales(self) -> Array:
        """Noise of each row on the link scale (n,)."""
        return np.concatenate([s * b.spread for b, s in zip(self.blocks, self.sigma, strict=True)])

    @cached_property
    def weight(self) -> Array:
        """How much each row counts (n,)."""
        return np.concatenate([block.weight for block in self.blocks])

    @cached_property
    def clusters(self) -> NDArray[np.int64]:
        """Cluster of each row (n,)."""
        return np.concatenate([block.cluster for block in self.blocks])

    def predictions(self, u: Array) -> Array:
        """Predictions on the link scale, in units of the noise (..., n); NaN outside the law's domain."""
        theta = self.theta(u)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (
                np.concatenate([b.link(self.function(b)(theta, b.data)) for b in self.blocks], axis=-1)
                / self.scales
            )

    def linearised(self, u: Array) -> tuple[Array, Array]:
        """Predictions as above (..., n), and their derivatives by the coordinates (..., f, n)."""
        theta = self.theta(u)
        chain = self.chain(theta)
        values = np.empty((*u.shape[:-1], len(self.scales)))
        slopes = np.empty((*u.shape, len(self.scales)))
        with np.errstate(all="ignore"):  # trial points may leave the domain; the solver steps back from NaN
            for block, part in self.parts:
                value, columns = self.function(block).slopes(theta, block.data)
                values[..., part] = block.link(value) / self.scales[part]
                slope = block.link_slope(value) / self.scales[part]
                for place, k in enumerate(self.free):
                    np.multiply(columns[k], slope, out=slopes[..., place, part])
            slopes *= chain[..., None]
        return values, slopes

    def terms(self, residuals: Array) -> Array:
        """Huber's loss of residuals in units of the noise."""
        size = np.abs(residuals)
        if self.delta == np.inf:
            return 0.5 * size**2
        return np.where(size <= self.delta, 0.5 * size**2, self.delta * (size - 0.5 * self.delta))

    def cost(self, residuals: Array, weight: Array) -> Array:
        """The objective (...) from residuals in units of the noise (..., n); infinite where any is not finite."""
        with np.errstate(over="ignore"):
            total = (weight * self.terms(residuals)).sum(-1)
        return np.where(np.isfinite(total), total, np.inf)

    def irls(self, residuals: Array) -> Array:
        """Weights that make least squares take Huber's step: 1 inside delta, delta / |r| outside."""
        if self.delta == np.inf:
            return np.ones_like(residuals)
        return self.delta / np.maximum(np.abs(residuals), self.delta)

    def inlying(self, residuals: Array) -> Array:
        """Second derivative of Huber's loss: 1 inside delta, 0 outside."""
        return (np.abs(residuals) <= self.delta).astype(float)

    def uncentred(self) -> Problem:
        """The same problem in the law's own units, for questions about its parameters one at a time."""
        blocks = tuple(
            replace(b, data={n: c * self.centre.get(n, 1.0) for n, c in b.data.items()}) for b in self.blocks
        )
        return replace(self, blocks=blocks, base=self.decentre(self.base), centre={})

    def decentre(self, theta: Array) -> Array:
        """Turn parameters in centred units into the law's own."""
        return rescaled(self.law, theta, self.centre, +1)
