"""What is kept of a model that has been linearised, and how it is written."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors.torch
from torch import Tensor

from ...errors import ConfigError, DataError
from .line import Loss

FORMAT = 1


@dataclass(frozen=True)
class Linearised:
    """What is left of a model when it has been linearised.

    Shapes: W examples, T predictions each, C outputs a prediction, K directions.

    Attributes:
        outputs: f_0 (W, T, C); the first `trained` examples train, the others are measured.
        targets: classes (W, T), or values (W, T, C) for squared errors.
        factor: G = J Q (W, T, C, K), with D^(1/2) between them for Adam, whose steps are D times a gradient.
        loss: `cross-entropy`, or `mse`.
        optimizer: `sgd` or `adam`.
        trained: examples that train; if all of them do, they are measured too.
        reference: loss that is to be reached again; NaN means unknown.
        exact: whether no direction is missing.
        drift: relative change of J^T r over a few real steps, r the first slope of the loss in the outputs.
        moved: how far these steps went in weight space, by the measure in which Q is orthonormal.
        progress: by how much they lowered the loss, as a share of what the straight line says of the same steps.
        params: weights that are trained.
        seconds: that all of it took.
        batch: examples in a batch of Adam's second moments; 0 means unknown.
    """

    outputs: Tensor
    targets: Tensor
    factor: Tensor
    loss: Loss
    optimizer: Literal["sgd", "adam"]
    trained: int
    reference: float
    exact: bool
    drift: float
    moved: float
    progress: float
    params: int
    seconds: float
    batch: int = 0

    def save(self, folder: str | Path) -> None:
        """Write the record to a new folder: `record.safetensors`, and `MANIFEST.json` with its SHA-256.

        Raises:
            ConfigError: the folder exists.
            DataError: it cannot be written.
        """
        folder = Path(folder)
        if folder.exists():
            raise ConfigError(f"{folder} exists already; name another folder, or remove it")
        held = {"outputs": self.outputs, "targets": self.targets, "factor": self.factor}
        data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in held.items()})
        told = {k: v for k, v in vars(self).items() if k not in held}
        told["reference"] = None if math.isnan(self.reference) else self.reference
        manifest = {"bitlaw_dynamics": FORMAT, **told, "sha256": hashlib.sha256(data).hexdigest()}
        temporary = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
        try:
            temporary.mkdir(parents=True)
            (temporary / "record.safetensors").write_bytes(data)
            (temporary / "MANIFEST.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
            temporary.rename(folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise DataError(f"cannot write {folder}: {error.strerror or error}") from error
