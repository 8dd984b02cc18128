"""Documents, one after the other, from whatever holds them; the sources are a stranger's."""

from __future__ import annotations

import codecs
import gzip
import json
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import polars as pl

from ...errors import DataError, LabError

LONGEST = 64 * 2**20  # bytes of one line of JSONL
ROWS = 1000  # of Parquet read at a time
PIECE = 2**20  # bytes decoded at a time when text is told from other data


def read_documents(source: str | None, limit: int) -> Iterator[bytes]:
    """Yield the documents of a source as UTF-8, none much longer than a limit.

    Args:
        source: None for the running Python's standard library without its tests; a folder of text files; a text
            file, which is one document; `.jsonl`, `.jsonl.gz` or `.parquet`, with `#FIELD` after it where the text
            is not in `text`; `package:NAME`; or `hf:NAME[:CONFIG]`, with `#FIELD` too.
        limit: bytes of one document.

    Raises:
        DataError: no such source, or one that is damaged.
        LabError: a data set of the hub cannot be had.
    """
    if source is None:
        yield from _folder(Path(sysconfig.get_paths()["stdlib"]), "*.py", STDLIB_SKIPS, limit)
        return
    if source.startswith("package:"):
        from .packages import built

        yield from _jsonl(built(source.removeprefix("package:")), "text")
        return
    if source.startswith("hf:"):
        name, _, field = source.removeprefix("hf:").partition("#")
        yield from _hub(name, field or "text")
        return
    path, field = Path(source), "text"
    try:
        if not path.exists() and "#" in path.name:
            head, _, field = source.rpartition("#")
            path = Path(head)
        found = path.exists()
    except OSError as error:
        raise DataError(f"cannot look at corpus {source[:80]}: {error.strerror}") from error
    if not found:
        raise DataError(f"corpus {path} does not exist; name a folder or file of text, or package:NAME")
    if path.is_dir():
        yield from _folder(path, "*", {".git"}, limit)
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        yield from _jsonl(path, field)
    elif path.suffix == ".parquet":
        yield from _parquet(path, field)
    else:
        yield from _text(path, limit)


STDLIB_SKIPS = {"site-packages", "dist-packages", "test", "tests", "__pycache__"}


def _folder(root: Path, pattern: str, skip: set[str], limit: int) -> Iterator[bytes]:
    for file in sorted(p for p in root.rglob(pattern) if not skip & set(p.relative_to(root).parts)):
        yield from _text(file, limit)


def _text(file: Path, limit: int) -> Iterator[bytes]:
    """The file as one document; a binary or unreadable one is passed over."""
    try:
        with file.open("rb") as stream:
            data = stream.read(limit + 1) if file.is_file() else b""
        decoder = codecs.getincrementaldecoder("utf-8")()
        for start in range(0, len(data), PIECE):  # whole, it would take up to five times its size
            decoder.decode(data[start : start + PIECE])
        decoder.decode(b"", final=len(data) <= limit)
    except (OSError, UnicodeDecodeError):
        return
    if data and b"\0" not in data:
        yield data


def _jsonl(path: Path, field: str) -> Iterator[bytes]:
    """The text of each line; blank lines are passed over."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            for line in _lines(stream):
                number += 1
                if not line.strip():
                    continue
                value = json.loads(line)
                text = value.get(field) if isinstance(value, dict) else None
                if not isinstance(text, str):
                    raise ValueError(f"no text in {field!r}; name another field with #FIELD after the path")
                yield text.encode("utf-8")
    except (ValueError, RecursionError) as error:
        reason = ascii(str(error))[1:-1][:200]
        raise DataError(f"corpus {path}, line {max(number, 1)}: {reason}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read corpus {path} after line {number}: {error}") from error


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    while line := stream.readline(LONGEST + 1):
        if len(line) > LONGEST:
            yield b""  # so that the number of the line is right
            raise ValueError(f"the line is longer than {LONGEST >> 20} MiB")
        yield line


def _parquet(path: Path, column: str) -> Iterator[bytes]:
    """The texts of a column; empty cells are passed over."""
    try:
        table = pl.scan_parquet(path, glob=False)
        schema = table.collect_schema()
        if schema.get(column) != pl.String:
            held = ", ".join(f"{name} ({kind})" for name, kind in list(schema.items())[:8])
            raise DataError(
                f"corpus {path} has no column {column!r} of text but {held}; name one with #COLUMN after the path"
            )
        start = 0
        while len(texts := table.select(column).slice(start, ROWS).collect().to_series()):
            for text in texts:
                if text is not None:
                    yield text.encode("utf-8")
            start += ROWS
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(f"cannot read corpus {path}: {ascii(str(error))[1:-1][:200]}") from error


def _hub(name: str, field: str) -> Iterator[bytes]:
    """The texts of a data set of the Hugging Face hub, its training split; no code of its own is run."""
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise LabError('data sets of the hub need the library datasets: pip install "bitlaw[hf]"') from error
    path, _, config = name.partition(":")
    try:
        for row in load_dataset(path, config or None, split="train", streaming=True):
            if not isinstance(row.get(field), str):
                raise DataError(f"corpus hf:{name} has no text in {field!r}; it has {', '.join(row)[:200]}")
            yield row[field].encode("utf-8")
    except DataError:
        raise
    except Exception as error:  # of the network and of the library, which has many
        reason = ascii(str(error).strip().split("\n")[0])[1:-1][:200]
        raise LabError(
            f"cannot have the data set hf:{name} ({type(error).__name__}: {reason}); is there a network? "
            "A folder or package:NAME needs none"
        ) from error
