"""A prediction pinned before the run, to be scored when the run has finished."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BitlawError, ConfigError, DataError
from ..files import whole
from .result import Fit, plain, read_number

FORMAT = 1
MAX_BYTES = 2**20


@dataclass(frozen=True)
class Forecast:
    """What a fit says of a run that is not trained yet.

    Attributes:
        inputs: the run: params, tokens, bits.
        loss: predicted, in nats a token.
        low, high: prediction interval: of the law, and of the noise of one run.
        confidence_low, confidence_high: interval of the law alone.
        level: of both.
        beyond: how many times each input exceeds the largest that was fitted.
        law: name of the law.
        rows_sha256: hash of the rows it was fitted to.
        made: UTC time of the forecast.
    """

    inputs: Mapping[str, float | str]
    loss: float
    low: float
    high: float
    confidence_low: float
    confidence_high: float
    level: float
    beyond: Mapping[str, float]
    law: str
    rows_sha256: str
    made: str

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
        return plain({"bitlaw_forecast": FORMAT, **vars(self)})

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
        from ..units import format_quantity

        run = ", ".join(
            f"{k} {v if isinstance(v, str) else format_quantity(v)}" for k, v in self.inputs.items()
        )
        text = (
            f"Forecast by {self.law} for {run}: loss {self.loss:.4f} "
            f"({self.level:.0%} prediction interval {self.low:.4f} to {self.high:.4f}; of the law alone "
            f"{self.confidence_low:.4f} to {self.confidence_high:.4f})."
        )
        far = ", ".join(f"{k} {v:.1f} times" for k, v in self.beyond.items() if v > 1.05)
        return text + (f"\nExtrapolated: {far} the largest that was fitted." if far else "")


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
            f"the loss lies {where} its {f.level:.0%} prediction interval {f.low:.4f} to {f.high:.4f}."
        )


def forecast(fit: Fit, **inputs: float | str) -> Forecast:
    """Predict the loss of one run, with the interval in which it should fall.

    The draws of the law are joined with the noise of single runs that the fit found; a run like those
    fitted is assumed, with one seed.

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
    losses = losses[np.isfinite(losses)]
    rng = np.random.default_rng(0)
    many = np.tile(losses, 20)
    noise = np.sqrt(fit.df / rng.chisquare(max(fit.df, 1), len(many))) * rng.standard_normal(len(many))
    alone = many * np.exp(fit.noise.get("loss", 0.0) * noise)
    tail = (1 - fit.level) / 2
    low, high = np.quantile(alone, [tail, 1 - tail])
    law_low, law_high = np.quantile(losses, [tail, 1 - tail])
    return Forecast(
        inputs=dict(inputs),
        loss=loss,
        low=float(low),
        high=float(high),
        confidence_low=float(law_low),
        confidence_high=float(law_high),
        level=fit.level,
        beyond={
            c: float(v) / fit.ranges[c][1]
            for c, v in inputs.items()
            if c in ("params", "tokens") and c in fit.ranges and not isinstance(v, str)
        },
        law=fit.law.name,
        rows_sha256=fit.provenance.rows_sha256,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def load_forecast(path: str | os.PathLike[str]) -> Forecast:
    """Read a forecast that `Forecast.save` pinned; numbers are checked, no code can run.

    Raises:
        DataError: not a forecast, damaged, or of another version.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than a forecast can be")
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["bitlaw_forecast"] != FORMAT:
            raise DataError(f"{path} was written by another version of bitlaw ({data['bitlaw_forecast']!r})")
        inputs = {str(k): v if isinstance(v, str) else read_number(v) for k, v in data["inputs"].items()}
        return Forecast(
            inputs=inputs,
            loss=read_number(data["loss"]),
            low=read_number(data["low"]),
            high=read_number(data["high"]),
            confidence_low=read_number(data["confidence_low"]),
            confidence_high=read_number(data["confidence_high"]),
            level=read_number(data["level"]),
            beyond={str(k): read_number(v) for k, v in data["beyond"].items()},
            law=str(data["law"]),
            rows_sha256=str(data["rows_sha256"]),
            made=str(data["made"]),
        )
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, BitlawError) as error:
        raise DataError(f"{path} is not a pinned forecast ({error!r})") from error
