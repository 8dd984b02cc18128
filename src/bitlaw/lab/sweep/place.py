"""Folders that one engine at a time works in, and the names that engines have in a store."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from collections.abc import Collection, Iterator
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
        StoreError: the folder cannot be written or locked, or another study is running in it.
    """
    file = _locked(folder)
    if file is None:
        raise StoreError(f"another study is running in {folder}; wait for it, or choose another folder")
    with file:
        yield _name(folder, file)


@contextmanager
def own_place(folder: Path) -> Iterator[tuple[Path, str]]:
    """The first of the folders HOST-1, HOST-2, ... that no other process works in, and the name of who works there.

    An engine that was killed so finds its checkpoints when it is started again.

    Raises:
        StoreError: the folder cannot be written or locked.
    """
    for k in count(1):
        place = folder / f"{socket.gethostname()}-{k}"
        file = _locked(place)
        if file is not None:
            with file:
                yield place, _name(place, file)
            return


def clear(folder: Path, works: Collection[str]) -> None:
    """Remove the checkpoints of finished work from places of this machine that nobody works in any more.

    Engines that were killed, and not started again, leave them behind.
    """
    for place in folder.glob(f"{socket.gethostname()}-*"):
        file = _locked(place)
        if file is not None:
            with file:
                for work in works:
                    shutil.rmtree(place / work, ignore_errors=True)


def _locked(folder: Path) -> IO[str] | None:
    """The folder's lock file, open and locked; None if another process has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+")
    except OSError as error:
        raise _unwritable(folder, error) from error
    with suppress(ImportError):  # not on this system: rows are still safe, work may be done twice
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError as error:  # some network file systems have no locks
            file.close()
            raise StoreError(
                f"cannot lock a file in {folder}: {error.strerror}; choose a folder on a disk of this machine"
            ) from error
    return file


def _name(folder: Path, file: IO[str]) -> str:
    """The name in the lock file of a folder; a new one if there is none yet."""
    try:
        file.seek(0)
        name = file.read().strip()
        if not name:
            name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
            os.write(file.fileno(), name.encode())  # nothing is left to be written when it is closed
    except OSError as error:
        raise _unwritable(folder, error) from error
    return name


def _unwritable(folder: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot write in the folder {folder}: {error.strerror}; choose another, or make room")
