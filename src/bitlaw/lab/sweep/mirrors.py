"""Stored rows shown in a tracker too: a run for each, with its columns as config and its losses as metrics.

A mirror works in a thread of its own, so that a slow tracker delays nothing, and one that fails warns once and is left
alone: the store is what counts.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from queue import Queue
from typing import Any

from ...errors import ConfigError
from .rows import MEASURED

log = logging.getLogger(__name__)

METRICS = (*MEASURED, "gap", "gap_se", "kl", "kl_se", "rejection", "rejection_se", "seconds")
PATIENCE_SECONDS = 30.0  # for what is not mirrored yet when a sweep ends
Row = Mapping[str, Any]
#: Shows a row: its id, the columns that are not metrics, and the metrics.
Show = Callable[[str, dict[str, Any], dict[str, float]], None]


def _wandb(project: str, folder: Path) -> Show:
    import wandb

    def show(id_: str, config: dict[str, Any], metrics: dict[str, float]) -> None:
        with wandb.init(
            project=project, id=id_, name=id_, config=config, dir=folder, reinit="create_new"
        ) as run:
            run.log(metrics)

    return show


def _mlflow(project: str, folder: Path) -> Show:
    from mlflow import MlflowClient

    address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.absolute()}/mlflow.db"
    client = MlflowClient(address)
    found = client.get_experiment_by_name(project)
    experiment = found.experiment_id if found else client.create_experiment(project)

    def show(id_: str, config: dict[str, Any], metrics: dict[str, float]) -> None:
        run = client.create_run(experiment, run_name=id_).info.run_id
        for name, value in config.items():
            client.log_param(run, name, value)
        for name, value in metrics.items():
            client.log_metric(run, name, value)
        client.set_terminated(run)

    return show


def _tensorboard(project: str, folder: Path) -> Show:
    from torch.utils.tensorboard import SummaryWriter

    def show(id_: str, config: dict[str, Any], metrics: dict[str, float]) -> None:
        with SummaryWriter(str(folder / "tensorboard" / project)) as writer:
            writer.add_hparams(config, metrics, run_name=id_)

    return show


def _trackio(project: str, folder: Path) -> Show:
    import trackio

    def show(id_: str, config: dict[str, Any], metrics: dict[str, float]) -> None:
        run = trackio.init(project=project, name=id_, config=config, embed=False)
        run.log(metrics)
        run.finish()

    return show


MIRRORS = {"wandb": _wandb, "mlflow": _mlflow, "tensorboard": _tensorboard, "trackio": _trackio}


@contextmanager
def mirror(name: str | None, project: str, folder: Path) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """Give a function that shows rows in a tracker, in time; without a name it shows them nowhere.

    Args:
        name: `wandb`, `mlflow`, `tensorboard` or `trackio`; they are told where to send by variables of their own, like
            WANDB_MODE, MLFLOW_TRACKING_URI or TRACKIO_DIR.
        project: that the runs belong to.
        folder: for what is kept here; MLflow's database, W&B's and TensorBoard's files.

    Raises:
        ConfigError: an unknown tracker, or one that is not installed.
    """
    if name is None:
        yield lambda rows: None
        return
    if name not in MIRRORS:
        raise ConfigError(f"there is no mirror {name[:80]!r}; choose one of {', '.join(MIRRORS)}")
    if find_spec(name) is None:
        raise ConfigError(f"the mirror {name} needs the package {name}; pip install 'bitlaw[mirrors]'")
    waiting: Queue[Row | None] = Queue()

    def work() -> None:
        try:
            show = MIRRORS[name](project, folder)
            while (row := waiting.get()) is not None:
                known = {column: value for column, value in row.items() if value is not None}
                metrics = {column: float(known.pop(column)) for column in METRICS if column in known}
                show(str(known.pop("id")), known, metrics)
        except (
            Exception
        ) as error:  # a stranger's network and disk: anything may go wrong, and nothing may matter
            log.warning("the mirror %s failed and shows no more: %s: %s", name, type(error).__name__, error)

    def put(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            waiting.put(row)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield put
    finally:
        waiting.put(None)
        thread.join(PATIENCE_SECONDS)
        if thread.is_alive():
            log.warning("the mirror %s is slow: about %d rows are not shown there", name, waiting.qsize())
