"""Files that are written whole or not at all, and TOML that is read with its size in mind."""

from __future__ import annotations

import errno
import os
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import ConfigError, DataError

MAX_DOTS = 300  # on one line of TOML: the time for a key like a.a.a grows with the square of its parts


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside a path; what is written there takes the path's place when all went well.

    Raises:
        DataError: the file cannot be written; what stood there before still does.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        cure = "" if path.parent.is_dir() else f"; make the folder {path.parent} first"
        raise DataError(f"cannot write {path}: {error.strerror or error}{cure}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def regular(path: Path, most: int) -> bytes:
    """What stands in a file that a stranger may have made; neither a pipe nor a device, which may never end.

    Args:
        path: the file.
        most: bytes that it may have; of a larger file comes one byte more, which tells.

    Raises:
        OSError: there is none, or it is something else.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    with path.open("rb") as file:
        return file.read(most + 1)


def read_toml(path: str | os.PathLike[str], max_bytes: int, hint: str = "name a TOML file") -> dict[str, Any]:
    r"""Read a TOML file that a stranger may have written.

    Args:
        path: the file.
        max_bytes: how large it may be.
        hint: what to do where there is no file.

    Returns:
        What stands in it; nothing is made of it yet.

    Raises:
        ConfigError: it cannot be read, is larger than that, or is not TOML.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.toml"
    ...     _ = path.write_text("[a]\nb = 1")
    ...     read_toml(path, 100)
    {'a': {'b': 1}}
    """
    shown = ascii(str(path))[1:-1][-100:]
    try:
        if not Path(path).is_file():
            raise ConfigError(f"there is no file {shown}; {hint}")
        with Path(path).open("rb") as file:
            raw = file.read(max_bytes + 1)
        if len(raw) > max_bytes:
            raise ConfigError(f"{shown} is larger than {max_bytes} bytes; shorten it")
        if any(line.count(b".") > MAX_DOTS for line in raw.split(b"\n")):
            raise ConfigError(f"{shown} has a line of more than {MAX_DOTS} dots; break it")
        return tomllib.loads(raw.decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {shown}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, of a whole number of 5000 digits
        raise ConfigError(f"{shown} is not valid TOML: {ascii(str(error))[1:-1][:200]}") from error
