"""A scheme: which format each part of a model is trained in."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from ..errors import ConfigError
from .format import Format, Integer, Native, parse_format

_BF16 = Native("bf16", 16)
_PART = re.compile(r"(kv|w|a)([0-9]+)")


@dataclass(frozen=True)
class Scheme:
    """The format of weights (one scale per output channel), activations and KV cache (one per tensor).

    These granularities are the paper's (Kumar et al. 2024, appendix I); `bf16` means left alone.

    >>> Scheme.parse("w4a8").name, Scheme.parse("16").name, Scheme(w=parse_format("int3")).w.bits
    ('w4a8', '16', 3)
    """

    w: Format = _BF16
    a: Format = _BF16
    kv: Format = _BF16

    @property
    def name(self) -> str:
        """The short name that `parse` reads: "w4", "a8", "w4a8kv6"; "16" when nothing is quantised."""
        parts = ((f.name, getattr(self, f.name)) for f in fields(self))
        return "".join(f"{part}{fmt.bits}" for part, fmt in parts if isinstance(fmt, Integer)) or "16"

    @property
    def quantized(self) -> bool:
        """Whether any part is trained in low precision."""
        return self.name != "16"

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """Read a short name; parts that are not named stay unquantised.

        Raises:
            ConfigError: an unknown part, a part named twice, or impossible bits.
        """
        if text in ("16", "bf16"):
            return cls()
        parts = _PART.findall(text)
        names = [part for part, _ in parts]
        if "".join(p + b for p, b in parts) != text or not parts or len(set(names)) < len(names):
            raise ConfigError(
                f"cannot read the scheme {text!r}; write parts with bits, like 'w4', 'a8', 'w4a8kv6', or '16'"
            )
        return cls(**{part: parse_format(int(bits)) for part, bits in parts})
