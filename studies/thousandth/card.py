"""The data card of the thousandth study, from its rows: what README.md says.

python studies/thousandth/card.py    # writes it; run.py does so whenever it publishes rows
"""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from bitlaw import Runs, read_runs
from bitlaw.formats import UNQUANTIZED
from bitlaw.laws.terms import TRAINED_PARTS
from bitlaw.runs.schema import COLUMNS
from bitlaw.units import format_quantity

HERE = Path(__file__).parent
CSV_WITHOUT = ("config", "versions", "curve")  # columns of JSON, as long as all others together
HASHES = (
    "corpus_sha256",
    "train_text_sha256",
    "calibration_text_sha256",
    "evaluation_text_sha256",
    "eval_sha256",
)
TEXT = """\
# The thousandth study

A replication of the grid of "Scaling Laws for Precision" (Kumar et al. 2024, arXiv 2411.04330) at a thousandth of its
size: byte-level transformers, trained in low precision and quantised after training (PTQ). The paper published no runs;
these are our own. The study is still running: this card describes the rows published so far.

- sizes: {sizes} non-embedding parameters
- tokens: {tokens}
- bits in training, beside 16: {parts}
- bits of weights after training, by RTN, GPTQ or AWQ: {post}

| stage | trunks | trained ends | quantised copies | not ok |
|---|---|---|---|---|
{stages}

A *trunk* is a training run that several *ends* share; each end is a model at one token count.

| file | content |
|---|---|
| `rows.parquet` | one row per end of training and per quantised copy |
| `rows.csv` | the same without {left_out} |
| [`findings.md`](findings.md) | what they say of the paper's claims and of its rivals' |
| [`tables.md`](tables.md) | the tables behind it, by `findings.py` |
| [`report.html`](report.html) | every figure of `bitlaw report`, of GPTQ; the command stands at its end |
| `trunks.csv` | the stage and sweep (`*.toml`) of each trunk |
| `models/` | ends of 16-bit trunks as safetensors, rounded to bf16 |

Rows of one `trunk` share their first steps and are correlated; intervals use trunks as clusters. Rounding the models to
bf16 cost at most .0002 nats in the seven that were evaluated again.

- **Made by** `python studies/thousandth/run.py`, which resumes where it was stopped. `bitlaw study thousandth
  --verify N` repeats N cells and compares losses. {hours:.1f} CPU hours so far, including evaluation, restarts and
  repeated work.
- **Text**: {texts}. Tokens are bytes. Documents are split into training, calibration and evaluation by their hash;
  the evaluation text of a row has {eval_tokens} tokens. The text is not included: `bitlaw corpus get rfc` (or `rust`)
  fetches it.
- **Losses** are in nats per token (here, per byte). `gap` is the loss of a copy minus that of its parent on the same
  tokens; `gap_se` is its standard error over documents. No training data are repeated: `unique_tokens` equals `tokens`.
- **Versions**: {versions}.
- **Licence**: CC-BY-4.0 for the rows and models; cite the repository.
- **Limitations**: one seed per cell, except in the sweep of noise (and that of schedules, once it has rows); one
  optimiser and one batch size; learning rates from the ladder's rule, checked at the smallest and the largest size
  only (`docs/log.md`); bytes as tokens, so losses are not comparable with other tables.

## Hashes

| what | SHA-256 |
|---|---|
{hashes}

## Columns

| column | kind | unit | meaning |
|---|---|---|---|
{columns}
"""


def card() -> str:
    """The text of README.md."""
    runs = read_runs(HERE / "rows.parquet")
    frame = runs.frame
    trunks = pl.read_csv(HERE / "trunks.csv")
    frame = frame.join(trunks, on="trunk", how="left")
    stages = []
    for (stage,), some in frame.group_by("stage", maintain_order=True):
        trained = some.filter(pl.col("parent").is_null())
        wrong = some.filter(pl.col("status") != "ok").height
        stages.append(
            f"| {stage} | {some['trunk'].n_unique()} | {trained.height} | {some.height - trained.height} | {wrong} |"
        )
    hashes = [
        f"| `{name}` of {row['corpus']} | `{row[name]}` |"
        for row in frame.select("corpus", *HASHES).drop_nulls().unique().sort("corpus").iter_rows(named=True)
        for name in HASHES
    ]
    there = {column.name: column for column in COLUMNS}
    columns = [
        f"| `{name}` | {there[name].kind} | {there[name].unit} | {there[name].meaning} |"
        for name in frame.columns
        if name in there and frame[name].is_not_null().any()
    ]
    versions = [json.loads(text) for text in frame["versions"].drop_nulls().unique().sort()]
    trained = {part: _bits(runs, part) for part in TRAINED_PARTS}
    sizes, tokens = (frame[name].drop_nulls().unique().sort() for name in ("params", "tokens"))
    return TEXT.format(
        sizes=", ".join(format_quantity(n) for n in sizes),
        tokens=f"{format_quantity(tokens[0])} to {format_quantity(tokens[-1])}",
        parts=", ".join(f"{TRAINED_PARTS[part]} in {bits}" for part, bits in trained.items() if bits)
        + " bits",
        post=_bits(runs, "post"),
        stages="\n".join(stages),
        left_out=", ".join(f"`{name}`" for name in CSV_WITHOUT),
        hours=pl.read_csv(HERE / "hours.csv")["cpu_hours"].sum(),
        texts=", ".join(f"`{name}`" for name in frame["corpus"].drop_nulls().unique().sort()),
        eval_tokens=" or ".join(f"{n:,}" for n in frame["eval_tokens"].drop_nulls().unique().sort()),
        versions="; ".join(", ".join(f"{k} {v}" for k, v in each.items()) for each in versions),
        hashes="\n".join(hashes),
        columns="\n".join(columns),
    )


def _bits(runs: Runs, part: str) -> str:
    """The numbers of bits below 16 that a part has, in words; empty where there are none."""
    found = runs.bits(part).unique().sort()
    return ", ".join(f"{b:g}" for b in found.filter(found < UNQUANTIZED))


if __name__ == "__main__":
    (HERE / "README.md").write_text(card(), encoding="utf-8")
