"""What to run next: the runs whose results would narrow an answer most for what they cost."""

from __future__ import annotations

import inspect
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from rich.table import Table

from ..errors import ConfigError, LawError, nearest
from ..fitting import Fit
from ..fitting.objective import student_quantile
from ..fitting.tell import render
from ..units import format_quantity, parse_quantity, percent
from .answer import quantity, span
from .ask import all_read, plan
from .candidates import Trunk, around, cells_of
from .limits import Array
from .optimum import Best
from .pose import pose
from .purchase import SHARED, Basket, Belief, Shop
from .question import Question
from .source import Source, plannable
from .sweeps import sweep_files
from .when import is_trajectory

NARROWED = ("params", "tokens", "bits", "loss")
FACTORS = ("params", "tokens")  # whose widths are factors; those of the others are differences
LEAST_NOISE = 1e-6  # of log losses: rows without any noise tell everything, of which nothing can be said
SURE = 1e-9  # spread below which an answer is the same in every draw
FEWEST = 40  # draws with an answer, for covariances
WIDEST = 3  # degrees of freedom from which on Student's t has a variance


@dataclass(frozen=True)
class Narrowed:
    """One answer, and how wide its interval is.

    Attributes:
        name: `params`, `tokens`, `bits` or `loss`.
        value: at the optimum.
        low, high: its interval now.
        before: width now: high / low of params and tokens, high - low of bits and loss.
        after: width expected once the runs are made.
    """

    name: str
    value: float
    low: float
    high: float
    before: float
    after: float


@dataclass(frozen=True)
class Design:
    """Runs to make next.

    Attributes:
        question: in words.
        law: name of the law, and what it was fitted to.
        trunks: the runs, trunk by trunk.
        post: formats that the weights of unquantised ends are to be brought to after training.
        narrowed: the answers that they narrow.
        spend: FLOPs there were.
        flops: FLOPs the runs take.
        candidates: number of runs chosen from.
        level: of the intervals, which are of confidence.
        method: how they were made.
        first_seed: of the first of trunks that differ by their seeds alone.
        notes: what has to be known with it.
    """

    question: str
    law: str
    trunks: tuple[Trunk, ...]
    post: tuple[str, ...]
    narrowed: tuple[Narrowed, ...]
    spend: float
    flops: float
    candidates: int
    level: float
    method: str
    first_seed: int
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> Narrowed:
        for item in self.narrowed:
            if item.name == name:
                return item
        raise KeyError(f"{name!r}; this design narrows {', '.join(item.name for item in self.narrowed)}")

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def to_toml(self, first_seed: int | None = None, **settings: Any) -> dict[str, str]:
        """Files of sweeps that make these runs and no others, as `bitlaw sweep plan FILE` reads them.

        A sweep is a product of sizes, budgets, schemes and seeds, so several may be needed. Learning rate x width and
        batch are those of a plan's configuration for the largest run. Sizes are without embeddings.

        Args:
            first_seed: of the study; None for one that follows from the rows, so that no trunk is a run that they have.
            **settings: further keys of a sweep, or others in place of these, like `eval_tokens=262_144`.

        Returns:
            Text by file name.

        Raises:
            ConfigError: a size that the lab's ladder does not have, or settings that a file cannot hold.
        """
        seed = self.first_seed if first_seed is None else first_seed
        return sweep_files(self.trunks, self.post, f"To narrow: {self.question}", seed, settings)

    def __str__(self) -> str:
        ends = sum(len(trunk.budgets) for trunk in self.trunks)
        return render(
            f"What to run next: {self.question}\nLaw: {self.law}\n"
            f"{ends} runs of {len(self.trunks)} trunks, chosen from {self.candidates}; "
            f"{self.flops:.3g} of {self.spend:.3g} FLOPs",
            _answers_table(self),
            f"Intervals: {percent(self.level)} confidence, {self.method}.",
            *([_trunks_table(self)] if self.trunks else []),
            *([f"Ends in bf16 are to be quantised to {', '.join(self.post)} too."] if self.post else []),
            *(f"Note: {note}." for note in self.notes),
        )


def _answers_table(design: Design) -> Table:
    table = Table()
    for name in ("", "best", f"{percent(design.level)} interval now", "width now", "expected after"):
        table.add_column(name, justify="left" if "interval" in name or not name else "right")
    for a in design.narrowed:
        table.add_row(
            a.name,
            quantity(a.name, a.value),
            span(a.name, a.low, a.high),
            *(_width(a.name, width) for width in (a.before, a.after)),
        )
    return table


def _width(name: str, width: float) -> str:
    return f"factor {width:.3g}" if name in FACTORS else quantity(name, width)


def _trunks_table(design: Design) -> Table:
    table = Table(title="Trunks, with a cooldown at each budget", title_justify="left")
    for name in ("formats", "params", "seeds", "budgets", "FLOPs"):
        table.add_column(name, justify="left" if name in ("formats", "budgets") else "right")
    alike: dict[Trunk, list[Trunk]] = {}
    for trunk in design.trunks:
        alike.setdefault(replace(trunk, copy=1), []).append(trunk)
    for trunk, copies in alike.items():
        table.add_row(
            "bf16" if trunk.scheme == "16" else trunk.scheme,
            format_quantity(trunk.params),
            str(len(copies)),
            " ".join(format_quantity(tokens) for tokens in trunk.budgets),
            f"{len(copies) * trunk.flops:.3g}",
        )
    return table


def next_runs(
    fit: Fit,
    spend: str | float,
    *,
    candidates: Iterable[Trunk] | None = None,
    narrow: str | Sequence[str] | None = None,
    interval: float = 0.90,
    **question: Any,
) -> Design:
    """Choose the runs that would narrow a plan's answer most for what they cost.

        Var(a | y) = Var(a) - Cov(a, y) (Cov(y) + noise)^-1 Cov(y, a)

    with covariances over the fit's draws of the answer a and of the losses y that runs would measure: nothing is fitted
    again. Runs are taken one by one, by how much they narrow the intervals, in logarithms, for their FLOPs; a further
    budget of a trunk costs its cooldown, or what the trunk still lacks. What is expected holds if the law holds.

    Args:
        fit: the law and its draws.
        spend: FLOPs there are for the runs, like "1e18 flops", counted as 6 N D in whatever precision.
        candidates: trunks to choose among, each with the budgets that it may end at; None for a grid around the rows,
            from the least to four times the most, of no fewer tokens than parameters, in every scheme that the law
            reads, four seeds each.
        narrow: which answers: params, tokens, bits, loss; None for those that the question leaves open.
        interval: level of the intervals.
        **question: as `plan` takes it, like budget="1e22 flops".

    Returns:
        The runs, and the widths of the intervals before and after.

    Raises:
        ConfigError: a question that is no size's, or candidates or answers that cannot be chosen.
        LawError: a question outside the law's domain.

    Source: draws are conditioned as in the ensemble Kalman filter (Evensen 1994); the rest is ours.

    >>> from bitlaw import Runs, fit
    >>> grid = [(n, d) for n in (1e7, 3e7, 9e7) for d in (2e8, 1e9, 5e9)]
    >>> losses = [(1.8 + 480 * n**-0.35 + 2100 * d**-0.37) * (1 + 0.01 * (-1) ** k) for k, (n, d) in enumerate(grid)]
    >>> rows = [{"params": n, "tokens": d, "loss": x} for (n, d), x in zip(grid, losses)]
    >>> design = next_runs(fit("chinchilla", Runs.from_rows(rows)), "2e19 flops", budget="1e21 flops")
    >>> design["params"].after < design["params"].before, design.flops <= 2e19
    (True, True)
    """
    if not isinstance(fit, Fit):
        raise ConfigError("published constants have no draws that could be narrowed; give a fit of rows")
    source, asked = Source.of(fit, interval), _read(question, interval)
    flops = parse_quantity(spend, "flops")
    _refuse(fit, source, asked)
    found = _optima(source, asked)
    names = _names(found, [narrow] if isinstance(narrow, str) else narrow)
    answers = np.stack([_value(name, found) for name in names], axis=1)
    known = np.asarray(np.isfinite(answers[1:]).all(axis=1))
    if known.sum() < FEWEST:
        raise LawError(
            f"{known.sum()} of {len(known)} draws have an answer to this question, too few to tell what would narrow it"
        )
    noise = {kind: max(value, LEAST_NOISE) * _stretch(fit.df) for kind, value in fit.noise.items()}
    trunks = around(source) if candidates is None else candidates
    cells = cells_of(source, noise, trunks)
    usable = np.flatnonzero(known)
    belief = Belief.of(answers[1:][usable], cells.measured[1:][usable], cells.noise)
    shop = Shop(belief, cells.trunk, cells.tokens, 6 * cells.params)
    basket = shop.best(flops)
    chosen = cells.trunks(basket.cells)
    shrunk = np.sqrt(basket.variance) * _fewer_tails(fit.df, len(chosen), interval)
    return Design(
        question=asked.words,
        law=source.name,
        trunks=chosen,
        post=cells.post if any(trunk.scheme == "16" for trunk in chosen) else (),
        narrowed=tuple(
            _narrowed(name, answers[:, k], float(shrunk[k]), interval) for k, name in enumerate(names)
        ),
        spend=flops,
        flops=basket.flops,
        candidates=len(cells.tokens),
        level=interval,
        method=source.method,
        first_seed=1 + zlib.crc32(fit.provenance.rows_sha256.encode()) % 1_000_000,
        notes=_notes(source, fit, basket, shop, flops, int((~known).sum())),
    )


def _read(question: Mapping[str, Any], interval: float) -> Question:
    """The question, with `plan`'s defaults for what it does not say."""
    known = {
        name: parameter.default
        for name, parameter in inspect.signature(plan).parameters.items()
        if name not in ("law", "runs", "others")
    }
    for name in question:
        if name not in known:
            raise ConfigError(f"a question has no {name!r}; {nearest(name, known)}")
    return Question.read(**{**known, **question, "interval": interval})


def _refuse(fit: Fit, source: Source, asked: Question) -> None:
    """Refuse questions whose answer is no size's, and what plays no part in them."""
    plannable(source.law)
    if is_trajectory(source):
        raise ConfigError(
            "runs are chosen for laws of size and tokens, not of steps; use one like chinchilla"
        )
    if asked.measured_gap is not None or asked.quantize_to == "lowest":
        raise ConfigError(
            "runs are chosen to narrow sizes, tokens, bits and losses; ask for these, like budget='1e22 flops'"
        )
    all_read(source, asked)
    if not source.drawn or "loss" not in fit.noise:
        raise ConfigError(
            "the fit has no draws, so nothing tells how wide its answers are; fit more independent runs, with draws"
        )


def _optima(source: Source, asked: Question) -> Best:
    """The answer to the question, at the estimate and in every draw."""
    search, _ = pose(source, asked)
    each = search.each()
    k = int(np.argmin(each.loss))
    if not np.isfinite(each.loss[k]):
        raise LawError("the question has no answer within its limits and the law's domain; ask `plan` why")
    point, drawn = each.at(np.array([k])), search.in_draws(each)
    return Best(
        *(np.concatenate(pair) for pair in zip(vars(point).values(), vars(drawn).values(), strict=True))
    )


def _value(name: str, found: Best) -> Array:
    """An answer on the scale on which its width is measured."""
    values: Array = getattr(found, name)
    return np.log(values) if name in FACTORS else values


def _names(found: Best, narrow: Sequence[str] | None) -> list[str]:
    """The answers to be narrowed; those that are the same in every draw are no answers."""
    if narrow is not None:
        for name in narrow:
            if name not in NARROWED:
                raise ConfigError(f"narrow: a plan does not answer {name!r}; {nearest(name, NARROWED)}")
    wanted = [name for name in NARROWED if (name in narrow if narrow is not None else name != "loss")]
    open_ = [name for name in wanted if _spread(name, found) > SURE]
    if narrow is None and not open_ and _spread("loss", found) > SURE:
        open_ = ["loss"]
    if not open_:
        raise ConfigError(
            f"the question leaves nothing open of {', '.join(wanted)}: every draw gives the same; narrow another answer"
        )
    return open_


def _spread(name: str, found: Best) -> float:
    """Of an answer over the draws that have one."""
    values = _value(name, found)[1:]
    values = values[np.isfinite(values)]
    return float(np.ptp(values)) if len(values) else 0.0


def _stretch(df: int) -> float:
    """What Student's draws are wider than normal ones by, which the noise that measurements are weighed with shares."""
    df = max(df, WIDEST)
    return math.sqrt(df / (df - 2))


def _fewer_tails(df: int, more: int, interval: float) -> float:
    """How much narrower Student's interval is with more independent trunks."""
    now, then = (student_quantile(n, 0.5 + interval / 2) for n in (df, df + more))
    return then / now


def _narrowed(name: str, values: Array, shrunk: float, interval: float) -> Narrowed:
    tail = (1 - interval) / 2
    low, high = (float(x) for x in np.nanquantile(values[1:], [tail, 1 - tail]))
    after = shrunk * (high - low)
    value = float(values[0])
    if name in FACTORS:
        return Narrowed(
            name, math.exp(value), math.exp(low), math.exp(high), math.exp(high - low), math.exp(after)
        )
    return Narrowed(name, value, low, high, high - low, after)


def _notes(source: Source, fit: Fit, basket: Basket, shop: Shop, spend: float, lost: int) -> tuple[str, ...]:
    draws = len(source.theta) - 1
    notes = [
        f"expected from the covariances of {draws} draws ({source.method}) and a noise of {fit.noise['loss']:.2g} on "
        f"losses, of whose variance ends of one trunk are taken to share {SHARED:.0%}",
        "what is expected holds if the law does, down to the smallest and shortest of these runs; where such runs bend "
        "away from it, give candidates without them",
        "runs cost 6 N D in whatever precision, as where low precision is emulated; a cooldown costs 20% of its budget",
    ]
    if source.count:
        notes.append(
            f"N counts {source.count} parameters, as in the fit; the files take sizes for parameters without embeddings"
        )
    if not len(basket.cells):
        cheapest = float((shop.tokens * shop.token_flops).min())
        notes.append(
            f"no run is worth it: the cheapest costs {cheapest:.3g} FLOPs"
            if cheapest > spend
            else "no candidate would narrow the answer by anything that counts"
        )
    if lost:
        notes.append(f"{lost} of {draws} draws have no answer to this question and are left out")
    if fit.df < WIDEST:
        notes.append(
            f"the draws have {fit.df} degrees of freedom: widths are rough until there are more trunks"
        )
    return tuple(notes)
