"""What rows.csv and repeats.csv say: predicted and real steps, and whether the check of laziness tells them apart.

A prediction is right if it is within 20 % of the real steps (50 % beside it), or within two steps, or if neither
reaches the target. Thresholds are chosen on the models of one seed and judged on those of the other.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl

HERE = Path(__file__).parent
KEY = ["params", "tokens", "seed", "format"]
WITHIN = (1.2, 1.5)
DRAWS = 2000


def right(frame: pl.DataFrame, factor: float) -> np.ndarray:
    f, r = frame["predicted"].to_numpy(), frame["real"].to_numpy()
    with np.errstate(invalid="ignore"):
        near = (np.abs(np.log(f / r)) <= math.log(factor)) | (np.abs(f - r) <= 2)
    out: np.ndarray = np.where(np.isfinite(f) & np.isfinite(r), near, np.isinf(f) & np.isinf(r))
    return out


def area(score: np.ndarray, wrong: np.ndarray) -> float:
    """Chance that a wrong prediction has the higher score than a right one."""
    pairs = score[wrong][:, None] - score[~wrong][None]
    return float((pairs > 0).mean() + (pairs == 0).mean() / 2) if pairs.size else math.nan


def clustered(frame: pl.DataFrame, statistic: object, draws: int = DRAWS) -> tuple[float, float]:
    """90 % bootstrap interval of a statistic over quantised models drawn whole."""
    parts = [part for _, part in frame.group_by(KEY, maintain_order=True)]
    rng = np.random.default_rng(0)
    found = [
        statistic(pl.concat([parts[k] for k in rng.integers(len(parts), size=len(parts))]))  # type: ignore[operator]
        for _ in range(draws)
    ]
    low, high = np.nanquantile(found, [0.05, 0.95])
    return float(low), float(high)


def median(frame: pl.DataFrame) -> float:
    """Median of predicted over real steps, where both are reached and not at once."""
    some = frame.filter(pl.col("predicted").is_finite() & pl.col("real").is_finite() & (pl.col("real") > 0))
    return float(np.median(some["predicted"].to_numpy() / some["real"].to_numpy())) if len(some) else math.nan


def ways(frame: pl.DataFrame) -> None:
    """A line for each way back and share of the gap."""
    for key, some in frame.group_by(["way", "share", "data", "windows", "back"], maintain_order=True):
        both = some.filter(
            pl.col("predicted").is_finite() & pl.col("real").is_finite() & (pl.col("real") > 0)
        )
        ratio = both["predicted"].to_numpy() / both["real"].to_numpy()
        only = [
            int((some[a].is_finite() & some[b].is_infinite()).sum())
            for a, b in (("predicted", "real"), ("real", "predicted"))
        ]
        neither = len(some) - len(both) - sum(only)
        low, high = clustered(some, median, 500)
        shares = ", ".join(f"{right(some, w).mean():.0%} within {w - 1:.0%}" for w in WITHIN)
        quart = np.quantile(ratio, [0.25, 0.75]) if len(ratio) else (math.nan, math.nan)
        print(
            *key,
            f"n = {len(some)}: median {median(some):.2f} ({low:.2f} to {high:.2f}), quartiles {quart[0]:.2f} "
            f"{quart[1]:.2f}, range {ratio.min(initial=math.inf):.2f} {ratio.max(initial=0):.2f} of {len(both)}; "
            f"only predicted {only[0]}, only real {only[1]}, neither {neither}; {shares}",
        )


def lazy(frame: pl.DataFrame) -> None:
    """Whether what the record says of laziness tells right from wrong."""
    frame = frame.with_columns(
        (pl.col("progress").log().abs()).alias("misfit"),
        (pl.col("start") - pl.col("reference")).alias("gap"),
        (1 / (pl.col("start") - pl.col("reference"))).alias("small gap"),
    )
    for factor in WITHIN:
        wrong = ~right(frame, factor)
        print(f"wrong by more than {factor - 1:.0%}: {wrong.sum()} of {len(frame)}")
        for name in ("drift", "first_drift", "misfit", "small gap"):
            low, high = clustered(
                frame, lambda f, name=name, factor=factor: area(f[name].to_numpy(), ~right(f, factor)), 300
            )
            print(f"  {name}: area {area(frame[name].to_numpy(), wrong):.2f} ({low:.2f} to {high:.2f})")
        for threshold in (0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0):
            refused = frame["drift"].to_numpy() > threshold
            print(
                f"  drift over {threshold}: {refused.sum()} refused, {(refused & wrong).sum()} of them wrong; "
                f"{(~refused).sum()} answered, {(~refused & wrong).sum()} of them wrong"
            )
        fit, judged = (frame.filter(seed=s) for s in (0, 1))
        if len(judged):
            grid = np.quantile(fit["drift"], np.linspace(0, 1, 101))
            bad = ~right(fit, factor)
            score = [
                ((fit["drift"].to_numpy() > g) & bad).sum() / max(1, bad.sum())
                + ((fit["drift"].to_numpy() <= g) & ~bad).sum() / max(1, (~bad).sum())
                for g in grid
            ]
            best = grid[int(np.argmax(score))]
            refused, bad = judged["drift"].to_numpy() > best, ~right(judged, factor)
            print(
                f"  threshold {best:.2f} from seed 0; seed 1: {refused.sum()} refused, {(refused & bad).sum()} of them "
                f"wrong; {(~refused).sum()} answered, {(~refused & bad).sum()} of them wrong"
            )


def main() -> None:
    """Print all of it."""
    frame = pl.read_csv(HERE / "rows.csv", infer_schema_length=None)
    print(f"{len(frame)} rows of {frame.select(KEY).n_unique()} quantised models")
    ways(frame)
    for name, some in (
        ("all", frame),
        *((f"{k[0]}", p) for k, p in frame.group_by("format", maintain_order=True)),
    ):
        stream = some.filter(way="sgd", data="stream", share=0.5, windows=256)
        for back in (0.25, 0.5, 0.75):
            part = stream.filter(back=back)
            print(
                f"sgd stream {name}, {back}: median {median(part):.2f}, "
                + ", ".join(f"{right(part, w).mean():.0%} within {w - 1:.0%}" for w in WITHIN)
            )
    with_interval = frame.filter(pl.col("low").is_not_nan() & pl.col("low").is_not_null())
    inside = (with_interval["low"] <= with_interval["real"]) & (
        with_interval["real"] <= with_interval["high"]
    )
    for count in (96, 256):
        part = with_interval.filter(windows=count)
        ends = (part["high"] / part["low"].clip(1)).median() if len(part) else math.nan
        print(
            f"{count} windows: 90 % intervals hold the real steps in "
            f"{inside.filter(with_interval['windows'] == count).sum()} of {len(part)}, median high over low {ends:.1f}"
        )
    lazy(frame)
    print("256 windows alone:")
    lazy(frame.filter(way="sgd", windows=256))
    cost = frame.filter(pl.col("real").is_finite() & (pl.col("real") > 0))
    ratio = (cost["linearise_s"] + cost["simulate_s"]) / (cost["real"] * cost["step_s"])
    deep = cost.filter(pl.col("real") >= 100)
    deep_ratio = (deep["linearise_s"] + deep["simulate_s"]) / (deep["real"] * deep["step_s"])
    print(
        f"seconds of prediction over those of the real steps: median {ratio.median():.1f}; of 100 steps or more "
        f"{deep_ratio.median():.1f} (n = {len(deep)}); linearising takes as long as "
        f"{(frame['linearise_s'] / frame['step_s']).median():.0f} steps, a predicted step "
        f"{(cost['simulate_s'] / cost['predicted'].clip(1, 300) / cost['step_s']).median():.2f} real ones"
    )
    if (HERE / "repeats.csv").exists():
        repeats(frame)


def repeats(frame: pl.DataFrame) -> None:
    """How far two real runs that differ in their windows alone lie apart."""
    again = pl.read_csv(HERE / "repeats.csv", infer_schema_length=None)
    for back, some in again.group_by("back", maintain_order=True):
        pair = some.select(pl.col("first").alias("predicted"), pl.col("second").alias("real"))
        shares = ", ".join(f"{right(pair, w).mean():.0%} within {w - 1:.0%}" for w in WITHIN)
        print(f"two real runs, {back[0]} back, n = {len(some)}: {shares}")


if __name__ == "__main__":
    main()
