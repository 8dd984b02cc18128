"""How long a quantised model takes to come back, as a plan: no law is asked, but a record of the model itself."""

from __future__ import annotations

import math

from ..errors import ConfigError
from .answer import Answer, Plan
from .question import Question
from .record import Record
from .recovery import METHOD, recovery

READS = {"loss", "within", "learning_rate", "momentum", "batch", "steps"}


def how_long_back(record: Record, asked: Question) -> Plan:
    """Answer how many steps of training bring a recorded model to a loss.

    Args:
        record: of the model, as `bitlaw.lab.dynamics.linearise` made it.
        asked: the question: learning_rate, and the loss or how far above the loss before quantisation (`within`).

    Raises:
        ConfigError: arguments that play no part, or that are missing.
        LawError: a rate beyond the stability limit, or a model that does not stay what it is on the way.
    """
    asked.only("a question to a record", READS | {"interval"})
    if asked.learning_rate is None:
        raise ConfigError("a record is of a model, and time hangs on the rate: give learning_rate, like 0.05")
    if (asked.loss is None) == (asked.within is None):
        raise ConfigError(
            "say where to: loss, or within how much of the loss before quantisation, and not both"
        )
    if asked.within is not None and math.isnan(record.reference):
        raise ConfigError("the record does not say the loss before quantisation; give the loss to be reached")
    found = recovery(
        record,
        learning_rate=asked.learning_rate,
        target=asked.loss,
        within=asked.within,
        optimizer=record.optimizer,
        momentum=asked.momentum,
        batch=asked.batch,
        steps=asked.steps,
        interval=asked.interval,
    )
    drawn = not math.isnan(found.level)
    notes = [
        *found.notes,
        *([f"features move by {found.drift:.0%} on the way"] if record.moved else []),
        f"unstable from a rate of {found.limit:.3g}",
    ]
    if not found.reached:
        notes.insert(0, f"'without end' means more than {found.horizon:,} steps")
    return Plan(
        question=f"Steps of {found.optimizer} from a loss of {found.start:.4f} to {found.target:.4f}",
        law="no law: the model as a straight line in its weights (Zancato et al. 2020, 2010.12478)",
        answers=(
            Answer("steps", found.steps, found.low, found.high),
            Answer("loss", found.target, given=True),
            Answer("learning_rate", found.learning_rate, given=True),
        ),
        options=(),
        level=found.level,
        tolerance=asked.tolerance,
        notes=tuple(notes),
        method=METHOD if drawn else "",
    )
