"""Coverage-guided fuzzing of the reader of one's own laws, by hand; not one of the tests.

    pip install atheris
    python tests/fuzz_law_text.py -runs=100000 -max_len=2100 [folder for what it finds]

Every input is read as an expression and, after a first byte that is odd, as a whole TOML file. It stops at
anything but a law or a ConfigError, and at any code that was run.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

with atheris.instrument_imports(include=["bitlaw.laws", "tomllib", "ast"]):
    from bitlaw.laws import from_spec, law_from_data
    from bitlaw.laws.law import Law

from laws_of_ones_own import CHINCHILLA, HOSTILE, KUMAR, TOKENS
from watch import watched

from bitlaw import ConfigError

PARAMETER = {"low": 0.1, "high": 1.0, "start": [0.2, 0.3]}
counts = {"laws": 0, "refused": 0}


def read(raw: bytes) -> Law:
    """Read bytes as a law.

    Raises:
        ConfigError: they are none.
    """
    if raw[:1] and raw[0] % 2:
        try:
            return law_from_data(tomllib.loads(raw[1:].decode("utf-8")))
        except (ValueError, RecursionError) as error:  # as `read_toml` does, without a file
            raise ConfigError(str(error)) from error
    text = raw[1:].decode("utf-8", "replace")
    used = [name for name in ("E", "A", "B", "alpha", "beta") if name in text]
    plain = {"name": "fuzz", "loss": text, "parameters": dict.fromkeys(used, PARAMETER)}
    return law_from_data(plain | ({"inputs": {"w": "w_bits"}} if "w" in text else {}))


def one(raw: bytes) -> None:
    """One input."""
    with watched() as done:
        try:
            made: Law | None = read(raw)
        except ConfigError:
            made = None
    assert done == [], done
    counts["refused" if made is None else "laws"] += 1
    if made is not None:
        assert from_spec(made.spec.as_json()) == made
    if sum(counts.values()) % 20_000 == 0:
        print(counts, flush=True)


def seeds() -> list[bytes]:
    """Valid laws, and what people who mean harm write."""
    whole = [b"\x01" + text.encode() for text in (CHINCHILLA, KUMAR)]
    good = [
        "E + A * N**-alpha + B * D**-beta",
        "max(E, quantized(w) * log2(N)) - tanh(sqrt(D)) / exp(-alpha)",
    ]
    return whole + [b"\x00" + text.encode("utf-8", "replace") for text in (*good, *HOSTILE)]


def main() -> None:
    """Fuzz, from the seeds in a folder and with the words of expressions as a dictionary."""
    with TemporaryDirectory() as folder:
        corpus, words = Path(folder) / "seeds", Path(folder) / "words"
        corpus.mkdir()
        for k, seed in enumerate(seeds()):
            one(seed)
            (corpus / str(k)).write_bytes(seed)
        quoted = (token.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\x0A") for token in TOKENS)
        words.write_text("".join(f'"{token}"\n' for token in quoted))
        folders = [a for a in sys.argv[1:] if not a.startswith("-")]  # what is found goes to the first
        flags = [a for a in sys.argv[1:] if a.startswith("-")]
        atheris.Setup([sys.argv[0], f"-dict={words}", *flags, *folders, str(corpus)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
