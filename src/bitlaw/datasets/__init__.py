"""Run tables that bitlaw's own sweeps made, with the settings that make them again in `studies`."""

from __future__ import annotations

from importlib.resources import as_file, files

import polars as pl

from ..errors import DataError, nearest
from ..runs import Runs, read_runs

__all__ = ["STAGES", "thousandth"]

STAGES = ("core", "held-out", "schedule", "formats", "code")


def thousandth(stage: str | None = "core") -> Runs:
    """Return rows of the thousandth study: the grid of "Scaling Laws for Precision" at a thousandth of its size.

    Byte-level transformers of 30,000 to 220,000 non-embedding parameters on 1.5 to 26 million tokens of RFCs, with
    weights, activations and KV cache trained at 3 to 12 bits, and quantised after training to 2 to 8. The study is
    under way: these are the rows that it has so far; `studies/thousandth` makes them. CC-BY-4.0.

    Args:
        stage: `core`; `held-out`, larger models that no law of ours was fitted to; `schedule`, cosines beside
            cooldowns; `formats`, floats and microscaled blocks; `code`, a second text; None for all.

    Raises:
        DataError: an unknown stage.

    >>> runs = thousandth()
    >>> runs.frame["corpus"].unique().to_list()
    ['package:rfc']
    """
    if stage is not None and stage not in STAGES:
        raise DataError(f"the thousandth study has no stage {stage!r}; {nearest(stage, STAGES)}")
    home = files(__name__)
    with as_file(home / "thousandth.parquet") as rows, as_file(home / "thousandth.csv") as trunks:
        found, stages = read_runs(rows), pl.read_csv(trunks)
    some = stages if stage is None else stages.filter(pl.col("stage") == stage)
    return Runs(found.frame.filter(pl.col("trunk").is_in(some["trunk"].to_list())), "the thousandth study")
