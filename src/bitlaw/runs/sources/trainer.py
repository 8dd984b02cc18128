"""Hugging Face's Trainer: `trainer_state.json`, one run each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import DataError
from ..raw import Raw, from_records
from . import records

_KEPT = (
    "global_step",
    "max_steps",
    "num_train_epochs",
    "epoch",
    "num_input_tokens_seen",
    "total_flos",
    "train_batch_size",
)
_FILE = "trainer_state.json"


def sees(folder: Path) -> bool:
    """Whether a folder holds states of the Trainer."""
    return next(records.below(folder, end=_FILE), None) is not None


def read(source: str) -> Raw:
    """A state, or the last state of each run below a folder: a run's checkpoints are in one folder.

    Each run is a row: the last value of everything in its log, `eval_loss` for one, and how far it came; of learning
    rates the largest, as `learning_rate`, and the last, as `learning_rate_end`. What the Trainer leaves at 0 because it
    did not count it (tokens, FLOPs) is empty. `config.json` beside it, if there is one, gives the model's shape, under
    `config.`.

    Raises:
        DataError: there is none.
    """
    path = Path(source)
    paths = list(records.below(path, end=_FILE)) if path.is_dir() else [path]
    runs: dict[Path, tuple[int, Path, dict[str, Any]]] = {}
    for one in paths:
        state = records.mapping(records.read_json(one))
        if not isinstance(state.get("log_history"), list):
            raise DataError(f"{one} has no log_history; is it a state of Hugging Face's Trainer?")
        step = state.get("global_step")
        step = step if isinstance(step, int) else 0
        run = one.parent.parent if one.parent.name.startswith("checkpoint-") and path.is_dir() else one.parent
        if run not in runs or step >= runs[run][0]:
            runs[run] = (step, one, state)
    if not runs:
        raise DataError(f"there is no {_FILE} below {path}; it is in the checkpoint-... folders of a Trainer")
    return from_records(
        ((str(one), _record(run, one, state)) for run, (_, one, state) in runs.items()),
        str(path),
        "Trainer",
        ["losses are the last of each run's log"],
    )


def _record(run: Path, path: Path, state: dict[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = {"run_name": run.absolute().name}
    rates = []
    for entry in map(records.mapping, state["log_history"]):
        record.update({key: value for key, value in entry.items() if value != 0 or key not in _KEPT})
        if isinstance(rate := entry.get("learning_rate"), (int, float)):
            rates.append(rate)
    if rates:
        record |= {"learning_rate": max(rates), "learning_rate_end": rates[-1]}
    record.update({key: state[key] for key in _KEPT if state.get(key) not in (None, 0)})
    for extra in (path.parent / "config.json", run / "config.json"):
        if extra.is_file():
            record["config"] = records.mapping(records.read_json(extra))
            break
    return record
