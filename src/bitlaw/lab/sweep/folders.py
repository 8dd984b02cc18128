"""Quantise a model from a folder in many ways, a row for each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ...errors import DataError
from ..corpus import Corpus, Text, Windows, spread_windows
from ..model import Loaded, load_model, save_model
from ..quantize import Reference, try_settings
from .after import After
from .rows import post_row, read_on, scored


def quantize_folder(
    folder: str | Path,
    corpus: Corpus,
    after: After,
    *,
    eval_tokens: int = 65_536,
    tokens: float | None = None,
    device: str = "auto",
    done: Collection[str] = (),
    on_setting: Callable[[int, str], None] = lambda count, name: None,
) -> Iterator[dict[str, Any]]:
    """Yield the row of a model, then one for each way of quantising it.

    Args:
        folder: as `load_model` reads it.
        corpus: its calibration text is looked at, its evaluation text scored.
        after: ways of quantising, and where quantised models go, each to a folder of its own.
        eval_tokens: how much is scored.
        tokens: that the model was trained on, where its folder does not say.
        device: `auto`, `cpu` or `cuda`.
        done: ids of rows that are known already; their settings are passed over.
        on_setting: told how many settings are done, and which is next.

    Raises:
        DataError: a folder or text that cannot be used.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    on_setting(0, "reading the model")
    loaded = load_model(folder, device)
    evaluation = spread_windows(_encoded(loaded, corpus.evaluation), eval_tokens, loaded.seq_len)
    calibration = after.look_at(_encoded(loaded, corpus.calibration), loaded.seq_len)
    on_setting(0, "scoring the model as it is")
    before = Reference(loaded.model, evaluation)
    row = _row(loaded, corpus, evaluation, tokens) | scored(before.loss)
    yield row
    left = [setting for setting in after.settings if after.row_id(row["id"], setting) not in done]
    count = len(after.settings) - len(left)
    outcomes = try_settings(before, left, calibration)
    for setting in left:
        on_setting(count, setting.name)
        outcome = next(outcomes)
        made = post_row(row, outcome, calibration, after)
        if after.models is not None:
            quantized = replace(loaded, model=outcome.model, scheme=setting.scheme, row=made)
            save_model(quantized, after.models / made["id"])
        yield made
        count += 1
    on_setting(count, "done")


def _encoded(loaded: Loaded, text: Text) -> Text:
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
    row: dict[str, Any] = {"params": total, "count": "total", "vocab": loaded.vocab, **loaded.row}
    if tokens is not None:
        row["tokens"] = tokens
    return row | {
        "id": f"{loaded.name}-{loaded.digest[:8]}-{evaluation.sha256[:8]}",
        "corpus": row.get("corpus", corpus.name),
        "seq_len": loaded.seq_len,
        **read_on(evaluation),
    }
