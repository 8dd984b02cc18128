"""A recipe: how a tensor is put onto a format's grid; which numbers share a scale, and how the scale is found."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from ..errors import ConfigError, nearest
from .catalogue import parse_format
from .grid import Format, Microscaled, Native, Uniform

#: Which numbers share a scale: the whole tensor; one output of a weight, or one token of an activation, which are
#: both the last dimension; `group` numbers of the last dimension; a square `block` of a matrix.
Granularity: TypeAlias = Literal["tensor", "channel", "token", "group", "block"]
#: How a scale is found: from the largest magnitude; from the mean magnitude (binary, ternary); from the root mean
#: square, as is best for Gaussian data; by search for the least squared error; learned with the weights (LSQ).
Scale: TypeAlias = Literal["absmax", "absmean", "gaussian", "mse", "learned"]
Rounding: TypeAlias = Literal["nearest", "stochastic"]

SCALE_BITS = 16  # a scale is stored in bf16 or fp16 unless its format says otherwise
_WORD = re.compile(r"(group|block)(\d+)")


@dataclass(frozen=True)
class Recipe:
    """A format, what shares a scale, how the scale is found, and how numbers are rounded.

    Weights that are `stored` have no float master copy: they are kept as codes with float32 steps, and every update is
    written back by `rounding`, on a fixed range that `scale` sets.

    Attributes:
        format: the number grid, or a native float: left alone.
        granularity: what shares a scale; formats with blocks of their own know.
        size: numbers of a group, or side of a block.
        scale: how scales are found.
        rounding: to the nearest value, or up or down by chance so that the mean is right for numbers within the grid;
            what lies beyond it, as up to a quarter of the largest of an MX block does, is cut off.
        rotate: turn the last dimension by a random Hadamard matrix first, which spreads outliers.
        stored: whether integers and steps are all that is kept of a weight between two training steps.

    >>> str(Recipe.parse("int4 group128 mse")), Recipe.parse("bf16").quantized
    ('int4 group128 mse', False)
    """

    format: Format
    granularity: Granularity = "tensor"
    size: int | None = None
    scale: Scale = "absmax"
    rounding: Rounding = "nearest"
    rotate: bool = False
    stored: bool = False

    def __post_init__(self) -> None:
        fmt, name = self.format, self.format.name
        if (self.size is not None) != (self.granularity in ("group", "block")):
            raise ConfigError(
                f"give the size of a group or block, like 'group128', and of nothing else: {self}"
            )
        if self.size is not None and not 2 <= self.size <= 2**20:
            raise ConfigError(
                f"a group or block has 2 to {2**20} numbers a side, not {self.size}; try 'group128'"
            )
        if isinstance(fmt, Microscaled) and (self.scale != "absmax" or self.granularity != "tensor"):
            raise ConfigError(f"{name} has blocks and scales of its own; write '{name}' alone")
        if self.scale == "absmean" and not (isinstance(fmt, Uniform) and fmt.high <= 1 and not fmt.shifted):
            raise ConfigError(
                f"absmean cuts {name} off at the mean magnitude; it is for 'binary' and 'ternary'"
            )
        if self.scale == "gaussian" and isinstance(fmt, Uniform) and fmt.shifted:
            raise ConfigError(f"{name} has a zero point, which Gaussian scales do not; try 'absmax' or 'mse'")
        if self.scale == "learned" and (self.rotate or self.rounding != "nearest"):
            raise ConfigError(
                f"learned steps round to nearest, without a rotation; drop one word of '{self}'"
            )
        if self.stored:
            self._check_stored()

    def _check_stored(self) -> None:
        fmt = self.format
        if not isinstance(fmt, Uniform) or fmt.shifted or fmt.bits > 8:
            raise ConfigError(
                f"{fmt.name} cannot be stored without a master copy; try 'int8 stored' or fewer bits"
            )
        if self.granularity not in ("tensor", "channel") or self.rotate:
            raise ConfigError(
                f"stored weights have one step a channel or tensor, and are not rotated: '{self}'"
            )
        if self.scale == "learned":
            raise ConfigError(
                "steps of stored weights are learned for the embeddings of `bitlaw task clicks` only (ALPT); here "
                "they are fixed: drop 'learned'"
            )

    @property
    def quantized(self) -> bool:
        """Whether it changes anything."""
        return not isinstance(self.format, Native)

    @classmethod
    def parse(cls, text: str, granularity: str = "tensor") -> Recipe:
        """Read a format and, in any order after it, what differs from absmax scales and nearest rounding.

        Args:
            text: like "int4", "e4m3 token", "int3 group128 mse", "midrise4 channel gaussian rotate stochastic".
            granularity: where the text names none: "tensor", "channel", "token", or like "group128".

        Raises:
            ConfigError: a word it does not know, or two that exclude each other.
        """
        first, *words = text.split() or [""]
        fmt = parse_format(first)
        if words and isinstance(fmt, Native):
            raise ConfigError(f"{first} leaves numbers as they are; drop {' '.join(words)!r} in {text!r}")
        own = isinstance(fmt, (Microscaled, Native))
        chosen: dict[str, object] = {}
        for word in words:
            found = _shared(word)
            if word in get_args(Scale):
                found = {"scale": word}
            elif word in get_args(Rounding):
                found = {"rounding": word}
            elif word == "rotate":
                found = {"rotate": True}
            elif word == "stored":
                found = {"stored": True}
            if not found:
                known = ["tensor", "channel", "token", "group128", "block32", "rotate", "stored"]
                known += [*get_args(Scale), *get_args(Rounding)]
                raise ConfigError(f"cannot read {word!r} in {text!r}; {nearest(word, known)}")
            if set(found) & set(chosen):
                raise ConfigError(f"{word!r} in {text!r} says again what another word has said; drop one")
            chosen |= found
        if "granularity" not in chosen and not own:
            usual = _shared(granularity)
            if not usual:
                raise ConfigError(
                    f"no numbers share a scale by {granularity!r}; try 'channel', 'tensor' or 'group128'"
                )
            chosen |= usual
        chosen.setdefault("scale", _usual_scale(fmt))
        return cls(fmt, **chosen)  # type: ignore[arg-type]

    def __str__(self) -> str:
        words = [self.format.name]
        if self.quantized and not isinstance(self.format, Microscaled):
            words.append(self.granularity + (str(self.size) if self.size else ""))
            # Ids hang on this text: absmax is left out but where it is not what is usual.
            words += [self.scale] if (self.scale, _usual_scale(self.format)) != ("absmax", "absmax") else []
        words += ["stochastic"] if self.rounding == "stochastic" else []
        words += ["rotate"] if self.rotate else []
        words += ["stored"] if self.stored else []
        return " ".join(words)

    def scales(self, shape: tuple[int, int]) -> int:
        """How many scales an (outputs, inputs) matrix has.

        >>> Recipe.parse("int4 group128").scales((64, 320))
        192
        """
        outputs, inputs = shape
        if isinstance(self.format, Microscaled):
            return outputs * -(-inputs // self.format.block)
        size = self.size or 1
        return {
            "tensor": 1,
            "channel": outputs,
            "token": outputs,
            "group": outputs * -(-inputs // size),
            "block": -(-outputs // size) * -(-inputs // size),
        }[self.granularity]

    def stored_bytes(self, shape: tuple[int, int]) -> int:
        """Bytes of a packed (outputs, inputs) matrix: numbers, scales and zero points.

        Codes of stored weights fill whole bytes, one, two, four or eight a byte, and their steps are float32.

        >>> Recipe.parse("nvfp4").stored_bytes((64, 128)), Recipe.parse("int4 channel stored").stored_bytes((64, 16))
        (4612, 768)
        """
        if self.stored:
            assert isinstance(self.format, Uniform)
            each = 8 // self.format.code_bits
            return shape[0] * -(-shape[1] // each) + 4 * self.scales(shape)
        fmt, numbers, scales = self.format, shape[0] * shape[1], self.scales(shape)
        packed = math.ceil(numbers * fmt.stored_bits / 8)
        if isinstance(fmt, Native):
            return packed
        if isinstance(fmt, Microscaled):
            return packed + math.ceil(scales * fmt.scale_bits / 8) + (0 if fmt.scale == "e8m0" else 4)
        zeros = math.ceil(scales * fmt.stored_bits / 8) if isinstance(fmt, Uniform) and fmt.shifted else 0
        return packed + scales * SCALE_BITS // 8 + zeros

    def bits_per_weight(self, shape: tuple[int, int]) -> float:
        """Effective bits of each weight of an (outputs, inputs) matrix, scales and zero points included.

        >>> Recipe.parse("int4 channel").bits_per_weight((64, 128)), Recipe.parse("mxfp4").bits_per_weight((64, 128))
        (4.125, 4.25)
        """
        return 8 * self.stored_bytes(shape) / (shape[0] * shape[1])


def _usual_scale(fmt: Format) -> Scale:
    return "absmean" if fmt.name in ("binary", "ternary") else "absmax"


def _shared(word: str) -> dict[str, object]:
    """Read what shares a scale; nothing if the word says something else."""
    sized = _WORD.fullmatch(word)
    if sized and len(word) < 20:
        return {"granularity": sized[1], "size": int(sized[2])}
    return {"granularity": word} if word in ("tensor", "channel", "token") else {}
