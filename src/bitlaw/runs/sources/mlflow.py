"""MLflow: its SQLite database and its older folder of files, read without MLflow; a server, through it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...files import regular
from ...shell import without_password
from ..raw import Raw, from_records
from . import records

_STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_MAX_FILE = 50_000_000


def sees(folder: Path) -> bool:
    """Whether a folder is one of MLflow's."""
    return (folder / "mlflow.db").is_file() or _store(folder) is not None


def _store(folder: Path) -> Path | None:
    for place in (folder, folder / "mlruns"):
        if any((child / "meta.yaml").is_file() for child in _folders(place)):
            return place
    return None


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = (child for child in folder.iterdir() if child.is_dir() and not child.is_symlink())
    # Registered models stand beside the experiments.
    return sorted(child for child in found if child.name != "models")


def read(source: str) -> Raw:
    """Runs of `mlflow.db`, of a folder `mlruns`, or of a tracking server.

    Each run is a row: its parameters, and the last value of each metric.

    Raises:
        DataError: it is none of them, or cannot be reached.
    """
    address = source.removeprefix("sqlite:///").removeprefix("file://")
    if "://" in address:
        return _server(address)
    path = Path(address)
    if (path / "mlflow.db").is_file():
        path = path / "mlflow.db"
    if path.is_file():
        return _database(path)
    store = _store(path)
    if store is None:
        raise DataError(
            f"{path} is neither an mlflow.db nor a folder mlruns; to ask a server: mlflow:http://HOST:5000"
        )
    return _files(store)


def _record(name: str, id_: str, state: str, experiment: Any) -> dict[str, Any]:
    return {"run_id": id_, "run_name": name, "state": state, "experiment": experiment}


def _add(record: dict[str, Any], key: str, value: Any, group: str) -> None:
    """A parameter or metric; under its group's name where a name is taken."""
    record[key if key not in record else f"{group}.{key}"] = value


def _database(path: Path) -> Raw:
    runs = records.query(
        path,
        "SELECT r.run_uuid, r.name, r.status, e.name FROM runs r LEFT JOIN experiments e "
        "ON e.experiment_id = r.experiment_id WHERE r.lifecycle_stage = 'active' ORDER BY r.start_time, r.run_uuid",
    )
    found = {str(r[0]): _record(str(r[1] or r[0]), str(r[0]), str(r[2]), r[3]) for r in runs}
    for key, value, run in records.query(path, "SELECT key, value, run_uuid FROM params"):
        if run in found:
            _add(found[run], str(key), value, "params")
    for key, value, run, lost in records.query(
        path, "SELECT key, value, run_uuid, is_nan FROM latest_metrics"
    ):
        if run in found:
            _add(found[run], str(key), math.nan if lost else _unbounded(value), "metrics")
    return from_records(((f"run {r['run_name']!r}", r) for r in found.values()), str(path), "MLflow")


def _unbounded(value: Any) -> Any:
    """A number as it was logged: databases of MLflow hold the largest finite one in place of an infinite."""
    return math.copysign(math.inf, value) if isinstance(value, float) and abs(value) > 1.797e308 else value


def _files(store: Path) -> Raw:
    found = []
    for experiment in _folders(store):
        title = _yaml(experiment / "meta.yaml").get("name", experiment.name)
        for run in _folders(experiment):
            meta = _yaml(run / "meta.yaml")
            if not meta or meta.get("lifecycle_stage") == "deleted":
                continue
            state = (
                _STATUS.get(int(meta["status"]), "")
                if meta.get("status", "").isdigit()
                else meta.get("status", "")
            )
            record = _record(meta.get("run_name") or run.name, run.name, state, title)
            for path in records.below(run / "params"):
                _add(record, path.relative_to(run / "params").as_posix(), _text(path).strip("\n"), "params")
            for path in records.below(run / "metrics"):
                _add(record, path.relative_to(run / "metrics").as_posix(), _last(path), "metrics")
            found.append((f"run {record['run_name']!r}", record))
    return from_records(found, str(store), "MLflow")


def _last(path: Path) -> Any:
    """The value at the largest step: lines are `time value step`, in order of writing."""
    best: tuple[int, int, str] | None = None
    for line in _text(path).splitlines():
        parts = line.split(" ")
        if len(parts) < 2:
            continue
        step = int(parts[2]) if len(parts) > 2 and re.fullmatch(r"-?[0-9]{1,18}", parts[2]) else 0
        time = int(parts[0]) if re.fullmatch(r"[0-9]{1,18}", parts[0]) else 0
        if best is None or (step, time) >= best[:2]:
            best = (step, time, parts[1])
    return best[2] if best else None


def _yaml(path: Path) -> dict[str, str]:
    """The plain `key: value` lines that MLflow writes; nothing else of YAML is understood."""
    if not path.is_file():
        return {}
    pairs = (
        line.partition(": ") for line in _text(path).splitlines() if not line.startswith((" ", "-", "#"))
    )
    return {key: value.strip().strip("'\"") for key, sign, value in pairs if sign}


def _text(path: Path) -> str:
    try:
        return regular(path, _MAX_FILE)[:_MAX_FILE].decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _server(address: str) -> Raw:
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise DataError("to ask an MLflow server, install it: pip install mlflow-skinny") from error
    found = []
    try:
        client = MlflowClient(address)
        for experiment in client.search_experiments():
            token = None
            while True:
                page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=token)
                for run in page:
                    record = _record(
                        str(run.info.run_name), run.info.run_id, run.info.status, experiment.name
                    )
                    for group, values in (("params", run.data.params), ("metrics", run.data.metrics)):
                        for key, value in values.items():
                            _add(record, key, _unbounded(value), group)
                    found.append((f"run {record['run_name']!r}", record))
                token = page.token
                if not token:
                    break
    except Exception as error:  # a stranger's server and network
        said = without_password(str(error))[:200]
        raise DataError(f"cannot read MLflow's server: {type(error).__name__}: {said}") from error
    return from_records(found, f"MLflow at {address.rpartition('@')[2]}", "MLflow")
