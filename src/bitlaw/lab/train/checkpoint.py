"""Checkpoints that are either whole or absent.

A checkpoint is a folder with `state.safetensors` and `MANIFEST.json` (step, run, size, SHA-256). It is
written under a temporary name, flushed, and renamed; it counts only if the manifest agrees with the file.
safetensors alone loads a flipped bit without a word, hence the checksum. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from ...errors import LabError

KEEP = 2
log = logging.getLogger("bitlaw.lab")


def save(folder: Path, run: str, step: int, tensors: dict[str, Tensor]) -> None:
    """Write the state of a run at a step, and drop those before it but the newest; the folder is of one process.

    Raises:
        LabError: the disk is full, or the folder cannot be written; what was saved before is still there.
    """
    target = folder / f"step-{step:09d}"
    for torn in folder.glob("step-*.tmp-*"):  # of processes that were killed
        shutil.rmtree(torn, ignore_errors=True)
    temporary = folder / f"{target.name}.tmp-{os.getpid()}"
    data = safetensors.torch.save(tensors)
    manifest = {"run": run, "step": step, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    try:
        temporary.mkdir(parents=True)
        _write(temporary / "state.safetensors", data)
        _write(temporary / "MANIFEST.json", json.dumps(manifest).encode())
        _sync(temporary)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
        _sync(folder)
    except OSError as error:  # a full disk does not need what it has of this
        shutil.rmtree(temporary, ignore_errors=True)
        raise LabError(
            f"cannot save a checkpoint in {folder}: {error.strerror}; make room, or choose another folder, and run the "
            "same command again"
        ) from error
    # Those of later steps stay: if they are damaged, they must not push out what is saved now.
    for old in [path for path in _newest_first(folder) if path.name <= target.name][KEEP:]:
        shutil.rmtree(old, ignore_errors=True)


def load(folder: Path, run: str, at_most: int) -> tuple[int, dict[str, Tensor]] | None:
    """Return (step, tensors) of the newest intact checkpoint of a run, no later than a step.

    A torn, truncated, altered or foreign checkpoint is passed over with a warning.
    """
    damaged = False
    for path in _newest_first(folder):
        try:
            manifest = json.loads((path / "MANIFEST.json").read_bytes())
            data = (path / "state.safetensors").read_bytes()
            if manifest["run"] != run or path.name != f"step-{manifest['step']:09d}":
                raise ValueError("it belongs to another run or step")
            if len(data) != manifest["bytes"] or hashlib.sha256(data).hexdigest() != manifest["sha256"]:
                raise ValueError("its checksum does not match")
            if manifest["step"] <= at_most:
                return manifest["step"], safetensors.torch.load(data)
        except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
            damaged = True
            log.warning("checkpoint %s is damaged (%s); using the one before it", path, error)
    if damaged:
        log.warning("there is no intact checkpoint in %s; beginning at the first step", folder)
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("step-*") if ".tmp-" not in p.name), reverse=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
