"""Trunks as configurations of sweeps: files that hold each of them and no others."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ConfigError
from ..formats import Scheme
from ..shapes import ladder_shape
from .candidates import Trunk
from .training import training_toml

CHOSEN = ("sizes", "budgets", "schemes", "seed", "seeds")


def sweep_files(
    trunks: Iterable[Trunk],
    post: tuple[str, ...],
    purpose: str,
    first_seed: int,
    settings: Mapping[str, Any],
) -> dict[str, str]:
    """Text by file name. A sweep is a product, so trunks that make none go to several files.

    Args:
        trunks: to be trained.
        post: formats that unquantised ends are brought to after training.
        purpose: in words, for a comment.
        first_seed: of the first copy of each trunk.
        settings: further keys, or others in place of these.

    Raises:
        ConfigError: a size that the ladder does not have, or settings that a sweep's file cannot hold.
    """
    listed = list(trunks)
    for key in settings:
        if key in CHOSEN:
            raise ConfigError(f"{key} is what the design chose; leave it out, or give first_seed")
    if not listed:
        return {}
    comment, common = _rules(listed)
    products, files = groups(listed), {}
    for k, (sizes, schemes, copies, budgets) in enumerate(products, 1):
        name = "next" if len(products) == 1 else f"next-{k:0{len(str(len(products)))}d}"
        sweep: dict[str, Any] = {
            "seeds": [first_seed + copy - 1 for copy in copies],
            "sizes": [round(x) for x in sizes],
            "budgets": [round(x) for x in budgets],
            "schemes": schemes,
            **common,
        }
        if post and "16" in schemes:
            sweep["post_formats"] = list(post)
        lines = [
            *(f"# {line}" for line in purpose.splitlines()),
            comment,
            "# Whatever else the rows so far were trained and evaluated with belongs here too.",
            f'name = "{name}"',
            "",
            "[sweep]",
            *(f"{key} = {_toml(key, value)}" for key, value in {**sweep, **settings}.items()),
        ]
        files[f"{name}.toml"] = "\n".join(lines) + "\n"
    return files


Product = tuple[list[float], list[str], list[int], list[float]]


def groups(trunks: Iterable[Trunk]) -> list[Product]:
    """Products of sizes, schemes, copies and budgets that hold each trunk once and no others.

    Trunks of the same budgets and copies go together, either by the sizes of a scheme or by the schemes of a size,
    whichever takes fewer products.
    """
    copies: dict[tuple[float, str, tuple[float, ...]], list[int]] = {}
    for trunk in trunks:
        copies.setdefault((trunk.params, trunk.scheme, trunk.budgets), []).append(trunk.copy)
    alike: dict[tuple[tuple[float, ...], tuple[int, ...]], list[tuple[float, str]]] = {}
    for (params, scheme, budgets), numbers in copies.items():
        alike.setdefault((budgets, tuple(sorted(numbers))), []).append((params, scheme))
    found: list[Product] = []
    for (budgets, seeds), pairs in alike.items():
        by_size = [(sizes, schemes) for schemes, sizes in _shared(pairs)]  # sizes of the same schemes
        by_scheme = _shared([(scheme, params) for params, scheme in pairs])  # schemes of the same sizes
        for sizes, schemes in min(by_size, by_scheme, key=len):
            found.append((sorted(sizes), list(schemes), list(seeds), list(budgets)))
    return found


def _shared(pairs: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Sets of second members, with all first members that stand beside just these."""
    beside: dict[Any, list[Any]] = {}
    for first, second in pairs:
        beside.setdefault(first, []).append(second)
    same: dict[tuple[Any, ...], list[Any]] = {}
    for first, seconds in beside.items():
        same.setdefault(tuple(sorted(seconds)), []).append(first)
    return list(same.items())


def _rules(trunks: list[Trunk]) -> tuple[str, dict[str, Any]]:
    """How a plan would train the largest run, which all others follow: its comment, and its keys.

    Rate x width, batch and sequence are then the same for all, so that size and tokens alone tell the runs apart.
    """
    for trunk in trunks:
        ladder_shape(trunk.params)
    largest = max(trunks, key=lambda trunk: trunk.params * trunk.budgets[-1])
    text = training_toml("", largest.params, largest.budgets[-1], Scheme(), None)
    comment = next(line for line in text.splitlines() if line.startswith("# Learning rate"))
    sweep = tomllib.loads(text)["sweep"]
    comment = f"{comment.rstrip('.')}, of the costliest of these runs, for all of them."
    return comment, {key: value for key, value in sweep.items() if key not in ("sizes", "budgets", "schemes")}


def _toml(key: str, value: Any) -> str:
    if isinstance(value, bool | int | float | str):
        return json.dumps(value)
    if isinstance(value, list | tuple) and all(isinstance(x, int | float | str) for x in value):
        return json.dumps(list(value))
    raise ConfigError(
        f"{key}: {value!r} is nothing that a sweep's file can hold; use numbers, text, or lists of them"
    )
