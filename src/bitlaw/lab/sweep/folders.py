"""Quantise a model from a folder in many ways, a row for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import DataError
from ..corpus import Corpus, Text, Windows, spread_windows
from ..model import Loaded, load_model
from ..quantize import Exam, Reference, try_settings
from ..quantize.parts import running
from ..tasks import Judge, Judged
from .after import After
from .processes import device_named
from .rows import FAILURES, MEASURED, blame, failed_copy, post_row, read_on, scored

#: What a folder's row says of an earlier evaluation, and no longer holds.
OF_THE_ROW_BEFORE = {
    *MEASURED,
    *("chance", "parent", "status", "reason", "gap", "gap_se", "kl", "kl_se", "rejection", "rejection_se"),
    *("bpw", "bytes", "method", "calibration_samples", "calibration_sha256", "curve", "started", "seconds"),
}


def quantize_folder(
    folder: str | Path,
    corpus: Corpus,
    after: After,
    *,
    eval_tokens: int = 65_536,
    tokens: float | None = None,
    device: str = "auto",
    done: Collection[str] = (),
    judge: Judge | None = None,
    on_judged: Callable[[str, Judged], None] = lambda row, judged: None,
    on_setting: Callable[[int, str], None] = lambda count, name: None,
) -> Iterator[dict[str, Any]]:
    """Yield the row of a model, then one for each way of quantising it; a way that cannot be has status `failed`.

    Args:
        folder: as `load_model` reads it.
        corpus: its calibration text is looked at, its evaluation text scored.
        after: ways of quantising, and where quantised models go, each to a folder of its own.
        eval_tokens: how much is scored.
        tokens: that the model was trained on, where its folder does not say.
        device: `auto`, `cpu` or `cuda`.
        done: ids of rows that are known already; their settings are passed over.
        judge: tasks that every model is judged on too; `error` and `chance` of its row are then of these.
        on_judged: told the id of each row, and what its model came to on the tasks.
        on_setting: told how many settings are done, and which is next.

    Raises:
        ConfigError: a device that is not there.
        DataError: a folder or text that cannot be used.
    """
    device = device_named(device)
    on_setting(0, "reading the model")
    loaded = load_model(folder, device)
    if eval_tokens < 2 * loaded.seq_len:
        raise DataError(
            f"{eval_tokens} tokens to evaluate on are fewer than two windows of {loaded.seq_len}; use more"
        )
    evaluation = spread_windows(encoded(loaded, corpus.evaluation), eval_tokens, loaded.seq_len)
    text = encoded(loaded, corpus.calibration)
    calibration = after.look_at(text, loaded.seq_len)
    on_setting(0, "scoring the model as it is")
    schemes = {setting: running(loaded, setting.scheme) for setting in after.settings}
    before = Reference(loaded.model, evaluation, Exam.of(evaluation, text))
    if not math.isfinite(before.loss.value):
        raise DataError(
            f"the loss of {loaded.name} itself is {before.loss.value}; nothing can be compared with it"
        )
    row = _row(loaded, corpus, evaluation, tokens)
    row |= scored(before.loss, before.scores, row)

    def judged(row: dict[str, Any], loaded: Loaded) -> dict[str, Any]:
        if judge is None or row["status"] != "ok":
            return row
        found = judge.judge(loaded)
        on_judged(row["id"], found)
        return {**row, "error": found.error, "chance": found.chance}

    if judge is not None:  # other tasks are another row
        row["id"] = f"{row['id']}-{judge.digest[:8]}"
    row = judged(row, loaded)
    yield row
    ids = {setting: after.row_id(row["id"], setting) for setting in after.settings}
    left = [s for s in ids if ids[s] not in done or (after.models and not (after.models / ids[s]).exists())]
    for count, setting in enumerate(left, start=len(ids) - len(left)):
        on_setting(count, setting.name)
        try:
            (outcome,) = try_settings(before, [setting], calibration)
        except FAILURES as error:  # the other settings are sound
            failed = {"id": row["id"], "status": "failed", "reason": blame(error)}
            yield failed_copy(failed, setting, after)
            continue
        made = post_row(row, outcome, calibration, after)
        quantized = replace(loaded, model=outcome.model, scheme=schemes[setting])
        made = judged(made, quantized)
        after.keep(replace(quantized, row=made))
        yield made
    on_setting(len(ids), "done")


def encoded(loaded: Loaded, text: Text) -> Text:
    """A text in a model's tokens."""
    if loaded.tokenizer is not None:
        text = text.encode(loaded.tokenizer)
    highest = int(text.tokens.max(initial=0))
    if highest >= loaded.vocab:
        raise DataError(
            f"{loaded.name} knows {loaded.vocab:,} tokens, and its tokenizer gives number {highest:,}; "
            "they are not of one model"
        )
    return text


def _row(loaded: Loaded, corpus: Corpus, evaluation: Windows, tokens: float | None) -> dict[str, Any]:
    """What is known of a model before it is quantised."""
    total = sum(p.numel() for p in loaded.model.parameters())
    known = {name: value for name, value in loaded.row.items() if name not in OF_THE_ROW_BEFORE}
    row: dict[str, Any] = {"params": total, "count": "total", "vocab": loaded.vocab, **known}
    if tokens is not None:
        row["tokens"] = tokens
    return row | {
        "id": f"{loaded.name}-{loaded.digest[:8]}-{evaluation.sha256[:8]}",
        "corpus": row.get("corpus", corpus.name),
        "seq_len": loaded.seq_len,
        **read_on(evaluation),
    }
