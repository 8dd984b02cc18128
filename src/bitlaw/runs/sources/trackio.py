"""trackio: the SQLite file of a project, read without trackio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import DataError
from ..raw import Raw, from_records
from . import records


def sees(folder: Path) -> bool:
    """Whether a folder holds projects of trackio."""
    return any({"metrics", "configs"} <= records.tables(path) for path in _projects(folder))


def _projects(folder: Path) -> list[Path]:
    """Files of SQLite among those that might be projects."""
    found = []
    for path in filter(Path.is_file, sorted(folder.glob("*.db"))):
        with path.open("rb") as file:
            if file.read(16) == b"SQLite format 3\x00":
                found.append(path)
    return found


def read(source: str) -> Raw:
    """Runs of a project's file, or of all in a folder (by default ~/.cache/huggingface/trackio).

    Each run is a row: its configuration, and the last value of each metric, `metrics.NAME` where the former has NAME.

    Raises:
        DataError: there is none.
    """
    path = Path(source)
    paths = _projects(path) if path.is_dir() else [path]
    if not paths:
        raise DataError(
            f"{path} holds no projects of trackio (.db); they are in ~/.cache/huggingface/trackio"
        )
    found = [run for one in paths if {"metrics", "configs"} <= records.tables(one) for run in _runs(one)]
    return from_records(found, str(path), "trackio")


def _runs(path: Path) -> list[tuple[str, dict[str, Any]]]:
    # Since 0.24 a run has an id, and several may have one name.
    by = (
        "run_id" if all("run_id" in _columns(path, table) for table in ("configs", "metrics")) else "run_name"
    )
    runs: dict[str, dict[str, Any]] = {}
    names: dict[str, str] = {}
    for key, name, config in records.query(path, f"SELECT {by}, run_name, config FROM configs ORDER BY id"):
        given = {k: v for k, v in _object(path, config).items() if not k.startswith("_")}
        names[str(key)] = str(name)
        runs[str(key)] = {"run_name": name, "project": path.stem, **given}
    logged: dict[str, dict[str, Any]] = {key: {} for key in runs}
    order = f"SELECT {by}, run_name, metrics FROM metrics ORDER BY step, id"
    for key, name, metrics in records.query(path, order):
        names.setdefault(str(key), str(name))
        runs.setdefault(str(key), {"run_name": name, "project": path.stem})
        values = _object(path, metrics).items()
        logged.setdefault(str(key), {}).update({k: v for k, v in values if isinstance(v, (int, float, str))})
    for key, metrics in logged.items():
        record = runs[key]
        runs[key] = record | {f"metrics.{k}" if k in record else k: v for k, v in metrics.items()}
    if len(set(names.values())) < len(names):
        runs = {key: {"run_id": key, **record} for key, record in runs.items()}
    return [(f"run {names[key]!r} of {path.stem}", record) for key, record in runs.items()]


def _columns(path: Path, table: str) -> set[str]:
    return {row[0] for row in records.query(path, f"SELECT name FROM pragma_table_info('{table}')")}


def _object(path: Path, text: Any) -> dict[str, Any]:
    try:
        return records.mapping(json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{path} holds values of trackio that are not JSON: {str(error)[:100]}") from error
