"""The verb for one large run, under torchrun or alone."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from ..errors import ConfigError, nearest
from .common import CorpusOption, JsonFlag, print_json
from .job import Job
from .sweep import DeviceOption, FolderOption, SourceArgument, StoreOption

if TYPE_CHECKING:
    from ..lab.train import TrunkConfig, World

SHARDS = ("ddp", "fsdp")


def train(
    source: SourceArgument,
    size: Annotated[str | None, typer.Option(help="Of the sweep's sizes, like 220M.")] = None,
    scheme: Annotated[str | None, typer.Option(help="Of the sweep's schemes, like w4.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the sweep's seeds.")] = None,
    tokens: Annotated[str | None, typer.Option(help="Of the sweep's budgets, like 4B; default: all.")] = None,
    shard: Annotated[
        str,
        typer.Option(help="ddp: the whole model in each process; fsdp: a part of every weight in each."),
    ] = "ddp",
    store: StoreOption = None,
    folder: FolderOption = None,
    corpus: CorpusOption = None,
    device: DeviceOption = "auto",
    json_: JsonFlag = False,
) -> None:
    """Train one trunk of a sweep with its branches, on all processes that torchrun starts, and store its rows.

    They share every batch and reach the loss of one process; where they would not, the run is refused. Without
    torchrun it is the same run in one process. A run that is stopped or killed goes on when the same command is given
    again; to the bit, if the processes are as many as before. The folder must be one that all processes see.

    * `bitlaw train sweep.toml --size 12000 --scheme w4`
    * `torchrun --nproc-per-node 8 -m bitlaw train sweep.toml --size 220M --scheme w4 --shard fsdp`
    """
    if shard not in SHARDS:
        raise ConfigError(f"unknown --shard {shard!r}; {nearest(shard, SHARDS)}")
    from ..lab.train import joined, leave

    job = Job(source, folder, corpus, _only(size, scheme, seed))
    config = _the_trunk(job, tokens)
    with joined(cast(Literal["ddp", "fsdp"], shard), device) as world:
        rows, name = _train(job, config, job.where(store), world)
    if world.first:
        _show(rows, name, json_)
    if world.size > 1:
        leave()


def _show(rows: list[dict[str, Any]], store: str, json_: bool) -> None:
    """Print what came of each end."""
    if json_:
        print_json([{key: value for key, value in row.items() if value is not None} for row in rows])
        return
    for row in rows:
        said = row["reason"] if row["loss"] is None else f"loss {row['loss']:.4f} ± {row['loss_se']:.4f}"
        print(f"{row['id']}  {row['tokens']:,.0f} tokens  {row['status']}: {said}")
    print(f"Rows: {store}")


def _train(job: Job, config: TrunkConfig, where: str, world: World) -> tuple[list[dict[str, Any]], str]:
    """Train a trunk, and return its rows and the name of their store in the first process."""
    from ..lab.sweep import alone, row_ids, train_large, work_left
    from ..lab.train import Interrupted
    from ..runs import Store
    from ..study import Progress
    from .progress import Reporter

    place, name, kept = job.folder / f"large-{config.work_id()}", "", None
    done = total = 0.0

    def on_work(work: float) -> None:
        nonlocal done
        done += work
        if reporter is not None:
            reporter(
                Progress(
                    done, total, "training" if world.size == 1 else f"training on {world.size} processes"
                )
            )

    with ExitStack() as open_:
        reporter = None
        if world.first:
            name = open_.enter_context(alone(place))
            kept = Store(where)
            open_.callback(kept.close)
            total = work_left([config], job.after, kept.statuses())
            reporter = open_.enter_context(Reporter())
        stop = open_.enter_context(stopping())
        try:
            train_large(config, kept, place, job.text, job.after, world, name, on_work, should_stop=stop)
        except Interrupted:
            if reporter is not None:
                reporter.close()
                print("Stopped, and saved; run the same command to go on.", file=sys.stderr)
            raise typer.Exit(130) from None
        if kept is None:
            return [], ""
        ids = [id_ for branch in config.branches() for id_ in row_ids(config, branch, job.after)]
        return [row for row in kept.runs().frame.to_dicts() if row["id"] in ids], kept.name


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came; only the second of them ends this process."""
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def as_before() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        as_before()

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        as_before()


def _only(size: str | None, scheme: str | None, seed: int | None) -> dict[str, Any]:
    """What is chosen of a sweep."""
    from ..formats import Scheme
    from ..units import parse_quantity

    chosen = {
        "sizes": None if size is None else round(parse_quantity(size, "params")),
        "schemes": None if scheme is None else Scheme.parse(scheme).name,
        "seeds": seed,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _the_trunk(job: Job, tokens: str | None) -> TrunkConfig:
    """The one trunk that was chosen."""
    from ..units import parse_quantity

    found = job.configs
    if tokens is not None:
        budget = round(parse_quantity(tokens, "tokens"))
        found = [c.model_copy(update={"budgets": (budget,)}) for c in found if budget in c.budgets]
    if len(found) != 1:
        raise ConfigError(
            f"one trunk is trained at a time, and {len(found)} fit; choose by --size, --scheme and --seed, and by "
            "--tokens where every budget is a run of its own"
        )
    return found[0]
