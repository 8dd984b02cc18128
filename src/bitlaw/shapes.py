"""From a size to a transformer: width, depth, heads; parameters by part; FLOPs.

One dial, the number of non-embedding parameters, gives the whole shape. Counts are kept by part because
the counting convention moves fitted exponents more than any confidence interval does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .errors import ConfigError

HEAD_DIM = 16  # small models keep small heads, so that even the smallest rung has two of them
ASPECT = 28.0  # preferred width / depth; the ladder bends it by a factor of two where sizes demand
SMALLEST, LARGEST = 4_000, 10_000_000_000


@dataclass(frozen=True)
class Counts:
    """Parameters by part."""

    embedding: int
    attention: int
    mlp: int
    norm: int
    head: int

    @property
    def total(self) -> int:
        """Everything that is trained."""
        return self.embedding + self.attention + self.mlp + self.norm + self.head

    @property
    def non_embedding(self) -> int:
        """Without token embedding and output head: the N of Kumar et al. and of Kaplan et al."""
        return self.attention + self.mlp + self.norm

    @property
    def matmul(self) -> int:
        """What takes part in a matrix product, the output head included."""
        return self.attention + self.mlp + self.head


@dataclass(frozen=True)
class Shape:
    """The shape of a Llama-style decoder with SwiGLU and untied embeddings.

    Attributes:
        width: residual stream, elements per token.
        depth: number of blocks.
        heads: attention heads, each `width / heads` wide.
        ffn: hidden width of the SwiGLU.
        vocab: tokens the model knows; 256 for bytes.
    """

    width: int
    depth: int
    heads: int
    ffn: int
    vocab: int = 256

    def counts(self) -> Counts:
        """Count the parameters by part.

        >>> Shape(width=32, depth=1, heads=2, ffn=80).counts().non_embedding
        11984
        """
        d, f = self.width, self.ffn
        return Counts(
            embedding=self.vocab * d,
            attention=self.depth * 4 * d * d,
            mlp=self.depth * 3 * d * f,
            norm=self.depth * (3 * d + f) + d,
            head=self.vocab * d,
        )

    def flops_per_token(self, seq_len: int) -> float:
        """Training FLOPs per token, forward and backward, matrix products only.

        6 per matmul parameter, plus attention scores and mixing, `12 * depth * width * seq_len`: the whole
        score matrix, as kernels without block skipping compute it (the causal half would be 6).
        """
        return 6.0 * self.counts().matmul + 12.0 * self.depth * self.width * seq_len


def ladder_shape(params: float, vocab: int = 256) -> Shape:
    """Choose the shape whose non-embedding parameters come closest to `params`.

    Widths are multiples of the head size; among (width, depth) pairs the one wins whose aspect is nearest
    to `ASPECT` while its natural size, 12 * depth * width^2, is near the target; the SwiGLU width, a
    multiple of four, then closes the gap.

    Raises:
        ConfigError: fewer than 4,000 parameters, or more than ten billion.

    >>> shape = ladder_shape(50_000)
    >>> shape, shape.counts().non_embedding
    (Shape(width=48, depth=2, heads=3, ffn=108, vocab=256), 50088)
    """
    if not SMALLEST <= params <= LARGEST:
        raise ConfigError(
            f"the ladder starts at {SMALLEST:,} parameters and ends at {LARGEST:,}; {str(params)[:40]} is outside"
        )

    def penalty(width: int, depth: int) -> float:
        size = math.log(12 * depth * width**2 / params)
        aspect = math.log(width / depth / ASPECT)
        return size**2 + 0.1 * aspect**2

    widest = max(HEAD_DIM, int(math.sqrt(params / 12) * 1.5))
    pairs = [
        (width, depth)
        for width in range(HEAD_DIM, widest + HEAD_DIM, HEAD_DIM)
        for depth in range(1, 2 + int(min(2 * params / (12 * width**2), 4 * width / ASPECT + 4)))
    ]
    width, depth = min(pairs, key=lambda pair: penalty(*pair))
    rest = params / depth - 4 * width**2 - 3 * width
    ffn = max(4, 4 * round(rest / (3 * width + 1) / 4))
    return Shape(width=width, depth=depth, heads=width // HEAD_DIM, ffn=ffn, vocab=vocab)
