"""Which runs narrow answers most for their price: draws as a linear-Gaussian belief, to which runs are added.

What draws of a law's constants say of any loss, they say by few directions z, independent and of variance one:
log L = mean + h z. So do the answers, a = mean + g z + rest. A run measures h z with noise s, and leaves of z

    V' = V - V h h' V / (h' V h + s^2),

exactly where all is linear and normal. Runs of one trunk share half the variance of their noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .limits import Array

Index = NDArray[np.int64]

SHARED = 0.5  # of the variance of a loss's noise, with other ends of its trunk; also what docs/coverage.md simulates
COOLDOWN = 0.2  # of a budget is trained apart from the trunk (Haegele et al. 2024, 2405.18392)
FAINT = 0.05  # variance, in units of the noise, that all candidates together must see of a direction
FURTHEST = 4.0  # robust standard deviations at which a draw is held, lest one of them make the covariances
CHANCE = 3.0  # standard errors of a correlation, below which it is taken for chance
MOSTLY = 0.5  # share of an answer's variance in the directions, from which on the rest is taken to be bent
LEAST = 1e-4  # logarithm of widths that a run must take off to be worth its price


@dataclass(frozen=True)
class Belief:
    """Answers and measurements as directions.

    Attributes:
        answers: g, for each answer in units of its spread (k, r).
        rest: variance of each answer that no measurement tells of (k,).
        seen: h, for each measurement in units of its noise (n, m, r); zero where there is none.
    """

    answers: Array
    rest: Array
    seen: Array

    @classmethod
    def of(cls, answers: Array, measured: Array, noise: Array) -> Belief:
        """Read a belief off draws.

        Directions are the principal ones of what could be measured. Correlations of the answers with them that chance
        gives as well are left out. What of an answer is in no direction is taken to shrink with the rest of it, where
        that is most of it: it is what is bent, and bends less over a shorter stretch.

        Args:
            answers: of each draw (S, k).
            measured: of each draw, what each candidate would measure (S, n, m).
            noise: of each measurement (n, m), in the same unit; infinite where there is none.
        """
        count, cells, each = measured.shape
        scaled = _centred(measured.reshape(count, -1)) / noise.reshape(-1)
        left, size, right = np.linalg.svd(scaled, full_matrices=False)
        spread = size / np.sqrt(count - 1)
        kept = max(1, min(int((spread**2 > FAINT).sum()), count // 10))
        directions = left[:, :kept] * np.sqrt(count - 1)
        seen = (spread[:kept, None] * right[:kept]).T.reshape(cells, each, kept)
        slopes = _scores(answers).T @ directions / (count - 1)
        slopes = np.where(np.abs(slopes) > CHANCE / np.sqrt(count), slopes, 0.0)
        told = (slopes**2).sum(axis=1)
        most = told >= MOSTLY
        return cls(
            np.where(most, 1 / np.sqrt(np.maximum(told, MOSTLY)), 1.0)[:, None] * slopes,
            np.where(most, 0.0, 1 - told),
            seen,
        )


def _centred(values: Array) -> Array:
    """Columns less their medians; draws far out are held at the edge, and those outside the law's domain too."""
    values = np.where(np.isfinite(values), values, np.nan)
    values = values - np.nanmedian(values, axis=0)
    edge = FURTHEST * 1.4826 * np.nanmedian(np.abs(values), axis=0)
    values = np.clip(np.nan_to_num(values, nan=np.inf), -edge, edge)
    centred: Array = values - values.mean(axis=0)
    return centred


def _scores(values: Array) -> Array:
    """Columns as normal scores of their ranks, of variance one: what becomes of a quantile, and not of a tail."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=0)
    scores = ndtri((ranks - 0.5) / len(values))
    scores = scores - scores.mean(axis=0)
    scaled: Array = scores / scores.std(axis=0, ddof=1)
    return scaled


@dataclass(frozen=True)
class Shop:
    """Cells that may be bought: ends of trunks, each with what it measures and costs.

    Attributes:
        belief: what they would tell.
        trunk: number of the trunk of each cell (n,).
        tokens: of each (n,).
        token_flops: of each (n,).
    """

    belief: Belief
    trunk: Index
    tokens: Array
    token_flops: Array

    def best(self, spend: float) -> Basket:
        """The cells worth their price, chosen greedily.

        By gain for the price, and by gain alone: the first may leave out what is expensive and needed, the second what
        is cheap; the better of both is taken.
        """
        return min(
            (Basket.empty(self).filled(spend, per_flop) for per_flop in (True, False)),
            key=lambda basket: basket.log_width,
        )


@dataclass(frozen=True)
class Basket:
    """Cells bought so far, what they cost, and what is left of the directions' variance V (r, r)."""

    shop: Shop
    cells: Index
    flops: float
    left: Array

    @classmethod
    def empty(cls, shop: Shop) -> Basket:
        """Nothing bought."""
        return cls(shop, np.array([], dtype=np.int64), 0.0, np.eye(shop.belief.answers.shape[1]))

    @cached_property
    def variance(self) -> Array:
        """Of each answer, where it was one before (k,)."""
        answers = self.shop.belief.answers
        variance: Array = np.einsum("kr,rs,ks->k", answers, self.left, answers) + self.shop.belief.rest
        return variance

    @property
    def log_width(self) -> float:
        """Mean logarithm of the answers' widths, relative to those before."""
        return float(0.5 * np.log(self.variance).mean())

    @cached_property
    def _of_trunk(self) -> tuple[Array, Array, Array]:
        """For the trunk of each cell: ends bought, the longest of them, and the sum of what they measure (n, r)."""
        shop, count = self.shop, int(self.shop.trunk.max()) + 1
        ends, longest = np.zeros(count), np.zeros(count)
        sums = np.zeros((count, self.left.shape[0]))
        bought = shop.trunk[self.cells]
        np.add.at(ends, bought, 1.0)
        np.maximum.at(longest, bought, shop.tokens[self.cells])
        np.add.at(sums, bought, shop.belief.seen[self.cells, 0])
        return ends[shop.trunk], longest[shop.trunk], sums[shop.trunk]

    @cached_property
    def prices(self) -> Array:
        """What each further cell costs: a trunk goes on from its longest end, and shorter ends are cooldowns alone."""
        shop, (_, longest, _) = self.shop, self._of_trunk
        tokens = np.where(
            shop.tokens > longest, shop.tokens - (1 - COOLDOWN) * longest, COOLDOWN * shop.tokens
        )
        return tokens * shop.token_flops

    @cached_property
    def _news(self) -> tuple[Array, Array]:
        """What each cell measures that its trunk's noise does not hide, and the noise's variance (n, m, r), (n, m).

        Of k ends bought that share a part q of the noise's variance, the next one's noise is known to be the sum of
        theirs times q / (1 + (k - 1) q), up to a variance of 1 - k q^2 / (1 + (k - 1) q).
        """
        seen = self.shop.belief.seen
        ends, _, sums = self._of_trunk
        share = SHARED / (1 + (ends - 1) * SHARED)
        news, noise = seen.copy(), np.ones(seen.shape[:2])
        news[:, 0] -= share[:, None] * sums
        noise[:, 0] -= ends * SHARED * share
        return news, noise

    def _taken_off(self, cells: Index | slice) -> Array:
        """What cells would take off the answers' variances, one alone (n, k)."""
        news, noise = (part[cells] for part in self._news)
        known = news @ self.left  # (n, m, r)
        total = known @ news.transpose(0, 2, 1) + noise[:, :, None] * np.eye(noise.shape[1])
        shared = known @ self.shop.belief.answers.T  # (n, m, k)
        off: Array = (shared * np.linalg.solve(total, shared)).sum(axis=1)
        return off

    @cached_property
    def gains(self) -> Array:
        """Logarithm of widths, summed over answers, that each further cell takes off (n,)."""
        share = np.minimum(self._taken_off(slice(None)) / self.variance, 1 - 1e-12)
        gains: Array = -0.5 * np.log1p(-share).sum(axis=1)
        gains[self.cells] = 0.0
        return gains

    def with_cell(self, cell: int) -> Basket:
        """One cell more."""
        news, noise = (part[cell] for part in self._news)
        known = news @ self.left
        left = self.left - known.T @ np.linalg.solve(known @ news.T + np.diag(noise), known)
        return Basket(
            self.shop, np.append(self.cells, cell), self.flops + float(self.prices[cell]), (left + left.T) / 2
        )

    def filled(self, spend: float, per_flop: bool) -> Basket:
        """Cells added while there is something to spend, and something to gain."""
        basket = self
        while True:
            within = basket.flops + basket.prices <= spend * (1 + 1e-12)
            worth = np.where(within & (basket.gains > LEAST), basket.gains, 0.0)
            if not worth.any():
                return basket
            basket = basket.with_cell(int(np.argmax(worth / basket.prices if per_flop else worth)))
