"""Everybody's data in: read, mapped, checked, and never anything lost without a word."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ..errors import BitlawError, ConfigError, DataError
from ..files import whole
from ..formats import parse_format
from .check import Flaw, check
from .convert import convert, difference
from .export import without_formulas
from .mapping import read_mapping
from .proposal import Proposal, propose
from .raw import SHOWN, Problem, Raw, Tell, shown, silent, together, told, with_points
from .schema import COLUMN
from .sources import open_source
from .table import Runs

MAX_NAME = 500  # characters of a column's name
_COMMA = re.compile(r"[+-]?[0-9.]+,[0-9]+(\s*[A-Za-z]+\.?)?")


@dataclass(frozen=True, repr=False)
class Imported:
    """Rows that came in, and an account of it.

    Attributes:
        runs: the checked rows.
        proposal: which column became which, what was not used, what to look at.
        problems: cells and rows that could not be used.
        left_out: rows that are not in `runs` because of them.
        diverged: rows without a loss because it was nan or inf.
        notes: how the source was read.
    """

    runs: Runs
    proposal: Proposal
    problems: tuple[Problem, ...] = ()
    left_out: int = 0
    diverged: int = 0
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Imported: {len(self.runs)} rows, {self.left_out} left out, {len(self.problems)} problems>"

    def __str__(self) -> str:
        lines = [f"{len(self.runs)} rows; {self.left_out} left out, {len(self.problems)} problems"]
        lines += [f"{self.diverged} rows diverged: their loss was nan or inf"] if self.diverged else []
        lines += [f"not used: {', '.join(map(shown, self.proposal.unused))}"] if self.proposal.unused else []
        return "\n".join([*lines, *self.proposal.remarks, *self.notes, *map(str, self.problems[:SHOWN])])

    def as_json(self) -> dict[str, Any]:
        """The account as plain values; problems in full."""
        return {
            "rows": len(self.runs),
            "left_out": self.left_out,
            "diverged": self.diverged,
            "columns": self.proposal.table(),
            "unused": list(self.proposal.unused),
            "remarks": list(self.proposal.remarks),
            "notes": list(self.notes),
            "problems": [vars(problem) for problem in self.problems],
        }


def import_runs(
    source: Any,
    columns: Mapping[str, Any] | Iterable[str] | str | os.PathLike[str] | None = None,
    constants: Mapping[str, Any] | Iterable[str] = (),
    *,
    ignore: Iterable[str] = (),
    accept_guesses: bool = False,
    keep_good: bool = False,
    diverged: bool = False,
    separator: str | None = None,
    decimal_comma: bool = False,
) -> Imported:
    """Read runs from anybody's table, tracker or tool.

    Args:
        source: a data frame (pandas, polars, Arrow); a CSV, Parquet or JSON file; a folder or database of W&B, MLflow,
            TensorBoard or trackio; trainer_state.json files; results of lm-evaluation-harness; tables and logs of
            llama.cpp; `wandb:entity/project`; a list of several. `bitlaw runs import --help` has an example of each.
        columns: which of their columns is which of ours, and in which unit: `{"params": "size in B"}`, or a TOML file.
            Units are named in `bitlaw runs import --help`.
        constants: the same in every row: `{"count": "total"}`.
        ignore: their columns that decide nothing.
        accept_guesses: believe what their names suggest; without it, guesses are refused with the list of them.
        keep_good: leave bad rows out, and say which; without it one bad cell refuses the whole.
        diverged: a loss of nan or inf means that the run diverged; without it such a cell is bad.
        separator: between the cells of a CSV file.
        decimal_comma: numbers are written 1.234,5 and not 1,234.5.

    Returns:
        The rows, and what was made of what.

    Raises:
        DataError: bad cells, guesses that nobody confirmed, or a source that cannot be read.
        ConfigError: a mapping that cannot mean anything.

    >>> import polars as pl
    >>> frame = pl.DataFrame({"size": [0.4, 7.0], "D": [8e9, 1e12], "ppl": [20.0, 8.0]})
    >>> came = import_runs(frame, {"params": "size in B", "tokens": "D", "loss": "ppl in ppl"}, {"count": "total"})
    >>> came.runs.frame["params"].to_list(), came.runs.frame["loss"].round(3).to_list()
    ([400000000.0, 7000000000.0], [2.996, 2.079])
    """
    said = read_mapping(columns, constants, ignore)
    raw = read_raw(source, separator, decimal_comma)
    proposal = propose(raw, said)
    if proposal.guesses and not accept_guesses:
        raise DataError(
            f"these columns are guesses: {', '.join(map(str, proposal.guesses))}; "
            "give them as `columns`, or say accept_guesses=True"
        )
    return carry_out(raw, proposal, keep_good=keep_good, diverged=diverged)


def read_raw(
    source: Any, separator: str | None = None, decimal_comma: bool = False, tell: Tell = silent
) -> Raw:
    """Read one source, or a list of several, as it is.

    Raises:
        DataError: it cannot be read, or holds no rows.
    """
    several = source if isinstance(source, (list, tuple)) else [source]
    if not several:
        raise DataError("name a source: a file, a folder, a data frame")
    raw = together([open_source(one, separator, tell) for one in several])
    if not raw.places and not raw.problems:
        raise DataError(f"{raw.name or 'the data frame'} has a header but no rows")
    longest = max(raw.frame.columns, key=len, default="")
    if len(longest) > MAX_NAME:
        raise DataError(f"a column's name has {len(longest):,} characters, {shown(longest)!r}; shorten it")
    return with_points(raw) if decimal_comma else raw


def carry_out(
    raw: Raw, proposal: Proposal, *, keep_good: bool = False, diverged: bool = False, tell: Tell = silent
) -> Imported:
    """Make rows of a source by a proposal that was confirmed.

    Raises:
        DataError: bad cells, unless good rows are to be kept and there are some.
        ConfigError: a column that every table needs is missing.
    """
    check_whole(raw, proposal)
    columns: dict[str, pl.Series] = {}
    flaws: list[Flaw] = []
    losses = next((rule.theirs for rule in proposal.rules if rule.ours == "loss"), "")
    lost = _not_finite(raw.frame[losses]) if diverged and losses else None
    for place, rule in enumerate(proposal.rules):
        tell("converting", place / len(proposal.rules))
        if not rule.theirs:
            columns[rule.ours] = pl.Series([rule.constant]).new_from_index(0, raw.frame.height)
            continue
        series = raw.frame[rule.theirs]
        if lost is not None and COLUMN[rule.ours].kind == "number":
            # What was measured of a lost run is lost with it.
            series = series.set(lost & _not_finite(series), None)
        columns[rule.ours], found = (
            difference(series, raw.frame[rule.minus], rule.unit)
            if rule.minus
            else convert(series, rule.ours, rule.unit, rule.values)
        )
        flaws += found
    if lost is not None:
        status = columns.get("status", pl.Series([None] * raw.frame.height, dtype=pl.String))
        columns["status"] = status.set(lost, "diverged")
    frame = pl.DataFrame([series.alias(name) for name, series in columns.items()])
    frame = _unquantized(raw, proposal, frame)
    checked, more = check(frame, lambda share: tell("checking", share))
    seen = {
        flaw.row for flaw in flaws
    }  # a cell that could not be turned leaves a hole: one complaint is enough
    flaws += [flaw for flaw in more if flaw.column or flaw.row not in seen]
    theirs = {rule.ours: rule.theirs for rule in proposal.rules}
    problems = [*raw.problems, *(_problem(raw, flaw, theirs) for flaw in sorted(flaws, key=lambda f: f.row))]
    bad = {flaw.row for flaw in flaws}
    good = pl.Series([row not in bad for row in range(len(raw.places))], dtype=pl.Boolean)
    if problems and not (keep_good and good.any()):
        raise BadRows(raw.name, problems, keep_good)
    kept = checked.filter(good)
    count = int((kept["status"] == "diverged").sum()) if diverged and "status" in kept.columns else 0
    return Imported(
        Runs(kept, raw.name), proposal, tuple(problems), len(bad) + len(raw.problems), count, raw.notes
    )


def _unquantized(raw: Raw, proposal: Proposal, frame: pl.DataFrame) -> pl.DataFrame:
    """Rows that are of 16 bits or more after training are not quantised: they have no format, and no gap."""
    rule = next((rule for rule in proposal.rules if rule.ours == "post_format"), None)
    if rule is None or not rule.theirs:
        return frame
    turned = frame["post_format"].cast(pl.String, strict=False)
    native = {cell for cell in turned.unique() if cell and _native(cell)}
    plain = turned.is_in(list(native)).fill_null(False)
    theirs = raw.frame[rule.theirs].cast(pl.String, strict=False).str.strip_chars().fill_null("")
    plain |= turned.is_null() & theirs.str.to_uppercase().is_in(["F16", "BF16", "F32", "FP16", "FP32"])
    names = [name for name in ("post_format", "gap", "gap_se") if name in frame.columns]
    return frame.with_columns(frame[name].set(plain, None) for name in names)


def _native(cell: str) -> bool:
    try:
        return parse_format(cell.strip()).name in ("bf16", "fp16", "fp32")
    except BitlawError:
        return False


class BadRows(DataError):
    """Rows that cannot be used; `problems` has all of them."""

    def __init__(self, source: str, problems: list[Problem], asked: bool) -> None:
        self.problems = problems
        text = told(source, problems)
        if any(_COMMA.fullmatch(problem.value) for problem in problems):
            text += "; are these decimal commas? Say so: --decimal-comma, decimal_comma=True"
        end = "no row is without one" if asked else "mend them, or keep the good rows alone (--keep-good)"
        super().__init__(f"{text}; {end}")


def write_problems(problems: Iterable[Problem], path: str | os.PathLike[str]) -> None:
    """Write problems as CSV, with columns place, column, value and reason; safe for spreadsheets.

    Raises:
        DataError: the file cannot be written.
    """
    rows = [vars(problem) for problem in problems]
    names = ("place", "column", "value", "reason")
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String))
    with whole(Path(path)) as temporary:
        temporary.write_text(without_formulas(frame).write_csv(), encoding="utf-8", newline="")


def check_whole(raw: Raw, proposal: Proposal) -> None:
    """Refuse a proposal without what every table needs.

    Raises:
        ConfigError: naming it, and the columns that it may be in.
    """
    have = {rule.ours for rule in proposal.rules}
    if any(name.startswith("params_") for name in have):  # counts by part do as well
        have |= {"params"}
    missing = [name for name in ("params", "tokens", "loss") if name not in have]
    if not missing:
        return
    there = ", ".join(shown(name) for name in proposal.unused[:30]) or "none"
    example = {"params": "--set params=8B", "tokens": "--set tokens=300B", "loss": '--map "loss=ppl in ppl"'}
    raise ConfigError(
        f"nothing in {raw.name or 'the data frame'} gives {' and '.join(missing)}; its other columns: {there}. "
        f'Say which is which, like --map "{missing[0]}=COLUMN", or one value for all rows, like {example[missing[0]]}'
    )


def _not_finite(series: pl.Series) -> pl.Series:
    if series.dtype == pl.String:
        return (
            series.str.strip_chars()
            .str.to_lowercase()
            .str.contains(r"^[+-]?(nan|inf|infinity)$")
            .fill_null(False)
        )
    return (~series.is_finite()).fill_null(False) if series.dtype.is_float() else series.is_null() & False


def _problem(raw: Raw, flaw: Flaw, theirs: Mapping[str, str]) -> Problem:
    """A flaw as a person finds it: in their column, with what stands there."""
    name = theirs.get(flaw.column, "")
    value = shown(raw.frame[name][flaw.row]) if name else ""
    reason = flaw.reason if not name or name == flaw.column else f"{flaw.reason} (as {flaw.column})"
    return Problem(raw.places[flaw.row], name or flaw.column, value, reason)
