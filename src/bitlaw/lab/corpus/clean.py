"""From members of an archive to documents of plain text; every size that an archive says is checked."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping

from ...errors import DataError

LARGEST = 128 * 2**20  # bytes of one unpacked stream
LENGTH = 50_000  # letters of a document that a book is cut into, at line ends


def inflate(data: bytes, bits: int = 15) -> tuple[bytes, bytes]:
    """Return one unpacked zlib stream (`bits` 31: gzip) and what follows it.

    Raises:
        DataError: it is damaged, or too large.
    """
    try:
        unpacker = zlib.decompressobj(bits)
        out = unpacker.decompress(data, LARGEST)
    except zlib.error as error:
        raise DataError(f"a compressed file is damaged: {error}") from error
    if not unpacker.eof:
        raise DataError(f"a compressed file is cut short, or larger than {LARGEST >> 20} MiB")
    return out, unpacker.unused_data


def plain(files: Mapping[str, bytes]) -> Iterator[str]:
    """Text files, gzipped or not, in pieces."""
    for name, data in files.items():
        text = inflate(data, 31)[0] if name.endswith((".gz", ".dz")) else data
        yield from cut(text.decode("utf-8", errors="replace"))


def cut(text: str) -> Iterator[str]:
    """A text in pieces of about `LENGTH`, at line ends; neighbours of one book are then documents of their own."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + LENGTH) + 1 or len(text)
        if piece := text[start:end].strip():
            yield piece
        start = end


def rfc(files: Mapping[str, bytes]) -> Iterator[str]:
    """RFCs without page feet and heads, a paragraph a line; each lies in two folders and is read once."""
    for data in {name.rpartition("/")[2]: data for name, data in files.items()}.values():
        text = inflate(data, 31)[0].decode("latin-1")
        text = re.sub(r"(?m)^.*\[Page \d+\]\s*$|^RFC \d+ .*\d{4}\s*$", "", text)
        paragraphs = (" ".join(p.split()) for p in re.split(r"\n\s*\n", text.replace("\f", "\n")))
        yield "\n".join(p for p in paragraphs if p)


def sword(files: Mapping[str, bytes]) -> Iterator[str]:
    """A SWORD module: an index of (offset, size, unpacked size) beside zlib blocks, of text with tags."""
    for name, data in files.items():
        index = files.get(name[:-1] + "s", b"") if name.endswith("zz") else b""
        for offset, size, _ in struct.iter_unpack("<III", index[: len(index) // 12 * 12]):
            if size:
                text = inflate(data[offset : offset + size])[0].decode("utf-8", errors="replace")
                lines = re.sub(r"<(?:/?(?:p|div|l|lg|verse|chapter|title|br|lb))\b[^>]*>", "\n", text)
                words = (" ".join(line.split()) for line in re.sub(r"<[^>]+>", " ", lines).split("\n"))
                yield from cut("\n".join(line for line in words if line))


def r_strings(files: Mapping[str, bytes]) -> Iterator[str]:
    """Vectors of strings of an R lazy-load file: size and zlib stream, again and again."""
    for data in files.values():
        while data:
            vector, data = inflate(data[4:])
            yield from cut("\n".join(_strings(vector)))


def _strings(data: bytes) -> Iterator[str]:
    """The strings of one vector in R's XDR serialisation, versions 2 and 3."""
    try:
        place = 14
        if data[2:6] == b"\0\0\0\3":
            place += 4 + struct.unpack_from(">i", data, 14)[0]
        (count,) = struct.unpack_from(">i", data, place + 4)
        place += 8
        for _ in range(count):
            length = max(struct.unpack_from(">i", data, place + 4)[0], 0)
            yield data[place + 8 : place + 8 + length].decode("utf-8", errors="replace")
            place += 8 + length
    except struct.error as error:
        raise DataError(f"an R file is damaged: {error}") from error
