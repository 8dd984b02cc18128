"""What a fit is: immutable, printable, and kept as JSON."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike

from ..errors import BitlawError, DataError
from ..files import whole
from ..laws import LAWS, Law, Parameter, from_spec
from ..runs import Count, Runs
from ..shell import printable
from . import reading
from .intervals import METHODS
from .objective import OBJECTIVES, Array, Block
from .rows import Rows

FORMAT = 2
MAX_BYTES = 100 * 2**20
MOST_NOTES = 1000
KINDS = ("loss", "gap")  # of rows
STATUSES = ("ok", "fixed", "at bound", "not identified")


@dataclass(frozen=True)
class Estimate:
    """A parameter's value and interval.

    `status` is one of `STATUSES`.
    """

    parameter: Parameter
    value: float
    low: float
    high: float
    status: str


@dataclass(frozen=True)
class HeldOut:
    """How a law predicts rows that it was not fitted to.

    Attributes:
        split: which rows were held out.
        rows: number of losses predicted.
        outside: how many of them lie outside the fitted law's domain; the errors are of the others.
        error: mean absolute relative error of the losses.
        bias: mean signed relative error, predicted minus measured.
        errors: signed relative error of each loss (rows,).
        index: place of each in the run table (rows,).
        cluster: cluster of each (rows,).
        gap_rows: number of gaps predicted.
        gap_error: median absolute error of the gaps as a share of the gap.
    """

    split: str
    rows: int
    outside: int
    error: float
    bias: float
    errors: tuple[float, ...]
    index: tuple[int, ...]
    cluster: tuple[int, ...]
    gap_rows: int
    gap_error: float


def score(split: str, theta: Array, train: Rows, test: Rows) -> HeldOut:
    """Predict held-out losses with what was fitted to the others, and say how well gaps are predicted."""
    if test.loss is None or not len(test.loss):
        return score_gaps(split, theta, train, test)
    held = held_out_errors(split, _predicted("total", theta, train, test.loss), test.loss)
    if test.gap is None or not len(test.gap):
        return held
    gaps = score_gaps(split, theta, train, test)
    return replace(held, gap_rows=gaps.rows, gap_error=gaps.gap_error)


def score_gaps(split: str, theta: Array, train: Rows, test: Rows) -> HeldOut:
    """Predict held-out gaps: errors are shares of the gap, or of its noise where that is larger."""
    assert test.gap is not None
    held = held_out_errors(split, _predicted("gap", theta, train, test.gap), test.gap)
    middle = float(np.median(np.abs(held.errors))) if held.errors else math.inf
    return replace(held, gap_rows=held.rows, gap_error=middle)


def _predicted(what: str, theta: Array, train: Rows, block: Block) -> Array:
    """Predictions, infinite outside the law's domain and for labels that no fitted row had."""
    predicted = train.law.compiled.guarded(what, theta, block.data)
    for i in train.law.inputs:
        if i.label is not None and not any(b.data[i.column].any() for b in train.blocks()):
            predicted = np.where(block.data[i.column] > 0, np.inf, predicted)
    return predicted


def held_out_errors(split: str, predicted: Array, block: Block) -> HeldOut:
    """Relative errors of predictions of a block; those that are not finite count as outside the law's domain."""
    inside = np.isfinite(predicted)
    measured = block.measured[inside]
    scale = np.hypot(measured, block.noise[inside]) if block.kind == "gap" else measured
    relative = (predicted[inside] - measured) / scale
    return HeldOut(
        split=split,
        rows=len(inside),
        outside=int((~inside).sum()),
        error=float(np.abs(relative).mean()) if inside.any() else math.inf,
        bias=float(relative.mean()) if inside.any() else math.inf,
        errors=tuple(float(x) for x in relative),
        index=tuple(int(x) for x in block.row[inside]),
        cluster=tuple(int(x) for x in block.cluster[inside]),
        gap_rows=0,
        gap_error=math.nan,
    )


@dataclass(frozen=True)
class Provenance:
    """Where a fit came from."""

    source: str
    rows_sha256: str
    bitlaw: str
    made: str

    @classmethod
    def of(cls, runs: Runs) -> Provenance:
        """Describe a table."""
        digest = hashlib.sha256(runs.frame.write_csv().encode()).hexdigest()
        made = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(runs.source, digest, version("bitlaw"), made)


@dataclass(frozen=True)
class Fit:
    """A law fitted to rows.

    Attributes:
        law: the law, without terms the rows say nothing about.
        estimates: value, interval and status of each parameter.
        draws: bootstrap draws of all parameters (draws, p).
        level: of the intervals.
        method: how they were made.
        df: degrees of freedom behind them, clusters - free parameters.
        notes: what was left out, is not identified or should be known.
        converged: whether the solver reached its tolerance.
        objective: what was minimised.
        cost: its value at the estimates, residuals on their own scale.
        noise: noise of each kind of row estimated from its residuals, on their scale: relative for logarithms and gaps,
            nats per token where raw losses were minimised.
        tails: by kind of row, how many times the noise a normal spread has to be to hold as many residuals as `level`.
        delta: Huber's delta where it was given.
        rows: number of rows used, by kind.
        clusters: number of independent clusters among them.
        count: convention by which N is counted.
        ranges: lowest and highest value of each input among the rows; of bits, where quantised; also of tokens per
            parameter, and of parameters times tokens.
        held_out: error on held-out rows, from a fit without them.
        provenance: where the rows came from.
    """

    law: Law
    estimates: tuple[Estimate, ...]
    draws: Array
    level: float
    method: str
    df: int
    notes: tuple[str, ...]
    converged: bool
    objective: str
    cost: float
    noise: Mapping[str, float]
    delta: float | None
    rows: Mapping[str, int]
    clusters: int
    count: str
    ranges: Mapping[str, tuple[float, float]]
    held_out: HeldOut | None
    provenance: Provenance
    tails: Mapping[str, float] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        """The estimates by name."""
        return {e.parameter.name: e.value for e in self.estimates}

    def __post_init__(self) -> None:
        # Notes quote names of the rows, which may hold anything.
        object.__setattr__(self, "notes", tuple(printable(note.replace("\n", " ")) for note in self.notes))

    @property
    def counting(self) -> Count:
        """How to count N of other rows as those of the fit were counted."""
        named: Count = self.count if self.count in get_args(Count) else "as_given"  # type: ignore[assignment]
        return named

    def is_of(self, runs: Runs) -> bool:
        """Whether the fit was made from these very rows."""
        return Provenance.of(runs).rows_sha256 == self.provenance.rows_sha256

    @property
    def drawn_by(self) -> str:
        """How the draws were made: by `method`, but for profiles, which are of one constant at a time."""
        if self.method != "profile":
            return self.method
        return "residual" if self.clusters == sum(self.rows.values()) else "wild"

    def predict(self, **inputs: ArrayLike) -> Array:
        """Predict the loss after training and quantisation; as `Law.predict`."""
        return self.law.predict(self.values, **inputs)

    def band(self, what: str = "total", **inputs: ArrayLike) -> tuple[Array, Array]:
        """Return the confidence interval of a prediction, NaN without draws: of the `total` loss or of its `gap`."""
        data = self.law.arrange(inputs)
        function = self.law.compiled.total if what == "total" else self.law.compiled.gap
        shape = next(iter(data.values())).shape
        if not self.df:
            return np.full(shape, np.nan), np.full(shape, np.nan)
        flat = {name: column.reshape(-1) for name, column in data.items()}
        tail = (1 - self.level) / 2
        low, high = np.nanquantile(function(self.draws, flat), [tail, 1 - tail], axis=0)
        return low.reshape(shape), high.reshape(shape)

    def __str__(self) -> str:
        from .tell import fit_text

        return fit_text(self)

    def _repr_html_(self) -> str:
        from .tell import fit_html

        return fit_html(self)

    def as_json(self) -> dict[str, Any]:
        """Plain data, complete enough to load again; NaN becomes None."""
        held = vars(self.held_out) if self.held_out else None
        data = {
            "bitlaw_fit": FORMAT,
            "law": {"name": self.law.name, **self.law.spec.as_json()},
            "estimates": {
                e.parameter.name: {"value": e.value, "low": e.low, "high": e.high, "status": e.status}
                for e in self.estimates
            },
            "interval": {"level": self.level, "method": self.method, "kind": "confidence", "df": self.df},
            "notes": list(self.notes),
            "converged": self.converged,
            "objective": self.objective,
            "cost": self.cost,
            "noise": dict(self.noise),
            "tails": dict(self.tails),
            "delta": self.delta,
            "rows": dict(self.rows),
            "clusters": self.clusters,
            "count": self.count,
            "ranges": {name: list(pair) for name, pair in self.ranges.items()},
            "held_out": held,
            "provenance": vars(self.provenance),
            "draws": self.draws.tolist(),
        }
        return plain(data)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit as JSON, whole or not at all.

        Raises:
            DataError: the file cannot be written.
        """
        text = json.dumps(self.as_json(), indent=1, allow_nan=False)
        with whole(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def load_fit(path: str | os.PathLike[str]) -> Fit:
    """Read a fit that `Fit.save` wrote. Names are looked up and numbers are checked; no code can run.

    Raises:
        DataError: not a fit, damaged, or of a newer version.
    """
    path = Path(path)
    data = reading.read_json(
        path, "fit", "bitlaw_fit", MAX_BYTES, FORMAT, "make it again with: bitlaw fit RUNS --save"
    )
    try:
        spec = dict(data["law"])
        law, name = from_spec(spec), reading.text(spec["name"])
        known = LAWS.get(name)
        law = law.named(name, known.source if known and known.spec.base == law.spec.base else None)
        held, made = data["held_out"], data["interval"]
        fit = Fit(
            law=law,
            estimates=tuple(_estimate(p, data["estimates"][p.name]) for p in law.parameters),
            draws=np.array([[reading.number(x) for x in draw] for draw in data["draws"]]),
            level=reading.share(made["level"]),
            method=reading.text(made["method"], ("none", *METHODS)),
            df=reading.whole(made["df"]),
            notes=tuple(reading.text(n) for n in data["notes"]),
            converged=reading.truth(data["converged"]),
            objective=reading.text(data["objective"], OBJECTIVES),
            cost=reading.number(data["cost"]),
            noise={reading.text(k, KINDS): reading.number(v, 0) for k, v in data["noise"].items()},
            tails={reading.text(k, KINDS): reading.number(v, 1) for k, v in data.get("tails", {}).items()},
            delta=None if data["delta"] is None else reading.number(data["delta"], 0),
            rows={reading.text(k, KINDS): reading.whole(v) for k, v in data["rows"].items()},
            clusters=reading.whole(data["clusters"]),
            count=reading.text(data["count"]),
            ranges={reading.text(k): reading.reached(k, *pair) for k, pair in data["ranges"].items()},
            held_out=None if held is None else _held_out(held),
            provenance=Provenance(**{k: reading.text(v) for k, v in data["provenance"].items()}),
        )
        _check_bounds(fit)
        return fit
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, BitlawError) as error:
        raise DataError(
            f"{path} is not a complete fit ({repr(error)[:300]}); make it again with: bitlaw fit RUNS --save"
        ) from error


def _check_bounds(fit: Fit) -> None:
    """Refuse constants that no fit could have given.

    Linear ones are bounded by the rows, not by the law; bounds of those on the scale of a column are in units of its
    middle, which a fit does not keep.
    """
    if fit.draws.ndim != 2 or fit.draws.shape[1] != len(fit.estimates):
        raise ValueError(f"it has no draws of {len(fit.estimates)} parameters")
    if len(fit.notes) > MOST_NOTES:
        raise ValueError(f"it has more than {MOST_NOTES} notes")
    linear = fit.law.compiled.total.linear
    for k, e in enumerate(fit.estimates):
        values = np.append(fit.draws[:, k], e.value)
        free = k in linear or e.parameter.scale_of
        low, high = e.parameter.low, e.parameter.high
        if free:
            low, high = (-np.inf if low < 0 else 0.0), np.inf
        slack = 1e-9 * (abs(low) + 1)
        if values.min() < low - slack or values.max() > high * (1 + 1e-9):
            raise ValueError(f"{e.parameter.name} is out of bounds")


def _estimate(parameter: Parameter, data: Mapping[str, Any]) -> Estimate:
    low, high = reading.number_or_none(data["low"]), reading.number_or_none(data["high"])
    if low > high:
        raise ValueError(f"the interval of {parameter.name} ends before it begins")
    return Estimate(
        parameter, reading.number(data["value"]), low, high, reading.text(data["status"], STATUSES)
    )


def _held_out(data: Mapping[str, Any]) -> HeldOut:
    return HeldOut(
        split=reading.text(data["split"]),
        rows=reading.whole(data["rows"]),
        outside=reading.whole(data["outside"]),
        error=reading.number_or_none(data["error"]),
        bias=reading.number_or_none(data["bias"]),
        errors=tuple(reading.number_or_none(x) for x in data["errors"]),
        index=tuple(reading.whole(x) for x in data["index"]),
        cluster=tuple(reading.whole(x) for x in data["cluster"]),
        gap_rows=reading.whole(data["gap_rows"]),
        gap_error=reading.number_or_none(data["gap_error"]),
    )


def plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """Data that JSON can hold: it has no NaN and no infinity, so these become null."""

    def held(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: held(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [held(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {key: held(item) for key, item in data.items()}
