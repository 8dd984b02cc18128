"""Where loss is least for its compute: budgets and their parabolas, training curves and their envelope.

`isoflop` is the front door; this room knows neither laws nor noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import FitError
from .objective import Array

Places: TypeAlias = NDArray[np.int64]

SAME_SIZE = 0.01  # sizes closer than this are one size, whose numbers were rounded
SAME_COMPUTE = 1e-3  # in log C, which moves a loss by less than a ten-thousandth
LEAST_SIZES = 4  # a parabola has three constants
GRID = 1500  # budgets at which the envelope is read, as many as Hoffmann et al. took
OK, EDGE, FLAT, CUT = "ok", "outside the sizes", "no minimum", "cut off"


@dataclass(frozen=True)
class Sweep:
    """Rows of one precision: size, tokens, training FLOPs, loss and cluster of each (n,).

    `named` is whether the table names the trunk of each.
    """

    params: Array
    tokens: Array
    flops: Array
    loss: Array
    cluster: Places
    named: bool


@dataclass(frozen=True)
class Minima:
    """The best size of several budgets, or the best budget of several sizes (k,).

    Attributes:
        flops: budgets.
        params: the best size at each; NaN where there is no minimum among the sizes.
        loss: at the minimum.
        weight: one over the variance of log params, up to a factor.
        flag: `ok`, or why a minimum is not used.
        rows: rows behind each.
        valleys: the parabolas, for approach 2.
    """

    flops: Array
    params: Array
    loss: Array
    weight: Array
    flag: tuple[str, ...]
    rows: tuple[Places, ...]
    valleys: tuple[Valley, ...] = ()

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Which can be used."""
        return np.array([flag == OK for flag in self.flag])


@dataclass(frozen=True)
class Valley:
    """A parabola through the losses of one budget, in log N from the middle of its sizes.

    Attributes:
        flops: the budget.
        rows: places of its rows (n,).
        middle: mean log N.
        ends: lowest and highest log N, from the middle.
        design: 1, x, x^2 (n, 3).
        solver: from losses to coefficients (3, n).
        coef: coefficients (3,).
        loss: losses, moved to the budget (n,).
    """

    flops: float
    rows: Places
    middle: float
    ends: tuple[float, float]
    design: Array
    solver: Array
    coef: Array
    loss: Array

    @classmethod
    def through(cls, flops: float, rows: Places, log_size: Array, loss: Array) -> Valley:
        """Fit by least squares."""
        middle = float(log_size.mean())
        x = log_size - middle
        design = np.stack([np.ones_like(x), x, x * x], axis=1)
        solver = np.asarray(np.linalg.pinv(design), dtype=np.float64)
        ends = (float(x.min()), float(x.max()))
        return cls(flops, rows, middle, ends, design, solver, solver @ loss, loss)

    @property
    def residual(self) -> Array:
        """Loss minus parabola (n,)."""
        out: Array = self.loss - self.design @ self.coef
        return out

    @property
    def leverage(self) -> Array:
        """Diagonal of the hat matrix (n,)."""
        out: Array = (self.design * self.solver.T).sum(axis=1)
        return out

    @property
    def variance(self) -> float:
        """Variance of the minimum's log N, for losses with a relative noise of one."""
        _, b, c = self.coef
        gradient = np.array([0, -1 / (2 * c), b / (2 * c * c)])
        return float(((gradient @ self.solver * self.loss) ** 2).sum())

    def minimum(self, coef: Array) -> Array:
        """Log N at the minimum of parabolas (..., 3); NaN where none lies among the sizes."""
        bent = coef[..., 2] > 0
        x = -coef[..., 1] / (2 * np.where(bent, coef[..., 2], 1.0))
        return np.where(bent & (x >= self.ends[0]) & (x <= self.ends[1]), self.middle + x, np.nan)


def number_sizes(params: Array) -> Places:
    """Number distinct sizes from the smallest.

    >>> number_sizes(np.array([2e6, 1e6, 2.001e6])).tolist()
    [1, 0, 1]
    """
    order = np.argsort(params)
    out, number, first = np.empty(len(params), dtype=np.int64), -1, -np.inf
    for place, size in zip(order, np.log(params[order]), strict=True):
        if size > first + SAME_SIZE:
            number, first = number + 1, size
        out[place] = number
    return out


def _close(groups: Sequence[tuple[float, Places]], width: float) -> list[str]:
    """Say which budgets that were found may be one: each is taken for evidence of its own."""
    centres = [centre for centre, _ in groups]
    near = [(a, b) for a, b in zip(centres, centres[1:], strict=False) if np.log(b / a) < width]
    if not near:
        return []
    listed = ", ".join(f"{a:.3g} and {b:.3g}" for a, b in near[:3]) + (" and others" if len(near) > 3 else "")
    return [
        f"budgets were found that lie as near to each other as rows to theirs ({listed}); if they are one, the "
        "intervals are too narrow: name the budgets (--budget, budgets=[...])"
    ]


def group(
    sweep: Sweep, budgets: Sequence[float] | None, tolerance: float
) -> tuple[list[tuple[float, Places]], list[str]]:
    """Give each row to a budget: the nearest one given, or those under which most sizes lie close together.

    Raises:
        FitError: fewer than three budgets with four sizes.
    """
    log_c, width = np.log(sweep.flops), np.log1p(tolerance)
    size = number_sizes(sweep.params)
    groups: list[tuple[float, Places]] = []
    if budgets is not None:
        centres = np.log(np.array(sorted(set(budgets))))
        off = np.abs(log_c[:, None] - centres)
        nearest, inside = off.argmin(axis=1), off.min(axis=1) <= width
        for k, centre in enumerate(centres):
            rows = np.flatnonzero((nearest == k) & inside)
            sizes = len(np.unique(size[rows]))
            if sizes < LEAST_SIZES:
                raise FitError(
                    f"budget {np.exp(centre):.3g} flops has {sizes} sizes within {tolerance:.0%}, and a parabola needs "
                    f"{LEAST_SIZES}; drop the budget, or raise tolerance"
                )
            groups.append((float(np.exp(centre)), rows))
    else:
        left = np.argsort(log_c, kind="stable")
        while len(left):
            at = log_c[left]
            starts = np.flatnonzero(np.diff(at, prepend=-np.inf) > 1e-9)
            stops = np.searchsorted(at, at[starts] + 2 * width + 1e-9)
            many = np.array([len(np.unique(size[left[i:j]])) for i, j in zip(starts, stops, strict=True)])
            if many.max() < LEAST_SIZES:
                break
            # of equals the narrowest: a true budget is a point, and not a window that happens to reach two
            spread = at[stops - 1] - at[starts]
            best = min(np.flatnonzero(many == many.max()), key=lambda k: spread[k])
            rows = left[starts[best] : stops[best]]
            groups.append((float(np.exp(log_c[rows].mean())), rows))
            left = np.setdiff1d(left, rows)
            left = left[np.argsort(log_c[left], kind="stable")]
        groups.sort(key=lambda item: item[0])
    if len(groups) < 3:
        raise FitError(
            f"{len(groups)} budgets have {LEAST_SIZES} sizes within {tolerance:.0%} of one compute, and a power law "
            "needs 3: these rows are no isoFLOP sweep; raise the tolerance, try approach=1 "
            "(--approach 1), or fit the law chinchilla"
        )
    lost = len(log_c) - sum(len(rows) for _, rows in groups)
    notes = [f"{lost} rows belong to no budget with {LEAST_SIZES} sizes and are left out"] if lost else []
    if budgets is None:
        notes += _close(groups, 2 * width)
    if (off := _off(sweep, groups)) > SAME_COMPUTE:
        notes.append(
            f"compute lies up to {np.expm1(off):.1%} from its budget; losses are moved along the slope of the minima"
        )
    return groups, notes


def _off(sweep: Sweep, groups: list[tuple[float, Places]]) -> float:
    """How far the rows' log C lie from their budgets, at most."""
    return max(float(np.abs(np.log(sweep.flops[rows] / c)).max()) for c, rows in groups)


def parabolas(sweep: Sweep, groups: list[tuple[float, Places]], width: float) -> Minima:
    """Approach 2: the minimum of each budget's parabola.

    Rows whose compute is not quite the budget's are first moved to it, along the slope of the minima.
    """
    log_n, log_c = np.log(sweep.params), np.log(sweep.flops)
    slopes = np.zeros(len(groups))
    for last in (True,) if _off(sweep, groups) <= SAME_COMPUTE else (False, False, True):
        valleys = []
        for (c, rows), slope in zip(groups, slopes, strict=True):
            loss = sweep.loss[rows] * np.exp(slope * (np.log(c) - log_c[rows]))
            near = _near(log_n[rows], loss, width)
            valleys.append(Valley.through(c, rows[near], log_n[rows][near], loss[near]))
        places = np.array([v.minimum(v.coef) for v in valleys])
        x = places - [v.middle for v in valleys]
        least = np.array([v.coef @ [1, p, p * p] for v, p in zip(valleys, x, strict=True)])
        good = np.isfinite(places)
        if last or good.sum() < 3:
            break
        at = np.log([c for c, _ in groups])
        trend = np.polyfit(at[good] - at.mean(), np.log(least[good]), min(2, int(good.sum()) - 2))
        slopes = np.polyval(np.polyder(trend), at - at.mean())
    flags = [
        OK if fine else EDGE if v.coef[2] > 0 else FLAT
        for v, fine in zip(valleys, good.tolist(), strict=True)
    ]
    weight = np.array([1 / v.variance if fine else 0.0 for v, fine in zip(valleys, good, strict=True)])
    return Minima(
        np.array([c for c, _ in groups]),
        np.exp(places),
        least,
        weight,
        tuple(flags),
        tuple(v.rows for v in valleys),
        tuple(valleys),
    )


def _near(log_size: Array, loss: Array, width: float) -> NDArray[np.bool_]:
    """Sizes within a factor of the one of least loss, and at least the four nearest."""
    off = np.abs(log_size - log_size[np.argmin(loss)])
    sizes = number_sizes(np.exp(log_size))
    nearest = sorted(off[sizes == k].min() for k in np.unique(sizes))
    near: NDArray[np.bool_] = off <= max(np.log(width), nearest[LEAST_SIZES - 1]) + SAME_SIZE
    return near


def envelope(sweep: Sweep) -> Minima:
    """Approach 1: over which compute each size has the least loss of all, and the middle of that stretch.

    A stretch that begins or ends because a curve does, and not because two curves cross, is flagged.

    Raises:
        FitError: fewer than four sizes with a curve.
    """
    log_c = np.log(sweep.flops)
    size = number_sizes(sweep.params)
    curves = []
    for k in np.unique(size):
        rows = np.flatnonzero(size == k)
        at, group_of = np.unique(np.round(log_c[rows], 6), return_inverse=True)
        if len(at) > 1:
            mean = np.bincount(group_of, np.log(sweep.loss[rows])) / np.bincount(group_of)
            curves.append((rows, at, mean))
    if len(curves) < LEAST_SIZES:
        raise FitError(
            f"{len(curves)} sizes have losses at two budgets or more, and an envelope needs {LEAST_SIZES} such curves; "
            "add points of the training curves, or try approach=2"
        )
    grid = np.linspace(min(at[0] for _, at, _ in curves), max(at[-1] for _, at, _ in curves), GRID)
    loss = np.stack([np.interp(grid, at, mean, left=np.inf, right=np.inf) for _, at, mean in curves])
    there = np.isfinite(loss)
    best = np.argmin(loss, axis=0)
    inside, flags, middle, names = np.arange(GRID), [], [], []
    walls = np.pad(there, ((1, 1), (0, 0)))
    between = walls[best, inside] & walls[best + 2, inside] & there.any(axis=0)
    for k in np.unique(best[there.any(axis=0)]):
        won = np.flatnonzero((best == k) & there[k])
        ends = won[0] - 1, won[-1] + 1
        whole = between[won].all() and ends[0] >= 0 and ends[1] < GRID and there[k, list(ends)].all()
        names.append(k)
        flags.append(OK if whole else CUT)
        middle.append(grid[won].mean())
    at_middle = [float(np.interp(m, curves[k][1], curves[k][2])) for k, m in zip(names, middle, strict=True)]
    return Minima(
        np.exp(middle),
        np.array([np.exp(np.log(sweep.params[curves[k][0]]).mean()) for k in names]),
        np.exp(at_middle),
        np.array([float(flag == OK) for flag in flags]),
        tuple(flags),
        tuple(curves[k][0] for k in names),
    )
