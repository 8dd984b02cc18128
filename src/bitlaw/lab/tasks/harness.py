"""lm-evaluation-harness (Gao et al.) on our models: tasks from local files, and nothing from the network.

A folder of tasks may come from a stranger. What its YAML may say to the harness includes code to run (`!function`,
`class`), scripts to fetch (metrics, data sets by name) and templates that can reach the interpreter. So a folder is
read here, with what only reads allowed, its data taken from files of JSON lines within it, and its templates rendered
in Jinja's sandbox; all else is refused unless the folder is trusted.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import BitlawError, ConfigError, DataError, LabError
from ..model import Loaded
from . import taskfiles
from .likelihood import Judged, continuations, encode, greedy, prefix, reach, split

#: Metrics that say how many answers are right; the first that a task has counts.
RIGHT = ("acc", "acc_norm", "exact_match")
RESAMPLES = 100  # behind standard errors that have no formula
LONGEST = 256  # tokens that a model says where a task does not say


@dataclass(frozen=True)
class Harness:
    """A folder of tasks of lm-evaluation-harness.

    Attributes:
        folder: of YAML files, one a task, and their data.
        trust: whether the files may run code and fetch data.
        limit: documents of each task that are asked; None for all.
        seed: of the choice of examples that are shown.
    """

    folder: Path
    trust: bool = False
    limit: int | None = None
    seed: int = 1234

    @property
    def digest(self) -> str:
        """Of every file of the folder, and of the limit and seed."""
        found = hashlib.sha256(f"{self.limit} {self.seed}".encode())
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            found.update(f"{path.relative_to(self.folder)}\0".encode())
            found.update(hashlib.sha256(path.read_bytes()).digest())
        return found.hexdigest()

    def check(self) -> None:
        """Raise what `judge` would, as far as it can be known without a model."""
        library("evaluator")
        if not self.trust:
            taskfiles.read_tasks(self.folder)

    def _tasks(self) -> dict[str, Any]:
        """The tasks as objects of the harness, by name; making one fills its templates in, so only within `sandboxed`.

        Raises:
            LabError: lm-eval is not installed.
            DataError: no tasks, files that cannot be read, or ones that would do more than read.
        """
        if self.trust:
            manager = library("tasks").TaskManager(include_path=str(self.folder), include_defaults=False)
            names = manager.all_subtasks
            if not names:
                raise DataError(
                    f"there are no tasks in {self.folder}; a task is a YAML file with `task: NAME`"
                )
            found: dict[str, Any] = manager.load(names)["tasks"]
        else:
            make = library("api.task").ConfigurableTask
            found = {}
            for config in taskfiles.read_tasks(self.folder):
                try:
                    found[config["task"]] = make(config=_with_data(config))
                except (BitlawError, ImportError):
                    raise
                except Exception as error:  # of a library that meets a task it did not expect
                    raise DataError(f"the task {config['task']!r} cannot be used: {_told(error)}") from error
        for task in found.values():
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=self.seed)
        return found

    def judge(self, loaded: Loaded) -> Judged:
        """Answer all tasks.

        Raises:
            LabError: lm-eval is not installed.
            DataError: tasks that cannot be read, or whose templates and data do not go together.
        """
        with quiet(), sandboxed(not self.trust):
            tasks = self._tasks()
            model = language_model(loaded)
            evaluate = library("evaluator").evaluate
            try:
                found = evaluate(
                    lm=model,
                    task_dict={"tasks": tasks, "groups": {}},
                    limit=self.limit,
                    bootstrap_iters=RESAMPLES,
                    log_samples=False,
                )
                chances = {name: _chance(task, self.limit) for name, task in tasks.items()}
            except BitlawError:
                raise
            except Exception as error:  # of templates that meet data they did not expect
                raise DataError(f"the tasks in {self.folder} cannot be asked: {_told(error)}") from error
        results: dict[str, dict[str, Any]] = {name: dict(found["results"][name]) for name in tasks}
        right = {name: _right(metrics) for name, metrics in results.items()}
        known = {name: value for name, value in right.items() if value is not None}
        if not known:
            return Judged(None, None, results)
        error = 1 - sum(known.values()) / len(known)
        return Judged(error, sum(chances[name] for name in known) / len(known), results)


def library(name: str) -> Any:
    """A module of lm-eval.

    Raises:
        LabError: it is not installed.
    """
    try:
        return importlib.import_module(f"lm_eval.{name}")
    except ImportError as error:
        raise LabError(
            'tasks of lm-evaluation-harness need it: pip install "bitlaw[harness]"; `--tasks cloze` does without'
        ) from error


def language_model(loaded: Loaded, length: int | None = None) -> Any:
    """A model of ours, or of Hugging Face, as lm-evaluation-harness asks one.

    Args:
        loaded: the model, quantised or not.
        length: tokens that it is given at once; None for as many as it was trained on, or can read.

    Returns:
        An object of a subclass of `lm_eval.api.model.LM`, for `lm_eval.simple_evaluate(model=...)`.

    Raises:
        LabError: lm-eval is not installed.
    """
    base, utils = library("api.model").LM, library("utils")
    length = length or reach(loaded)

    class Model(base):  # type: ignore[misc, valid-type]
        """What the harness asks."""

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            pairs = [split(loaded, *request.args) for request in requests]
            return continuations(loaded, pairs, length)

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            totals = []
            for request in requests:
                windows = utils.get_rolling_token_windows(
                    encode(loaded, request.args[0]), prefix(loaded), max_seq_len=length, context_len=1
                )
                pairs = [utils.make_disjoint_window(window) for window in windows]
                totals.append(sum(total for total, _ in continuations(loaded, pairs, length)))
            return totals

        def generate_until(self, requests: list[Any]) -> list[str]:
            said = []
            for request in requests:
                context, how = request.args
                if how.get("do_sample") or how.get("temperature"):
                    raise ConfigError(
                        "a task asks for sampling; answers are greedy here: set do_sample: false"
                    )
                stops = how.get("until") or []
                stops = [stops] if isinstance(stops, str) else list(stops)
                said.append(greedy(loaded, context, stops, int(how.get("max_gen_toks", LONGEST)), length))
            return said

    return Model()


def _with_data(config: dict[str, Any]) -> dict[str, Any]:
    """A task whose data are read already: the harness need not know how."""
    from datasets import Dataset  # a dependency of lm-eval

    tables = {name: Dataset.from_list(rows) for name, rows in config.pop("data").items()}
    return {**config, "custom_dataset": lambda **named: tables}


def _right(metrics: dict[str, Any]) -> float | None:
    """The share of right answers, if a task has one."""
    for metric in RIGHT:
        for key, value in metrics.items():
            if key.partition(",")[0] == metric and isinstance(value, (int, float)):
                return float(value)
    return None


def _chance(task: Any, limit: int | None) -> float:
    """Accuracy of guessing: one of as many as there are choices; of answers that are written, none."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return 0.0
    docs = list(task.eval_docs)[:limit]
    return sum(1 / len(task.doc_to_choice(doc)) for doc in docs) / len(docs)


def _told(error: Exception) -> str:
    first = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {ascii(first)[1:-1][:200]}"


@contextmanager
def sandboxed(on: bool) -> Iterator[None]:
    """Render the harness's templates where they reach nothing but the document."""
    if not on:
        yield
        return
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Small(ImmutableSandboxedEnvironment):
        """Without products: a text times a number fills the memory."""

        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            raise DataError(
                f"a template computes with {operator}, which a stranger's may not; {taskfiles.TRUST}"
            )

    utils = library("utils")
    before = utils.env
    utils.env = Small(undefined=StrictUndefined, keep_trailing_newline=True)
    utils.env.filters["regex_replace"] = utils.regex_replace
    try:
        yield
    finally:
        utils.env = before


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the harness from telling of each step, and from drawing bars of its own."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
