"""A sweep that is running: how many rows of each status, who is at work, what failed, and how long it will take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeAlias

import polars as pl

from ..runs import Runs
from ..runs.schema import STATUSES
from .source import Snapshot

NEWEST = 12
FAILURES = 50
#: Of a sweep whose plan is known: how many `cells` it has, of which status they are (`ok`, `diverged`, `failed`; rows
#: quantised after training belong to the cell they are from), how many are `left`, and `seconds_left` or None.
Goal: TypeAlias = Callable[[], Mapping[str, Any]]
_SHORT = ("id", "status", "params", "tokens", "w_format", "a_format", "kv_format", "post_format", "loss")


def state(snapshot: Snapshot, goal: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the page asks for every other second; it is the same until something has changed."""
    frame = snapshot.runs.frame
    status = frame["status"].fill_null("ok")
    ended = _ended(snapshot.runs)
    lost = frame.filter(status != "ok")
    return {
        "version": snapshot.version,
        "problem": snapshot.problem,
        "rows": len(frame),
        "status": {name: int((status == name).sum()) for name in STATUSES},
        "newest": list(reversed(frame.select(_SHORT).tail(NEWEST).to_dicts())),
        "failures": list(reversed(lost.select("id", "status", "reason").tail(FAILURES).to_dicts())),
        "workers": [{"work": x.work, "worker": x.worker, "attempts": x.attempts} for x in snapshot.leases],
        "last_row": max(ended).isoformat(timespec="seconds") if ended else None,
        "last_hour": sum(datetime.now(UTC) - moment < timedelta(hours=1) for moment in ended),
        "goal": _rounded(goal) if goal else None,
    }


@lru_cache(maxsize=1)
def _ended(runs: Runs) -> list[datetime]:
    """When the work on each row ended, where rows say so."""
    out = []
    for started, seconds in (
        runs.frame.select("started", pl.col("seconds").fill_null(0.0)).drop_nulls().rows()
    ):
        try:
            moment = datetime.fromisoformat(started) + timedelta(seconds=seconds)
        except (ValueError, OverflowError):
            continue
        out.append(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return out


def _rounded(goal: Mapping[str, Any]) -> dict[str, Any]:
    """The time left in steps of ten seconds: a state that changes all the time tells nothing more."""
    seconds = goal["seconds_left"]
    return {
        "cells": goal["cells"],
        "left": goal["left"],
        "status": {name: goal[name] for name in STATUSES},
        "seconds_left": None if seconds is None else 10 * round(seconds / 10),
    }
