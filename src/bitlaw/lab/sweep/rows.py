"""From the end of a branch to rows of the table: the trained model, and what quantising it does."""

from __future__ import annotations

import json
import math
import platform
import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from ...formats import Microscaled, Recipe
from ...runs import COLUMN
from ..corpus import Corpus
from ..quantize import paired_gap, quantize_rtn, window_losses
from ..quantize.evaluate import EVAL_BATCH, mean_and_se
from ..train import End, TrunkConfig


def row_ids(config: TrunkConfig, tokens: int, post_formats: tuple[str, ...]) -> list[str]:
    """Ids of all rows that the end at a budget gives."""
    cell = config.cell_id(tokens)
    return [cell] + [f"{cell}-rtn-{name}" for name in post_formats if not config.parts().quantized]


def end_rows(
    config: TrunkConfig,
    end: End,
    corpus: Corpus,
    evaluation: tuple[Tensor, Tensor, str],
    post_formats: tuple[str, ...],
) -> list[dict[str, Any]]:
    """Evaluate an end and, if it was trained in 16 bits, each of its quantised copies; one row each."""
    inputs_WT, targets_WT, eval_hash = evaluation
    row = trained_row(config, end, corpus, eval_hash)
    if end.model is None:
        return [{**row, "status": "diverged", "reason": end.reason}]
    clock = time.perf_counter()
    before_W = window_losses(end.model, inputs_WT, targets_WT)
    loss, loss_se = mean_and_se(before_W)
    if not math.isfinite(loss):
        return [{**row, "status": "diverged", "reason": f"the evaluation loss is {loss}"}]
    row |= {"status": "ok", "loss": loss, "loss_se": loss_se}
    row["seconds"] = end.seconds + time.perf_counter() - clock
    rows = [row]
    for name in post_formats if not config.parts().quantized else ():
        recipe = Recipe.parse(name, "channel")
        clock = time.perf_counter()
        after_W = window_losses(quantize_rtn(end.model, recipe), inputs_WT, targets_WT)
        gap = paired_gap(after_W, before_W)
        loss, loss_se = mean_and_se(after_W)
        seconds = time.perf_counter() - clock
        post = {
            **row,
            "id": f"{row['id']}-rtn-{name}",
            "parent": row["id"],
            **held("post", recipe),
            "method": "rtn",
            "bpw": _bits_per_weight(end.model, recipe),
            "started": _ago(seconds),
            "seconds": seconds,
        }
        if math.isfinite(loss):
            rows.append({**post, "loss": loss, "loss_se": loss_se, "gap": gap.gap, "gap_se": gap.se})
        else:
            nothing = {"loss": None, "loss_se": None, "status": "diverged"}
            rows.append({**post, **nothing, "reason": f"the loss after quantisation is {loss}"})
    return rows


def trained_row(config: TrunkConfig, end: End, corpus: Corpus, eval_hash: str) -> dict[str, Any]:
    """Describe the end of a branch: everything but its loss."""
    shape, counts, scheme = config.shape, config.shape.counts(), config.parts()
    tokens = end.steps * config.batch_size * config.seq_len
    row: dict[str, Any] = {
        "id": config.cell_id(end.tokens),
        "trunk": config.trunk_id(),
        "seed": config.seed,
        "params": counts.non_embedding,
        "count": "non_embedding",
        **{
            f"params_{part}": getattr(counts, part)
            for part in ("embedding", "attention", "mlp", "norm", "head")
        },
        "tokens": tokens,
        "unique_tokens": min(tokens, len(corpus.train)),
        "flops": shape.flops_per_token(config.seq_len) * tokens,
        "flops_6nd": 6.0 * counts.non_embedding * tokens,
        "schedule": config.schedule,
        "cooldown": config.cooldown if config.schedule == "constant" else None,
        "learning_rate": config.learning_rate,
        "learning_rate_end": end.learning_rate,
        "warmup_steps": config.warmup_steps,
        "weight_decay": config.weight_decay,
        "steps": end.steps,
        "lost_updates": end.lost_updates,
        "batch_size": config.batch_size,
        "seq_len": config.seq_len,
        **{name: getattr(shape, name) for name in ("width", "depth", "heads", "ffn", "vocab")},
        "corpus": corpus.name,
        "corpus_sha256": corpus.sha256,
        "eval_sha256": eval_hash,
        "eval_tokens": config.eval_tokens // config.seq_len * config.seq_len,
        "eval_batch": EVAL_BATCH,
        "config": config.model_dump_json(),
        "versions": json.dumps(
            {
                "bitlaw": version("bitlaw"),
                "torch": torch.__version__,
                "python": platform.python_version(),
                "machine": platform.machine(),
            }
        ),
        "started": _ago(end.seconds),
        "seconds": end.seconds,
    }
    parts = {
        "w": scheme.w,
        "a": scheme.a,
        "kv": scheme.kv,
        "q": scheme.q,
        "emb": scheme.emb,
        "head": scheme.head,
    }
    for part, recipe in {**parts, "grad": scheme.grad_a, "grad_w": scheme.grad_w}.items():
        row |= held(part, recipe)
    return row


def held(part: str, recipe: Recipe) -> dict[str, Any]:
    """How a part is held, as columns; those that the table does not have for it are left out."""
    grouped = isinstance(recipe.format, Microscaled)
    columns = {
        "format": recipe.format.name,
        "granularity": ("group" if grouped else recipe.granularity) if recipe.quantized else None,
        "stored": recipe.rounding if recipe.stored else None,
        "group": recipe.format.block if isinstance(recipe.format, Microscaled) else recipe.size,
    }
    named = {f"{part}_{name}": value for name, value in columns.items()}
    return {name: value for name, value in named.items() if name in COLUMN}


def _bits_per_weight(model: torch.nn.Module, recipe: Recipe) -> float:
    matrices = [p for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim == 2]
    bits = sum(p.numel() * recipe.bits_per_weight((p.shape[0], p.shape[1])) for p in matrices)
    return bits / sum(p.numel() for p in matrices)


def _ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds")
