"""How many steps until a quantised model is back: training time predicted without training.

The model is taken as a straight line in its weights, as `bitlaw.lab.dynamics.linearise` recorded it (Zancato et al.
2020, 2010.12478), and is trained in function space, one step of NumPy per step of the optimiser. This holds while
features stay where they are, and is refused where the record says that they move.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError, LawError
from ..fitting.result import plain
from ..units import percent
from .descent import Method, Part, descend
from .record import Array, Record

#: Most of the relative change of J^T r on the way to the target. If it grows evenly along the way and all of it counts,
#: the time is wrong by half of it, and 20 % is the error that the paper claims.
LAZY = 0.4
BY_HEART = 0.05  # of what was gained, lost again by the end
METHOD = "bootstrap of examples, the line taken as it is"


@dataclass(frozen=True)
class Recovery:
    """Steps to a loss, as predicted.

    Attributes:
        steps: first step after which the measured loss is at most the target; infinite where it never was.
        low, high: bootstrap interval over examples (and mini-batches); of the line's answer, not of its being a line.
        level: of the interval; NaN without one.
        horizon: most steps that were looked at.
        target: loss to be reached.
        start: loss before the first step.
        reference: loss of the model before quantisation; NaN means unknown.
        optimizer: `sgd` or `adam`.
        learning_rate, momentum, batch: of the steps; a batch of None is all examples.
        limit: rate from which on steps are unstable, by the curvature at the start.
        drift: relative change of J^T r on the way to the target, extrapolated from the record's few real steps.
        leading: share of the residual f_0 - y in the first 1, 2, ... eigenvectors of Theta.
        half: steps by the record's first half of directions alone; NaN where no direction is missing.
        curve: measured loss before the first step and after each.
        notes: what should be known.
    """

    steps: float
    low: float
    high: float
    level: float
    horizon: int
    target: float
    start: float
    reference: float
    optimizer: str
    learning_rate: float
    momentum: float
    batch: int | None
    limit: float
    drift: float
    leading: tuple[float, ...]
    half: float
    curve: tuple[float, ...]
    notes: tuple[str, ...]

    @property
    def reached(self) -> bool:
        """Whether the target is reached within the horizon."""
        return math.isfinite(self.steps)

    def as_json(self) -> dict[str, Any]:
        """Plain data; what is infinite or unknown becomes None."""
        return plain(asdict(self) | {"method": "" if math.isnan(self.level) else METHOD})

    def __str__(self) -> str:
        count = f"{self.steps:,.0f} steps" if self.reached else f"more than {self.horizon:,} steps"
        span = ""
        if not math.isnan(self.level):
            most = _most(self.steps, self.horizon)
            ends = [f"{x:,.0f}" if math.isfinite(x) else f"more than {most:,}" for x in (self.low, self.high)]
            span = f" ({percent(self.level)} confidence, {METHOD}: {ends[0]} to {ends[1]})"
        batch = "all examples" if self.batch is None else f"{self.batch} examples"
        momentum = f", momentum {self.momentum:g}" if self.momentum else ""
        shares = ", ".join(
            f"{self.leading[k - 1]:.0%} in {k}" for k in (1, 10, 100) if k <= len(self.leading)
        )
        lines = [
            f"{count}{span} from a loss of {self.start:.4f} to {self.target:.4f}",
            f"{self.optimizer} at {self.learning_rate:.3g}{momentum}, {batch} a step; unstable from {self.limit:.3g}",
            f"Features move by {self.drift:.0%} on the way; of the residual lie {shares} leading directions",
            *(f"Note: {note}." for note in self.notes),
        ]
        return "\n".join(lines)


def recovery(
    record: Record,
    *,
    learning_rate: float,
    target: float | None = None,
    within: float | None = None,
    optimizer: str = "sgd",
    momentum: float | None = None,
    batch: int | None = None,
    steps: int = 1000,
    interval: float = 0.90,
    draws: int = 40,
    lazy: float = LAZY,
    seed: int = 0,
) -> Recovery:
    """Predict how many steps of training bring a model to a loss.

        f <- f - eta Theta dL/df, one for each step;  v <- m v + dL/da with momentum

    Args:
        record: of the model as it stands, from `read_record`.
        learning_rate: constant.
        target: measured loss to be reached, in nats a prediction for cross-entropy; or
        within: how far above the record's reference, the loss before quantisation.
        optimizer: `sgd`, or `adam` for a record that holds Adam's scales; it must be the record's.
        momentum: as torch has it, 0 by default; of Adam beta1, 0.9 by default.
        batch: examples a step, drawn anew each time; None means all. For Adam that of the record.
        steps: most steps that are looked at.
        interval: level of the bootstrap interval.
        draws: of the bootstrap; 0 means no interval.
        lazy: most of the relative change of J^T r on the way that is allowed; infinite to look nonetheless.
        seed: of draws and mini-batches.

    Returns:
        Steps, interval, curve, and what speed hangs on; steps are infinite if the target is not reached.

    Raises:
        ConfigError: arguments that cannot mean anything.
        LawError: a rate beyond the stability limit, another optimiser than the record's, a model that does not stay
            what it is on the way.

    Source: Zancato et al. 2020 (2010.12478).

    >>> line = np.array([[[1.0]], [[2.0]]])  # y = 0 of f = x w with w = 1, x = 1 and 2: loss 2.5 w^2, curvature 5
    >>> record = Record(line, np.zeros((2, 1, 1)), line[..., None], "mse", trained=2)
    >>> recovery(record, learning_rate=0.1, target=0.6, draws=0).steps  # w halves at each step
    2.0
    """
    method = _method(record, optimizer, learning_rate, momentum, batch)
    _check(steps, interval, draws, lazy)
    trained = record.trained or len(record.outputs)
    directions = record.factor.shape[-1]
    train, measured = _parts(record, trained, directions)
    sharpness = float(np.linalg.eigvalsh(train.curvature())[-1])
    limit = method.limit(sharpness)
    if learning_rate >= limit:
        raise LawError(
            f"at a rate of {learning_rate:.3g} steps are unstable: the curvature allows less than {limit:.3g}; "
            "use a smaller one"
        )
    start = float(measured.losses(measured.f[None]).mean())
    goal = _goal(record, target, within, start)
    ones = (np.ones((1, train.count)), np.ones((1, measured.count)))
    found, curve, end = _passage(train, measured, method, ones, start - goal, steps, seed)
    first = float(found[0])
    distance = float(np.linalg.norm(end[0]))
    drift = record.drift * distance / record.moved if record.moved > 0 else 0.0
    if not drift <= lazy:
        raise LawError(
            f"features move: the gradient changes by {drift:.0%} on the way to the target, and {lazy:.0%} is allowed; "
            "ask for a target nearer the start; in Python, lazy=inf gives what a straight line says nonetheless"
        )
    half = math.nan
    if not record.exact and directions > 1:
        fewer = _parts(record, trained, directions // 2)
        half = float(_passage(*fewer, method, ones, start - goal, steps, seed)[0][0])
    low = high = math.nan
    if draws:
        counts = _counts(train, measured, draws, np.random.default_rng([seed, 1]))
        most = _most(first, steps)
        passages = np.sort(_passage(train, measured, method, counts, start - goal, most, seed + 1)[0])
        tail = (1 - interval) / 2 * (draws - 1)
        low, high = float(passages[math.floor(tail)]), float(passages[-1 - math.floor(tail)])
    return Recovery(
        steps=first,
        low=low,
        high=high,
        level=interval if draws else math.nan,
        horizon=steps,
        target=goal,
        start=start,
        reference=record.reference,
        optimizer=optimizer,
        learning_rate=learning_rate,
        momentum=method.momentum,
        batch=batch,
        limit=limit,
        drift=drift,
        leading=leading(record),
        half=half,
        curve=tuple(curve),
        notes=tuple(_notes(record, curve, first, half, low, high, steps)),
    )


def leading(record: Record) -> tuple[float, ...]:
    """Share of the residual of the examples that train in the first 1, 2, ... eigenvectors of Theta: what is fast.

    Of cross-entropy the residual is softmax(f_0) - y, of squared errors f_0 - y.
    """
    train, _ = _parts(record, record.trained or len(record.outputs), record.factor.shape[-1])
    r = train.slopes(train.f[None]).reshape(-1)
    G = train.G.reshape(-1, train.G.shape[-1])
    values, vectors = np.linalg.eigh(G.T @ G)
    order = np.argsort(values)[::-1]
    order = order[values[order] > values[order[0]] * 1e-12]
    along = np.square(vectors[:, order].T @ (G.T @ r)) / values[order]
    total = float(r @ r)
    return tuple(float(x) for x in np.minimum(np.cumsum(along) / total, 1)) if total > 0 else ()


def flow(record: Record, times: Array) -> Array:
    """Return the measured loss of gradient flow on squared errors, in closed form, at times t = eta x steps.

        f_t - y = exp(-(2 / n) Theta t) (f_0 - y),   n outputs in all

    Args:
        record: of squared errors.
        times: in units of rate x steps (S,).

    Returns:
        Losses (S,).

    Raises:
        LawError: another loss, for which there is no closed form.

    >>> line = np.array([[[1.0]], [[2.0]]])
    >>> record = Record(line, np.zeros((2, 1, 1)), line[..., None], "mse", trained=2)
    >>> flow(record, np.array([0.0, 0.2])).round(3)  # 2.5 exp(-2 x 5 t)
    array([2.5  , 0.338])
    """
    if record.loss != "mse":
        raise LawError(
            "gradient flow has a closed form for squared errors only; use recovery with a small rate"
        )
    train, measured = _parts(record, record.trained or len(record.outputs), record.factor.shape[-1])
    values, vectors = np.linalg.eigh(train.curvature())
    g = vectors.T @ train.gradient(train.f[None], np.ones((1, train.count)))[0]
    exponent = values * np.asarray(times)[:, None]
    flat = values <= values[-1] * 1e-14  # no curvature, and so no gradient there
    gone = np.where(flat, 0, -np.expm1(-exponent) / np.where(flat, 1, values))
    losses: Array = measured.losses(measured.outputs(-(gone * g) @ vectors.T)).mean(1)
    return losses


def _most(first: float, steps: int) -> int:
    """Steps at most that draws are followed for, where the estimate took `first`."""
    return min(steps, 4 * int(first) + 10) if math.isfinite(first) else steps


def _parts(record: Record, trained: int, directions: int) -> tuple[Part, Part]:
    train = Part(record, slice(0, trained), directions)
    rest = slice(trained, len(record.outputs))
    return train, train if trained == len(record.outputs) else Part(record, rest, directions)


def _passage(
    train: Part,
    measured: Part,
    method: Method,
    weights: tuple[Array, Array],
    drop: float,
    steps: int,
    seed: int,
) -> tuple[Array, list[float], Array]:
    """Steps after which each replica's loss has fallen by `drop`, the first one's curve, and where all are then."""
    first = np.full(len(weights[0]), np.inf)
    curve: list[float] = []
    goal, end = np.zeros(0), np.zeros(0)
    for step, (loss, end) in enumerate(  # noqa: B007
        descend(train, measured, method, weights, np.random.default_rng(seed))
    ):
        if step == 0:
            goal = loss - drop
        if not np.isfinite(loss).all():
            raise LawError(
                f"the loss is not finite after {step} steps; use a smaller rate, or a larger batch"
            )
        curve.append(float(loss[0]))
        first[(loss <= goal) & np.isinf(first)] = step
        if step == steps or np.isfinite(first).all():
            break
    return first, curve, end


def _counts(train: Part, measured: Part, draws: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """How often a bootstrap draw has each example."""
    first, other = (
        rng.multinomial(part.count, np.full(part.count, 1 / part.count), draws).astype(float)
        for part in (train, measured)
    )
    return first, first if measured is train else other


def _method(
    record: Record, optimizer: str, learning_rate: float, momentum: float | None, batch: int | None
) -> Method:
    if optimizer not in ("sgd", "adam"):
        raise ConfigError(f"there is no optimizer {optimizer!r} here; use 'sgd' or 'adam'")
    if optimizer != record.optimizer:
        raise LawError(
            f"the record is of {record.optimizer}, so it says nothing of {optimizer}; linearise "
            + ("without second_moments" if optimizer == "sgd" else "with second_moments")
        )
    momentum = (0.9 if optimizer == "adam" else 0.0) if momentum is None else momentum
    if not (math.isfinite(learning_rate) and learning_rate > 0) or not 0 <= momentum < 1:
        raise ConfigError(
            f"a rate of {learning_rate} with momentum {momentum}; use a rate above 0 and a momentum from 0 to below 1"
        )
    if batch is not None and batch < 1:
        raise ConfigError(f"{batch} examples a step; use 1 or more")
    if record.batch and (batch or record.trained or len(record.outputs)) != record.batch:
        raise LawError(
            f"the record's second moments are of batches of {record.batch} examples, and fall as batches grow; ask for "
            f"batch={record.batch}, or linearise with moments of the other"
        )
    return Method(learning_rate, momentum, batch, optimizer == "adam")


def _check(steps: int, interval: float, draws: int, lazy: float) -> None:
    if steps < 1 or draws < 0:
        raise ConfigError(f"{steps} steps and {draws} draws; use 1 or more steps, and 0 or more draws")
    if not 0 < interval < 1:
        raise ConfigError(f"interval must lie between 0 and 1, not {interval}; try 0.9")
    if not lazy > 0:
        raise ConfigError(f"lazy must be above 0, not {lazy}; try {LAZY}")


def _goal(record: Record, target: float | None, within: float | None, start: float) -> float:
    if (target is None) == (within is None):
        raise ConfigError("say where to: a target, or within how much of the reference, and not both")
    if target is None:
        assert within is not None
        if math.isnan(record.reference):
            raise ConfigError("the record has no reference that a loss could be within; give a target")
        target = record.reference + within
    if not target < start:
        raise ConfigError(f"the loss is {start:.4f} already; give a target below it, not {target:.4f}")
    return target


def _notes(
    record: Record, curve: list[float], first: float, half: float, low: float, high: float, steps: int
) -> list[str]:
    notes = []
    if record.moved == 0:
        notes.append("the record is of no real steps, so nothing tells whether features move")
    if math.isinf(first):
        notes.append(f"the target is not reached in {steps:,} steps")
        lowest = min(curve)
        if curve[-1] - lowest > BY_HEART * (curve[0] - lowest):
            notes.append(
                f"the measured loss turns up again after {curve.index(lowest):,} steps: the examples that train are "
                "learnt by heart, so linearise on more of them if training has more"
            )
    if not math.isnan(half) and half != first and not abs(half - first) <= 0.1 * first:
        told = f"{half:,.0f}" if math.isfinite(half) else f"more than {steps:,}"
        notes.append(
            f"half of the directions say {told} steps; more directions would move the answer further"
        )
    if abs(record.progress - 1) > 0.2:
        notes.append(
            f"the first real steps lowered the loss by {record.progress:.0%} of what the straight line says"
        )
    if math.isinf(high) and math.isfinite(low):
        most = _most(first, steps)
        notes.append(f"the interval is open above: some draws did not reach the target in {most:,} steps")
    return notes
