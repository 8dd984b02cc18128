"""What stands between a folder from a stranger and the model that is read from it. Nothing in it can run code."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import safetensors

from ...errors import DataError

MAX_JSON = 2**26  # bytes
MANIFEST = "MANIFEST.json"
_WEIGHTS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def read_json(path: Path) -> dict[str, Any]:
    """Read an object from a JSON file of sensible size.

    Raises:
        DataError: it is none.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_JSON + 1)
        if len(raw) > MAX_JSON:
            raise DataError(f"{path} is larger than {MAX_JSON >> 20} MiB; that is not what it should hold")
        found = json.loads(raw)
    except FileNotFoundError:
        raise DataError(f"there is no {path.name} in {path.parent}; is it the folder of a model?") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {ascii(str(error))[1:-1][:100]}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no JSON object")
    return found


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, as its index names them where there is one.

    Raises:
        DataError: there are none, only pickles, or names that lead out of the folder.
    """
    index = folder / "model.safetensors.index.json"
    if index.exists():
        if (folder / "model.safetensors").exists():
            raise DataError(
                f"{folder} holds model.safetensors and an index of other files; remove what is not meant"
            )
        places = read_json(index).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise DataError(f"{index} has no weight_map")
        names = sorted({str(name) for name in places.values()})
    else:
        names = ["model.safetensors"]
    for name in names:
        if not _WEIGHTS.fullmatch(name):
            raise DataError(
                f"{index} names the file {ascii(name)[:80]}, which is no safetensors file beside it"
            )
    files = [folder / name for name in names]
    for file in files:
        if not file.is_file():
            pickles = [p.name for p in folder.iterdir() if p.suffix in _PICKLES]
            if pickles:
                raise DataError(
                    f"{folder} holds its weights as pickles ({pickles[0]}), which can run code when they are read; "
                    "save the model as safetensors"
                )
            raise DataError(f"there is no {file.name} in {folder}; the folder is not whole")
    return files


def tensor_shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in safetensors files, from their headers alone.

    Raises:
        DataError: a file is torn or no safetensors file, or a name comes twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safetensors.safe_open(file, framework="pt") as tensors:
                found = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        except (safetensors.SafetensorError, OSError) as error:
            raise DataError(f"{file} is damaged, or no safetensors file: {error}") from error
        for name, shape in found.items():
            if name in shapes:
                raise DataError(f"the tensor {ascii(name)[:80]} is in two files of {file.parent}")
            shapes[name] = shape
    return shapes


def write_manifest(folder: Path) -> None:
    """Note the hash of every file of a folder."""
    hashes = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")


def check_manifest(folder: Path) -> None:
    """Compare every file of a folder with the hash that was noted when it was written.

    Raises:
        DataError: one is missing or has changed.
    """
    for name, expected in read_json(folder / MANIFEST).items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise DataError(f"{folder} has no {ascii(name)[:80]}, which its manifest names")
        if sha256(path) != expected:
            raise DataError(f"{path} is not what was written: its SHA-256 has changed; copy the folder again")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
