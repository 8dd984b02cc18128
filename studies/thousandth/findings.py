"""What the rows of the thousandth study say, as tables of Markdown.

    python studies/thousandth/findings.py > tables.md

Each section answers one question from the published rows. `measures.py` says what the intervals are of.
"""

from __future__ import annotations

import math
import warnings

import polars as pl
from copies import gap_laws, recalibration, robustness, unified
from elsewhere import formats, second_text
from ends import (
    against_size,
    against_tokens,
    marginal_fits,
    noise,
    parts_multiply,
    stability,
    turning,
)
from forms import effective, optimum, rejected_forms, trades
from larger import held_out
from measures import SCHEME, TRAINED, base, count, section, size, table
from run import HERE, STAGES
from schedules import schedules

import bitlaw as bl
from bitlaw.lab.train import TrunkConfig, savings

STAGE_OF = {sweep: stage for stage, sweeps in STAGES.items() for sweep in sweeps}


def counts(of: dict[str, pl.DataFrame]) -> None:
    """What was trained and quantised."""
    section(
        "What there is",
        "Runs: of cosine schedules, every end is one; trunks of other schedules have several ends.",
    )
    runs = pl.struct("trunk", "config").n_unique()
    table(
        ("stage", "trunks", "runs", "trained ends", "gaps", "ends diverged", "ends failed", "copies not ok"),
        [
            (
                name,
                f["trunk"].n_unique(),
                f.filter(TRAINED).select(runs).item(),
                f.filter(TRAINED).height,
                f.filter(~TRAINED & pl.col("gap").is_not_null()).height,
                f.filter(TRAINED, pl.col("status") == "diverged").height,
                f.filter(TRAINED, pl.col("status") == "failed").height,
                f.filter(~TRAINED, pl.col("status") != "ok").height,
            )
            for name, f in of.items()
        ],
    )
    for stage, f in of.items():
        for row in f.filter(pl.col("status") != "ok").with_columns(scheme=SCHEME).iter_rows(named=True):
            what = f"{size(row['params'])}, {count(row['tokens'])} tokens, {row['scheme'] or '16 bits'}"
            print(f"- {stage}: {what}, {row['id']}: {row['status']}, {row['reason']}")
    print()


def costs(of: dict[str, pl.DataFrame]) -> None:
    """What it took, and what separate runs would have taken."""
    section(
        "What it took",
        "CPU hours as they were noted, with evaluation, restarts and work made twice. Separate: had every end been",
        "trained by itself. Quantising and scoring are the same for both; their share is by the seconds of the rows.",
    )
    noted = pl.read_csv(HERE / "hours.csv").with_columns(stage=pl.col("sweep").replace(STAGE_OF))
    hours = dict(noted.group_by("stage").agg(pl.col("cpu_hours").sum()).iter_rows())
    rows, whole = [], [0.0, 0.0]
    for stage, f in of.items():
        if f.is_empty():
            continue
        shared, separate = training_flops(f)
        trained = f.filter(TRAINED)["seconds"].sum() / f["seconds"].sum()
        took = hours.get(stage, 0.0)
        alone = took * (trained * separate / shared + 1 - trained)
        whole = [whole[0] + took, whole[1] + alone]
        rows.append((stage, shared, separate, shared / separate, took, alone))
    header = ("stage", "training FLOPs", "of separate runs", "share", "CPU hours", "of separate runs, about")
    table(header, [*rows, ("all", math.nan, math.nan, math.nan, *whole)])


def training_flops(rows: pl.DataFrame) -> tuple[float, float]:
    """FLOPs of the training behind some ends, and of separate runs to the same ends."""
    shared = separate = 0.0
    ends = rows.filter(TRAINED).group_by("trunk", "config").agg(pl.col("tokens"))
    for trunk in ends.iter_rows(named=True):
        config = TrunkConfig.model_validate_json(trunk["config"])
        had = {round(tokens) for tokens in trunk["tokens"]}
        step = config.batch_size * config.seq_len
        budgets = tuple(budget for budget in config.budgets if config.steps(budget) * step in had)
        spent = savings(config.model_copy(update={"budgets": budgets}))
        rate = config.shape.flops_per_token(config.seq_len)
        shared, separate = shared + rate * spent.trained, separate + rate * spent.separate
    return shared, separate


def main() -> None:
    """Print all sections."""
    warnings.simplefilter("ignore", RuntimeWarning)
    of = {stage: bl.datasets.thousandth(stage).frame for stage in bl.datasets.STAGES}
    core, at_16 = of["core"], base(of["core"])
    print("# Tables of the thousandth study\n")
    counts(of)
    costs(of)
    seeds = noise(core, at_16)
    stability(core, at_16)
    against_tokens(core, at_16)
    against_size(core, at_16, seeds["mean of 1.5M and 13M"])
    turning(core)
    parts_multiply(core, at_16, seeds["mean of 1.5M and 13M"])
    marginal_fits(core)
    effective(core)
    rejected_forms(core)
    trades(core, at_16)
    optimum(core, of["held-out"], seeds["13M tokens and more"])
    gap_laws(core)
    robustness(core)
    recalibration(core)
    unified(core)
    schedules(core, of["schedule"], seeds)
    held_out(core, of["held-out"])
    formats(core, of["formats"], at_16, seeds)
    second_text(core, of["code"])


if __name__ == "__main__":
    main()
