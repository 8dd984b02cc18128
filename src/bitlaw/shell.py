"""Commands that are shown to be pasted, and names that are shown on a terminal; a file may be called anything."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence


def without_password(text: str) -> str:
    """Text without the names and passwords of addresses in it.

    >>> without_password("cannot read mlflow:http://me:p@ss/word@host:5000/x")
    'cannot read mlflow:http://host:5000/x'
    """
    return re.sub(r"//\S*@", "//", text)


def printable(text: str) -> str:
    r"""Text with its control characters written out: none can move a cursor, change colours or turn the text about.

    >>> printable("runs\x1b[2J.csv")
    'runs\\x1b[2J.csv'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def join(words: Sequence[str]) -> str:
    r"""A command line that gives exactly these words, and holds no character that a terminal would act on.

    Args:
        words: of the command.

    Returns:
        One line for sh; for bash and zsh where a word holds what cannot be printed.

    >>> join(["bitlaw", "fit", "my runs.csv"]), join(["x\x03;\n"])
    ("bitlaw fit 'my runs.csv'", "$'x\\x03;\\x0a'")
    """
    return " ".join(shlex.quote(word) if word.isprintable() else f"$'{_written(word)}'" for word in words)


def path(name: str) -> str:
    """A file's name as a command takes it: none is an option.

    >>> path("--save=x.csv"), path("x.csv")
    ('./--save=x.csv', 'x.csv')
    """
    return f"./{name}" if name.startswith("-") else name


def _written(word: str) -> str:
    """A word as it stands between $' and ': bytes that are no UTF-8 are those that the system gave."""
    out = []
    for c in word:
        code = ord(c)
        if c in "\\'":
            out.append(f"\\{c}")
        elif c.isprintable():
            out.append(c)
        elif code < 0x80 or 0xDC80 <= code <= 0xDCFF:
            out.append(f"\\x{code & 0xFF:02x}")
        else:
            out.append(f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}")
    return "".join(out)
