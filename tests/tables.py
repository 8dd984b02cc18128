"""The public run tables as `Runs`: what each column is in our schema, and nothing else."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bitlaw import Runs

#: Porian's learning-rate decays: of one length for all runs, to each budget's end, or none.
DECAYS = {"kaplan": "cosine of one length", "chinchilla": "cosine", "const": "constant"}
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


def quest(folder: Path) -> Runs:
    """Weights and activations at one number of bits, and bf16. One bit has no format of ours yet.

    Only `w_format` is set, so that an efficiency is of both, as the paper's is.
    """
    rows = []
    for raw in cells(folder, "quest_qat"):
        bits = int(float(raw["weight_bits"]))
        if raw["method_group"] in ("bf16", "quest_w=a_int") and bits > 1:
            low = {"w_format": f"int{bits}"} if bits < 16 else {}
            rows.append({**sizes(raw), "count": "non_embedding", "corpus": "c4", **low})
    return Runs.from_rows(rows)


def porian(folder: Path, **chosen: str | tuple[str, ...]) -> Runs:
    """Rows of Porian's settings; each names a setting by the columns of `PORIAN`, those not given are pooled.

    Points of one size are read off one training curve, unless every budget has its own cosine. Warm-ups are
    `long` or `short` in the table, not steps.
    """
    rows = []
    for raw in cells(folder, "porian"):
        if all(raw[name] == value or raw[name] in value for name, value in chosen.items()):
            setting = "/".join(raw[name] for name in PORIAN)
            own = raw["isoflop"] if raw["decay"] == "chinchilla" else ""
            rows.append(
                {
                    **sizes(raw),
                    "flops": float(raw["isoflop"]),
                    "schedule": DECAYS[raw["decay"]],
                    "corpus": raw["train_dataset"],
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


def ptq(folder: Path, methods: dict[str, str]) -> Runs:
    """Gaps of integer weights, by the methods named ({theirs: ours}); a cluster is a model family."""
    rows = []
    for raw in cells(folder, "ptq_tables"):
        bits = float(raw["weight_bits"] or 0)
        if (
            raw["ptq_method"] in methods
            and bits == int(bits)
            and 2 <= bits <= 8
            and raw["d_tokens"]
            and raw["delta_loss"]
        ):
            rows.append(
                {
                    **sizes(raw),
                    "trunk": raw["family"],
                    "post_format": f"int{int(bits)}",
                    "post_group": int(float(raw["group_size"])) if raw["group_size"] else None,
                    "method": methods[raw["ptq_method"]],
                    "gap": float(raw["delta_loss"]),
                    "gap_se": float(raw["delta_loss_se"]) if raw["delta_loss_se"] else None,
                }
            )
    return Runs.from_rows(rows)
