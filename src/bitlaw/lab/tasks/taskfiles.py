"""Task files of lm-evaluation-harness from anywhere, read so that they do nothing but say what is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import DataError, LabError, nearest

MOST_BYTES = 2**26  # of a file
MOST_TASKS = 1000
MOST_SAID = 4096  # tokens that a model is asked to say
TEXTS = {"task", "task_alias", "description", "target_delimiter", "fewshot_delimiter", "gen_prefix"}
SPLITS = {"training_split", "validation_split", "test_split", "fewshot_split"}
TEMPLATES = {"doc_to_text", "doc_to_target", "doc_to_choice", "doc_to_decontamination_query"}
#: What a task may say that only reads.
KEYS = {
    *TEXTS,
    *SPLITS,
    *TEMPLATES,
    "num_fewshot",
    "output_type",
    "generation_kwargs",
    "metric_list",
    "repeats",
}
#: What is of no consequence, or read here.
READ_HERE = {
    "tag",
    "metadata",
    "include",
    "dataset_path",
    "dataset_name",
    "dataset_kwargs",
    "should_decontaminate",
}
METRICS = (
    *("acc", "acc_norm", "exact_match", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte"),
)
AGGREGATIONS = ("mean", "median", "perplexity", "weighted_perplexity", "bits_per_byte")
METRIC_KEYS = ("ignore_case", "ignore_punctuation", "ignore_numbers", "regexes_to_ignore")
TRUST = "if you trust whoever wrote it, --trust-tasks lets it"


def read_tasks(folder: str | Path) -> list[dict[str, Any]]:
    """Read every task of a folder.

    Args:
        folder: YAML files, one a task, and their data as JSON lines; files below it are read too.

    Returns:
        For each task what the harness takes as its configuration, and under `data` the documents of each split.

    Raises:
        DataError: no tasks, a damaged file, or one that would do more than read.
        LabError: PyYAML is not installed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder of tasks {folder}; a task is a YAML file with `task: NAME`")
    tasks: dict[str, dict[str, Any]] = {}
    done: dict[Path, dict[str, Any]] = {}
    for path in sorted(p for kind in ("*.yaml", "*.yml") for p in folder.rglob(kind)):
        config = _read(folder, path, set(), done)
        if "task" not in config and "group" not in config:  # it is for others to include
            continue
        task = _checked(folder, path, config)
        if task["task"] in tasks:
            raise DataError(f"two files of {folder} have the task {task['task']!r}; rename one")
        tasks[task["task"]] = task
        if len(tasks) > MOST_TASKS:
            raise DataError(f"{folder} holds more than {MOST_TASKS} tasks; name a smaller folder")
    if not tasks:
        raise DataError(f"there are no tasks in {folder}; a task is a YAML file with `task: NAME`")
    return list(tasks.values())


def _read(folder: Path, path: Path, seen: set[Path], done: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    """A YAML file with those that it includes, each read once; no tag in it means anything, and aliases are refused.

    Aliases of aliases make a list of billions out of a few lines.
    """
    try:
        import yaml
    except ImportError as error:
        raise LabError('task files need PyYAML: pip install "bitlaw[harness]"') from error
    path = _inside(folder, path)
    if path in seen:
        raise DataError(f"{path} includes itself")
    if path in done:
        return done[path]
    raw = _bytes(path)

    class Plain(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise DataError(f"{path} has a YAML alias (*name); write what it stands for, or {TRUST}")
            return super().compose_node(parent, index)

    try:
        config = yaml.load(raw, Plain)  # noqa: S506 - a safe one
    except yaml.constructor.ConstructorError as error:
        said = str(error.problem or error)
        if "!function" in said or "python/" in said:
            raise DataError(f"{path} wants to run code of its own (!function); {TRUST}") from error
        raise DataError(f"{path} is no plain YAML: {ascii(said)[1:-1][:200]}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        said = ascii(str(error).split("\n")[0])[1:-1][:200]
        raise DataError(f"{path} is no plain YAML: {said}") from error
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise DataError(f"{path} holds no settings by name; a task is a YAML file with `task: NAME`")
    merged: dict[str, Any] = {}
    included = config.get("include", [])
    for name in included if isinstance(included, list) else [included]:
        merged |= _read(folder, path.parent / str(name), seen | {path}, done)
    done[path] = merged | config
    return done[path]


def _checked(folder: Path, path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """A task whose every setting only reads, with its documents."""
    for key in config:
        if key not in KEYS | READ_HERE:
            raise DataError(
                f"{path}: `{ascii(key)[1:-1][:40]}` may do more than read, or is no setting of a task; {TRUST}"
            )
    task = {key: value for key, value in config.items() if key in KEYS}
    for key, value in task.items():
        if key in TEXTS | SPLITS and not isinstance(value, str):
            raise DataError(f"{path}: `{key}` is text, not {value!r:.60}")
        if key in TEMPLATES and not isinstance(value, (str, int, list, dict)):
            raise DataError(f"{path}: `{key}` is a template or a list, not {value!r:.60}")
        if key in ("num_fewshot", "repeats") and (type(value) is not int or not 0 <= value <= 1000):
            raise DataError(f"{path}: `{key}` is a whole number up to 1000, not {value!r:.60}")
    said = task.get("generation_kwargs") or {}
    longest = said.get("max_gen_toks", 1) if isinstance(said, dict) else None
    if type(longest) is not int or not 1 <= longest <= MOST_SAID:
        raise DataError(f"{path}: `generation_kwargs` holds `max_gen_toks`, if any, from 1 to {MOST_SAID}")
    metrics = task.get("metric_list", [])
    if not isinstance(metrics, list) or not all(isinstance(metric, dict) for metric in metrics):
        raise DataError(f"{path}: `metric_list` is a list of metrics")
    for metric in metrics:
        for key, known in (("metric", METRICS), ("aggregation", AGGREGATIONS)):
            if (key == "metric" or key in metric) and metric.get(key) not in known:
                raise DataError(
                    f"{path}: the {key} {metric.get(key)!r:.60} is not built in, and would be fetched and run; "
                    f"{TRUST}, or take another: {nearest(str(metric.get(key)), known)}"
                )
        if odd := set(metric) - {"metric", "aggregation", "higher_is_better", *METRIC_KEYS}:
            raise DataError(f"{path}: a metric has {ascii(sorted(map(str, odd))[0])[:60]}; {TRUST}")
    task["data"] = _data(folder, path, config)
    return task


def _data(folder: Path, path: Path, config: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Documents of each split, from files of JSON lines within the folder."""
    kwargs = config.get("dataset_kwargs")
    files = kwargs.get("data_files") if isinstance(kwargs, dict) else None
    if config.get("dataset_path") != "json" or not files or set(kwargs or {}) - {"data_files"}:
        raise DataError(
            f"{path}: data come from local files here, `dataset_path: json` and under `dataset_kwargs` `data_files: "
            f"{{test: FILE.jsonl}}`; what has another place would be fetched: {TRUST}"
        )
    named = files if isinstance(files, dict) else {"train": files}
    splits = {}
    for split, name in named.items():
        if not isinstance(name, str):
            raise DataError(f"{path}: the data of {split!r:.40} are one file, not {name!r:.60}")
        splits[str(split)] = _documents(_inside(folder, path.parent / name))
    return splits


def _documents(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, or of one list."""
    raw = _bytes(path)
    try:
        text = raw.decode("utf-8")
        lines = [line for line in text.split("\n") if line.strip()]  # a string may hold other line ends
        found = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in lines]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON lines: {ascii(str(error))[1:-1][:200]}") from error
    if not found or not all(isinstance(row, dict) for row in found):
        raise DataError(f"{path} holds no documents; each line is an object")
    return list(found)


def _inside(folder: Path, path: Path) -> Path:
    """A path that does not lead out of the folder, by links or by name."""
    real = path.resolve()
    if not real.is_relative_to(folder.resolve()):
        raise DataError(
            f"{ascii(str(path))[1:-1][:200]} leads out of the folder of tasks; keep its files within"
        )
    return real


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise DataError(f"cannot read {ascii(str(path))[1:-1][:200]}: {error.strerror or error}") from error
    if len(raw) > MOST_BYTES:
        raise DataError(f"{path} is larger than {MOST_BYTES >> 20} MiB; that is not what it should hold")
    return raw
