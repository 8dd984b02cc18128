"""Weights & Biases: offline runs, exports of its pages, and projects by its API."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...files import regular
from ..raw import Raw, from_records
from . import records

_BLOCK, _HEAD = 32768, 7  # of the log that offline runs are kept in, as in LevelDB
_CHART = re.compile(r"(?P<run>.+) - (?P<metric>.+?)(?P<side>__MIN|__MAX)?", re.DOTALL)
_MAX_FILE = 2**31


def sees(folder: Path) -> bool:
    """Whether a folder holds runs of W&B."""
    return next(records.below(folder, end=".wandb"), None) is not None


def is_history(found: Any) -> bool:
    """Whether JSON is the history of a run: a list of steps."""
    return (
        isinstance(found, list) and bool(found) and all(isinstance(r, dict) and "_step" in r for r in found)
    )


def is_chart(columns: list[str]) -> bool:
    """Whether columns are those of a chart's export: a step, then `run - metric` with its bounds."""
    rest = [_CHART.fullmatch(name) for name in columns[1:]]
    return len(columns) > 1 and all(rest) and any(match["side"] for match in rest if match)


def read(source: str) -> Raw:
    """Runs of a folder `wandb`, a file `run-ID.wandb`, a history as JSON, or `entity/project` by the API.

    Each run is a row: its configuration, and the last value of everything that it logged.

    Raises:
        DataError: there is none, or W&B cannot be reached.
    """
    path = Path(source)
    if path.suffix.lower() in (".json", ".jsonl"):
        return _history(path)
    if path.is_file():
        return from_records([_offline(path)], str(path), "W&B")
    if path.is_dir():
        return _resumed([_offline(one) for one in records.below(path, end=".wandb")], str(path))
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
        return _api(source)
    raise DataError(
        f"there is no folder {source[:200]} of W&B; a project of its server is wandb:entity/project"
    )


def from_chart(raw: Raw) -> Raw:
    """The export of a chart as rows: one a run, with the last value of each line."""
    runs: dict[str, dict[str, Any]] = {}
    x = raw.frame.columns[0]
    for name in raw.frame.columns[1:]:
        match = _CHART.fullmatch(name)
        if match is None or match["side"]:
            continue
        filled = raw.frame.filter((raw.frame[name].str.strip_chars() != "").fill_null(False))
        if filled.height:
            run = runs.setdefault(match["run"], {"run_name": match["run"]})
            run[match["metric"]] = filled[name][-1]
            run[x] = filled[x][-1]
    note = "this is the export of a chart: each run's last point counts as its end; the runs table tells more"
    places = ((f"run {name!r}", record) for name, record in runs.items())
    return replace(from_records(places, raw.name, "W&B", [*raw.notes, note]), problems=raw.problems)


def _history(path: Path) -> Raw:
    """Steps as rows: one a run, told apart by `run_id` or `run_name` where they have one."""
    found = records.read_json(path)
    if not is_history(found):
        raise DataError(f"{path} is no history of W&B: a list of steps, each with _step")
    runs: dict[str, dict[str, Any]] = {}
    for step in sorted(
        found, key=lambda step: step["_step"] if isinstance(step["_step"], (int, float)) else 0
    ):
        name = str(step.get("run_id") or step.get("run_name") or path.stem)
        runs.setdefault(name, {"run_name": name}).update({k: v for k, v in step.items() if v is not None})
    return from_records(((f"run {name!r}", r) for name, r in runs.items()), str(path), "W&B")


def _offline(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
        from wandb.proto import wandb_internal_pb2
    except ImportError as error:
        raise DataError("to read runs of W&B from their folders, install it: pip install wandb") from error
    proto: Any = wandb_internal_pb2
    head: dict[str, Any] = {"run_id": path.stem.removeprefix("run-"), "state": "running"}
    config: dict[str, Any] = {}
    logged: dict[str, Any] = {}
    try:
        for data in _log(path):
            record = proto.Record()
            record.ParseFromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                head |= {
                    "run_id": record.run.run_id,
                    "run_name": record.run.display_name,
                    "project": record.run.project,
                }
                config |= _items(record.run.config.update)
            elif kind == "config":
                config |= _items(record.config.update)
            elif kind == "history":
                logged |= _items(record.history.item)
            elif kind == "summary":
                logged |= _items(record.summary.update)
            elif kind == "exit":
                head["state"] = "failed" if record.exit.exit_code else "finished"
    except (DecodeError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged, or of another version of W&B: {str(error)[:100]}") from error
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    return f"run {head.get('run_name') or head['run_id']!r}", _joined(head, config, logged)


def _resumed(parts: list[tuple[str, dict[str, Any]]], name: str) -> Raw:
    """Runs, of which one that was resumed left several folders, in the order of their names, which are times."""
    runs: dict[tuple[Any, Any], tuple[str, dict[str, Any]]] = {}
    for place, record in parts:
        key = record.get("project"), record["run_id"]
        runs[key] = place, (runs[key][1] if key in runs else {}) | record
    note = f"{len(parts)} folders are of {len(runs)} runs: some were resumed, and are joined"
    return from_records(runs.values(), name, "W&B", [note] if len(runs) < len(parts) else [])


def _items(items: Any) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def _joined(head: dict[str, Any], config: dict[str, Any], logged: dict[str, Any]) -> dict[str, Any]:
    """One record; what was logged under a name of the configuration is `summary.name`."""
    record = {**config, **head}
    logged = {
        key: value for key, value in logged.items() if not key.startswith("_") or key in ("_runtime", "_step")
    }
    return record | {(f"summary.{key}" if key in record else key): value for key, value in logged.items()}


def _log(path: Path) -> Iterator[bytes]:
    """Records of an offline run's log; a run that was killed may end in half of one, which is dropped.

    Raises:
        ValueError: it is none, or is damaged.
    """
    try:
        data = regular(path, _MAX_FILE)
        if len(data) > _MAX_FILE:
            raise ValueError("larger than 2 GiB")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if data[:4] != b":W&B":
        raise ValueError("it does not begin like a log of W&B")
    place, parts = _HEAD, b""
    while place + _HEAD <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _HEAD:
            place += left
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        chunk = data[place + _HEAD : place + _HEAD + size]
        if len(chunk) < size or kind == 0:
            return
        if zlib.crc32(chunk, zlib.crc32(bytes([kind]))) != int.from_bytes(data[place : place + 4], "little"):
            raise ValueError("a checksum is wrong")
        parts = chunk if kind in (1, 2) else parts + chunk
        if kind in (1, 4):
            yield parts
        place += _HEAD + size


def _api(project: str) -> Raw:
    try:
        import wandb
    except ImportError as error:
        raise DataError(
            "to ask W&B, install it: pip install wandb; or export the runs table as CSV"
        ) from error
    found = []
    try:
        for run in wandb.Api(timeout=30).runs(project, per_page=500):
            head = {"run_id": run.id, "run_name": run.name, "state": run.state, "project": project}
            config = {key: value for key, value in run.config.items() if not key.startswith("_")}
            found.append((f"run {run.name!r}", _joined(head, config, dict(run.summary))))
    except Exception as error:  # a stranger's server, and the network
        raise DataError(
            f"cannot read {project} from W&B: {type(error).__name__}: {str(error)[:150]}; is WANDB_API_KEY set? "
            "An export of the runs table as CSV works without it"
        ) from error
    return from_records(found, f"W&B {project}", "W&B")
