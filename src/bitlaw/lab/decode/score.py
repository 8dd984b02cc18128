"""How likely a source holds texts that are there already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...errors import ConfigError
from .decoder import Source, read
from .generate import check
from .sampling import Sampling


def after_each(source: Source, texts: Sequence[Sequence[int]], batch: int = 16) -> Iterator[Tensor]:
    """Yield a source's logits after each token of a text (T, V), text by text.

    Args:
        source: what reads.
        texts: tokens, one or more each.
        batch: texts that are read together.
    """
    for first in range(0, len(texts), batch):
        together = texts[first : first + batch]
        pieces = list(read(source.open(len(together)), together))
        for row in range(len(together)):
            yield torch.cat([piece[row] for piece in pieces])


def joined(
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    limit: int | None,
    batch: int,
) -> list[list[int]]:
    """Each prompt with its continuation but for the last token, which is scored and read by nobody.

    Raises:
        ConfigError: a text that cannot be scored.
    """
    if len(prompts) != len(continuations) or not all(map(len, continuations)):
        raise ConfigError(
            f"{len(prompts)} prompts and {len(continuations)} continuations; give each prompt one, of a token or more"
        )
    check(prompts, [len(more) for more in continuations], limit, batch=batch)
    return [[*prompt, *more[:-1]] for prompt, more in zip(prompts, continuations, strict=True)]


def log_likelihoods(
    source: Source,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    batch: int = 16,
) -> list[Tensor]:
    """Return log p of each token of continuations, given the prompt and the tokens before, as float64.

    Args:
        source: a model, an emulation, or anything else that says which token comes next.
        prompts: tokens, one or more each.
        continuations: tokens, as many texts, one or more each.
        sampling: of what is drawn from; a token that it leaves out has -inf.
        batch: texts that are read together.

    Raises:
        ConfigError: an empty prompt or continuation, one without the other, or a text too long.
        DataError: a token that the source does not know.
        LabError: logits that are not finite.

    >>> from bitlaw.lab.decode import Decoder
    >>> from bitlaw.lab.model import Transformer
    >>> from bitlaw.shapes import Shape
    >>> source = Decoder(Transformer(Shape(width=16, depth=1, heads=2, ffn=24)), vocab=256)
    >>> [found] = log_likelihoods(source, [b"To be"], [b" or"])
    >>> len(found), bool((found < 0).all())
    (3, True)
    """
    texts = joined(prompts, continuations, source.limit, batch)
    found = []
    for logits_TV, more in zip(after_each(source, texts, batch), continuations, strict=True):
        tokens_T1 = torch.tensor(list(more), device=logits_TV.device)[:, None]
        if sampling == Sampling():
            log_p_TV = logits_TV[-len(more) :].double().log_softmax(-1)
        else:
            log_p_TV = sampling.probabilities(logits_TV[-len(more) :]).log()
        found.append(log_p_TV.gather(-1, tokens_T1)[:, 0].cpu())
    return found
