"""Changes of unit: sizes and tokens divided by their middles, where a law's linear terms absorb that.

It takes the correlation of A with alpha from .999 to where damped steps do not mind it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..laws import Law
from ..laws.terms import TRAINED_PARTS

Array = NDArray[np.float64]
LAYOUT = {"w_exponent": 4.0, "w_mantissa": 3.0}


def middles(data: Mapping[str, Array]) -> dict[str, float]:
    """Geometric means of sizes and tokens, and the units of what is measured in them."""
    middle = {c: float(np.exp(np.log(data[c]).mean())) for c in ("params", "tokens") if c in data}
    if "tokens" in middle:
        middle["unique_tokens"] = middle["tokens"]
    if len(middle) == 3:
        middle["params/tokens"] = middle["params"] / middle["tokens"]
    return middle


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
    moved = rescaled(law, theta, middle, -1)
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
        for quantized in ({"post_bits": 4.0}, {f"{part}_bits": 12.0 for part in TRAINED_PARTS} | LAYOUT):
            point = {}
            for i in law.inputs:
                value = quantized.get(i.column, i.default)
                value = middle.get(i.column, 1.0) * shift if value is None else value
                point[i.column] = np.array([1.0 if i.column == marked else value])
            points.append(point)
    return points


def _centred(point: Mapping[str, Array], middle: Mapping[str, float]) -> dict[str, Array]:
    return {name: value / middle.get(name, 1.0) for name, value in point.items()}


def rescaled(law: Law, theta: Array, middle: Mapping[str, float], power: int) -> Array:
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
