"""Constants as published, with their source and the regime they were fitted in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConfigError, nearest
from .base import chinchilla
from .gap import kumar
from .law import Law, Source


@dataclass(frozen=True)
class Published:
    """A law with somebody's constants.

    Attributes:
        name: what `--law` takes.
        law: the law.
        values: a value for each of its parameters.
        source: where they stand.
        regime: what they were fitted on; anything else is extrapolation.
        fitted: column to (lowest, highest) value in that regime, for warning of extrapolation.
    """

    name: str
    law: Law
    values: Mapping[str, float]
    source: Source
    regime: str
    fitted: Mapping[str, tuple[float, float]]


PUBLISHED: dict[str, Published] = {
    p.name: p
    for p in (
        Published(
            name="kumar-2024",
            law=kumar,
            values={
                "E": 2.7648,
                "A": 4299.0,
                "B": 18060.0,
                "alpha": 0.4965,
                "gamma_w": 2.6745,
                "n_w": 0.3037,
                "gamma_a": 2.2102,
                "n_a": 1.4072,
                "gamma_kv": 0.9578,
                "n_kv": 2.4185,
                "C_T": 0.0598,
                "gamma_D": 0.5068,
                "gamma_N": 0.3439,
                "gamma_post": 0.5907,
                "b": 1.1277,
            },
            source=Source("Kumar et al. 2024, Scaling Laws for Precision", "2411.04330", "table 2"),
            regime="30M to 220M non-embedding parameters, 1.5B to 26B tokens of Dolma, 3 to 16 bits, cosine",
            fitted={
                "params": (30e6, 220e6),
                "tokens": (1.5e9, 26e9),
                "w_bits": (3, 12),
                "a_bits": (4, 12),
                "kv_bits": (4, 12),
                "post_bits": (3, 8),
            },
        ),
        Published(
            name="chinchilla-2024",
            law=chinchilla,
            values={"E": 1.8169, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3659},
            source=Source("Besiroglu et al. 2024, Chinchilla Scaling: A replication attempt", "2404.10102"),
            regime="240 runs of Hoffmann et al., 57M to 16B parameters",
            fitted={"params": (57e6, 16e9)},
        ),
    )
}


def published(name: str) -> Published:
    """Return published constants by name.

    Raises:
        ConfigError: no such name.

    >>> published("kumar-2024").values["gamma_w"]
    2.6745
    """
    if name not in PUBLISHED:
        raise ConfigError(f"there are no published constants {name!r}; {nearest(name, PUBLISHED)}")
    return PUBLISHED[name]
