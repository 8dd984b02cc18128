"""What of the runs is on the screen: one page of the table, what can be filtered by, one run whole."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from ..errors import ConfigError, nearest
from ..formats import parse_format
from ..runs import COLUMN, COLUMNS, OVERVIEW, Runs
from ..runs.where import empty_means

PAGE = 100  # rows, at most
PARTS = ("w", "a", "kv", "q", "emb", "head", "grad", "grad_w", "post")
TRUNKS = 500  # named
HIDDEN = ("config", "versions", "curve")  # long, so shown with the single run alone


def page(
    runs: Runs, columns: Sequence[str], sort: str, descending: bool, offset: int, limit: int
) -> dict[str, Any]:
    """Some rows in an order.

    Args:
        runs: those that are shown.
        columns: of the page; none for those that people look at first.
        sort: a column, or nothing for the order of the table; empty cells stand at the end.
        descending: which way.
        offset: rows before the page.
        limit: rows of it.

    Raises:
        ConfigError: an unknown column.
    """
    used = [s.name for s in runs.frame if s.null_count() < len(s) and s.name not in HIDDEN]
    chosen = list(dict.fromkeys(columns)) or [c for c in OVERVIEW if c in used or c in ("id", "status")]
    for name in (*chosen, *([sort] if sort else [])):
        if name not in COLUMN:
            raise ConfigError(f"there is no column {name!r}; {nearest(name, COLUMN)}")
    frame = runs.frame.select(list(dict.fromkeys(["id", *chosen, *([sort] if sort else [])]))).with_columns(
        pl.col(c).fill_null(e) for c in chosen if c == "status" and (e := empty_means(c))
    )
    if sort:
        frame = frame.sort(sort, descending=descending, nulls_last=True, maintain_order=True)
    rows = frame.slice(offset, min(limit, PAGE)).select(list(dict.fromkeys(["id", *chosen])))
    return {
        "columns": [{"name": c, "unit": COLUMN[c].unit, "kind": COLUMN[c].kind} for c in chosen],
        "used": used,
        "shown": len(runs),
        "offset": offset,
        "ids": rows["id"].to_list(),
        "rows": [list(row) for row in rows.select(chosen).rows()],
    }


def facets(runs: Runs) -> dict[str, Any]:
    """What there is to filter by, with how many rows have it."""
    frame = runs.frame
    formats = {c: sorted(_counts(frame, c), key=_bits) for c in (f"{part}_format" for part in PARTS)}
    trunks = frame["trunk"].drop_nulls().unique().sort()
    return {
        "status": _counts(frame, "status"),
        "formats": {column: counts for column, counts in formats.items() if len(counts) > 1},
        "ranges": {c: [frame[c].min(), frame[c].max()] for c in ("params", "tokens", "loss")},
        "trunks": trunks.head(TRUNKS).to_list() if len(trunks) <= TRUNKS else [],
    }


def _counts(frame: pl.DataFrame, column: str) -> list[list[Any]]:
    """Values of a column with their number; `none` where an empty cell says nothing."""
    values = frame[column].fill_null(empty_means(column) or "none")
    return [list(row) for row in values.value_counts().sort(column).rows()]


def _bits(counted: list[Any]) -> float:
    """How many bits a counted format has; none at all come last."""
    return math.inf if counted[0] == "none" else parse_format(counted[0]).bits


def detail(runs: Runs, id_: str) -> dict[str, Any] | None:
    """All that is known of one run; None if there is none of that id."""
    rows = runs.frame.filter(pl.col("id") == id_).to_dicts()
    if not rows:
        return None
    facts = [
        {"column": c.name, "value": rows[0][c.name], "unit": c.unit, "meaning": c.meaning}
        for c in COLUMNS
        if rows[0][c.name] is not None and c.name not in HIDDEN
    ]
    children = runs.frame.filter(pl.col("parent") == id_)["id"].to_list()
    long = {name: _indented(rows[0][name]) for name in HIDDEN if rows[0][name]}
    return {"id": id_, "facts": facts, "children": children, "long": long}


def _indented(text: str) -> str:
    """JSON as people read it; other text as it is."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
