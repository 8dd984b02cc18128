"""What the lab wrote of a model that it linearised, read without torch and without trust."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from ..fitting import reading

FORMAT = 1
MAX_BYTES = 2**31
MAX_MANIFEST = 2**16
MOST = 1e12  # of any number, so that no square leaves float32
CURE = "make it again with bitlaw.lab.dynamics.linearise"
LOSSES = ("cross-entropy", "mse")
OPTIMIZERS = ("sgd", "adam")
Array = NDArray[Any]  # float32 or float64, as the lab computed


@dataclass(frozen=True)
class Record:
    """A model as a straight line in few directions of its weights: f = f_0 + G a.

    Shapes: W examples, T predictions each, C outputs a prediction, K directions.

    Attributes:
        outputs: f_0 (W, T, C); the first `trained` examples train, the others are measured.
        targets: classes (W, T), or values (W, T, C) for squared errors.
        factor: G (W, T, C, K); in rising order of refinement, so that its first columns are a coarser record.
        loss: `cross-entropy`, the mean over predictions, or `mse`, the mean over outputs.
        optimizer: `sgd`, or `adam` where G holds the root of Adam's scale of each weight.
        trained: examples that train; if all do, which 0 stands for, they are measured too.
        reference: loss that is to be reached again; NaN means unknown.
        exact: whether no direction is missing.
        drift: relative change of J^T r over a few real steps.
        moved: how far these steps went, in the units of a.
        progress: by how much they lowered the loss, as a share of what the line says of the same steps.
        params: weights that are trained.
        seconds: that linearising took.
        batch: examples in a batch of Adam's second moments; 0 means unknown.
    """

    outputs: Array
    targets: Array
    factor: Array
    loss: str
    optimizer: str = "sgd"
    trained: int = 0
    reference: float = math.nan
    exact: bool = True
    drift: float = 0.0
    moved: float = 0.0
    progress: float = 1.0
    params: int = 0
    seconds: float = 0.0
    batch: int = 0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES or self.optimizer not in OPTIMIZERS:
            raise DataError(
                f"a record of the loss {self.loss[:40]!r} and optimizer {self.optimizer[:40]!r}; {CURE}"
            )
        shape = self.outputs.shape
        wanted = shape if self.loss == "mse" else shape[:2]
        if len(shape) != 3 or not self.outputs.size or self.targets.shape != wanted:
            raise DataError(f"a record with outputs {shape} and targets {self.targets.shape}; {CURE}")
        if self.factor.shape[:3] != shape or self.factor.ndim != 4 or not self.factor.size:
            raise DataError(f"a record with outputs {shape} and a factor {self.factor.shape}; {CURE}")
        if not 0 <= self.trained <= shape[0]:
            raise DataError(f"a record in which {self.trained} of {shape[0]} examples train; {CURE}")
        if self.loss != "mse" and not (
            self.targets.dtype.kind in "iu" and ((self.targets >= 0) & (self.targets < shape[2])).all()
        ):
            raise DataError(f"a record with targets that are none of its {shape[2]} classes; {CURE}")
        for name in ("outputs", "factor") + (("targets",) if self.loss == "mse" else ()):
            values = getattr(self, name)
            if values.dtype.kind != "f" or not (np.abs(values) < MOST).all():
                raise DataError(f"a record whose {name} are not all finite numbers, below {MOST:g}; {CURE}")


def read_record(folder: str | Path) -> Record:
    """Read what `bitlaw.lab.dynamics.Linearised.save` wrote. Nothing in it can run code.

    Raises:
        ConfigError: safetensors is not installed.
        DataError: there is no such folder, or what is in it is damaged, too large, or no record.
    """
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise ConfigError("records need safetensors; install it with: pip install safetensors") from error
    folder = Path(folder)
    told = reading.read_json(
        folder / "MANIFEST.json", "record", "bitlaw_dynamics", MAX_MANIFEST, FORMAT, CURE
    )
    path = folder / "record.safetensors"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than {MAX_BYTES >> 20} MiB; linearise on fewer examples")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != told.get("sha256"):
            raise DataError(f"{path} is not what was written: its SHA-256 has changed; {CURE}")
        held = safetensors.numpy.load(data)
        return Record(
            outputs=held["outputs"],
            targets=held["targets"],
            factor=held["factor"],
            trained=reading.whole(told["trained"]),
            exact=reading.truth(told["exact"]),
            params=reading.whole(told["params"]),
            reference=reading.number_or_none(told["reference"]),
            loss=reading.text(told["loss"]),
            optimizer=reading.text(told["optimizer"]),
            drift=reading.number(told["drift"], 0),
            moved=reading.number(told["moved"], 0),
            progress=reading.number(told["progress"]),
            seconds=reading.number(told["seconds"], 0),
            batch=reading.whole(told.get("batch", 0)),
        )
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; {CURE}") from error
    except (KeyError, TypeError, ValueError, OverflowError, safetensors.SafetensorError) as error:
        raise DataError(
            f"{folder} holds no whole record ({ascii(str(error))[1:-1][:100]}); {CURE}"
        ) from error
