"""The verb that opens the explorer: a local page over runs as they come in."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from ..shell import printable
from .common import CorpusOption, JsonFlag, print_json

if TYPE_CHECKING:
    from ..explore import Live


def explore(
    runs: Annotated[
        str | None,
        typer.Argument(
            help="A .csv, .parquet or .sqlite file, a folder with runs.sqlite or a table called runs or rows, or "
            "postgresql://user@host/database; default: what is found in this folder."
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Default: one that is free.")] = 0,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    sweep: Annotated[
        str | None,
        typer.Option(
            help="`quick`, or the TOML file of the sweep that runs, to see what is left and how long."
        ),
    ] = None,
    corpus: CorpusOption = None,
    json_: JsonFlag = False,
) -> None:
    """Open a local page over runs: filter, fit, compare, plan, and watch a sweep while it runs.

    The page is at 127.0.0.1 alone and only reads. From another machine, use a tunnel with the same port on both sides:
    `ssh -L 8000:127.0.0.1:8000 there`, and `bitlaw explore --port 8000` there. Ctrl-C ends it.

    Example: `bitlaw explore study-quick --open`
    """
    from ..explore import HOST, Live, application, found_here, listen, new_token, server

    live = Live(runs or found_here(Path()))
    goal = None if sweep is None else _goal(sweep, corpus, live)
    listening = listen(port)
    token, chosen = new_token(), listening.getsockname()[1]
    address = f"http://{HOST}:{chosen}/{token}/"
    serving = server(application(live, token, chosen, goal))
    # Signals are the server's from here on: one that comes before it runs ends it as one that comes later does.
    with listening, suppress(KeyboardInterrupt), serving.capture_signals(), ExitStack() as ending:
        if json_:
            print_json({"address": address, "source": live.name})
        else:
            print(f"{printable(live.name)} is shown at {address} (Ctrl-C ends)", flush=True)
        if open_:
            _open(address, Path(ending.enter_context(TemporaryDirectory(prefix="bitlaw-"))))
        serving.run(sockets=[listening])


def _open(address: str, folder: Path) -> None:
    """Open an address by way of a file that we alone can read: what a browser is started with everybody can."""
    import webbrowser

    page = folder / "explore.html"
    page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0;url={address}">', encoding="utf-8")
    webbrowser.open(page.as_uri())


def _goal(sweep: str, corpus: str | None, live: Live) -> Any:
    """What asks how far a sweep is."""
    from .job import Job, opened, progress_of

    if not live.is_store:
        raise ConfigError(
            f"a sweep stores its rows in a run store, which {live.name} is not; leave --sweep out"
        )
    job = Job(sweep, None, corpus)

    def ask() -> Mapping[str, Any]:
        with opened(live.address) as store:
            return progress_of(job, store)

    return ask
