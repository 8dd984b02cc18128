"""Folders that one engine at a time works in, and the names that engines have in a store."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO

from ...errors import StoreError


@contextmanager
def alone(folder: Path) -> Iterator[str]:
    """Let one study or sweep at a time work in a folder; the lock is gone when its process is.

    Returns:
        The name of who works there, the same every time.

    Raises:
        StoreError: the folder cannot be written, or another study is running in it.
    """
    file = _locked(folder)
    if file is None:
        raise StoreError(
            f"another study is running in {folder}; wait for it, or choose another folder"
        ) from None
    with file:
        yield _name(file)


@contextmanager
def own_place(folder: Path) -> Iterator[tuple[Path, str]]:
    """The first of the folders HOST-1, HOST-2, ... that no other process works in, and the name of who works there.

    An engine that was killed so finds its checkpoints when it is started again.

    Raises:
        StoreError: the folder cannot be written.
    """
    for k in count(1):
        place = folder / f"{socket.gethostname()}-{k}"
        file = _locked(place)
        if file is not None:
            with file:
                yield place, _name(file)
            return


def _locked(folder: Path) -> IO[str] | None:
    """The folder's lock file, open and locked; None if another process has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+")
    except OSError as error:
        raise StoreError(f"cannot write in the folder {folder}: {error.strerror}") from error
    with suppress(ImportError):  # not on this system: rows are still safe, work may be done twice
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return None
    return file


def _name(file: IO[str]) -> str:
    """The name in a lock file; a new one if there is none yet."""
    file.seek(0)
    name = file.read().strip()
    if not name:
        name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        file.write(name)
        file.flush()
    return name
