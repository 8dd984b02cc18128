"""What the rows of the thousandth study say, as tables of Markdown.

    python studies/thousandth/findings.py > tables.md

Each section answers one question from the published rows. `measures.py` says what the intervals are of.
"""

from __future__ import annotations

import warnings

import polars as pl
from copies import gap_laws, recalibration, robustness, schedules, unified
from elsewhere import formats, second_text
from ends import noise, optimum, parts_multiply, penalty_growth, rejected_forms, stability
from larger import held_out
from measures import TRAINED, section, table

import bitlaw as bl
from bitlaw.lab.train import TrunkConfig, savings


def counts(of: dict[str, pl.DataFrame]) -> None:
    """What was trained and quantised."""
    section("What there is")
    table(
        ("stage", "trunks", "trained ends", "gaps", "diverged", "failed"),
        [
            (
                name,
                f["trunk"].n_unique(),
                f.filter(TRAINED).height,
                f.filter(~TRAINED & pl.col("gap").is_not_null()).height,
                f.filter(pl.col("status") == "diverged").height,
                f.filter(pl.col("status") == "failed").height,
            )
            for name, f in of.items()
        ],
    )
    every = pl.concat(of.values())
    for row in every.filter(pl.col("status") != "ok").iter_rows(named=True):
        print(f"- {row['params']:.0f} parameters, {row['tokens']:.0f} tokens, {row['id']}: {row['reason']}")
    shared, separate = training_flops(every)
    print(
        f"Training took {shared:.3g} FLOPs; the same ends as separate runs take {separate:.3g}, "
        f"so shared trunks cost {shared / separate:.3f} of them.\n"
    )


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
    core = of["core"]
    print("# Tables of the thousandth study\n")
    counts(of)
    seeds = noise(core)
    stability(core)
    usual = (pl.col("learning_rate") * pl.col("width") - 0.5).abs() < 0.01
    cosine = of["schedule"].filter(usual, pl.col("schedule") == "cosine")
    penalty_growth(core, cosine, seeds["mean of 1.5M and 13M"])
    parts_multiply(core)
    rejected_forms(core)
    gap_laws(core)
    schedules(core, of["schedule"])
    robustness(core)
    recalibration(core)
    unified(core)
    optimum(core, of["held-out"], seeds["13M tokens and more"])
    held_out(core, of["held-out"])
    formats(core, of["formats"], seeds["mean of 1.5M and 13M"])
    second_text(core, of["code"])


if __name__ == "__main__":
    main()
