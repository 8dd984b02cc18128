"""A watch on the interpreter: what is run, started or written while a reader reads."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: `exec` is the interpreter's own event for running a code object: eval, exec and imports all raise it.
#: `compile` is not here, for Python's parser raises it when it makes a tree and no code.
ACTS = {
    "exec",
    "os.system",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.putenv",
    "subprocess.Popen",
    "shutil.rmtree",
    "pty.spawn",
    "ctypes.dlopen",
    "socket.connect",
    "socket.getaddrinfo",
    "urllib.Request",
    "pickle.find_class",
    "marshal.loads",
    "code.__new__",
    "function.__new__",
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
_seen: list[str] | None = None
_installed = False


def _hook(event: str, args: tuple) -> None:
    if _seen is None:
        return
    if event in ACTS:
        _seen.append(f"{event} {str(args)[:120]}")
    elif event == "open" and isinstance(args[2], int) and args[2] & _WRITING:
        _seen.append(f"write {str(args[0])[:120]}")


@contextmanager
def watched() -> Iterator[list[str]]:
    """Give the list of what was done within; modules must have been imported before.

    A hook cannot be taken away again, so there is one, which does nothing outside of this.
    """
    global _seen, _installed
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True
    done: list[str] = []
    _seen = done
    try:
        yield done
    finally:
        _seen = None
