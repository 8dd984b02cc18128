"""One TOML file, the whole road: corpus, sweep, rows, fit, comparison, plan, report.

Every step reads what the one before it stored, and a cell that is in the store is not trained again. So a
study can be stopped at any moment and run again; and a second run takes seconds.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .errors import BitlawError, ConfigError, nearest
from .files import read_toml, whole
from .formats import Native, parse_format
from .runs import Runs, Store
from .units import format_quantity, parse_quantity

if TYPE_CHECKING:
    from .fitting import Comparison, Fit
    from .planning import Plan

BUILT_IN = ("quick",)
MAX_TOML = 1_000_000


class FitConfig(BaseModel):
    """What is fitted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    law: str = Field(default="kumar", description="name of a law, as `bitlaw laws list` has it")
    interval: float = Field(default=0.9, gt=0, lt=1, description="level of the intervals")
    draws: int = Field(default=400, ge=50, le=100_000, description="bootstrap draws behind them")


class PlanConfig(BaseModel):
    """What is asked of the fit."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    budget: str | float | int | None = Field(
        default=None, description='training cost to plan for, like "1e12 flops"'
    )
    quantize_to: tuple[str, ...] = Field(
        default=(), description="formats after training: how long to train for each"
    )

    @field_validator("budget")
    @classmethod
    def _budget(cls, value: str | float | int | None) -> str | float | int | None:
        if value is not None:
            parse_quantity(value, "flops")
        return value

    @field_validator("quantize_to")
    @classmethod
    def _quantize_to(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if isinstance(parse_format(name), Native):
                raise ValueError(f"{name!r} does not quantise anything; try int4")
        return names


@dataclass(frozen=True)
class Study:
    """A study as its file describes it. `sweep` is a `bitlaw.lab.sweep.SweepConfig`."""

    name: str
    sweep: Any
    fit: FitConfig
    plan: PlanConfig


@dataclass(frozen=True)
class Outcome:
    """What a study found, and where it stands."""

    runs: Runs
    fit: Fit
    comparison: Comparison | None
    plans: tuple[Plan, ...]
    report: Path


@dataclass(frozen=True)
class Progress:
    """How far a study is: work done and in all, in one unit, and what is being done."""

    done: float
    total: float
    doing: str


def read_study(source: str, seed: int | None = None) -> Study:
    """Read a study by the name of a built-in one, or from a TOML file.

    Args:
        source: `quick`, or a path.
        seed: replaces the file's seed.

    Raises:
        ConfigError: no such file, not TOML, an unknown key, or a value that makes no sense.
    """
    from .lab.sweep import SweepConfig

    if source in BUILT_IN:
        data = tomllib.loads((files("bitlaw") / f"{source}.toml").read_text(encoding="utf-8"))
    else:
        data = read_toml(source, MAX_TOML, f"name a TOML file, or a built-in study: {', '.join(BUILT_IN)}")
    for key in data:
        if key not in ("name", "sweep", "fit", "plan"):
            raise ConfigError(
                f"{source}: unknown key {key!r}; {nearest(key, ('name', 'sweep', 'fit', 'plan'))}"
            )
    for key in ("sweep", "fit", "plan"):
        if not isinstance(data.get(key, {}), dict):
            raise ConfigError(f"{source}: [{key}] must be a table")
    name = data.get("name", Path(source).stem)
    if (
        not isinstance(name, str)
        or not name.isascii()
        or not name.replace("-", "").replace("_", "").isalnum()
    ):
        raise ConfigError(f"{source}: name {name!r} must be letters, digits, - and _")
    sweep = dict(data.get("sweep", {}))
    if seed is not None:
        sweep["seed"] = seed
    return Study(
        name=name,
        sweep=_model(SweepConfig, sweep, source, "sweep"),
        fit=_model(FitConfig, data.get("fit", {}), source, "fit"),
        plan=_model(PlanConfig, data.get("plan", {}), source, "plan"),
    )


def run_study(
    study: Study,
    folder: Path,
    *,
    corpus: str | None = None,
    workers: int | None = None,
    command: str = "",
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Run a study to its report, training only what the folder's store does not hold yet.

    Args:
        study: what to do.
        folder: where the store, checkpoints, fit, plan, figures and report go.
        corpus: a folder or file of text; None means the standard library's sources.
        workers: processes; None means one a core.
        command: printed in the report as the way to make it again.
        on_progress: told how far it is.

    Raises:
        BitlawError: as the rooms it goes through.
        KeyboardInterrupt: after everything finished so far was saved.
    """
    from . import laws
    from .fitting import examine
    from .lab.corpus import read_corpus, spread_windows
    from .lab.sweep import After, Tally, alone, row_ids, run_sweep, trunks, work_left
    from .planning.source import why_not_plannable
    from .report import write_report

    law = laws.get(study.fit.law)  # mistakes come out before hours of training, not after
    asked = study.plan.budget is not None or (study.plan.quantize_to and law.gap != 0)
    if asked and (why := why_not_plannable(law)):
        raise ConfigError(
            f"{law.name} cannot answer what [plan] asks: {why}; leave that out, or take another law"
        )
    text = read_corpus(corpus, study.sweep.tokenizer)
    sweep = study.sweep
    spread_windows(text.evaluation, sweep.eval_tokens, sweep.seq_len)
    configs, after = trunks(sweep, text), After.of(sweep, folder)
    after.look_at(text.calibration, sweep.seq_len)
    cells = {config.cell_id(branch) for config in configs for branch in config.branches()}
    wanted = {
        id_ for config in configs for branch in config.branches() for id_ in row_ids(config, branch, after)
    }
    with alone(folder) as name:
        store = Store(folder / "runs.sqlite")
        try:
            statuses = store.statuses()
            total = work_left(configs, after, statuses)

            def tell(done: float, total: float, made: int) -> None:
                on_progress(Progress(done, total, f"training: {made} of {len(cells)} models"))

            tally = Tally(total, cells, statuses, tell)
            tally.work(0.0)
            run_sweep(
                configs,
                store,
                folder / "checkpoints",
                corpus_path=corpus,
                workers=workers,
                after=after,
                name=name,
                on_work=tally.work,
                on_rows=tally.rows,
            )
            runs = store.runs().filter(pl.col("id").is_in(list(wanted)))
        finally:
            store.close()
        on_progress(Progress(total, total, "fitting"))
        fitted, comparison = examine(law, runs, interval=study.fit.interval, draws=study.fit.draws)
        fitted.save(folder / "fit.json")
        on_progress(Progress(total, total, "planning"))
        plans = tuple(_plans(study, fitted))
        with whole(folder / "plan.json") as temporary:
            temporary.write_text(json.dumps([p.as_json() for p in plans], indent=1) + "\n", encoding="utf-8")
        on_progress(Progress(total, total, "writing the report"))
        report = folder / "report.html"
        sizes = runs.frame["params"]
        smallest, largest = (format_quantity(float(n)) for n in (sizes.min(), sizes.max()))  # type: ignore[arg-type]
        write_report(
            report,
            runs,
            fitted,
            comparison=comparison,
            plans=plans,
            command=command,
            planner=("bitlaw", "plan", "--fit", str(folder / "fit.json")),
            figure_folder=folder / "figures",
            title=f"{study.name}: {smallest} to {largest} parameters at many precisions",
        )
    return Outcome(runs, fitted, comparison, plans, report)


def _plans(study: Study, fitted: Fit) -> Iterator[Plan]:
    """Answer the questions of the study's file that the fit can speak to."""
    from .planning import plan

    if study.plan.budget is not None:
        yield plan(fitted, budget=study.plan.budget, interval=study.fit.interval)
    for name in study.plan.quantize_to if fitted.law.gap != 0 else ():
        largest = fitted.ranges["params"][1]
        yield plan(fitted, params=largest, quantize_to=name, interval=study.fit.interval)


def _model(kind: type[Any], data: dict[str, Any], source: str, section: str) -> Any:
    """Validate a section of the file, with errors that name the key."""
    for key in data:
        if key not in kind.model_fields:
            raise ConfigError(
                f"{source}: unknown key {key!r} in [{section}]; {nearest(key, kind.model_fields)}"
            )
    data = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    try:
        return kind(**data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = str(first["msg"]).removeprefix("Value error, ")
        where = f"[{section}] {place}: " if place else f"[{section}] "
        raise ConfigError(f"{source}: {where}{message}") from error
    except BitlawError as error:  # pydantic passes errors that are no ValueErrors straight on
        raise ConfigError(f"{source}: [{section}] {error}") from error
