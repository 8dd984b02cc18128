"""Which reader a source needs, by its name and by what is in it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import ConfigError, DataError, nearest
from ..export import used
from ..raw import Raw, Tell, silent
from ..store import Store, in_folder
from ..table import Runs
from . import llama_cpp, lm_eval, mlflow, records, tensorboard, trackio, trainer, wandb
from .tables import SAVE_AS_CSV, SPREADSHEETS, from_csv, from_frame, from_parquet

#: Readers by the word that may stand before a source, like `mlflow:mlruns`.
KINDS: dict[str, Callable[[str], Raw]] = {
    "wandb": wandb.read,
    "mlflow": mlflow.read,
    "tensorboard": tensorboard.read,
    "trackio": trackio.read,
    "trainer": trainer.read,
    "lm-eval": lm_eval.read,
    "llama.cpp": llama_cpp.read,
}
_SEES: dict[str, Callable[[Path], bool]] = {
    "wandb": wandb.sees,
    "mlflow": mlflow.sees,
    "tensorboard": tensorboard.sees,
    "trackio": trackio.sees,
    "trainer": trainer.sees,
    "lm-eval": lm_eval.sees,
}
_HELP = (
    "a .csv, .tsv, .parquet, .sqlite, .json, .jsonl or .md file, or a folder of W&B, MLflow, TensorBoard, trackio, "
    f"Trainer or lm-eval; a word before it says which: {', '.join(KINDS)}"
)


def open_source(source: Any, separator: str | None = None, tell: Tell = silent) -> Raw:
    """Read a source as it is.

    Args:
        source: a data frame, a path, or text like `wandb:entity/project` and `mlflow:http://server:5000`.
        separator: between cells of a CSV file.
        tell: told how much of a large file is read.

    Raises:
        DataError: it cannot be read, or nobody knows what it is.
        ConfigError: a word before it that names no reader.
    """
    if isinstance(source, Runs):
        return _ours(source)
    if not isinstance(source, (str, os.PathLike)):
        return from_frame(source)
    text = os.fspath(source)
    kind, sign, rest = text.partition(":")
    if sign and kind in KINDS:
        if not rest:
            raise ConfigError(f"{text} names nothing; write what to read after it, a file, folder or address")
        return KINDS[kind](rest)
    if re.match(r"postgres(ql)?(\+\w+)?://", text):
        return _ours(Store(text, read_only=True).runs())
    if "://" in text:
        raise ConfigError(f"cannot tell what is at that address; write a word before it: {', '.join(KINDS)}")
    path = Path(source)
    try:
        folder, found = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot look at {ascii(text)[1:-1][:80]}: {error}") from error
    if not found:
        if re.fullmatch(r"[\w.-]{2,}", kind) and sign:
            raise ConfigError(f"no reader is called {kind[:40]!r}; {nearest(kind[:40], KINDS)}")
        raise DataError(f"there is no file or folder {text[:200]}; name {_HELP}")
    try:
        return _folder(path, separator, tell) if folder else _file(path, separator, tell)
    except PermissionError as error:
        raise DataError(f"cannot read {error.filename or text}: {error.strerror}") from error


def _file(path: Path, separator: str | None, tell: Tell) -> Raw:
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        raw = from_csv(path, separator, tell)
        return wandb.from_chart(raw) if wandb.is_chart(raw.frame.columns) else raw
    if suffix == ".parquet":
        return from_parquet(path)
    if suffix in (".json", ".jsonl", ".ndjson"):
        return _json(path)
    if suffix == ".wandb":
        return wandb.read(str(path))
    if suffix in (".md", ".log", ".txt", ".out"):
        return llama_cpp.read(str(path))
    if suffix in (".db", ".sqlite", ".sqlite3"):
        tables = records.tables(path)
        if {"runs", "latest_metrics", "experiments"} <= tables:
            return mlflow.read(str(path))
        if {"metrics", "configs"} <= tables:
            return trackio.read(str(path))
        return _ours(Store(path, read_only=True).runs())
    if "tfevents" in path.name:
        return tensorboard.read(str(path))
    if suffix in SPREADSHEETS:
        raise DataError(f"{path} is a spreadsheet; {SAVE_AS_CSV}")
    raise DataError(f"cannot tell what {path} is; name {_HELP}")


def _json(path: Path) -> Raw:
    found = records.read_json(path)
    if isinstance(found, dict) and "log_history" in found:
        return trainer.read(str(path))
    if isinstance(found, dict) and isinstance(found.get("results"), dict):
        return lm_eval.read(str(path))
    if wandb.is_history(found):
        return wandb.read(str(path))
    return records.from_json(path, found)


def _folder(path: Path, separator: str | None, tell: Tell) -> Raw:
    if (ours := in_folder(path)).is_file():
        return _file(ours, separator, tell)
    kinds = [kind for kind, sees in _SEES.items() if sees(path)]
    if len(kinds) == 1:
        return KINDS[kinds[0]](str(path))
    if kinds:
        ways = " or ".join(f"{kind}:{path}" for kind in kinds)
        raise ConfigError(f"{path} holds runs of {' and '.join(kinds)}; say which: {ways}")
    raise DataError(f"cannot tell what is in {path}; name {_HELP}")


def _ours(runs: Runs) -> Raw:
    frame = runs.frame
    places = [f"row {row!r}" for row in frame["id"]]
    return Raw(used(runs), places, runs.source or "the table")
