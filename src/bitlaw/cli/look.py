"""The verbs that look things up: run tables and laws."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import JsonFlag, RunsArgument, print_json

if TYPE_CHECKING:
    from ..laws import Law

runs_app = typer.Typer(
    no_args_is_help=True, help="Look into run tables, and turn one kind of file into another."
)
laws_app = typer.Typer(no_args_is_help=True, help="The laws: equations, parameters, published constants.")


@runs_app.command("show")
def runs_show(
    runs: RunsArgument,
    rows: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 20,
    json_: JsonFlag = False,
) -> None:
    """Check a table and print its first rows."""
    import polars as pl

    from ..runs import OVERVIEW, read_runs

    table = read_runs(runs)
    used = [s.name for s in table.frame if s.null_count() < len(s) and s.name not in ("config", "versions")]
    if json_:
        print(table.frame.select(used).head(rows).write_json())
        return
    print(repr(table)[1:-1])
    with pl.Config(tbl_rows=rows, tbl_cols=20, tbl_hide_dataframe_shape=True, tbl_width_chars=140):
        print(table.frame.select([c for c in OVERVIEW if c in used]).head(rows))


@runs_app.command("convert")
def runs_convert(
    runs: RunsArgument,
    out: Annotated[Path, typer.Argument(help="A .csv or .parquet file.")],
    json_: JsonFlag = False,
) -> None:
    """Write a table as CSV or Parquet."""
    from ..runs import read_runs, write_runs

    table = read_runs(runs)
    write_runs(table, out)
    if json_:
        print_json({"rows": len(table), "file": str(out)})
    else:
        print(f"Wrote {len(table)} rows to {out}")


@runs_app.command("schema")
def runs_schema(json_: JsonFlag = False) -> None:
    """List the columns of a run table."""
    from rich.console import Console
    from rich.table import Table

    from ..runs import COLUMNS

    if json_:
        print_json(
            [{"column": c.name, "kind": c.kind, "unit": c.unit, "meaning": c.meaning} for c in COLUMNS]
        )
        return
    table = Table()
    for name in ("column", "kind", "unit", "range", "meaning"):
        table.add_column(name)
    for c in COLUMNS:
        limits = c.range_text() if c.kind in ("integer", "number") else ", ".join(c.choices)
        table.add_row(c.name, c.kind, c.unit, limits, c.meaning)
    Console().print(table)


@laws_app.command("list")
def laws_list(json_: JsonFlag = False) -> None:
    """List the laws that can be fitted, and the published constants that can be planned with."""
    from ..laws import LAWS, PUBLISHED

    if json_:
        print_json({"laws": list(LAWS), "published": list(PUBLISHED)})
        return
    for law in LAWS.values():
        print(f"{law.name:22} {len(law.parameters):2} parameters   {law.source}")
    print("\nPublished constants, for `bitlaw plan --law`:")
    for p in PUBLISHED.values():
        print(f"{p.name:28} {p.source}")


def _of_one_kind(law: Law, other: Law) -> bool:
    """Whether constants of a law are constants of another, or of some of its parts."""
    ours, theirs = law.spec, other.spec
    parts = dict(theirs.precision).items() <= dict(ours.precision).items()
    same = (ours.base, ours.gap, ours.link) == (theirs.base, theirs.gap, theirs.link)
    return same and parts and bool(theirs.precision) == bool(ours.precision)


@laws_app.command("show")
def laws_show(
    name: Annotated[str, typer.Argument(help="A law, or published constants.")], json_: JsonFlag = False
) -> None:
    """Print a law's equation, parameters, constants and where it holds."""
    from ..laws import PUBLISHED, get, published

    constants = published(name) if name in PUBLISHED else None
    law = constants.law if constants else get(name)
    if json_:
        print_json(
            {
                "name": name,
                "source": str(constants.source if constants else law.source),
                "loss": str(law.loss + law.gap),
                "inputs": {i.column: i.meaning for i in law.inputs},
                "parameters": {p.name: p.meaning for p in law.parameters},
                "values": dict(constants.values) if constants else None,
            }
        )
        return
    print(f"{name}: {constants.source if constants else law.source}")
    print("\n" + "\n".join(f"  {short} = {expression}" for short, expression in law.display().items()))
    print("\nReads:")
    for i in law.inputs:
        print(f"  {i.symbol!s:12} {i.column:12} {i.meaning}")
    print("\nParameters:")
    for p in law.parameters:
        value = f" = {constants.values[p.name]:g}" if constants else ""
        unit = f" [{p.unit}]" if p.unit else ""
        each = f"; one for each {p.per}" if p.per else ""
        held = f"; held at {p.fixed:g}" if p.fixed is not None else ""
        print(f"  {p.name + value:24} {p.meaning}{unit}{each}{held}")
    print()
    if constants:
        print(f"Fitted on {constants.regime}.")
    else:
        known = [p.name for p in PUBLISHED.values() if _of_one_kind(law, p.law)]
        print(f"Published constants: {', '.join(known)}." if known else "No constants are published.")
    for sentence in dict.fromkeys(c.sentence for c in law.conditions):
        print(f"Domain: {sentence}.")
