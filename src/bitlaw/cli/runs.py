"""The verbs of run tables: inspect, import, export."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError, DataError
from ..shell import join, path, without_password
from .common import JsonFlag, RunsArgument, command_line, print_json

if TYPE_CHECKING:
    from ..runs import Imported, Proposal
    from ..runs.raw import Tell
    from .progress import Reporter

runs_app = typer.Typer(no_args_is_help=True, help="Inspect, import and export run tables.")
#: How much of the time of an import each part takes, about.
_PARTS = {"reading": (0.0, 0.3), "converting": (0.3, 0.1), "checking": (0.4, 0.3), "storing": (0.7, 0.3)}
WRITTEN = (".csv", ".parquet", ".sqlite")  # by an import
_QUIET_SECONDS = 1.0  # what is over sooner needs no progress


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
    out: Annotated[Path, typer.Argument(help="A .csv, .parquet or .tex file (a LaTeX table for booktabs).")],
    spreadsheet: Annotated[
        bool, typer.Option(help="In CSV, put ' before text that a spreadsheet would run as a formula.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """Write a table as CSV, Parquet or LaTeX.

    * `bitlaw runs convert runs.sqlite runs.parquet`
    * `bitlaw runs convert runs.csv table.tex`
    * `bitlaw runs convert runs.csv for-excel.csv --spreadsheet`
    """
    from ..runs import read_runs, write_runs

    _spare([runs], out)
    table = read_runs(runs)
    write_runs(table, out, spreadsheet=spreadsheet)
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


@runs_app.command("import")
def runs_import(
    sources: Annotated[
        list[str], typer.Argument(help="Files, folders or KIND:ADDRESS; several become one table.")
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", help="A .csv, .parquet or .sqlite file, or postgresql://user@host/database."
        ),
    ] = "runs.parquet",
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="OURS=THEIRS, or `OURS=THEIRS in UNIT`, `gap=AFTER minus BEFORE in UNIT`, or a .toml file; repeat it.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="OURS=VALUE, the same in all rows, like count=non_embedding or params=8B."
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="A column of theirs that decides nothing; may be given often.")
    ] = None,
    guess: Annotated[bool, typer.Option(help="Look for well-known names of columns.")] = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether guesses are right.")] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict/--keep-good", help="Refuse all for one bad cell, or leave bad rows out and say which."
        ),
    ] = True,
    diverged: Annotated[
        bool,
        typer.Option(
            help="A loss of nan or inf means that the run diverged, and what else was measured is lost."
        ),
    ] = False,
    problems: Annotated[Path | None, typer.Option(help="Write every bad cell to this CSV file.")] = None,
    save_map: Annotated[
        Path | None, typer.Option(help="Write what became of which column, for --map.")
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="Between cells of CSV, like ';' or tab; default: comma, in .tsv tab.")
    ] = None,
    decimal_comma: Annotated[
        bool, typer.Option("--decimal-comma", help="Numbers are written 1.234,5 and not 1,234.5.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """Import runs from any table, tracker or tool, every cell checked.

    Columns of our names (`bitlaw runs schema`) are taken as they are. Others are mapped by you, or guessed by their
    names; guesses are shown with an example and asked about. What is not used is listed.

    * `bitlaw runs import sweep.csv -o runs.parquet --map "params=size (B) in B" --map "loss=ppl in ppl"`
    * `bitlaw runs import wandb-export.csv --set count=non_embedding`: the runs table, exported from W&B's page
    * `bitlaw runs import wandb/`: offline runs (needs wandb); from its server `wandb:entity/project`
    * `bitlaw runs import mlruns/` or `mlflow.db`; from a server `mlflow:http://host:5000`
    * `bitlaw runs import tensorboard:logs/` (needs tensorboard), `trackio:~/.cache/huggingface/trackio/`
    * `bitlaw runs import outputs/ --set tokens=300B`: folders with Hugging Face's trainer_state.json
    * `bitlaw runs import results_2026.json --map "loss=wikitext/byte_perplexity in ppl" --set tokens=1T`: lm-eval
    * `bitlaw runs import llama3-8b.md --set params=8B --set tokens=15T`: a table or log of llama.cpp

    Units: k, M, B, T, P, Ki, Mi, Gi, or a factor like 1e9; `bits` a token; `ppl` (perplexity); `percent`; `accuracy`,
    `accuracy%` (to error); `quantity` (text like 7B or 20,000,000); `hours`, `minutes`, `days`, `ms`; for formats `int`
    (4 is int4), `fp` (8 is e4m3), `dtype` (bfloat16), `gguf` (Q4_K_M); for status `state` (finished is ok). An
    empty right side, `--map loss=`, leaves a column empty. A mapping file has tables [columns] and [constants];
    --save-map writes one.
    """
    from ..runs import as_toml, is_address, propose, read_mapping, read_raw, write_problems
    from ..runs.importing import BadRows, carry_out, check_whole
    from .progress import Reporter

    said = read_mapping(map_ or (), set_ or (), ignore or ())
    _spare(sources, out, problems, save_map)
    if not is_address(out) and not out.lower().endswith(WRITTEN):
        raise ConfigError(f"cannot write {out}; name a file that ends in {', '.join(WRITTEN)}")
    with Reporter() as reporter:
        raw = read_raw(list(map(_home, sources)), separator, decimal_comma, _telling(reporter))
    proposal = propose(raw, said, guess)
    _show(proposal, raw.notes)
    check_whole(raw, proposal)
    if proposal.guesses and not yes:
        flags: list[tuple[str, Any]] = [("--map", text) for text in map_ or ()]
        flags += [("--set", text) for text in set_ or ()] + [("--ignore", name) for name in ignore or ()]
        flags += [("--keep-good", not strict), ("--diverged", diverged), ("--problems", problems)]
        flags += [("--save-map", save_map), ("--separator", separator), ("--decimal-comma", decimal_comma)]
        _confirm(proposal, sources, [("-o", _plain_words(out)), *flags])
    with Reporter() as reporter:
        tell = _telling(reporter)
        try:
            came = carry_out(raw, proposal, keep_good=not strict, diverged=diverged, tell=tell)
        except BadRows as error:
            if problems is not None:
                write_problems(error.problems, problems)
                raise DataError(f"{error}; all {len(error.problems)} are in {problems}") from error
            raise
        new = _store(came, out, tell)
    if problems is not None:
        write_problems(came.problems, problems)
    if save_map is not None:
        from ..files import whole

        with whole(save_map) as temporary:
            temporary.write_text(as_toml(proposal.rules, said.ignored, said.refused), encoding="utf-8")
    if json_:
        print_json({**came.as_json(), "file": _plain(out), "new": new})
        return
    _report(came, out, new, problems)


def _home(source: str) -> str:
    """A source whose folder may begin with ~, which a shell leaves alone after a word like trackio:."""
    kind, sign, rest = source.rpartition(":")
    try:
        return f"{kind}{sign}{Path(rest).expanduser()}" if rest.startswith("~") else source
    except RuntimeError:  # nobody's home: a file may begin with ~
        return source


def _spare(sources: list[str], *written: str | Path | None) -> None:
    """Refuse to write over what is read, whatever the way to it is called."""
    from ..runs import is_address

    read = {
        Path(name).resolve() for source in map(_home, sources) for name in (source, source.partition(":")[2])
    }
    for out in written:
        if out is not None and not is_address(out) and Path(out).resolve() in read - {Path().resolve()}:
            raise ConfigError(f"{out} is what is read; name another file to write to")


def _plain(out: str) -> str:
    """The name of what was written; an address may hold a password."""
    from ..runs import Store, is_address

    return Store(out, read_only=True).name if is_address(out) else out


def _telling(reporter: Reporter) -> Tell:
    from ..study import Progress

    began = time.monotonic()

    def tell(doing: str, share: float) -> None:
        begin, part = _PARTS[doing.split()[0]]
        if time.monotonic() - began > _QUIET_SECONDS:
            reporter(Progress(begin + part * share, 1.0, doing))

    return tell


def _show(proposal: Proposal, notes: tuple[str, ...]) -> None:
    """Print what would become of which column, on standard error: the result alone is for standard output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..runs.raw import shown

    table = Table(title="Columns", title_justify="left")
    for name in ("theirs", "ours", "unit", "why", "example", "becomes"):
        table.add_column(name, overflow="fold")
    for line in proposal.table():
        cells = (line["theirs"], line["ours"], line["unit"], line["why"], line["before"], line["after"])
        table.add_row(*map(Text, cells))
    console = Console(stderr=True)
    console.print(table)
    if proposal.unused:
        more = len(proposal.unused) - 60
        text = ", ".join(map(shown, proposal.unused[:60])) + (f" and {more} more" if more > 0 else "")
        console.print(Text(f"Not used: {text}"))
    for remark in (*notes, *proposal.remarks):
        console.print(Text(f"Note: {remark}"))


def _confirm(proposal: Proposal, sources: list[str], flags: list[tuple[str, Any]]) -> None:
    """Ask whether guesses are right.

    Args:
        proposal: with the guesses.
        sources: what is read.
        flags: what was said beside it.

    Raises:
        ConfigError: nobody can be asked, or they are wrong.
    """
    flags = [*flags, *(("--map", str(rule)) for rule in proposal.guesses)]
    again = command_line("runs import", list(map(without_password, sources)), *flags)
    if not sys.stdin.isatty():
        raise ConfigError(
            f"{len(proposal.guesses)} columns are guesses; add --yes if they are right, or say them: {again}"
        )
    signal.siginterrupt(signal.SIGINT, True)  # with polars imported, Ctrl-C would wait for the answer
    if not typer.confirm("Are the guesses right?", err=True):
        raise ConfigError(f"nothing was imported; change what is wrong in: {again} --no-guess")


def _plain_words(out: str) -> str:
    return "postgresql://..." if "://" in out else out


def _store(came: Imported, out: str, tell: Tell) -> int:
    """Write rows to a file or a store; return how many are new there."""
    from ..runs import Store, is_address, write_runs

    if is_address(out) or out.lower().endswith(".sqlite"):
        store = Store(out)
        try:
            return store.take(came.runs, lambda share: tell("storing", share))
        finally:
            store.close()
    write_runs(came.runs, out)
    return len(came.runs)


def _report(came: Imported, out: str, new: int, problems: Path | None) -> None:
    from ..formats import UNQUANTIZED
    from ..runs import is_address
    from ..runs.raw import SHOWN

    for problem in came.problems[:SHOWN]:
        print(f"Left out: {problem}", file=sys.stderr)
    if len(came.problems) > SHOWN:
        where = f"all are in {problems}" if problems else "--problems FILE.csv lists all"
        print(f"and {len(came.problems) - SHOWN} more; {where}", file=sys.stderr)
    print(
        f"Wrote {new} rows to {_plain(out)}" + (f"; {came.left_out} were left out" if came.left_out else "")
    )
    if came.diverged:
        print(f"{came.diverged} of them diverged: their loss was nan or inf")
    if new < len(came.runs):
        print(f"{len(came.runs) - new} rows were there already, by their ids, and are left as they were")
    bits = any((came.runs.bits(part) < UNQUANTIZED).any() for part in ("w", "a", "kv", "post"))
    name = "STORE" if is_address(out) else join([path(out)])
    print(f"Next: bitlaw fit {name} --law {'kumar' if bits else 'chinchilla'}")
