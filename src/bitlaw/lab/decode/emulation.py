"""Emulated fine-tuning: what a tuned model of one size would say, from models of other sizes.

    log p = log p_0 + sum_i w_i (log p_tuned,i - log p_reference,i) - log Z        token by token

A large base model and what tuning changed in a small one stand for the large model tuned (Mitchell et al. 2023,
2310.12962). No weight is trained, and each model may be in a number format of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ConfigError, LabError
from .decoder import Session, Source, lowest_limit, same_tokens
from .sampling import Sampling


@dataclass(frozen=True)
class Delta:
    """A change of behaviour: w (log p_tuned - log p_reference).

    Attributes:
        tuned: what the change leads to.
        reference: what it starts from.
        weight: how much of it; 0 is none, below 0 the other way.

    Raises:
        ConfigError: a weight that is not finite.
    """

    tuned: Source
    reference: Source
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ConfigError(
                f"a change of weight {self.weight} means nothing; use 1 for all of it, 0 for none, or any number "
                "between or beyond"
            )


class Emulated:
    """Several sources put together in log space, as a source.

    Sources that are the same object are read once, and where their weights cancel, not at all: with the base of the
    tuned model's own size, which is its reference, only the tuned model is read.

    Attributes:
        weights: of the log-probabilities of each source that is read; they sum to 1.
        nucleus: see below.
        vocab, tokenizer_sha256, limit: as of any `Source`; the limit is the lowest.

    Args:
        base: p_0.
        deltas: what is added to it.
        nucleus: add it only to the fewest tokens that have this share of p_0; the others keep the p_0 that they have
            before all is normalised. With `base` a small tuned model and the step to a large base as delta, this is the
            top-p filter of the paper. It leaves every token possible, and is no `Sampling(top_p=...)`, which draws from
            likely tokens alone; both may be used.

    Raises:
        ConfigError: sources of other tokens, or a nucleus that is no share of probability.

    >>> from bitlaw.lab.decode import Decoder
    >>> from bitlaw.lab.model import Transformer
    >>> from bitlaw.shapes import Shape
    >>> large, small, tuned = (
    ...     Decoder(Transformer(Shape(width=16, depth=d, heads=2, ffn=24), seed=d), vocab=256) for d in (3, 1, 2)
    ... )
    >>> source = Emulated(large, [Delta(tuned, small)])
    >>> [logits] = source.open(1).append([b"To be"])
    >>> tuple(logits.shape), round(float(logits.exp().sum()), 9)
    ((5, 256), 5.0)
    """

    def __init__(self, base: Source, deltas: Sequence[Delta] = (), nucleus: float | None = None) -> None:
        if nucleus is not None and not 0 < nucleus <= 1:
            raise ConfigError(f"a nucleus of {nucleus} is no share of probability; use one above 0, up to 1")
        same_tokens(base, *(source for delta in deltas for source in (delta.tuned, delta.reference)))
        weights: dict[Source, float] = {base: 1.0}
        for delta in deltas:
            weights[delta.tuned] = weights.get(delta.tuned, 0.0) + delta.weight
            weights[delta.reference] = weights.get(delta.reference, 0.0) - delta.weight
        self.base, self.nucleus = base, nucleus
        self.weights = {source: weight for source, weight in weights.items() if weight != 0}
        self.vocab, self.tokenizer_sha256 = base.vocab, base.tokenizer_sha256
        self.limit = lowest_limit(*self.sources)

    @property
    def sources(self) -> list[Source]:
        """All that is read."""
        return list(self.weights if self.nucleus is None else dict.fromkeys([self.base, *self.weights]))

    def open(self, rows: int) -> Mixture:
        """Begin with so many empty texts."""
        return Mixture(self, rows)

    def combine(self, logits: Sequence[Tensor]) -> Tensor:
        """Return log-probabilities (T, V), as float64, from the logits (T, V) of each of `sources`.

        Raises:
            LabError: they are not finite.
        """
        log_p = {
            source: z_TV.double().log_softmax(-1) for source, z_TV in zip(self.sources, logits, strict=True)
        }
        mixed_TV = torch.stack([w * log_p[source] for source, w in self.weights.items()]).sum(0)
        if self.nucleus is not None and self.nucleus < 1:
            log_p0_TV = log_p[self.base]
            inside_TV = Sampling(top_p=self.nucleus).probabilities(log_p0_TV) > 0
            mixed_TV = torch.where(inside_TV, mixed_TV, log_p0_TV)
        if not torch.isfinite(mixed_TV).all():
            raise LabError(
                f"log-probabilities put together with weights {sorted(self.weights.values())} are not finite; use "
                "weights nearer to 1, and see whether each model's own logits are finite"
            )
        return mixed_TV.log_softmax(-1)


class Mixture:
    """Texts that several sources read on together."""

    def __init__(self, source: Emulated, rows: int) -> None:
        self.source = source
        self.sessions: list[Session] = [part.open(rows) for part in source.sources]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text so far."""
        return self.sessions[0].lengths

    @torch.inference_mode()
    def append(self, new: Sequence[Sequence[int]]) -> list[Tensor]:
        """Read new tokens of each text, and return log-probabilities after each of them, (tokens, V) a text.

        Raises:
            ConfigError, DataError, LabError: as of each source; all texts are then as they were.
        """
        before = self.lengths
        try:
            read = [session.append(new) for session in self.sessions]
            if not new:
                return []
            device = read[0][0].device
            mixed_TV = self.source.combine([torch.cat([z.to(device) for z in rows]) for rows in read])
            return list(mixed_TV.split([len(tokens) for tokens in new]))
        except BaseException:
            for session in self.sessions:
                session.truncate(before)
            raise

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget the tokens of each text behind a length."""
        for session in self.sessions:
            session.truncate(lengths)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the texts, in this order."""
        for session in self.sessions:
            session.keep(rows)


def emulate(
    base: Source,
    reference: Source,
    tuned: Source,
    beta: float = 1.0,
    amplify: float = 1.0,
    nucleus: float | None = None,
) -> Emulated:
    """Return what a base model would say if it had been tuned as one of another size was.

        log p = log p_reference + beta (log p_tuned - log p_reference) + amplify (log p_base - log p_reference) - log Z

    With a base larger than the other two this is up-scaling, with a smaller one down-scaling. `beta` is how much of the
    tuning is taken, `amplify` how much of the difference in size; at 1 both forms of the paper are this one.
    Where one of the weights is 0, the model in question is not read.

    Args:
        base: a model that was not tuned, of the size whose knowledge is wanted.
        reference: one that was not tuned, of the size whose tuning is taken.
        tuned: that one, tuned.
        beta: weight of the tuning.
        amplify: weight of the step from `reference` to `base`.
        nucleus: take that step only for the fewest tokens that have this share of p_tuned, as the paper's top-p
            filter; `beta` is then 1.

    Raises:
        ConfigError: models of other tokens, a weight that is not finite, or a nucleus beside another `beta`.

    Example:
        >>> from bitlaw.lab.decode import Decoder, generate
        >>> from bitlaw.lab.model import Transformer
        >>> from bitlaw.shapes import Shape
        >>> large, small, tuned = (
        ...     Decoder(Transformer(Shape(width=16, depth=d, heads=2, ffn=24), seed=d), vocab=256) for d in (3, 1, 2)
        ... )
        >>> [text] = generate(emulate(large, small, tuned, beta=0.75), [b"To be"], tokens=3)
        >>> len(text.tokens)
        3
    """
    if nucleus is None:
        return Emulated(base, [Delta(tuned, reference, beta), Delta(base, reference, amplify - 1)])
    if beta != 1:
        raise ConfigError(
            f"a nucleus is of the tuned model as it is, and beta is {beta}; leave beta at 1 and use amplify, or leave "
            "the nucleus out"
        )
    return Emulated(tuned, [Delta(base, reference, amplify)], nucleus)
