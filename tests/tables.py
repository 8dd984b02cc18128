"""The public run tables as `Runs`: what each column is in our schema, and nothing else."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bitlaw import Runs

#: Porian's learning-rate decays: of one length for all runs, to each budget's end, or none.
DECAYS = {"kaplan": "cosine of one length", "chinchilla": "cosine", "const": "constant"}
#: Theirs to ours: no head, or with it; with the work of attention counted as parameters there is no name for it.
COUNTS = {"kaplan": "non_embedding", "standard": "matmul"}
PORIAN = ("source", "train_dataset", "hparams", "warmup", "decay", "param_count_convention", "loss_kind")


def cells(folder: Path, table: str) -> Iterator[dict[str, str]]:
    """The rows of a table as text."""
    with (folder / table / "tidy.csv").open(encoding="utf-8") as file:
        yield from csv.DictReader(file)


def sizes(raw: dict[str, str]) -> dict[str, Any]:
    """What every table has."""
    numbers = {"params": raw["n_params"], "tokens": raw["d_tokens"], "loss": raw["loss"]}
    return {"id": raw["run_id"], **{name: float(text) for name, text in numbers.items()}}


def epoch(folder: Path, excluded: bool = False) -> Runs:
    """Hoffmann's runs as read off the figure by Epoch AI: 240, or all 245 with the five that they exclude."""
    return Runs.from_rows(
        sizes(raw)
        for raw in cells(folder, "epoch_chinchilla")
        if excluded or raw["epoch_excluded"] == "False"
    )


def epoch_excluded(folder: Path) -> set[str]:
    """The five rows that Epoch excludes."""
    return {raw["run_id"] for raw in cells(folder, "epoch_chinchilla") if raw["epoch_excluded"] == "True"}


def gadre(folder: Path, dataset: str) -> Runs:
    """Models of one training set with their loss on C4 and mean error on 17 tasks."""
    return Runs.from_rows(
        {
            **sizes(raw),
            "loss": float(raw["loss_c4_val"]),
            "error": float(raw["err_avg17"]) if raw["err_avg17"] else None,
            "count": "total",
            "corpus": dataset,
            "learning_rate": float(raw["lr"]),
            "warmup_steps": int(raw["warmup"]),
            "schedule": "cosine",
        }
        for raw in cells(folder, "gadre_openlm")
        if raw["train_dataset"] == dataset
    )


def quest(folder: Path, parts: tuple[str, ...] = ("w",), one_bit: bool = True) -> Runs:
    """Weights and activations at one number of bits, on half-integer grids, and bf16.

    Args:
        folder: of the public tables.
        parts: which of the two are said to be of low precision; with `w` alone an efficiency is of both, as the
            paper's is.
        one_bit: whether those of one bit are among them.
    """
    rows = []
    for raw in cells(folder, "quest_qat"):
        bits = int(float(raw["weight_bits"]))
        if raw["method_group"] in ("bf16", "quest_w=a_int") and (one_bit or bits > 1):
            low = {f"{part}_format": f"midrise{bits}" for part in parts} if bits < 16 else {}
            rows.append({**sizes(raw), "count": "non_embedding", "corpus": "c4", **low})
    return Runs.from_rows(rows)


def porian(folder: Path, **chosen: str | tuple[str, ...]) -> Runs:
    """Rows of Porian's settings; each names a setting by the columns of `PORIAN`, those not given are pooled.

    Points of one size are read off one training curve, unless every budget has its own cosine. Warm-ups are
    `long` or `short` in the table, not steps.
    """
    rows = []
    for raw in cells(folder, "porian"):
        if all(
            raw[name] in ((value,) if isinstance(value, str) else value) for name, value in chosen.items()
        ):
            setting = "/".join(raw[name] for name in PORIAN)
            own = raw["isoflop"] if raw["decay"] == "chinchilla" else ""
            rows.append(
                {
                    **sizes(raw),
                    "flops": float(raw["isoflop"]),
                    "schedule": DECAYS[raw["decay"]],
                    "corpus": raw["train_dataset"],
                    "count": COUNTS.get(raw["param_count_convention"]),
                    "trunk": f"{setting}/{raw['n_params']}/{own}",
                }
            )
    return Runs.from_rows(rows)


def datablations(folder: Path) -> Runs:
    """Runs that repeat their data; those with one seed in common do not share anything else."""
    return Runs.from_rows(
        {
            **sizes(raw),
            "unique_tokens": float(raw["d_unique_tokens"]),
            "seed": int(float(raw["seed"])) if raw["seed"] else None,
            "corpus": "c4",
        }
        for raw in cells(folder, "datablations")
    )


#: Whole numbers of bits on a plain grid: llama.cpp's older types (Q4_0: blocks of 32), RTN and GPTQ.
INTEGER = re.compile(r"(?P<method>RTN|GPTQ)-(?P<bits>\d)b(-g128)?|Q(?P<type>\d)_[01]")


def ptq(folder: Path, family: str | None = None, method: str | None = None) -> Runs:
    """Gaps of weights on integer grids; rows of one model family are one trunk, for they share all but their size.

    Models of unknown training data cannot be rows; the one negative gap of the table is of a key cache.
    """
    rows = []
    for raw in cells(folder, "ptq_tables"):
        found = INTEGER.fullmatch(raw["quant_label"])
        if not found or not raw["d_tokens"] or family not in (None, raw["family"]):
            continue
        how = (found["method"] or "RTN").lower()
        if method not in (None, how):
            continue
        se = {"gap_se": float(raw["delta_loss_se"])} if raw["delta_loss_se"] else {}
        gap = {"gap": float(raw["delta_loss"]), **se}
        kind = {"post_format": f"int{found['bits'] or found['type']}", "method": how}
        rows.append({**sizes(raw), "trunk": raw["family"], **kind, **gap})
    return Runs.from_rows(rows)
