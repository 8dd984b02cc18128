"""What the curves of `train.py` say: the critical batch in 16 and in 3 bits, and the largest size predicted.

python studies/batch/train.py && python studies/batch/run.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import t as student

import bitlaw as bl
from bitlaw.fitting import Contour, contours
from bitlaw.laws import trajectory

HERE = Path(__file__).parent
LEVELS = (2.7, 2.6, 2.5, 2.4)
FORMATS = {"16": None, "w3": "int3"}
SHARES = [0.05, 0.5, 0.95]


def runs(frame: pl.DataFrame) -> bl.Runs:
    """Points of curves as rows of the one table."""
    return bl.Runs.from_rows(
        {
            "trunk": str(row["seed"]),
            "params": row["params"],
            "batch_size": row["batch_tokens"] // 64,
            "seq_len": 64,
            "steps": row["steps"],
            "tokens": row["steps"] * row["batch_tokens"],
            "w_format": FORMATS[row["scheme"]],
            "learning_rate": row["rate"],
            "loss": row["loss"],
        }
        for row in frame.to_dicts()
    )


def critical(frame: pl.DataFrame) -> None:
    """The contours of both formats, their ratio, and the noise of the gradient."""
    found: dict[str, tuple[Contour, ...]] = {}
    for place, scheme in enumerate(FORMATS):
        curves = frame.filter(stage="batch", scheme=scheme)
        rates = curves.group_by("batch_tokens").agg(pl.col("rate").first()).sort("batch_tokens")
        print(f"{scheme}: rates by batch", dict(rates.iter_rows()))
        found[scheme] = contours(runs(curves), LEVELS, seed=place)
        for at in found[scheme]:
            batch, steps, tokens = (
                f"{r.value:,.0f} ({r.low:,.0f} to {r.high:,.0f})" for r in (at.batch, at.steps, at.tokens)
            )
            off = " ".join(f"{x:+.3f}" for x in at.residual)
            print(
                f"  loss {at.loss}: B_crit {batch}, S_min {steps}, E_min {tokens}, {at.trunks} trunks; off by {off}"
            )
        drawn = np.log([at.draws[:, 1] / at.draws[:, 0] for at in found[scheme]])
        slopes = np.polyfit(
            np.log(LEVELS), np.column_stack([np.log([at.batch.value for at in found[scheme]]), drawn]), 1
        )[0]
        low, high = np.quantile(slopes[1:], [0.05, 0.95])
        print(f"  B_crit ~ L^{slopes[0]:.1f} (90 %: {low:.1f} to {high:.1f})")
        noise(curves)
    for of_16, of_3 in zip(found["16"], found["w3"], strict=True):
        for name, pick in (
            ("B_crit", lambda x: x[:, 1] / x[:, 0]),
            ("S_min", lambda x: x[:, 0]),
            ("E_min", lambda x: x[:, 1]),
        ):
            low, middle, high = np.quantile(pick(of_3.draws) / pick(of_16.draws), SHARES)
            print(
                f"loss {of_16.loss}: {name} in 3 bits over that in 16: {middle:.2f} ({low:.2f} to {high:.2f})"
            )


def noise(curves: pl.DataFrame) -> None:
    """B_simple where each seed of the middle batch first comes below each level."""
    for level in LEVELS:
        below = curves.filter(pl.col("noise_batch").is_not_null() & (pl.col("loss") <= level)).sort("steps")
        first = np.log(below.group_by("seed").first()["noise_batch"].to_numpy())
        half = student.ppf(0.95, len(first) - 1) * first.std(ddof=1) / len(first) ** 0.5
        low, middle, high = np.exp(first.mean() + half * np.array([-1, 0, 1]))
        print(f"  loss {level}: B_simple {middle:,.0f} ({low:,.0f} to {high:,.0f}), n = {len(first)}")


def predicted(frame: pl.DataFrame) -> None:
    """The largest size's curves by the trajectory law, fitted to the smaller ones and to the batches of one size."""
    largest = frame.filter(stage="size")["params"].max()
    for after in (20, 40, 80):
        usable = frame.filter((pl.col("scheme") == "16") & (pl.col("steps") >= after))
        small = usable.filter(pl.col("stage").is_in(["batch", "size"]) & (pl.col("params") < largest))
        large = usable.filter(stage="size", params=largest)
        for name, some, fixed in (
            ("sizes and batches", small, {}),
            (
                "sizes alone",
                small.filter(stage="size"),
                {"B_star": 1e3, "alpha_B": 1.0},
            ),  # one batch tells neither
        ):
            fit = bl.fit("trajectory", runs(some), fix=fixed, draws=0)
            off, within = (100 * np.abs(errors(fit.values, rows)) for rows in (large, some))
            print(
                f"steps >= {after}, {name}: mean error {off.mean():.2f} % (largest {off.max():.2f} %, on what was "
                f"fitted {within.mean():.2f} %), {large['seed'].n_unique()} curves",
                {k: float(f"{v:.3g}") for k, v in fit.values.items()},
            )


def stepwise(frame: pl.DataFrame) -> None:
    """The largest size's curves from three straight lines, each with what the ones before it gave.

    Critical batches of one size against the loss; the last losses of the smaller sizes against their parameters; what
    lies above that against the steps that a very large batch would take.
    """
    plain = frame.filter(pl.col("scheme") == "16")
    found = bl.fitting.contours(runs(plain.filter(stage="batch")), LEVELS, draws=0)
    slope, offset = np.polyfit(np.log(LEVELS), [np.log(contour.batch.value) for contour in found], 1)
    values = {"B_star": float(np.exp(offset)), "alpha_B": -1 / slope}
    sizes = plain.filter(stage="size")
    small = sizes.filter(pl.col("params") < sizes["params"].max()).sort("steps")
    ends = small.group_by("params").agg(pl.col("loss").sort_by("steps").tail(2).mean()).sort("params")
    slope, offset = np.polyfit(np.log(ends["params"].cast(float)), np.log(ends["loss"]), 1)
    values |= {"alpha_N": -slope, "N_c": float(np.exp(-offset / slope))}
    for after in (20, 40, 80):
        rows = small.filter(pl.col("steps") >= after)
        N, B, S, L = (
            rows[name].cast(float).to_numpy() for name in ("params", "batch_tokens", "steps", "loss")
        )
        above = L - (values["N_c"] / N) ** values["alpha_N"]
        enough = above > 0.02 * L
        least = S / (1 + values["B_star"] / (B * L ** (1 / values["alpha_B"])))
        slope, offset = np.polyfit(np.log(least[enough]), np.log(above[enough]), 1)
        values |= {"alpha_S": -slope, "S_c": float(np.exp(-offset / slope))}
        large = sizes.filter((pl.col("params") == sizes["params"].max()) & (pl.col("steps") >= after))
        off = 100 * np.abs(errors(values, large))
        print(
            f"steps >= {after}, step by step: mean error {off.mean():.2f} % (largest {off.max():.2f} %)",
            {k: float(f"{v:.3g}") for k, v in values.items()},
        )


def errors(values: dict[str, float], rows: pl.DataFrame) -> np.ndarray:
    """Relative errors of the trajectory law."""
    columns = {name: rows[name].cast(float).to_numpy() for name in ("params", "steps", "batch_tokens")}
    return trajectory.law.predict(values, **columns) / rows["loss"].to_numpy() - 1


def main() -> None:
    """Print all of it."""
    frame = pl.read_csv(HERE / "curves.csv", schema_overrides={"scheme": pl.String}, infer_schema_length=None)
    critical(frame)
    predicted(frame)
    stepwise(frame)


if __name__ == "__main__":
    main()
