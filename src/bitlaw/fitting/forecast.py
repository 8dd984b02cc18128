"""A prediction pinned before the run, to be scored when the run has finished."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BitlawError, ConfigError, DataError
from ..files import whole
from ..formats import UNQUANTIZED
from ..laws import LAWS
from ..units import format_quantity, percent
from . import reading
from .diagnose import MISFIT
from .intervals import METHODS
from .result import Fit, plain

FORMAT = 2
MAX_BYTES = 2**20
REPEATS = 20  # single runs for each draw of the law


@dataclass(frozen=True)
class Forecast:
    """What a fit says of a run that is not trained yet.

    Attributes:
        inputs: the run: params, tokens, bits.
        loss: predicted, in nats per token.
        low, high: prediction interval: of the law, and of the noise of one run.
        confidence_low, confidence_high: interval of the law alone.
        level: of both.
        method: how the interval of the law was made.
        beyond: how many times each input lies above the largest or below the smallest that was fitted; else 1.
        count: convention by which N is counted.
        law: name of the law.
        rows_sha256: hash of the rows it was fitted to.
        made: UTC time of the forecast.
        notes: of the fit, why its intervals may be too narrow.
    """

    inputs: Mapping[str, float | str]
    loss: float
    low: float
    high: float
    confidence_low: float
    confidence_high: float
    level: float
    method: str
    beyond: Mapping[str, float]
    count: str
    law: str
    rows_sha256: str
    made: str
    notes: tuple[str, ...] = ()

    def score(self, loss: float) -> Score:
        """Compare with what the run came to.

        Raises:
            ConfigError: a loss that is not a positive number.
        """
        if isinstance(loss, bool) or not np.isfinite(loss) or loss <= 0:
            raise ConfigError(f"the loss of the finished run must be a positive number, not {loss}")
        return Score(self, float(loss))

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        data = plain({"bitlaw_forecast": FORMAT, "kind": "prediction", **vars(self)})
        return {**data, "sha256": _digest(data)}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Pin the forecast as JSON; a file that is there already is not overwritten.

        Raises:
            DataError: the file exists, or cannot be written.
        """
        if Path(path).exists():
            raise DataError(f"{path} exists; a pinned forecast is not overwritten: choose another name")
        text = json.dumps(self.as_json(), indent=1, allow_nan=False)
        with whole(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")

    def __str__(self) -> str:
        run = ", ".join(
            f"{k} {v if isinstance(v, str) else format_quantity(v)}" for k, v in self.inputs.items()
        )
        law = LAWS.get(self.law)
        what = "loss" if law is None else "gap" if law.loss == 0 else law.target
        text = (
            f"Forecast by {self.law} for {run}: {what} {self.loss:.4f} "
            f"({percent(self.level)} prediction interval {self.low:.4f} to {self.high:.4f}; confidence interval of the "
            f"law alone, {self.method}, {self.confidence_low:.4f} to {self.confidence_high:.4f}). N counted as "
            f"{self.count}."
        )
        far = ", ".join(f"{k} {v:.1f} times" for k, v in self.beyond.items() if v > 1.05)
        text += f"\nExtrapolated: {far} beyond what was fitted." if far else ""
        return "\n".join([text, *(f"Note: {note}." for note in self.notes)])


@dataclass(frozen=True)
class Score:
    """A forecast beside the loss that came."""

    forecast: Forecast
    loss: float

    @property
    def error(self) -> float:
        """Relative error of the forecast: predicted / measured - 1."""
        return self.forecast.loss / self.loss - 1

    @property
    def inside(self) -> bool:
        """Whether the loss lies in the prediction interval."""
        return self.forecast.low <= self.loss <= self.forecast.high

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return plain(
            {"loss": self.loss, "error": self.error, "inside": self.inside, "forecast": vars(self.forecast)}
        )

    def __str__(self) -> str:
        where = "inside" if self.inside else "outside"
        f = self.forecast
        return (
            f"The run came to {self.loss:.4f}; the forecast of {f.made} said {f.loss:.4f} ({self.error:+.2%}), and "
            f"the loss lies {where} its {percent(f.level)} prediction interval {f.low:.4f} to {f.high:.4f}."
        )


def forecast(fit: Fit, **inputs: float | str) -> Forecast:
    """Predict the loss of one run, with the interval in which it should fall.

    The draws of the law are joined with the spread of single runs, as wide as the residuals of the fit are at its
    level; a run like those fitted is assumed, with one seed.

    Args:
        fit: a fit with draws.
        **inputs: the run, as `Law.predict` takes them: params, tokens, bits, formats.

    Raises:
        ConfigError: a fit without draws, or inputs that the law does not know or needs.
        LawError: a run outside the law's domain.
    """
    if len(fit.draws) < 20:
        raise ConfigError("a forecast needs the draws of a fit; fit again with draws=400")
    loss = float(fit.law.predict(fit.values, **inputs))
    data = {name: np.atleast_1d(column) for name, column in fit.law.arrange(inputs).items()}
    losses = np.asarray(fit.law.compiled.total(fit.draws, data))[:, 0]
    gaps = np.broadcast_to(fit.law.compiled.gap(fit.draws, data), (len(losses), 1))[:, 0]
    inside = np.isfinite(losses) & np.isfinite(gaps)
    if inside.sum() < len(losses) / 2:
        raise ConfigError(
            "most draws of the fit say nothing of this run, which lies outside their domain; forecast a run nearer to "
            "the rows"
        )
    losses, gaps = losses[inside], gaps[inside]
    rng = np.random.default_rng(0)

    def noise(kind: str) -> np.ndarray:
        stretch = np.sqrt(fit.df / rng.chisquare(max(fit.df, 1), (REPEATS, len(losses))))
        spread = fit.noise.get(kind, 0.0) * fit.tails.get(kind, 1.0)
        return np.asarray(spread * stretch * rng.standard_normal(stretch.shape))

    trained = losses - gaps if "gap" in fit.noise else losses
    if fit.objective == "squares":  # noise is in nats
        single = losses + noise("loss") + np.where(gaps != 0, noise("gap"), 0.0)
    else:
        single = trained * np.exp(noise("loss"))
        if "gap" in fit.noise:
            single = single + gaps * np.exp(noise("gap"))
    tail = (1 - fit.level) / 2
    low, high = np.quantile(single, [tail, 1 - tail])
    law_low, law_high = np.quantile(losses, [tail, 1 - tail])
    return Forecast(
        inputs=dict(inputs),
        loss=loss,
        low=float(low),
        high=float(high),
        confidence_low=float(law_low),
        confidence_high=float(law_high),
        level=fit.level,
        method=fit.drawn_by,
        beyond={column: _beyond(column, value, fit.ranges) for column, value in inputs.items()},
        count=fit.count,
        law=fit.law.name,
        rows_sha256=fit.provenance.rows_sha256,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=tuple(note for note in fit.notes if note.startswith(MISFIT)),
    )


def load_forecast(path: str | os.PathLike[str]) -> Forecast:
    """Read a forecast that `Forecast.save` pinned; numbers are checked, no code can run.

    Raises:
        DataError: not a forecast, damaged, or of another version.
    """
    path = Path(path)
    data = reading.read_json(
        path,
        "pinned forecast",
        "bitlaw_forecast",
        MAX_BYTES,
        FORMAT,
        "pin one with: bitlaw forecast FIT --pin",
    )
    try:
        if _digest({k: v for k, v in data.items() if k != "sha256"}) != data["sha256"]:
            raise DataError(
                f"{path} was changed after it was pinned: its hash does not fit; make the forecast again"
            )
        inputs = {
            reading.text(k): reading.text(v) if isinstance(v, str) else reading.number(v)
            for k, v in data["inputs"].items()
        }
        low, high = reading.interval(data["low"], data["high"])
        law_low, law_high = reading.interval(data["confidence_low"], data["confidence_high"])
        return Forecast(
            inputs=inputs,
            loss=reading.number(data["loss"]),
            low=low,
            high=high,
            confidence_low=law_low,
            confidence_high=law_high,
            level=reading.share(data["level"]),
            method=reading.text(data["method"], METHODS),
            beyond={reading.text(k): reading.number(v, 1) for k, v in data["beyond"].items()},
            count=reading.text(data["count"]),
            law=reading.text(data["law"]),
            rows_sha256=reading.text(data["rows_sha256"]),
            made=reading.text(data["made"]),
            notes=tuple(reading.text(note) for note in data.get("notes", ())),
        )
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, BitlawError) as error:
        raise DataError(f"{path} is not a pinned forecast ({error!r})") from error


def _beyond(column: str, value: float | str, ranges: Mapping[str, tuple[float, float]]) -> float:
    """How many times a value lies outside of what was fitted; unquantised parts lie inside."""
    if isinstance(value, str) or column not in ranges or (column.endswith("_bits") and value >= UNQUANTIZED):
        return 1.0
    low, high = ranges[column]
    # Of none of what a column counts, like sparsity, no ratio says how far it is.
    if not value or low <= float(value) <= high:
        return 1.0
    return max(float(value) / high if high else math.inf, low / float(value))


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
