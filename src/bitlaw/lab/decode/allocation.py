"""Bits of the three models of an emulation: what each way costs in likelihood, and how fast it speaks.

Speed is that of hardware whose time goes into reading weights, as it is at batch 1: a pass costs the bytes of its
models, over one token or several. Arithmetic is emulated here, so that no clock would tell it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from ...errors import ConfigError
from ..quantize.means import mean_of_units
from .decoder import Source, lowest_limit
from .emulation import emulate
from .lookahead import MOST, Costs
from .sampling import Sampling
from .score import after_each, joined

PARTS = ("base", "reference", "tuned")


@dataclass(frozen=True)
class Allocation:
    """One way to give bits to the models of an emulation.

    Attributes:
        bits: of base, reference and tuned, a weight.
        loss: of the continuations, in nats per token.
        loss_se: its standard error, over texts; NaN of one text.
        extra: loss more than with the most bits for all three, on the same tokens.
        extra_se: standard error of that, paired.
        acceptance: mean of sum_y min(p, q), with the tuned model as draft, at the tokens of the continuations.
        bytes: that a pass over all three reads.
        ahead: drafted tokens for a pass that are best then; 0 for no draft.
        speed: tokens a second, in those of the most bits for all three without a draft.
    """

    bits: tuple[float, float, float]
    loss: float
    loss_se: float
    extra: float
    extra_se: float
    acceptance: float
    bytes: float
    ahead: int
    speed: float


def allocations(
    bases: Mapping[float, Source],
    references: Mapping[float, Source],
    tuned: Mapping[float, Source],
    sizes: Sequence[Mapping[float, float]],
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    beta: float = 1.0,
    batch: int = 16,
) -> list[Allocation]:
    """Return every way to give bits to three models, those with the most bits first; each model reads the text once.

    Args:
        bases: large models by the bits of a weight, like {16: ..., 4: ...}.
        references: small ones that were not tuned.
        tuned: those that were.
        sizes: bytes of base, reference and tuned, by the bits of a weight.
        prompts: tokens, one or more each.
        continuations: tokens in the manner of the tuned model, as many texts.
        sampling: what is drawn from, for acceptance; the loss is of the emulated distribution itself.
        beta: how much of the tuning.
        batch: texts that are read together; all models' logits of so many are held at once.

    Raises:
        ConfigError: bits or sizes that are not above 0, models of other tokens, or texts that cannot be scored.
        DataError, LabError: as of the sources.

    Example:
        >>> from bitlaw import Scheme
        >>> from bitlaw.lab.decode import Decoder
        >>> from bitlaw.lab.model import Transformer
        >>> from bitlaw.lab.quantize import quantize_parts
        >>> from bitlaw.shapes import Shape
        >>> models = [Transformer(Shape(width=16, depth=d, heads=2, ffn=24), seed=d) for d in (3, 1, 2)]
        >>> held = [
        ...     {16: Decoder(m, 256), 4: Decoder(quantize_parts(m, Scheme.parse("w4")), 256)} for m in models
        ... ]
        >>> sizes = [{16: 2 * n, 4: n / 2} for n in (9_000, 3_000, 6_000)]
        >>> table = allocations(*held, sizes, [b"To be"] * 2, [b" or", b" is"])
        >>> len(table), table[0].bits, table[-1].bits, table[0].bytes / table[-1].bytes
        (8, (16, 16, 16), (4, 4, 4), 4.0)
        >>> sorted(part for part, bits, price in first_to_lose(table))
        ['base', 'reference', 'tuned']
    """
    choices = [sorted(by_bits, reverse=True) for by_bits in (bases, references, tuned)]
    if (
        not all(choices)
        or not all(0 < bits <= 64 for bits in sum(choices, []))
        or [sorted(size, reverse=True) for size in sizes] != choices
        or not all(held > 0 for size in sizes for held in size.values())
    ):
        raise ConfigError(
            f"bits {choices} of models whose bytes are {[dict(size) for size in sizes]} mean nothing; give each model "
            "a source or more, of 1 to 64 bits, and its bytes at each of them"
        )
    if not prompts:
        raise ConfigError("there is no text to score; give a prompt and its continuation, or more of them")
    limit = lowest_limit(*bases.values(), *references.values(), *tuned.values())
    texts = joined(prompts, continuations, limit, batch)

    ways = list(product(*choices))
    mixtures = [emulate(bases[b], references[r], tuned[t], beta) for b, r, t in ways]
    losses: list[list[Tensor]] = [[] for _ in ways]
    overlaps: list[list[Tensor]] = [[] for _ in ways]
    sources = list(
        dict.fromkeys(source for by_bits in (bases, references, tuned) for source in by_bits.values())
    )
    readings = (after_each(source, texts, batch) for source in sources)
    for more, *read in zip(continuations, *readings, strict=True):  # a text at a time: vocabularies are large
        logits = {s: logits_TV[-len(more) :] for s, logits_TV in zip(sources, read, strict=True)}
        for place, ((_, _, t), mixed) in enumerate(zip(ways, mixtures, strict=True)):
            log_p_TV = mixed.combine([logits[source] for source in mixed.sources])
            said_T1 = torch.tensor(list(more), device=log_p_TV.device)[:, None]
            p_TV, q_TV = sampling.probabilities(log_p_TV), sampling.probabilities(logits[tuned[t]])
            losses[place].append(-log_p_TV.gather(-1, said_T1)[:, 0].cpu())
            overlaps[place].append(torch.minimum(p_TV, q_TV).sum(-1).cpu())
    text_T = torch.repeat_interleave(torch.arange(len(texts)), torch.tensor(list(map(len, continuations))))
    found: list[Allocation] = []
    first_T, most = torch.empty(0), 0.0
    for place, bits in enumerate(ways):
        loss_T = torch.cat(losses[place])
        overlap = min(1.0, float(torch.cat(overlaps[place]).mean()))
        size = [by_bits[part] for by_bits, part in zip(sizes, bits, strict=True)]
        if not found:
            first_T, most = loss_T, sum(size)
        ahead, times = Costs(sum(size), size[2], [sum(size)] * MOST).best(overlap)
        loss, extra = mean_of_units(loss_T, text_T), mean_of_units(loss_T - first_T, text_T)
        found.append(
            Allocation(
                bits, loss.value, loss.se, extra.value, extra.se, overlap,
                sum(size), ahead, times * most / sum(size),
            )
        )  # fmt: skip
    return found


def first_to_lose(table: Sequence[Allocation]) -> list[tuple[str, float, float]]:
    """Return model, bits and extra nats per megabyte saved, of each step that takes bits from one model alone.

    The first is what should lose bits first. A step that makes the text likelier is below 0.

    Args:
        table: of `allocations`, the way with the most bits first.

    Raises:
        ConfigError: no way in which one model alone has fewer bits.
    """
    if not table:
        raise ConfigError("there is no table of allocations; give what `allocations` returned")
    full, steps = table[0], []
    for way in table:
        fewer = [place for place in range(3) if way.bits[place] < full.bits[place]]
        if len(fewer) == 1:
            saved = (full.bytes - way.bytes) / 1e6
            steps.append((PARTS[fewer[0]], way.bits[fewer[0]], way.extra / saved))
    if not steps:
        raise ConfigError(
            "no model has fewer bits while the others keep theirs; give each two choices or more"
        )
    return sorted(steps, key=lambda step: step[2])
