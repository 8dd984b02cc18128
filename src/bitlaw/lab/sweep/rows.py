"""From the end of a branch to rows of the table: the trained model, and what quantising it does."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Collection
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from statistics import fmean
from typing import Any

import torch

from ...errors import BitlawError
from ...formats import Microscaled, Recipe, Scheme
from ...runs import COLUMN
from ..corpus import Corpus, Windows, distinct_tokens
from ..model import Loaded
from ..quantize import Exam, Outcome, Reference, Scores, Setting, try_settings
from ..quantize.evaluate import EVAL_BATCH
from ..quantize.means import Mean
from ..train import Branch, End, TrunkConfig
from .after import After

#: What is measured of each model; quantising one makes all of it anew.
MEASURED = (
    *("loss", "loss_se", "bpb", "ece", "temperature", "loss_scaled"),
    *(name for name in COLUMN if name == "error" or name.startswith("error_")),
)
#: What may be one cell's fault; a disk that is full, or a text that is gone, is not.
FAILURES = (BitlawError, RuntimeError, ArithmeticError, ValueError, MemoryError)


def row_ids(config: TrunkConfig, branch: Branch, after: After) -> list[str]:
    """Ids of all rows that the end of a branch gives."""
    ends = config.end_ids(branch)
    return ends + [copy for end in ends for copy in copy_ids(config, branch, after, end)]


def copy_ids(config: TrunkConfig, branch: Branch, after: After, end: str) -> list[str]:
    """Ids of the rows of an end's quantised copies."""
    return [after.row_id(end, setting) for setting in settings_of(config, branch, after)]


def settings_of(config: TrunkConfig, branch: Branch, after: After) -> tuple[Setting, ...]:
    """How an end is quantised after training: what was trained in low precision, only to fewer bits than it has."""
    if not low(config, branch):
        return after.settings
    bits = Scheme.parse(branch.scheme).w.format.bits
    return tuple(setting for setting in after.low_settings if setting.weights.format.bits < bits)


def low(config: TrunkConfig, branch: Branch) -> bool:
    """Whether an end was trained in low precision, if only in its cooldown."""
    return config.parts().quantized or Scheme.parse(branch.scheme).quantized


def end_rows(
    config: TrunkConfig,
    end: End,
    corpus: Corpus,
    calibration: Windows | None,
    evaluation: Windows,
    after: After,
) -> list[dict[str, Any]]:
    """Evaluate an end and each of its quantised copies; one row each."""
    row = trained_row(config, end, corpus, evaluation)
    if end.model is None:
        return [{**row, "status": "diverged", "reason": end.reason}]
    clock = time.perf_counter()
    before = Reference(end.model, evaluation, Exam.of(evaluation, corpus.calibration), compile=config.compile)
    if not math.isfinite(before.loss.value):
        return [{**row, "status": "diverged", "reason": f"the evaluation loss is {before.loss.value}"}]
    row |= scored(before.loss, before.scores, row)
    row["seconds"] = end.seconds + time.perf_counter() - clock
    scheme, vocab = Scheme.parse(end.branch.scheme), config.shape.vocab
    if after.low or not low(config, end.branch):
        after.keep(Loaded(row["id"], "", end.model, corpus.coder, vocab, config.seq_len, scheme, row))
    rows = [row]
    for setting in settings_of(config, end.branch, after):
        try:
            (outcome,) = try_settings(before, [setting], calibration)
            rows.append(post_row(row, outcome, calibration, after))
        except FAILURES as error:  # the model itself and its other copies are sound
            rows.append(
                failed_copy(failed_row(config, end.branch, blame(error), end.average), setting, after)
            )
    return rows


def scored(loss: Mean, scores: Scores, row: dict[str, Any]) -> dict[str, Any]:
    """The columns of what a model does on the evaluation text; bits per byte compare tokenizers."""
    length = row["eval_bytes"]
    bpb = loss.value * row["eval_tokens"] / length / math.log(2) if length else None
    return {
        "status": "ok",
        "loss": loss.value,
        "loss_se": loss.se,
        "bpb": bpb,
        "eval_clusters": loss.clusters,
        "ece": scores.ece,
        "temperature": scores.temperature,
        "loss_scaled": scores.loss_scaled,
        "error": fmean(scores.errors.values()) if scores.errors else None,
        **{f"error_{task}": error for task, error in scores.errors.items()},
    }


def post_row(
    parent: dict[str, Any], outcome: Outcome, calibration: Windows | None, after: After
) -> dict[str, Any]:
    """Describe a model that was quantised after training, beside the row of what it was before."""
    setting, loss, gap, kl = outcome.setting, outcome.loss, outcome.gap, outcome.kl
    rejection = outcome.rejection
    row = {
        **parent,
        "curve": None,
        "id": after.row_id(parent["id"], setting),
        "parent": parent["id"],
        **held_after(setting),
        "method": setting.method,
        "bpw": outcome.bpw,
        "bytes": outcome.bytes,
        "started": ago(outcome.seconds),
        "seconds": outcome.seconds,
    }
    if calibration and setting.calibrated:
        row |= {"calibration_samples": len(calibration.inputs), "calibration_sha256": calibration.sha256}
    if not math.isfinite(loss.value):
        reason = f"the loss after quantisation is {loss.value}"
        return {**row, **dict.fromkeys(MEASURED), "status": "diverged", "reason": reason}
    gaps = {"gap": gap.value, "gap_se": gap.se, "kl": kl.value, "kl_se": kl.se}
    gaps |= {"rejection": rejection.value, "rejection_se": rejection.se}
    return {**row, **scored(loss, outcome.scores, row), **gaps}


def trained_row(config: TrunkConfig, end: End, corpus: Corpus, evaluation: Windows) -> dict[str, Any]:
    """Describe the end of a branch: everything but its loss."""
    shape, counts, scheme = config.shape, config.shape.counts(), Scheme.parse(end.branch.scheme)
    tokens = end.steps * config.batch_size * config.seq_len
    row: dict[str, Any] = {
        "id": config.end_ids(end.branch)[1 if end.average else 0],
        "trunk": config.trunk_id(),
        "seed": config.seed,
        "params": counts.non_embedding,
        "count": "non_embedding",
        **{f"params_{part}": count for part, count in asdict(counts).items()},
        "tokens": tokens,
        "unique_tokens": distinct_tokens(corpus, tokens, config.seq_len),
        "flops": shape.flops_per_token(config.seq_len) * tokens,
        "flops_6nd": 6.0 * counts.non_embedding * tokens,
        "schedule": config.schedule,
        "cooldown": end.branch.cooldown if config.schedule == "constant" else None,
        "cooldown_shape": config.cooldown_shape if config.schedule == "constant" else None,
        "optimizer": config.optimizer,
        "average": end.average or None,
        "qat_share": end.branch.cooldown if scheme != config.parts() else None,
        "learning_rate": config.learning_rate,
        "learning_rate_end": end.learning_rate,
        "learning_rate_floor": config.lowest,
        "warmup_steps": config.warmup_steps,
        "weight_decay": config.weight_decay,
        "steps": end.steps,
        "lost_updates": end.lost_updates,
        "curve": json.dumps(
            [(step * config.batch_size * config.seq_len, round(loss, 4)) for step, loss in end.curve]
        )
        if end.curve
        else None,
        "batch_size": config.batch_size,
        "seq_len": config.seq_len,
        **asdict(shape),
        "residual": config.residual,
        "autocast": end.products,
        "corpus": corpus.name,
        "corpus_sha256": corpus.sha256,
        **{f"{side}_text_sha256": text.sha256 for side, text in corpus.sides.items()},
        "tokenizer": corpus.tokenizer,
        **read_on(evaluation),
        "config": config.model_dump_json(),
        "started": ago(end.seconds),
        "seconds": end.seconds,
    }
    for part in fields(scheme):
        row |= held("grad" if part.name == "grad_a" else part.name, getattr(scheme, part.name))
    return row


def read_on(evaluation: Windows) -> dict[str, Any]:
    """The columns of what a loss is of, and of what computed it."""
    versions = {
        "bitlaw": version("bitlaw"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    return {
        "eval_sha256": evaluation.sha256,
        "eval_tokens": evaluation.inputs.numel(),
        "eval_bytes": evaluation.bytes,
        "eval_batch": EVAL_BATCH,
        "versions": json.dumps(versions),
    }


def failed_row(config: TrunkConfig, branch: Branch, reason: str, average: str = "") -> dict[str, Any]:
    """Describe an end of a branch that something went wrong with, other than its numbers."""
    printable = "".join(c if c.isprintable() or c == "\n" else "?" for c in reason[:2000])
    row: dict[str, Any] = {
        "id": config.end_ids(branch)[1 if average else 0],
        "status": "failed",
        "reason": printable,  # no database takes a null character, nor half of a surrogate pair
        "average": average or None,
        "trunk": config.trunk_id(),
        "seed": config.seed,
        "params": config.shape.counts().non_embedding,
        "count": "non_embedding",
        "tokens": config.steps(branch.tokens) * config.batch_size * config.seq_len,
        "config": config.model_dump_json(),
        "started": ago(0.0),
    }
    scheme = Scheme.parse(branch.scheme)
    for part in fields(scheme):
        row |= held("grad" if part.name == "grad_a" else part.name, getattr(scheme, part.name))
    return row


def failed_copy(parent: dict[str, Any], setting: Setting, after: After) -> dict[str, Any]:
    """Describe a quantised copy that could not be made, from what `failed_row` says of its end."""
    copy = {"id": after.row_id(parent["id"], setting), "parent": parent["id"], "method": setting.method}
    return {**parent, **copy, **held_after(setting)}


def failed_rows(
    config: TrunkConfig, branch: Branch, reason: str, average: str, after: After, have: Collection[str]
) -> list[dict[str, Any]]:
    """Describe what is missing of an end that something went wrong with: all of it, or copies of what there is."""
    row = failed_row(config, branch, reason, average)
    if row["id"] not in have:
        return [row]
    copies = [failed_copy(row, setting, after) for setting in settings_of(config, branch, after)]
    return [copy for copy in copies if copy["id"] not in have]


def blame(error: Exception) -> str:
    """What went wrong with a cell, in words; what a disk is to blame for is raised again."""
    if isinstance(error.__cause__, OSError):
        raise error
    return f"{type(error).__name__}: {error}"


def held_after(setting: Setting) -> dict[str, Any]:
    """How the parts that are quantised after training are held, as columns."""
    columns = held("post", setting.weights)
    for part, recipe in (("post_a", setting.activations), ("post_kv", setting.kv)):
        columns |= held(part, recipe) if recipe.quantized else {}
    return columns


def held(part: str, recipe: Recipe) -> dict[str, Any]:
    """How a part is held, as columns; those that the table does not have for it are left out."""
    grouped = isinstance(recipe.format, Microscaled)
    columns = {
        "format": recipe.format.name,
        "recipe": str(recipe),
        "granularity": ("group" if grouped else recipe.granularity) if recipe.quantized else None,
        "stored": recipe.rounding if recipe.stored else None,
        "group": recipe.format.block if isinstance(recipe.format, Microscaled) else recipe.size,
    }
    named = {f"{part}_{name}": value for name, value in columns.items()}
    return {name: value for name, value in named.items() if name in COLUMN}


def ago(seconds: float) -> str:
    """When something began that took some seconds, ISO 8601."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds")
