"""Recorded speech from Debian packages: decoded, as log-mel frames, split by recording."""

from __future__ import annotations

import hashlib
import io
import struct
import wave
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from scipy.signal import resample_poly

from ...errors import DataError
from ...files import whole
from ..corpus import Corpus, Text
from ..corpus.packages import deb_members, fetched
from ..corpus.sources import CALIBRATION, EVALUATION
from ..corpus.tokenizer import cache

Floats: TypeAlias = NDArray[np.float32]
RATE = 8000  # samples a second; what is recorded at a multiple of it is brought down to it
WINDOW, HOP, FFT = 200, 80, 256  # samples: 25 ms every 10 ms, padded with zeros
BINS = 40
FLOOR = 1e-8  # of power, before its logarithm: that of rounding to 16 bits, or below
SHORTEST = 20  # frames
#: Packages of read speech and which of their files are speech; their licences stand in them (CC-BY-SA-3.0,
#: CC-BY-3.0, and a free one with notice). 150 minutes in all, three speakers, two languages beside English.
PACKAGES = {
    "asterisk-core-sounds-en-wav": "usr/share/asterisk/sounds/en_US_f_Allison/*.wav",
    "asterisk-core-sounds-it-wav": "usr/share/asterisk/sounds/it_IT_m_Carlo/*.wav",
    "festvox-ru": "usr/share/festival/voices/russian/msu_ru_nsh_clunits/wav/*.wav",
}


def read_wav(data: bytes, name: str = "recording") -> Floats:
    """Decode one channel of 16-bit PCM, brought to 8,000 samples a second.

    Args:
        data: a whole WAV file.
        name: for messages.

    Returns:
        Samples in [-1, 1), (samples,).

    Raises:
        DataError: it is no such file, is cut off, says it is longer than it is, or has another rate.
    """
    shown = ascii(name)[1:-1][-80:]
    try:
        with wave.open(io.BytesIO(data)) as file:
            channels, width, rate, frames = file.getparams()[:4]
            if (channels, width) != (1, 2):
                raise DataError(f"{shown} has {channels} channels of {8 * width} bits; use one of 16 bits")
            if rate not in (RATE, 2 * RATE, 6 * RATE):
                raise DataError(f"{shown} has {rate} samples a second; use 8000, 16000 or 48000")
            if frames * width > len(data):
                raise DataError(
                    f"{shown} says it holds {frames:,} samples, more than its {len(data):,} bytes can"
                )
            samples = np.frombuffer(file.readframes(frames), "<i2").astype(np.float32) / 2**15
    except (wave.Error, EOFError, struct.error, RuntimeError, ValueError, ArithmeticError) as error:
        raise DataError(
            f"{shown} is no WAV file, or a damaged one: {error or 'it ends too early'}"
        ) from error
    if len(samples) < frames:
        raise DataError(f"{shown} is cut off: {len(samples):,} samples of {frames:,}")
    return samples if rate == RATE else resample_poly(samples, 1, rate // RATE).astype(np.float32)


def mel_filters(bins: int = BINS) -> Floats:
    """Return triangles that are evenly spaced and half overlap on the mel scale, (FFT / 2 + 1, bins).

        mel(f) = 2595 log10(1 + f / 700)    (as HTK)

    >>> mel_filters().shape
    (129, 40)
    """
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bins + 2) / 2595) - 1)
    hertz = np.linspace(0, RATE / 2, FFT // 2 + 1)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (hertz - low) / (middle - low), (high - hertz) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def log_mel(samples: Floats, bins: int = BINS) -> Floats:
    """Return the logarithm of mel power, a frame of 25 ms every 10 ms.

        log max(|FFT(hann * samples)|^2 @ filters, 1e-8)

    Args:
        samples: at 8,000 a second, (samples,).
        bins: mel filters from 0 to 4,000 Hz.

    Returns:
        (frames, bins); no frames where there are fewer samples than a window has.

    >>> import numpy as np
    >>> tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000).astype(np.float32)
    >>> log_mel(tone).shape, int(log_mel(tone)[0].argmax())
    ((98, 40), 18)
    """
    if len(samples) < WINDOW:
        return np.empty((0, bins), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)
    power = np.abs(np.fft.rfft(windows * hann, FFT)) ** 2
    return np.log(np.maximum(power @ mel_filters(bins), FLOOR)).astype(np.float32)


def speech_corpus(name: str, recordings: Iterable[Floats]) -> Corpus:
    """Split recordings by the hash of what is in them; a frame takes the place of a token.

    Bins are brought to mean 0 and deviation 1 over the training side. Copies and what is shorter than 0.2 s are left
    out.

    Args:
        name: for people.
        recordings: log-mel frames of each, (frames, bins).

    Raises:
        DataError: too few recordings for every side to have one.
    """
    sides: tuple[list[Floats], list[Floats], list[Floats]] = ([], [], [])
    seen: set[bytes] = set()
    copies = 0
    for frames in recordings:
        digest = hashlib.sha256(frames.tobytes()).digest()
        copies += digest in seen
        if digest in seen or len(frames) < SHORTEST:
            continue
        seen.add(digest)
        place = int.from_bytes(digest[:4], "big") / 2**32
        sides[2 if place < EVALUATION else 1 if place < EVALUATION + CALIBRATION else 0].append(frames)
    if not all(sides):
        raise DataError(
            f"{name}: {len(seen)} recordings are too few to keep some from training; use hundreds of them"
        )
    joined = [np.concatenate(side) for side in sides]
    mean, deviation = joined[0].mean(0, dtype=np.float64), joined[0].std(0, dtype=np.float64)
    texts = [
        Text(
            ((frames - mean) / np.maximum(deviation, 1e-3)).astype(np.float32),
            np.cumsum([0, *map(len, side[:-1])]),
        )
        for frames, side in zip(joined, sides, strict=True)
    ]
    digest = hashlib.sha256(b"".join(bytes.fromhex(text.sha256) for text in texts)).hexdigest()
    bins = joined[0].shape[1]
    return Corpus(name, texts[0], texts[1], texts[2], digest, copies, f"log-mel:{bins}", bins)


def read_speech(package: str) -> list[Floats]:
    """Return the log-mel frames of a package's recordings, which was fetched before.

    Raises:
        DataError: it was not, or what is kept of it is damaged.
    """
    path = _kept(package)
    if not path.is_file():
        raise DataError(
            f"the speech of {package} is not on this machine yet; run: bitlaw task speech --fetch"
        )
    try:
        kept = safetensors.numpy.load_file(path)
        return np.split(kept["frames"], kept["starts"][1:])
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise DataError(f"{path} is damaged ({error}); delete it, and fetch it again") from error


def fetch_speech(on_package: Callable[[int, str], None] = lambda done, package: None) -> None:
    """Fetch the packages that are not here yet with apt, and keep their log-mel frames in the cache.

    Raises:
        LabError: apt is not here, or cannot have a package.
        DataError: an archive or a recording is damaged, or the cache cannot be written.
    """
    missing = [package for package in PACKAGES if not _kept(package).is_file()]
    if not missing:
        return
    with closing(fetched(missing, _kept("").parent, on_package)) as archives:
        for package, (archive, _) in zip(missing, archives, strict=True):
            files = deb_members(archive, PACKAGES[package])
            # Stretches of silence, for callers to wait in, are no speech.
            frames = [
                log_mel(read_wav(data, name)) for name, data in files.items() if "/silence/" not in name
            ]
            starts = np.cumsum([0, *map(len, frames[:-1])])
            data = safetensors.numpy.save({"frames": np.concatenate(frames), "starts": starts})
            with whole(_kept(package)) as temporary:
                temporary.write_bytes(data)


def _kept(package: str) -> Path:
    return cache() / "speech" / f"{package}.safetensors"
