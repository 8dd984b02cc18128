"""What training costs: C = (6/16) N D P, which is 6 N D at 16 bits (Kumar et al. 2024, section 4.3), and real time.

Linear in bits is what a microbenchmark of matrix products suggests; real gains are smaller. So time is counted by the
rates of real units, on which bits that no unit takes gain nothing, and by the share of them that real runs achieve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from ..formats import Format, Recipe, Scheme, parse_format
from ..runs import Runs
from ..runs.table import TRAINED
from ..shapes import Shape
from .hardware import Hardware

Number = TypeVar("Number", float, NDArray[np.float64])
#: FLOPs of matrix products, by the formats of both operands.
Work: TypeAlias = Mapping[tuple[Format, Format], float]
_PRODUCTS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def train_flops(params: Number, tokens: Number, bits: Number) -> Number:
    """Training cost in 16-bit FLOPs.

    >>> train_flops(1e9, 2e10, 16.0)
    1.2e+20
    """
    return 6 / 16 * params * tokens * bits


def bit_flops(
    size: float | Shape,
    tokens: float,
    w: float,
    a: float | None = None,
    kv: float | None = None,
    seq_len: int = 0,
) -> float:
    """Training cost in 16-bit FLOPs where parts have bits of their own.

        C = (6 N max(P_w, P_a) + 12 L d S P_kv) D / 16

    Products in linear layers, the output head among them, run at the wider of weights and activations; those with keys
    and values at the bits of the cache. With all bits the same this is P / 16 of the FLOPs, as `train_flops` has it.

    Args:
        size: parameters N, whose attention products are left out as in 6 N D; or a shape, where they are counted.
        tokens: training tokens D.
        w: bits of weights.
        a: bits of activations; where not given, those of weights.
        kv: bits of keys and values; where not given, those of weights.
        seq_len: tokens S of a sequence, for a shape.

    Raises:
        ConfigError: bits of keys and values without a shape, or a shape without seq_len.

    Source: Kumar et al. 2024, 2411.04330, section 4.3, for bits that are all the same; the rest is ours.

    >>> bit_flops(1e9, 2e10, w=4, a=8) == train_flops(1e9, 2e10, 8.0)
    True
    """
    wide = max(w, w if a is None else a)
    if isinstance(size, Shape):
        inner = size.flops_per_token(_length(seq_len)) - 6.0 * size.counts().matmul
        return (6.0 * size.counts().matmul * wide + inner * (w if kv is None else kv)) * tokens / 16
    if kv is not None:
        raise ConfigError(
            "bits of keys and values count in attention products; give a Shape, not a number, as size"
        )
    return train_flops(float(size), float(tokens), float(wide))


def train_work(size: float | Shape, tokens: float, scheme: Scheme | str = "16", seq_len: int = 0) -> Work:
    """FLOPs of training by the formats of both operands, a third of them in the forward pass.

        y = a w;   dx = g w,   dw = g a,   where g is the gradient on its grid

    Args:
        size: parameters N, for 6 N D in linear layers; or a shape, for exact FLOPs with attention and head.
        tokens: training tokens D.
        scheme: how each part is held, like "w=e4m3, a=e4m3, grad_a=e5m2".
        seq_len: tokens of a sequence, for a shape.

    Raises:
        ConfigError: a scheme that cannot be read, or a shape without seq_len.

    >>> [(a.name, b.name, f"{flops:g}") for (a, b), flops in train_work(1e9, 1e9, "w4").items()]
    [('bf16', 'int4', '4e+18'), ('bf16', 'bf16', '2e+18')]
    """
    parts = Scheme.parse(scheme) if isinstance(scheme, str) else scheme
    full = parse_format("bf16")
    work: dict[tuple[Format, Format], float] = {}

    def add(first: Recipe | Format, second: Recipe | Format, flops: float) -> None:
        pair = tuple(x.format if isinstance(x, Recipe) else x for x in (first, second))
        work[pair[0], pair[1]] = work.get((pair[0], pair[1]), 0.0) + flops

    def linear(params: float, w: Recipe, a: Recipe | Format, grad: Recipe | Format) -> None:
        for pair in ((a, w), (grad, w), (grad, a)):
            add(*pair, 2.0 * params * tokens)

    if not isinstance(size, Shape):
        linear(size, parts.w, parts.a, parts.grad_a)
        return work
    counts = size.counts()
    linear(counts.attention + counts.mlp, parts.w, parts.a, parts.grad_a)
    linear(counts.head, parts.head, full, full)
    product = 2.0 * size.depth * size.width * _length(seq_len) * tokens  # two forward, four backward
    add(parts.q, parts.kv, product)
    add(full, parts.kv, 3 * product)  # probabilities with values; gradients with keys and with values
    add(full, full, 2 * product)
    return work


def train_seconds(hardware: Hardware, work: Work, achieved: float = 1.0, devices: float = 1) -> float:
    """Time that work takes: the sum over operands of FLOPs / rate, over the achieved share and the devices.

    Args:
        hardware: a profile; `with_speedups` puts measured speed-ups in place of its peaks.
        work: from `train_work`.
        achieved: share of the rates that real runs reach.
        devices: how many work at once; what they lose by it belongs in `achieved`.

    Raises:
        ConfigError: an impossible share or number, or operands that no unit of known rate holds.

    >>> from bitlaw.planning import hardware
    >>> round(train_seconds(hardware("a100-80g"), train_work(1e9, 20e9), achieved=0.4) / 86400, 2)
    11.13
    """
    if not 0 < achieved <= 1:
        raise ConfigError(
            f"achieved is a share of the peak, above 0 and at most 1, not {achieved!r}; try 0.4"
        )
    _some("devices", devices)
    return sum(n / hardware.rate(*pair).flops for pair, n in work.items()) / achieved / devices


@dataclass(frozen=True)
class Achieved:
    """What share of the peak runs reached: the median over `n` runs, and the `low` and `high` ends."""

    share: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.share:.0%} of the peak (median of {self.n}, {self.low:.0%} to {self.high:.0%})"


def achieved_from(
    runs: Runs, hardware: Hardware, products: str | None = None, devices: float = 1
) -> Achieved:
    """What share of the peak rows reached: FLOPs / seconds / peak of the type their products had.

    The seconds of the lab's rows are those since the row before of the same trunk; so of each trunk only the row of
    fewest tokens counts, whose seconds are all of its own. Evaluation is among them. A row that says it was faster than
    the peak says that its seconds are not all, and is left out.

    Args:
        runs: rows with `flops` and `seconds`; `autocast` says the type of their products.
        hardware: what they ran on.
        products: the type where rows do not say it, like "bf16".
        devices: how many each ran on.

    Returns:
        The median over trunks with its range.

    Raises:
        DataError: no row from which it can be told.

    >>> from bitlaw.planning import hardware
    >>> from bitlaw.runs import Runs
    >>> row = {"params": 1e6, "tokens": 1e7, "loss": 3.0, "flops": 6e13, "seconds": 1300.0, "autocast": "float32"}
    >>> print(achieved_from(Runs.from_rows([row]), hardware("cpu-core")))
    50% of the peak (median of 1, 50% to 50%)
    """
    _some("devices", devices)
    trained = runs.ok().filter(
        TRAINED,
        pl.col("average").is_null(),
        pl.col("flops") > 0,
        pl.col("seconds") > 0,
    )
    first = trained.with_columns(pl.coalesce("trunk", "id").alias("trunk")).sort(
        ["tokens", "seconds"], descending=[False, True]
    )
    shares = []
    for row in first.unique("trunk", keep="first", maintain_order=True).iter_rows(named=True):
        known = _PRODUCTS.get(row["autocast"] or "", row["autocast"]) or products
        if known is not None:
            shares.append(row["flops"] / row["seconds"] / hardware.rate(known).flops / devices)
    possible = [share for share in shares if share <= 1]
    if not possible:
        why = (
            f"all are faster than the peak of {hardware.name}; name what they ran on, and on how many devices"
            if shares
            else "they need flops, seconds and autocast (or products, like 'bf16')"
        )
        raise DataError(f"no row tells what share of the peak it reached: {why}")
    return Achieved(float(np.median(possible)), min(possible), max(possible), len(possible))


def _length(seq_len: int) -> int:
    if seq_len < 1:
        raise ConfigError("a shape's attention products grow with the sequence; give seq_len, like 2048")
    return seq_len


def _some(name: str, value: float) -> float:
    if not 0 < value < 1e60:
        raise ConfigError(f"{name} must be positive and finite, not {value!r}")
    return value
