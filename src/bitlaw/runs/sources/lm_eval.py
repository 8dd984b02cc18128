"""lm-evaluation-harness: results as JSON, one model each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ...errors import DataError
from ..raw import Raw, from_records
from . import records

_NOTE = (
    "`error` is 1 - the mean accuracy over tasks (acc_norm where a task has no acc); lm-eval measures no loss a token: "
    'give `loss` with --set, or map a perplexity, like --map "loss=wikitext/byte_perplexity in ppl" for nats per byte'
)


def sees(folder: Path) -> bool:
    """Whether a folder holds results."""
    return next(_files(folder), None) is not None


def _files(folder: Path) -> Any:
    return (path for path in records.below(folder, end=".json") if path.name.startswith("results"))


def read(source: str) -> Raw:
    """A file of results, or all below a folder.

    Each is a row: the model's arguments, `task/metric` for each task, `error` over all of them, and
    `model_format` from what the model was loaded as (`dtype`, `load_in_4bit`, `load_in_8bit`).

    Raises:
        DataError: there is none.
    """
    path = Path(source)
    found = []
    for one in list(_files(path)) if path.is_dir() else [path]:
        content = records.mapping(records.read_json(one))
        if not isinstance(content.get("results"), dict):
            raise DataError(f"{one} has no results; is it written by lm_eval --output_path?")
        found.append((str(one), _record(content)))
    if not found:
        raise DataError(f"there are no results_....json below {path}; lm_eval writes them with --output_path")
    return from_records(found, str(path), "lm-eval", [_NOTE])


def _record(content: dict[str, Any]) -> dict[str, Any]:
    config = records.mapping(content.get("config"))
    arguments = config.get("model_args")
    if isinstance(arguments, str):
        arguments = dict(part.partition("=")[::2] for part in arguments.split(",") if part)
    arguments = records.mapping(arguments)
    name = content.get("model_name") or arguments.get("pretrained") or config.get("model")
    record: dict[str, Any] = {"run_name": name}
    size = config.get("model_num_parameters")
    record |= {"num_params": size} if isinstance(size, (int, float)) and size > 0 else {}
    loaded = _loaded(arguments)
    record |= {"post_format": loaded[0]} if loaded[0] else {}
    record |= {"method": loaded[1]} if loaded[1] else {}
    record |= {f"args.{key}": value for key, value in arguments.items() if (key, value) != ("dtype", "auto")}
    accuracies = []
    results, groups = content["results"], records.mapping(content.get("group_subtasks"))
    for task, metrics in results.items():
        by: dict[str, Any] = {}
        for key, value in records.mapping(metrics).items():
            metric, _, kind = key.partition(",")
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                by.setdefault(metric, value)
                record[f"{task}/{metric}" if kind in ("", "none") else f"{task}/{metric},{kind}"] = value
        # A group's accuracy is that of its tasks.
        parts = groups.get(task)
        if not any(
            part in results for part in (parts if isinstance(parts, list) else ()) if isinstance(part, str)
        ):
            accuracies += [by[m] for m in ("acc", "acc_norm") if m in by][:1]
    if accuracies:
        record["error"] = 1 - sum(accuracies) / len(accuracies)
        record["tasks_in_error"] = len(accuracies)
    return record


def _loaded(arguments: dict[str, Any]) -> tuple[str, str]:
    """The format that weights were quantised to when they were loaded, and the method, if they were."""
    on = {key for key, value in arguments.items() if str(value).lower() == "true"}
    if "load_in_4bit" in on:
        kind = str(arguments.get("bnb_4bit_quant_type", "fp4")).lower()
        return ("e2m1" if kind == "fp4" else kind), "bitsandbytes"
    if "load_in_8bit" in on:
        return "int8", "bitsandbytes"
    name = str(arguments.get("pretrained", "")).lower()
    match = re.search(r"(gptq|awq)[-_]?(?:int)?([2-8])?", name)
    if match:  # without bits it is asked about, as no format is called so
        return f"int{match[2]}" if match[2] else match[1], match[1]
    return "", ""
