"""The verbs of sweeps: what there is to do, doing it, how far it is."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from .common import CorpusOption, JsonFlag, print_json
from .job import (
    Job,
    duration,
    opened,
    picture,
    print_table,
    progress_of,
    stopped_by_sigterm,
    table_of,
    team_of,
)

if TYPE_CHECKING:
    from ..lab.sweep import Team

sweep_app = typer.Typer(
    no_args_is_help=True, help="Train and quantise many models, on one machine or on many."
)
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
    Path | None,
    typer.Option(
        help="Holds checkpoints, kept models, and runs.sqlite if no --store is named. It may be of this machine "
        "alone, but all processes of `train` must see it. Default: sweep-NAME."
    ),
]
MirrorOption = Annotated[
    str | None, typer.Option(help="Show stored rows in wandb, mlflow, tensorboard or trackio too.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
PatienceOption = Annotated[
    float,
    typer.Option(
        min=10,
        help="Seconds without a word after which a worker counts as stuck and is replaced; longer than any "
        "one evaluation takes.",
    ),
]


@sweep_app.callback()
def _group() -> None:
    """Train and quantise many models, on one machine or on many."""


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
    training here for each scheme, without evaluation. Cells of one trunk share its training; what that saves
    against runs of their own is said below the table.

    Example: `bitlaw sweep plan quick`
    """
    from ..lab.sweep import measured_speed, planned, speeds
    from ..lab.train import savings
    from ..units import format_quantity

    job = Job(source, folder, corpus)
    with job.stored(store) as kept:
        rows = kept.runs().frame.to_dicts() if kept else []
    found = planned(job.configs, job.after, {row["id"]: row["status"] for row in rows})
    speed = speeds(job.configs, rows)
    for scheme in dict.fromkeys(p.config.scheme for p in found if p.left):
        if scheme not in speed:
            same = [p.config for p in found if p.config.scheme == scheme]
            speed[scheme] = measured_speed(same[len(same) // 2], job.text)
    saved = [savings(p.config) for p in found]
    lines = [
        {
            "trunk": p.config.trunk_id(),
            "params": p.config.shape.counts().non_embedding,
            "budgets": list(p.config.budgets),
            "scheme": p.config.scheme,
            "cells": p.cells,
            "done": p.done,
            "flops": p.flops,
            "tokens": tokens.trained,
            "tokens_apart": tokens.separate,
            "seconds_left": p.left / speed[p.config.scheme] if p.left else 0.0,
        }
        for p, tokens in zip(found, saved, strict=True)
    ]
    if json_:
        print_json(lines)
        return
    table = table_of("trunk", "size", "budgets", "scheme", "cells", "done", "FLOPs", "time left")
    for line in lines:
        table.add_row(
            line["trunk"],
            format_quantity(line["params"]),
            " ".join(format_quantity(tokens) for tokens in line["budgets"]),
            line["scheme"],
            str(line["cells"]),
            str(line["done"]),
            f"{line['flops']:.3g}",
            duration(line["seconds_left"]),
        )
    print_table(table)
    cells, done = sum(p.cells for p in found), sum(p.done for p in found)
    left = sum(line["seconds_left"] for line in lines)
    print(
        f"{done} of {cells} cells are done; {sum(p.flops for p in found):.3g} FLOPs in all; "
        f"about {duration(left)} of one core or GPU left"
    )
    trained, apart = sum(s.trained for s in saved), sum(s.separate for s in saved)
    print(
        f"Trunks and their branches train on {format_quantity(trained)} tokens; a run for each cell would take "
        f"{format_quantity(apart)}, {apart / trained:.2f} times as many"
    )


@sweep_app.command()
def run(
    source: SourceArgument,
    store: StoreOption = None,
    folder: FolderOption = None,
    corpus: CorpusOption = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Default: one a core or GPU; on Ray, as many as its nodes can hold."),
    ] = None,
    device: DeviceOption = "auto",
    on: Annotated[
        str, typer.Option(help="here, or ray[:ADDRESS]; an address is auto, HOST:PORT or ray://HOST:PORT.")
    ] = "here",
    cpus_per_worker: Annotated[float | None, typer.Option(min=0, help="On Ray; default 1.")] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0, help="On Ray; 0.25 puts four on a GPU. Default 1 if there are any.")
    ] = None,
    patience: PatienceOption = 3600.0,
    mirror: MirrorOption = None,
    json_: JsonFlag = False,
) -> None:
    """Train, quantise and evaluate all cells of a sweep that are not in the store, here or on a Ray cluster.

    Finished cells are stored as they come. Ctrl-C and SIGTERM lose nothing: run the same command to go on. Each
    node of a Ray cluster needs bitlaw and the text under the same name; rows come back here.
    Checkpoints are kept in the same folder on each node, best a shared one.

    Example: `bitlaw sweep run quick`

    Example: `bitlaw sweep run sweep.toml --on ray:auto --gpus-per-worker 0.25`
    """
    job = Job(source, folder, corpus)
    _go(job, store, workers, team_of(on, device, cpus_per_worker, gpus_per_worker), mirror, json_, patience)


@sweep_app.command()
def work(
    config: Annotated[str, typer.Option(help="`quick`, or a TOML file with a table [sweep].")],
    store: StoreOption = None,
    folder: FolderOption = None,
    corpus: CorpusOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    device: DeviceOption = "auto",
    lease: Annotated[
        float, typer.Option(min=5, help="Seconds after which cells of a process that is gone are free.")
    ] = 60.0,
    patience: PatienceOption = 3600.0,
    mirror: MirrorOption = None,
    json_: JsonFlag = False,
) -> None:
    """Claim cells of a sweep and make them, until none are left; start it as often as there are cores, anywhere.

    Every process takes a folder of its own below --folder. One that is killed loses its claim after --lease
    seconds, and another takes it; Ctrl-C or SIGTERM saves its state and gives its claim back at once.
    A password belongs in ~/.pgpass or PGPASSWORD: others can read a command line.

    Example: `bitlaw sweep work --config sweep.toml --store postgresql://me@db/runs`
    """
    _go(
        Job(config, folder, corpus),
        store,
        workers,
        team_of("here", device),
        mirror,
        json_,
        patience,
        lease,
        True,
    )


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

    job = Job(source, folder, corpus)
    with job.stored(store) as kept:
        if kept is None:
            raise ConfigError("nothing is stored yet; begin with bitlaw sweep run, or name the --store")
        state = progress_of(job, kept)
        if json_:
            print_json(state)
            return
        console = Console()
        if not console.is_terminal:
            print_table(picture(state))
            return
        with Live(picture(state), console=console) as live:
            try:
                while state["left"]:
                    time.sleep(REFRESH_SECONDS)
                    state = progress_of(job, kept)
                    live.update(picture(state))
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
    """Remove a row, averages on its way, and all that was made from them, so that the next run makes them again.

    Example: `bitlaw sweep forget 0123456789abcdef --store sweep-quick/runs.sqlite`
    """
    from ..runs import Store

    with opened(store) as kept:
        statuses, rows = kept.statuses(), kept.made_from(id_)
    if not rows:
        raise ConfigError(f"there is no row {id_!r} in {kept.name}; see bitlaw runs show")
    for row in [] if json_ else rows:
        print(f"{row}  {statuses[row]}")
    if not yes:
        typer.confirm(f"Remove {len(rows)} of {len(statuses)} rows from {kept.name}?", abort=True, err=True)
    kept = Store(store)
    removed = kept.forget(id_)
    kept.close()
    if json_:
        print_json({"removed": removed})
    else:
        print(f"Removed {removed} rows")


def _go(
    job: Job,
    where: str | None,
    workers: int | None,
    team: Team,
    tracker: str | None,
    json_: bool,
    patience: float,
    lease: float = 60.0,
    shared: bool = False,
) -> None:
    """Work on a sweep until nothing is left, and say what came of it; `shared` if others do too."""
    from ..lab.sweep import clear, mirror, own_place, run_sweep, work_left
    from ..runs import Store
    from ..study import Progress
    from .progress import Reporter

    with (
        own_place(job.folder) as (place, name),
        Reporter() as reporter,
        stopped_by_sigterm(),
        mirror(tracker, job.folder.name, job.folder) as show,
    ):
        kept = Store(job.where(where), patience=lease)  # others may be at work while a server restarts
        statuses = kept.statuses()
        total, done, here = work_left(job.configs, job.after, statuses), 0.0, 0

        def on_work(work: float) -> None:
            nonlocal done
            done += 0.0 if shared else work
            reporter(Progress(done, total, f"training: {here} models made here"))

        def on_rows(rows: list[dict[str, Any]]) -> None:
            nonlocal here, done
            here += sum(row["id"] in job.cells for row in rows)
            show([row for row in rows if row["id"] not in statuses])
            if shared:  # others work on it too
                done = total - work_left(job.configs, job.after, kept.statuses())
            on_work(0.0)

        try:
            run_sweep(
                job.configs,
                kept,
                place,
                corpus_path=job.corpus,
                after=job.after,
                workers=workers,
                team=team,
                name=name,
                lease_seconds=lease,
                silence_seconds=patience,
                on_work=on_work,
                on_rows=on_rows,
            )
            clear(job.folder, {config.work_id() for config in job.configs})
            statuses = kept.statuses()
        except KeyboardInterrupt:
            reporter.close()
            print(
                f"Stopped. Finished rows are in {kept.name}; run the same command to go on.", file=sys.stderr
            )
            raise typer.Exit(130) from None
        finally:
            kept.close()
    ends = [statuses.get(cell, "forgotten") for cell in job.cells]
    counts = {status: ends.count(status) for status in ("ok", "diverged", "failed", "forgotten")}
    if json_:
        print_json({"cells": len(ends), **counts, "made_here": here, "store": kept.name})
        return
    said = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
    print(f"{len(ends)} cells: {said}; {here} of them made here. Rows: {kept.name}")
    if counts["failed"]:
        print("bitlaw sweep status says why cells failed; bitlaw sweep forget ID has one made again")
