"""Cells of a run table trained once more: do their losses come out the same?"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from ...errors import DataError
from ...formats import Recipe
from ...runs import Store
from ..corpus import read_corpus
from ..quantize import Setting
from ..train import Branch, TrunkConfig
from .after import After
from .engine import run_sweep
from .place import alone
from .plan import Tally, work_left
from .rows import low

Row = Mapping[str, Any]
Kind: TypeAlias = tuple[str | None, str | None]  # method and recipe of a copy
TRAINED: Kind = (None, None)
MADE = ("ok", "diverged")  # rows that come out so again


@dataclass(frozen=True)
class Again:
    """Cells that are to be trained again, as `run_sweep` takes them.

    Attributes:
        rows: what the table says of them, ends and quantised copies, by id.
        jobs: their trunks, each up to the last of its cells, with what is done to the ends.
    """

    rows: dict[str, Row]
    jobs: tuple[tuple[list[TrunkConfig], After], ...]

    @property
    def configs(self) -> list[TrunkConfig]:
        """All trunks."""
        return [config for configs, _ in self.jobs for config in configs]


@dataclass(frozen=True)
class Repeat:
    """A row made again.

    Attributes:
        id: of the row.
        quantized: whether it was quantised after training.
        before: the loss that the table has; None if it diverged.
        now: the loss that it has now.
        status: that it has now; `missing` if it was not made.
    """

    id: str
    quantized: bool
    before: float | None
    now: float | None
    status: str = "ok"

    @property
    def difference(self) -> float:
        """Of the two losses; infinite if one of them alone diverged, or there is none for another reason."""
        if self.status not in MADE:
            return math.inf
        if self.before is None or self.now is None:
            return 0.0 if self.before == self.now else math.inf
        return abs(self.now - self.before)


def draw(rows: Sequence[Row], count: int, seed: int = 0) -> Again:
    """Draw cells of a table at random: trained ends, each with all copies of it that were quantised.

    Args:
        rows: of sweeps, whose `config` says how each was trained.
        count: how many.
        seed: of the draw.

    Raises:
        DataError: fewer cells than that, or rows that do not say how they were made.
    """
    ends = sorted(row["id"] for row in rows if row["parent"] is None and row["status"] in MADE)
    if not 0 < count <= len(ends):
        raise DataError(
            f"{count} cells cannot be drawn from {len(ends)} that were trained; ask for 1 to {len(ends)}"
        )
    chosen = set(random.Random(seed).sample(ends, count))
    copies: dict[str, list[Row]] = {id_: [] for id_ in chosen}
    for row in rows:
        if row["parent"] in chosen and row["post_format"] is not None and row["status"] in MADE:
            copies[row["parent"]].append(row)
    jobs: dict[Any, dict[tuple[str, int], tuple[TrunkConfig, set[int]]]] = {}
    for end in (row for row in rows if row["id"] in chosen):
        config, branch, _ = origin(end)
        settings = {_setting(copy): copy for copy in copies[end["id"]]}
        tokens = [_calibration_tokens(copy) for how, copy in settings.items() if how.calibrated]
        way = (tuple(settings), max(tokens, default=0), low(config, branch))
        alone = branch.tokens if config.schedule == "cosine" else 0  # each budget is a run of its own
        cells = jobs.setdefault(way, {})
        cells.setdefault((config.trunk_id(), alone), (config, set()))[1].add(branch.tokens)
    found = {row["id"]: row for row in rows if row["id"] in chosen}
    found |= {copy["id"]: copy for some in copies.values() for copy in some}
    return Again(
        found,
        tuple(
            (
                [c.model_copy(update={"budgets": tuple(sorted(b))}) for c, b in cells.values()],
                After((), tokens, low_settings=settings) if is_low else After(settings, tokens),
            )
            for (settings, tokens, is_low), cells in jobs.items()
        ),
    )


def _calibration_tokens(copy: Row) -> int:
    """How many tokens a copy was asked to be calibrated on, as its id says; windows may have held a few less."""
    tokens: str = copy["id"].rpartition("-")[2]
    if not tokens.isdecimal():
        raise DataError(f"row {copy['id']}: its id does not end in the tokens that it was calibrated on")
    return int(tokens)


def _setting(copy: Row) -> Setting:
    return Setting(copy["method"], Recipe.parse(copy["post_recipe"], "channel"))


def origin(row: Row) -> tuple[TrunkConfig, Branch, int]:
    """The trunk and the branch that a trained end came from, and which of the branch's ends it is.

    Raises:
        DataError: the row does not say it, or is not what its `config` describes.
    """
    config = read_config(row)
    for branch in config.branches():
        ends = config.end_ids(branch)
        if row["id"] in ends:
            return config, branch, ends.index(row["id"])
    raise DataError(
        f"row {row['id']}: it is not the end that its `config` describes; was it changed by hand?"
    )


def read_config(row: Row) -> TrunkConfig:
    """The trunk of a row.

    Raises:
        DataError: the row does not say it.
    """
    try:
        return TrunkConfig.model_validate_json(row["config"] or "")
    except ValidationError as error:
        raise DataError(
            f"row {row['id']}: its `config` does not say how it was trained ({error.errors()[0]['msg']}); only rows "
            "of bitlaw's own sweeps can be made again"
        ) from error


def make_again(
    again: Again,
    folder: Path,
    corpus: str | None,
    workers: int | None = None,
    on_progress: Callable[[float, float, int], None] = lambda done, total, ends: None,
) -> list[Repeat]:
    """Train cells again, quantise and evaluate them, and compare; what the folder has is not made again.

    Args:
        again: the cells.
        folder: for checkpoints and rows.
        corpus: the text that the rows were trained on, as `read_corpus` takes it.
        workers: processes; None means one a core.
        on_progress: told of the work that is done, of all of it, and how many of the rows there are.

    Raises:
        DataError: the text is another one.
        KeyboardInterrupt: passed on, after every worker has saved its state.
    """
    text = read_corpus(corpus, again.configs[0].tokenizer)
    for config in again.configs:
        if config.corpus_sha256 != text.sha256:
            raise DataError(
                f"the rows were trained on text of hash {config.corpus_sha256[:12]}, and {text.name} has "
                f"{text.sha256[:12]}; name theirs with --corpus"
            )
    with alone(folder) as name:
        store = Store(folder / "runs.sqlite")
        try:
            statuses = store.statuses()
            total = sum(work_left(configs, after, statuses) for configs, after in again.jobs)
            tally = Tally(total, again.rows, statuses, on_progress)
            for place, (configs, after) in enumerate(again.jobs):
                run_sweep(
                    configs,
                    store,
                    folder / "checkpoints" / str(place),  # its own: an engine removes what is not its work
                    corpus_path=corpus,
                    workers=workers,
                    after=after,
                    name=name,
                    on_work=tally.work,
                    on_rows=tally.rows,
                )
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            made = {row["id"]: row for row in store.runs().frame.to_dicts()}
        finally:
            store.close()
    missing = {"loss": None, "status": "missing"}
    return [
        Repeat(
            i, row["parent"] is not None, row["loss"], (now := made.get(i, missing))["loss"], now["status"]
        )
        for i, row in again.rows.items()
    ]


def made_by(row: Row) -> Kind:
    """How a row was quantised after training: method and recipe; `TRAINED` of a trained end."""
    return (row["method"], row["post_recipe"]) if row["post_format"] is not None else TRAINED


def seed_noise(rows: Iterable[Row]) -> dict[Kind, tuple[float, int]]:
    """Standard deviation of losses of cells that differ in their seed alone, pooled, and its degrees of freedom.

    Trained ends, and copies by how they were quantised, each by themselves: rounding to few bits adds noise of its own.
    """
    rows = [row for row in rows if row["loss"] is not None]
    cell_of = {}
    for row in rows:
        if row["parent"] is None:
            try:
                config, branch, place = origin(row)
            except DataError:  # not of a sweep, or scored anew on another text
                continue
            cell_of[row["id"]] = config.model_copy(update={"seed": 0}).end_ids(branch)[place]
    cells: dict[Kind, dict[str, list[float]]] = {}
    for row in rows:
        cell = cell_of.get(row["parent"] or row["id"])
        if cell is not None and (row["parent"] is None or row["post_format"] is not None):
            cells.setdefault(made_by(row), {}).setdefault(cell, []).append(row["loss"])
    found = {}
    for kind, losses in cells.items():
        groups = [some for some in losses.values() if len(some) > 1]
        if freedom := sum(len(some) - 1 for some in groups):
            squares = sum((x - sum(some) / len(some)) ** 2 for some in groups for x in some)
            found[kind] = (math.sqrt(squares / freedom), freedom)
    return found
