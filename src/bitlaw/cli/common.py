"""What every verb needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError, nearest
from ..shell import join, path

if TYPE_CHECKING:
    from ..runs import Runs

JsonFlag = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")]
RunsArgument = Annotated[
    str,
    typer.Argument(
        help="A .csv, .parquet or .sqlite file, a folder with runs.sqlite or a table called runs or rows, or "
        "postgresql://user@host/database."
    ),
]
CORPUS = (
    "Folder, text file, .jsonl[.gz] or .parquet (#FIELD after it if not `text`), package:NAME, hf:NAME[:CONFIG]; "
    "default: Python's standard library sources."
)
CorpusOption = Annotated[str | None, typer.Option(help=CORPUS)]
CountOption = Annotated[str, typer.Option(help="How N is counted: as_given, non_embedding, total, matmul.")]
IntervalOption = Annotated[float, typer.Option(help="Level of the intervals.")]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        help='Which rows: "params>=30M", "tokens>=20*params", "w_format in int4,int8", "post_format=none"; may be '
        "given often, and all must hold.",
    ),
]
COUNTS = ("as_given", "non_embedding", "total", "matmul")


def counted(name: str) -> Any:
    """Check a counting convention.

    Raises:
        ConfigError: an unknown one.
    """
    if name not in COUNTS:
        raise ConfigError(f"unknown count {name!r}; {nearest(name, COUNTS)}")
    return name


def rows_of(runs: str, where: list[str] | None) -> Runs:
    """Read the rows of a table of which all conditions hold.

    Raises:
        DataError: a table that cannot be read, or of which no row is left.
        ConfigError: a condition that cannot be read.
    """
    from ..runs import read_runs
    from ..runs import where as meant

    return meant(read_runs(runs), where or ())


def command_line(verb: str, argument: str | list[str], *flags: tuple[str, Any]) -> str:
    """The command line that does the same again; flags that are None or False are left out.

    >>> command_line("report", "my runs.csv", ("--law", "kumar"), ("--budget", None), ("--compare", True))
    "bitlaw report 'my runs.csv' --law kumar --compare"
    """
    words = ["bitlaw", *verb.split(), *map(path, [argument] if isinstance(argument, str) else argument)]
    for flag, value in flags:
        if value is not None and value is not False:
            words += [flag] if value is True else [flag, str(value)]
    return join(words)


def print_json(value: Any) -> None:
    """Print JSON."""
    print(json.dumps(value, indent=1, allow_nan=False), flush=True)  # whoever reads a pipe may wait for it


def show(value: Any, as_json: bool) -> None:
    """Print a result as text, or as JSON."""
    if as_json:
        print_json(value.as_json())
    else:
        print(value)


@contextmanager
def working(doing: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal that something is being done; what it gives changes the words."""
    from rich.console import Console

    with Console(stderr=True).status(doing) as status:
        yield status.update
