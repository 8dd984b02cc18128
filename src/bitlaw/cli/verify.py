"""`bitlaw study --verify`: some cells of a study made again."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import ConfigError, DataError
from .common import print_json

if TYPE_CHECKING:
    from ..lab.sweep import Repeat
    from ..runs import Runs

TOLERANCE = 3  # standard deviations of seeds


def verify_study(
    source: str,
    count: int,
    out: Path | None,
    corpus: str | None,
    seed: int,
    workers: int | None,
    json_: bool,
) -> None:
    """Train cells of a study's rows again, and end with code 1 if a loss is not what it was."""
    from ..lab.sweep import TRAINED, draw, made_by, make_again, seed_noise
    from ..study import Progress
    from .progress import Reporter

    runs, corpus, every = _rows(source, corpus)
    again = draw(runs.frame.to_dicts(), count, seed)
    folder = out or Path(f"verify-{Path(source).stem}-{count}-{seed}")
    if there := _there(folder, again.rows):
        print(
            f"{there} of {len(again.rows)} rows are in {folder} already; remove it to make them anew.",
            file=sys.stderr,
        )
    with Reporter() as reporter:

        def on_progress(done: float, total: float, made: int) -> None:
            reporter(Progress(done, total, f"training: {made} of {len(again.rows)} rows made again"))

        try:
            found = make_again(again, folder, corpus, workers, on_progress)
        except KeyboardInterrupt:
            reporter.close()
            print(f"Stopped. Finished rows are in {folder}; run the same command to go on.", file=sys.stderr)
            raise typer.Exit(130) from None
    noise = seed_noise(every.frame.to_dicts())
    ends = noise.get(TRAINED, (0.0, 0))
    limits = {id_: TOLERANCE * noise.get(made_by(row), ends)[0] for id_, row in again.rows.items()}
    wrong = [one for one in found if one.difference > limits[one.id]]
    if json_:
        print_json(
            {
                "rows": [_told(one) for one in found],
                "seed_noise": [
                    {"method": method, "recipe": recipe, "sd": sd, "degrees_of_freedom": freedom}
                    for (method, recipe), (sd, freedom) in noise.items()
                ],
                "same": not wrong,
            }
        )
    else:
        print(*_summary(found), sep="\n")
        for (method, recipe), (sd, freedom) in noise.items():
            what = f"Copies by {method} to {recipe}" if method else "Losses"
            print(f"{what} of other seeds differ by sd {sd:.4f} ({freedom} degrees of freedom).")
        for one in wrong:
            now = one.now if one.status == "ok" else one.status
            print(f"Not the same: row {one.id} had {one.before or 'diverged'}, and has {now}.")
    if wrong:
        raise typer.Exit(1)


def _there(folder: Path, rows: Mapping[str, Any]) -> int:
    """How many of the rows an earlier call, perhaps of other versions, has made."""
    from ..runs import Store

    if not (folder / "runs.sqlite").is_file():
        return 0
    store = Store(folder / "runs.sqlite", read_only=True)
    try:
        return len(store.ids() & rows.keys())
    finally:
        store.close()


def _rows(source: str, corpus: str | None) -> tuple[Runs, str | None, Runs]:
    """The rows of a study that were trained on one text, that text, and all rows of the study."""
    from ..runs import read_runs

    if source == "thousandth":
        import polars as pl

        from ..datasets import thousandth

        text = corpus or "package:rfc"  # or package:rust, on which some of it was trained
        runs = thousandth(None)
        if text not in (texts := runs.frame["corpus"].drop_nulls().unique().sort().to_list()):
            raise ConfigError(f"no row of the thousandth study is of {text!r}; use {' or '.join(texts)}")
        return runs.filter(pl.col("corpus") == text), text, runs
    folder = Path(f"study-{source}") if source == "quick" else Path(source)
    try:
        runs = read_runs(folder)
        return runs, corpus, runs
    except DataError as error:
        raise ConfigError(
            f"--verify takes thousandth, a study that was run here, or its folder or table of rows: {error}"
        ) from error


def _told(one: Repeat) -> dict[str, Any]:
    return {
        "id": one.id,
        "quantized": one.quantized,
        "before": one.before,
        "now": one.now,
        "status": one.status,
    }


def _summary(found: list[Repeat]) -> list[str]:
    """How many losses are the same, of trained models and of copies."""
    out = []
    for quantized, what in ((False, "trained models"), (True, "quantised copies")):
        some = [one.difference for one in found if one.quantized == quantized]
        if some:
            same = sum(difference == 0 for difference in some)
            finite = [difference for difference in some if math.isfinite(difference)]
            lost = f", {len(some) - len(finite)} without a loss" if len(finite) < len(some) else ""
            most = f"; they differ by up to {max(finite):.2g}" if finite else ""
            out.append(f"{len(some)} {what}: {same} losses identical to the bit{lost}{most}.")
    return out
