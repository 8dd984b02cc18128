"""TensorBoard: folders of event files, read through the package tensorboard."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ...errors import DataError
from ..raw import Raw, from_records
from . import records

_WORD = "tfevents"


def sees(folder: Path) -> bool:
    """Whether a folder holds event files."""
    return next(records.below(folder, within=_WORD), None) is not None


def read(source: str) -> Raw:
    """Runs below a folder: one for each folder that has event files.

    Each run is a row: the last value of each scalar, hyperparameters, and texts; texts that are JSON, as the Trainer
    of Hugging Face writes its arguments, are taken apart. PyTorch's `add_hparams` makes a folder of its own within the
    run's: it counts as the run's if it is the only one.

    Raises:
        DataError: there is none, or tensorboard is not installed.
    """
    path = Path(source)
    top = path if path.is_dir() else path.parent
    folders = sorted({one.parent for one in records.below(top, within=_WORD)}) if path.is_dir() else [top]
    if not folders or not path.exists():
        raise DataError(f"there are no event files ({_WORD}) below {path}")
    found = {folder: _run(folder if path.is_dir() else path) for folder in folders}
    for folder in folders:
        within = [f for f in found if f.parent == folder and found[f][1] and f != folder]
        if folder in found and len(within) == 1 and not found[folder][1]:
            found[folder] = (found[folder][0] | found.pop(within[0])[0], True)
    named = {folder: folder.relative_to(top).as_posix() if folder != top else top.name for folder in found}
    return from_records(
        ((f"run {named[f]!r}", {"run_name": named[f], **record}) for f, (record, _) in found.items()),
        str(path),
        "TensorBoard",
    )


def _run(folder: Path) -> tuple[dict[str, Any], bool]:
    """A run's record, and whether it has hyperparameters."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import SCALARS, TENSORS, EventAccumulator
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError as error:
        raise DataError("to read TensorBoard's files, install it: pip install tensorboard") from error
    record: dict[str, Any] = {}
    given: dict[str, Any] = {}  # hyperparameters
    has = False
    try:
        events = EventAccumulator(str(folder), size_guidance={SCALARS: 1, TENSORS: 1})
        events.Reload()
        tags = events.Tags()
        for tag in tags["scalars"]:
            record[tag] = events.Scalars(tag)[-1].value
        for tag in tags["tensors"]:
            kind = events.SummaryMetadata(tag).plugin_data.plugin_name
            proto = events.Tensors(tag)[-1].tensor_proto
            if math.prod(d.size for d in proto.tensor_shape.dim) != 1:
                continue  # a shape may promise more than any memory holds
            value = make_ndarray(proto)
            if kind == "scalars":
                record[tag] = float(value.reshape(-1)[0])
            elif kind == "text":
                record[tag.removesuffix("/text_summary")] = _text(value.reshape(-1)[0])
        content = _hyperparameters(events)
        if content is not None:
            for key, value in HParamsPluginData.FromString(content).session_start_info.hparams.items():
                which = value.WhichOneof("kind")
                given[key] = getattr(value, which) if which else None
                has = True
    except Exception as error:  # what a stranger's event file can make the package do is not listed anywhere
        raise DataError(
            f"cannot read the event files of {folder}: {type(error).__name__}: {str(error)[:150]}"
        ) from error
    return given | {f"metrics.{key}" if key in given else key: value for key, value in record.items()}, has


def _hyperparameters(events: Any) -> bytes | None:
    try:
        content = events.PluginTagToContent("hparams").get("_hparams_/session_start_info")
    except KeyError:
        return None
    return bytes(content) if content is not None else None


def _text(value: Any) -> Any:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, dict) else text
