"""What serving costs: bytes held and read, tokens a second, money for a million tokens.

Each step of decoding reads all weights and the cached keys and values of every sequence in the batch, and computes
2 N FLOPs for each of them. Whichever takes longer bounds the rate; real servers stay below it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ConfigError
from ..formats import Recipe
from ..formats.listing import SHAPE
from ..shapes import Counts, Shape
from .hardware import Hardware

HEAD, ASPECT = 128, 128  # of the rule for models whose shape is not given: a head's width; width / depth


@dataclass(frozen=True)
class Cache:
    """The shape of cached keys and values; `rule` says how it was chosen where it was not given."""

    layers: int
    kv_heads: int
    head_dim: int
    rule: str = ""

    def __post_init__(self) -> None:
        if min(self.layers, self.kv_heads, self.head_dim) < 1:
            raise ConfigError(
                "a cache has one layer, one head and one number a head at least; try Cache(32, 8, 128)"
            )

    def bytes(self, context: float, batch: float = 1, bits: float = 16) -> float:
        """Bytes of the keys and values of `batch` sequences of `context` tokens.

            2 layers kv_heads head_dim context batch bits / 8

        >>> Cache(layers=32, kv_heads=8, head_dim=128).bytes(context=1)  # Llama 3 8B
        131072.0
        """
        return self.numbers * context * batch * bits / 8

    @property
    def numbers(self) -> int:
        """Keys and values of one token."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    @classmethod
    def of(cls, shape: Shape) -> Cache:
        """The cache of a model of a shape, whose queries are not grouped."""
        return cls(shape.depth, shape.heads, shape.width // shape.heads)

    @classmethod
    def guess(cls, params: float) -> Cache:
        """The cache of a model of which the size alone is known, by rule.

        N = 12 layers width^2 and width = 128 layers; heads 128 wide, queries not grouped. Where queries are grouped,
        as in most models today, it is smaller; so give the shape where it is known.

        >>> Cache.guess(8e9).layers, Cache.guess(8e9).kv_heads
        (34, 35)
        """
        layers = max(1, round((params / (12 * ASPECT**2)) ** (1 / 3)))
        heads = max(1, round(math.sqrt(params / 12 / layers) / HEAD))
        rule = f"cache by rule: {layers} layers of {heads} heads of {HEAD}; grouped queries need less"
        return cls(layers, heads, HEAD, rule)


def artefact_bytes(size: float | Counts, bits: float, other_bits: float = 16) -> float:
    """Bytes of a stored model.

    Args:
        size: parameters, all of which are held at `bits`; or counts by part, of which the linear layers of blocks are.
        bits: of a weight, scales included: `Recipe.bits_per_weight`.
        other_bits: of embeddings, norms and the output head, for counts.

    >>> artefact_bytes(8e9, 4.25)
    4250000000.0
    """
    if not isinstance(size, Counts):
        return size * bits / 8
    return ((size.attention + size.mlp) * bits + (size.embedding + size.norm + size.head) * other_bits) / 8


def tokens_per_second(
    hardware: Hardware,
    step_bytes: float,
    params: float,
    formats: tuple[str, str] = ("bf16", "bf16"),
    batch: float = 1,
    devices: float = 1,
) -> float:
    """The most tokens a second that decoding can reach.

        batch / max(bytes / bandwidth, 2 N batch / rate)

    Args:
        hardware: a profile.
        step_bytes: read in a step, weights and the caches of the batch.
        params: that take part in matrix products, N.
        formats: of activations and weights as they are multiplied.
        batch: sequences decoded at once.
        devices: that share the work without loss.

    Returns:
        Of the whole batch; NaN where the bandwidth is not known.

    Raises:
        ConfigError: operands that no unit of known rate holds.

    >>> from bitlaw.planning import hardware
    >>> round(tokens_per_second(hardware("h100"), 16e9, 8e9))  # 8B at 16 bits, one sequence: reading is the bound
    209
    """
    if hardware.bandwidth is None:
        return math.nan
    rate = hardware.rate(*formats).flops
    return devices * batch / max(step_bytes / hardware.bandwidth, 2 * params * batch / rate)


@dataclass(frozen=True)
class Serving:
    """What serving takes.

    Attributes:
        weight_bytes: of the stored model.
        cache_bytes: of keys and values of the batch at full context.
        fits: whether the devices hold both; None where their memory is not known.
        tokens_per_second: at most, of the whole batch; NaN where the bandwidth is not known.
        dollars: for a million tokens, at least; NaN where rate or price is not known.
        notes: what the figures rest on.
    """

    weight_bytes: float
    cache_bytes: float
    fits: bool | None
    tokens_per_second: float
    dollars: float
    notes: tuple[str, ...]


def serve(
    hardware: Hardware,
    size: float | Counts | Shape,
    *,
    context: int,
    w: str = "bf16",
    a: str = "bf16",
    kv: str = "bf16",
    other_bits: float = 16,
    cache: Cache | None = None,
    batch: int = 1,
    devices: int = 1,
) -> Serving:
    """What it takes to serve a model: memory, rate and money.

    Args:
        hardware: a profile.
        size: parameters; counts by part; or a shape.
        context: tokens of a sequence, all of which are cached.
        w: recipe of the weights, like "int4 group128"; one scale for 4096 of an output where it does not say.
        a: format of activations.
        kv: recipe of keys and values; one scale a token where it does not say.
        other_bits: of embeddings, norms and head, for counts and shapes.
        cache: shape of keys and values; of a shape its own, of a number `Cache.guess`.
        batch: sequences decoded at once.
        devices: that share weights and work without loss.

    Raises:
        ConfigError: a recipe that cannot be read, an impossible number, or operands without a known rate.

    >>> from bitlaw.planning import hardware
    >>> llama = Cache(layers=32, kv_heads=8, head_dim=128)
    >>> served = serve(hardware("rtx-4090"), 8e9, w="int4 group128", cache=llama, context=8192, batch=4)
    >>> served.fits, round(served.weight_bytes / 1e9, 3), round(served.tokens_per_second)
    (True, 4.125, 479)
    """
    counts = size.counts() if isinstance(size, Shape) else size
    total = counts.total if isinstance(counts, Counts) else counts
    for name, value in {"params": total, "context": context, "batch": batch, "devices": devices}.items():
        if not 0 < value < 1e60:
            raise ConfigError(f"{name} must be positive and finite, not {value!r}")
    cache = cache or (Cache.of(size) if isinstance(size, Shape) else Cache.guess(total))
    weights, recipe = Recipe.parse(w, "channel"), Recipe.parse(kv, "token")
    held = artefact_bytes(counts, weights.bits_per_weight(SHAPE), other_bits)
    kv_bits = recipe.bits_per_weight((context, cache.kv_heads * cache.head_dim))
    cached = cache.bytes(context, batch, kv_bits)
    read, params = held, total
    if isinstance(counts, Counts):  # of an embedding a few rows are read
        read, params = held - counts.embedding * other_bits / 8, counts.matmul
    rate = hardware.rate(Recipe.parse(a).format, weights.format)
    formats = (Recipe.parse(a).format.name, weights.format.name)
    speed = tokens_per_second(hardware, read + cached, params, formats, batch, devices)
    notes = [note for note in (rate.note, cache.rule) if note]
    if hardware.bandwidth is None:
        notes.append(f"the bandwidth of {hardware.name} is not known")
    else:
        slow = (
            "reading"
            if (read + cached) / hardware.bandwidth > 2 * params * batch / rate.flops
            else "arithmetic"
        )
        notes.append(f"{slow} is the bound; real servers are slower")
    if hardware.memory is None:
        notes.append(f"the memory of {hardware.name} is not known")
    if hardware.price is None:
        notes.append(f"what {hardware.name} costs is not known")
    fits = None if hardware.memory is None else held + cached <= hardware.memory * devices
    return Serving(held, cached, fits, speed, hardware.dollars(1e6 / speed, devices), tuple(notes))
