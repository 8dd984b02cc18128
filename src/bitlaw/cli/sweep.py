"""The verbs of sweeps: what there is to do, doing it, how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from .common import JsonFlag, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from ..runs import Store

sweep_app = typer.Typer(no_args_is_help=True, help="Many models, on one machine or on many.")
REFRESH_SECONDS = 2.0

SourceArgument = Annotated[str, typer.Argument(help="`quick`, or a TOML file with a table [sweep].")]
StoreOption = Annotated[
    str | None,
    typer.Option(
        envvar="BITLAW_STORE",
        help="A .sqlite file, or postgresql://user@host/database; default: runs.sqlite in the folder.",
    ),
]
FolderOption = Annotated[
    Path | None, typer.Option(help="Of this machine, for checkpoints; default: sweep-NAME.")
]
CorpusOption = Annotated[
    str | None, typer.Option(help="Folder or file of text; default: Python's standard library sources.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


@sweep_app.callback()
def _group() -> None:
    """Many models, on one machine or on many."""


@sweep_app.command()
def plan(
    source: SourceArgument,
    store: StoreOption = None,
    folder: FolderOption = None,
    corpus: CorpusOption = None,
    json_: JsonFlag = False,
) -> None:
    """Show the trunks of a sweep: cells, FLOPs, expected time of what is left, what is done.

    Time is that of one core or GPU. It comes from stored rows where there are some, else from half a second of
    training here for each scheme, without evaluation.

    Example: `bitlaw sweep plan quick`
    """
    from ..lab.sweep import measured_speed, planned, speeds
    from ..units import format_quantity

    job = _Job(source, folder, corpus)
    with job.stored(store) as kept:
        rows = kept.runs().frame.to_dicts() if kept else []
    found = planned(job.configs, job.after, {row["id"]: row["status"] for row in rows})
    speed = speeds(job.configs, rows)
    for scheme in dict.fromkeys(p.config.scheme for p in found if p.left):
        if scheme not in speed:
            same = [p.config for p in found if p.config.scheme == scheme]
            speed[scheme] = measured_speed(same[len(same) // 2], job.text)
    lines = [
        {
            "trunk": p.config.trunk_id(),
            "params": p.config.shape.counts().non_embedding,
            "budgets": list(p.config.budgets),
            "scheme": p.config.scheme,
            "cells": p.cells,
            "done": p.done,
            "flops": p.flops,
            "seconds_left": p.left / speed[p.config.scheme] if p.left else 0.0,
        }
        for p in found
    ]
    if json_:
        print_json(lines)
        return
    table = _table("trunk", "size", "budgets", "scheme", "cells", "done", "FLOPs", "time left")
    for line in lines:
        table.add_row(
            line["trunk"],
            format_quantity(line["params"]),
            " ".join(format_quantity(tokens) for tokens in line["budgets"]),
            line["scheme"],
            str(line["cells"]),
            str(line["done"]),
            f"{line['flops']:.3g}",
            _duration(line["seconds_left"]),
        )
    _print(table)
    cells, done = sum(p.cells for p in found), sum(p.done for p in found)
    left = sum(line["seconds_left"] for line in lines)
    print(
        f"{done} of {cells} cells are done; {sum(p.flops for p in found):.3g} FLOPs in all; "
        f"about {_duration(left)} of one core or GPU left"
    )


@sweep_app.command()
def run(
    source: SourceArgument,
    store: StoreOption = None,
    folder: FolderOption = None,
    corpus: CorpusOption = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default one a core or GPU.")] = None,
    device: DeviceOption = "auto",
    json_: JsonFlag = False,
) -> None:
    """Train, quantise and evaluate all cells of a sweep that are not in the store, with all of this machine.

    Finished cells are stored as they come. Ctrl-C loses nothing: run the same command to go on.

    Example: `bitlaw sweep run quick`
    """
    _go(_Job(source, folder, corpus), store, workers, device, json_)


@sweep_app.command()
def work(
    config: Annotated[str, typer.Option(help="`quick`, or a TOML file with a table [sweep].")],
    store: StoreOption = None,
    folder: FolderOption = None,
    corpus: CorpusOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    device: DeviceOption = "auto",
    lease: Annotated[
        float, typer.Option(min=1, help="Seconds after which cells of a process that is gone are free.")
    ] = 60.0,
    json_: JsonFlag = False,
) -> None:
    """Claim cells of a sweep and make them, until none are left; start it as often as there are cores, anywhere.

    Every process takes a folder of its own below --folder. One that is killed loses its claim after --lease
    seconds, and another takes it. A password belongs in ~/.pgpass or PGPASSWORD: others can read a command line.

    Example: `bitlaw sweep work --config sweep.toml --store postgresql://me@db/runs`
    """
    _go(_Job(config, folder, corpus), store, workers, device, json_, lease)


@sweep_app.command()
def status(
    source: SourceArgument,
    store: StoreOption = None,
    folder: FolderOption = None,
    corpus: CorpusOption = None,
    json_: JsonFlag = False,
) -> None:
    """Show how far a sweep is and who works on it; on a terminal, until it is done.

    Example: `bitlaw sweep status sweep.toml --store postgresql://me@db/runs`
    """
    from rich.console import Console
    from rich.live import Live

    job = _Job(source, folder, corpus)
    with job.stored(store) as kept:
        if kept is None:
            raise ConfigError("nothing is stored yet; begin with bitlaw sweep run, or name the --store")
        state = _state(job, kept)
        if json_:
            print_json(state)
            return
        console = Console()
        if not console.is_terminal:
            _print(_picture(state))
            return
        with Live(_picture(state), console=console) as live:
            try:
                while state["left"]:
                    time.sleep(REFRESH_SECONDS)
                    state = _state(job, kept)
                    live.update(_picture(state))
            except KeyboardInterrupt:
                pass


@sweep_app.command()
def forget(
    id_: Annotated[str, typer.Argument(metavar="ID", help="Of a row.")],
    store: Annotated[
        str, typer.Option(envvar="BITLAW_STORE", help="A .sqlite file, or postgresql://user@host/database.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Remove a row, and those that were made from it, so that the next run makes them again.

    Example: `bitlaw sweep forget 0123456789abcdef --store sweep-quick/runs.sqlite`
    """
    from ..runs import Store

    with _open(store) as kept:
        frame = kept.runs().frame
        rows = [row for row in frame.to_dicts() if id_ in (row["id"], row["parent"])]
    if not any(row["id"] == id_ for row in rows):
        raise ConfigError(f"there is no row {id_!r} in {kept.name}; see bitlaw runs show")
    for row in [] if json_ else rows:
        print(f"{row['id']}  {row['status']}  {row['reason'] or row['loss']}")
    if not yes:
        typer.confirm(f"Remove {len(rows)} of {frame.height} rows from {kept.name}?", abort=True, err=True)
    kept = Store(store)
    removed = kept.forget(id_)
    kept.close()
    if json_:
        print_json({"removed": removed})
    else:
        print(f"Removed {removed} rows")


class _Job:
    """A sweep as its file describes it, with its text."""

    def __init__(self, source: str, folder: Path | None, corpus: str | None) -> None:
        from ..lab.corpus import read_corpus, spread_windows
        from ..lab.sweep import After, trunks
        from ..study import read_study

        study = read_study(source)
        self.folder = folder or Path(f"sweep-{study.name}")
        self.corpus, self.text = corpus, read_corpus(corpus)
        self.configs = trunks(study.sweep, self.text)
        self.after = After.of(study.sweep, self.folder)
        spread_windows(self.text.evaluation, study.sweep.eval_tokens, study.sweep.seq_len)
        self.after.look_at(self.text.calibration, study.sweep.seq_len)
        self.cells = {c.cell_id(branch): c for c in self.configs for branch in c.branches()}

    def where(self, store: str | None) -> str:
        """The store that is named, or the one in the folder."""
        return store or str(self.folder / "runs.sqlite")

    @contextmanager
    def stored(self, store: str | None) -> Iterator[Store | None]:
        """The store, opened for reading; None if it is to be in the folder and is not there yet."""
        if store is None and not Path(self.where(None)).is_file():
            yield None
        else:
            with _open(self.where(store)) as kept:
                yield kept


@contextmanager
def _open(store: str) -> Iterator[Store]:
    from ..runs import Store

    kept = Store(store, read_only=True)
    try:
        yield kept
    finally:
        kept.close()


def _go(
    job: _Job, where: str | None, workers: int | None, device: str, json_: bool, lease: float = 60.0
) -> None:
    """Work on a sweep until nothing is left, and say what came of it."""
    from ..lab.sweep import own_place, run_sweep, work_left
    from ..runs import Store
    from ..study import Progress
    from .progress import Reporter

    with own_place(job.folder) as (place, name), Reporter() as reporter:
        kept = Store(job.where(where))
        statuses = kept.statuses()
        total, done, here = work_left(job.configs, job.after, statuses), 0.0, 0

        def on_work(work: float) -> None:
            nonlocal done
            done += work
            reporter(Progress(done, total, f"training: {here} models made here"))

        def on_rows(rows: list[dict[str, Any]]) -> None:
            nonlocal here
            here += 1
            on_work(0.0)

        try:
            run_sweep(
                job.configs,
                kept,
                place,
                corpus_path=job.corpus,
                after=job.after,
                workers=workers,
                device=device,
                name=name,
                lease_seconds=lease,
                on_work=on_work,
                on_rows=on_rows,
            )
            statuses = kept.statuses()
        except KeyboardInterrupt:
            reporter.close()
            print(
                f"Stopped. Finished rows are in {kept.name}; run the same command to go on.", file=sys.stderr
            )
            raise typer.Exit(130) from None
        finally:
            kept.close()
    ends = [statuses[cell] for cell in job.cells]
    counts = {status: ends.count(status) for status in ("ok", "diverged", "failed")}
    if json_:
        print_json({"cells": len(ends), **counts, "made_here": here, "store": kept.name})
        return
    said = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
    print(f"{len(ends)} cells: {said}; {here} of them made here. Rows: {kept.name}")
    if counts["failed"]:
        print("bitlaw sweep status says why cells failed; bitlaw sweep forget ID has one made again")


def _state(job: _Job, store: Store) -> dict[str, Any]:
    """How far a sweep is."""
    from ..lab.sweep import planned, speeds
    from ..runs import running

    rows = store.runs().frame.to_dicts()
    statuses = {row["id"]: row["status"] for row in rows}
    found = planned(job.configs, job.after, statuses)
    ours = [row for row in rows if row["id"] in job.cells]
    works = {config.work_id() for config in job.configs}
    leases = [lease for lease in running(store) if lease.work in works]
    speed, left = speeds(job.configs, rows), [p for p in found if p.left]
    seconds = None
    if leases and all(p.config.scheme in speed for p in left):
        seconds = sum(p.left / speed[p.config.scheme] for p in left) / len(leases)
    return {
        "cells": len(job.cells),
        **{status: sum(row["status"] == status for row in ours) for status in ("ok", "diverged", "failed")},
        "left": sum(p.cells - p.done for p in found),
        "rows_last_hour": sum(_fresh(row) for row in rows),
        "seconds_left": seconds,
        "leases": [asdict(lease) for lease in leases],
        "failures": {row["id"]: row["reason"] for row in ours if row["status"] == "failed"},
    }


def _fresh(row: dict[str, Any]) -> bool:
    """Whether the work on a row ended within the last hour, by the clock of the machine it was made on."""
    if not row["started"]:
        return False
    ended = datetime.fromisoformat(row["started"]) + timedelta(seconds=row["seconds"] or 0.0)
    return datetime.now(UTC) - ended < timedelta(hours=1)


def _picture(state: dict[str, Any]) -> Table:
    """A table of how far a sweep is."""
    from rich.markup import escape

    table = _table("", "")
    for name in ("cells", "ok", "diverged", "failed", "left"):
        table.add_row(name, str(state[name]))
    table.add_row("rows in the last hour", str(state["rows_last_hour"]))
    if state["seconds_left"] is not None and state["left"]:
        table.add_row("time left", f"about {_duration(state['seconds_left'])}")
    for lease in state["leases"]:
        again = f", attempt {lease['attempts']}" if lease["attempts"] > 1 else ""
        table.add_row(
            f"at {lease['work']}", escape(f"{lease['worker']}, for {lease['left']:.0f} s yet{again}")
        )
    for id_, reason in state["failures"].items():
        table.add_row(f"failed {id_}", escape(reason))
    return table


def _table(*names: str) -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=any(names))
    for name in names:
        table.add_column(name, justify="left" if name in ("", "trunk", "scheme", "budgets") else "right")
    return table


def _print(table: Table) -> None:
    from rich.console import Console

    Console().print(table)


def _duration(seconds: float) -> str:
    """A time as people say it."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"
