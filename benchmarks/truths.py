"""Truths that plans are judged by, and studies simulated from them.

Written down here once more, and their optima found by another search, so that a mistake of the package cannot hide in
both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitlaw import Runs
from bitlaw.formats import parse_format
from bitlaw.formats.gaussian import effective_bits

PARTS = ("w", "a", "kv")
#: Kumar et al. 2024, table 2; the robustness rates C are unpublished and assumed.
PUBLISHED = {
    **{
        "gamma_w": 2.6745,
        "gamma_a": 2.2102,
        "gamma_kv": 0.9578,
        "n_w": 0.3037,
        "n_a": 1.4072,
        "n_kv": 2.4185,
    },
    **{"gamma_D": 0.5068, "gamma_N": 0.3439, "gamma_post": 0.5907, "C_w": 0.6, "C_a": 0.8, "C_kv": 0.7},
}
MIDDLE_N, MIDDLE_D = 1e8, 6e9  # where the published law's two costs and its gap at no bits are:
COSTS = {"size": 0.459, "data": 0.253, "gap": 0.0598 * math.exp(1.1277) * MIDDLE_D**0.5068 / MIDDLE_N**0.3439}
LOWEST = {"w": 3, "a": 4, "kv": 3}  # bits that are trained
CAPACITY = {b: effective_bits(parse_format(f"int{b}")) for b in range(2, 17)}


def tokens_for(flops: float, n: Any, bits: Any) -> Any:
    """Tokens that are left of a budget, C = (6/16) N D P."""
    return flops * 16 / 6 / n / bits


@dataclass(frozen=True)
class Truth:
    """A law that exists, as numbers."""

    form: str
    values: dict[str, float]

    def share(self, part: str, bits: np.ndarray) -> np.ndarray:
        """Share of the parameters that count; NaN where the truth knows no such model."""
        v = self.values
        if self.form == "chinchilla":
            return np.ones_like(bits)
        if self.form == "capacity":
            held = np.interp(bits, list(CAPACITY), list(CAPACITY.values()))
            return np.where(np.isinf(bits), 1.0, np.tanh(v["F"] * held) ** v["C"])
        phi = 1 - np.exp(-bits / v[f"gamma_{part}"] + v[f"n_{part}"])
        return np.where(phi > 0, phi, np.nan)

    def loss(self, n: Any, d: Any, **bits: Any) -> np.ndarray:
        """Loss of models of n parameters after d tokens; bits that are not given are not quantised."""
        v = self.values
        held = {part: np.asarray(bits.get(part, np.inf), dtype=float) for part in (*PARTS, "post")}
        effective = n * np.prod(np.broadcast_arrays(*(self.share(p, held[p]) for p in PARTS)), axis=0)
        size, data = v["A"] * effective ** -v["alpha"], v["B"] * d ** -v["beta"]
        if self.form == "outer":
            return v["E"] + (size + data) ** v["g"]
        if self.form == "growing":  # what low precision costs grows with tokens
            plain = v["A"] * n ** -v["alpha"]
            size = plain + (size - plain) * (d / MIDDLE_D) ** v["growth"]
        loss = v["E"] + size + data
        if self.form == "unified":
            gap = (
                v["C_T"]
                * d ** v["gamma_D"]
                / effective ** v["gamma_N"]
                * np.exp(-held["post"] / v["gamma_post"])
            )
            for part in PARTS:
                with np.errstate(invalid="ignore"):
                    gap = gap * -np.expm1(-v[f"C_{part}"] * np.maximum(held[part] - held["post"], 0))
            loss = loss + np.where(np.isinf(held["post"]), 0.0, gap)
        return loss

    def spending(self, flops: float, n: Any, bits: Any, quantised: bool) -> np.ndarray:
        """Loss of models of n parameters, all parts at some bits, on the tokens that are left of a budget."""
        held = dict.fromkeys(PARTS, bits) if quantised else {}
        loss = self.loss(n, tokens_for(flops, n, bits), **held)
        return np.where(np.isnan(loss), np.inf, loss)

    def best(self, flops: float, bits: Any, quantised: bool) -> tuple[np.ndarray, np.ndarray]:
        """The best size for each number of bits, and its loss: grids within grids."""
        bits = np.asarray(bits, dtype=float)
        low, high = np.full_like(bits, np.log(1e6)), np.full_like(bits, np.log(1e13))
        for _ in range(7):
            x = low + (high - low) * np.linspace(0, 1, 101)[:, None]
            loss = self.spending(flops, np.exp(x), bits, quantised)
            at = np.take_along_axis(x, np.argmin(loss, axis=0)[None], axis=0)[0]
            low, high = at - (high - low) / 100, at + (high - low) / 100
        return np.exp(at), loss.min(axis=0)

    def best_bits(self, flops: float) -> tuple[float, float, float]:
        """The best bits, any number of them, with their size and loss."""
        grid = np.linspace(2, 16, 281)
        for _ in range(3):
            n, loss = self.best(flops, grid, True)
            k = int(np.argmin(loss))
            found = float(grid[k]), float(n[k]), float(loss[k])
            step = grid[1] - grid[0]
            grid = np.clip(np.linspace(grid[k] - step, grid[k] + step, 41), 2, 16)
        return found


def truth(form: str, rng: np.random.Generator) -> Truth:
    """Draw one around the published constants."""

    def around(value: float, factor: float) -> float:
        return value * math.exp(rng.uniform(-1, 1) * math.log(factor))

    alpha, beta = rng.uniform(0.25, 0.55, 2)
    beta = beta if form in ("chinchilla", "capacity") else alpha
    v = {"E": rng.uniform(1.5, 3.0), "alpha": alpha, "beta": beta}
    v["g"] = 0.8 if form == "outer" else 1.0
    v["A"] = around(COSTS["size"], 2) ** (1 / v["g"]) * MIDDLE_N**alpha
    v["B"] = around(COSTS["data"], 2) ** (1 / v["g"]) * MIDDLE_D**beta
    if form == "capacity":  # Panferov et al. 2025, 2506.01863, table 3: F 0.41 and 0.37, C 1.39 and 1.24
        v |= {"F": around(0.4, 1.2), "C": around(1.3, 1.2)}
    v["growth"] = rng.uniform(0.1, 0.3)
    for name in ("gamma_D", "gamma_N", "gamma_post"):
        v[name] = around(PUBLISHED[name], 1.25)
    v |= {f"C_{part}": around(PUBLISHED[f"C_{part}"], 1.5) for part in PARTS}
    v["C_T"] = around(COSTS["gap"], 2) * MIDDLE_N ** v["gamma_N"] / MIDDLE_D ** v["gamma_D"]
    for part in PARTS:
        while True:
            v[f"gamma_{part}"] = around(PUBLISHED[f"gamma_{part}"], 1.5)
            v[f"n_{part}"] = around(PUBLISHED[f"n_{part}"], 1.3)
            if 1 - math.exp(-LOWEST[part] / v[f"gamma_{part}"] + v[f"n_{part}"]) > 0.1:
                break
    return Truth(form, v)


# ---- studies


Cells = list[tuple[float, float]]
#: The paper's 18 cells, and a grid without precision.
PAPER = [
    (n, d) for n in (30e6, 60e6, 110e6, 220e6) for d in (1.5e9, 3e9, 6e9, 13e9, 26e9) if d < 26e9 or n < 100e6
]
GRID = [(n, d) for n in np.geomspace(3e7, 1e9, 8) for d in np.geomspace(1e9, 4e10, 5)]
FEW = [{}, {"w": 3}, {"w": 4}, {"w": 6}, {"a": 4}, {"a": 6}, {"kv": 3}, {"kv": 4}, dict.fromkeys(PARTS, 6)]
MANY = [
    {},
    *({"w": b} for b in (3, 4, 5, 6, 8, 12)),
    *({"a": b} for b in (4, 5, 6, 8, 12)),
    *({"kv": b} for b in (3, 4, 5, 6)),
    *(dict.fromkeys(PARTS, b) for b in (4, 6, 8)),
    *({"post": b} for b in (3, 4, 5, 6)),
    *({"w": 6, "post": 4}, {"a": 6, "post": 4}, {"kv": 5, "post": 3}),
]  # fmt: skip


@dataclass(frozen=True)
class Study:
    """Runs of one kind of truth, and the law that is fitted to them."""

    name: str
    form: str
    law: str
    noise: float
    cells: Cells
    formats: list[dict[str, int]]
    trunks: bool = (
        False  # whether runs of one size and formats share one, and half the variance of their noise
    )
    right: bool = True

    @property
    def quantised(self) -> bool:
        """Whether the plan chooses bits."""
        return self.law != "chinchilla"

    def rows(self, there: Truth, rng: np.random.Generator) -> Runs:
        """Simulate it."""
        rows = []
        for n in dict.fromkeys(n for n, _ in self.cells):
            for k, formats in enumerate(self.formats):
                shared = rng.standard_normal()
                for d in (d for size, d in self.cells if size == n):
                    own = rng.standard_normal()
                    error = self.noise * (math.sqrt(0.5) * (own + shared) if self.trunks else own)
                    row = {
                        "params": n,
                        "tokens": d,
                        "loss": float(there.loss(n, d, **formats)) * math.exp(error),
                    }
                    row |= {f"{part}_format": f"int{bits}" for part, bits in formats.items()}
                    rows.append(row | ({"trunk": f"{n:g} {k}"} if self.trunks else {}))
        return Runs.from_rows(rows[:465])


STUDIES = (
    Study("kumar-unified, 465 runs, 0.3 %", "unified", "kumar-unified", 0.003, PAPER, MANY),
    Study("kumar-unified, 465 runs, 1 %", "unified", "kumar-unified", 0.01, PAPER, MANY),
    Study("kumar, 162 runs, 0.3 %", "kumar", "kumar", 0.003, PAPER, FEW),
    Study("kumar, 162 runs, 1 %", "kumar", "kumar", 0.01, PAPER, FEW),
    Study("kumar, 36 trunks of 4 or 5, 1 %", "kumar", "kumar", 0.01, PAPER, FEW, trunks=True),
    Study("chinchilla, 18 runs, 0.3 %", "chinchilla", "chinchilla", 0.003, PAPER, [{}]),
    Study("chinchilla, 18 runs, 1 %", "chinchilla", "chinchilla", 0.01, PAPER, [{}]),
    Study("chinchilla, 40 runs, 0.3 %", "chinchilla", "chinchilla", 0.003, GRID, [{}]),
    Study("chinchilla, 40 runs, 1 %", "chinchilla", "chinchilla", 0.01, GRID, [{}]),
    Study("outer exponent 0.8, by kumar", "outer", "kumar", 0.003, PAPER, FEW, right=False),
    Study("cost of bits grows with tokens, by kumar", "growing", "kumar", 0.003, PAPER, FEW, right=False),
    Study("capacity, by kumar", "capacity", "kumar", 0.003, PAPER, FEW, right=False),
    Study("outer exponent 0.8, by chinchilla", "outer", "chinchilla", 0.003, GRID, [{}], right=False),
)
