"""Texts that go on: prompts in, tokens out, as they are drawn."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...errors import ConfigError
from .decoder import Session, Source, read
from .sampling import Sampling, chance_of, draw


@dataclass(frozen=True)
class Continuation:
    """What came after a prompt.

    Attributes:
        prompt: its tokens.
        tokens: that were drawn, the one that stopped it included.
        stopped: whether such a one came.
    """

    prompt: Sequence[int]
    tokens: list[int] = field(default_factory=list)
    stopped: bool = False


def stream(
    source: Source,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    *,
    seed: int = 0,
    stop: Collection[int] = (),
    batch: int = 16,
) -> Iterator[tuple[int, int]]:
    """Yield the number of a prompt and the next token of its text, as they are drawn.

    The random numbers of a prompt hang on the seed and its place in the list alone: neither the other prompts nor the
    batch change a text, but where rounding lets two tokens change places (see `Decoder`).

    Args:
        source: what says which token comes next.
        prompts: tokens, one or more each; they may differ in length.
        tokens: drawn for each prompt at most.
        sampling: what is drawn from.
        seed: another one gives other texts, but for a temperature of 0.
        stop: tokens after which a text ends.
        batch: prompts that are read together.

    Raises:
        ConfigError: an empty prompt, one with no room behind it for so many tokens, or a number that means nothing.
        DataError: a token that the model does not know.
        LabError: logits that are not finite.

    Example:
        >>> from bitlaw.lab.decode import Decoder
        >>> from bitlaw.lab.model import Transformer
        >>> from bitlaw.shapes import Shape
        >>> source = Decoder(Transformer(Shape(width=16, depth=1, heads=2, ffn=24)), vocab=256)
        >>> [row for row, token in stream(source, [b"To be", b"Or"], tokens=3)]
        [0, 1, 0, 1, 0, 1]
    """
    check(prompts, tokens, source.limit, seed, batch)
    for first in range(0, len(prompts), batch):
        yield from _batch(
            source, prompts, range(first, min(first + batch, len(prompts))), tokens, sampling, seed, stop
        )


def generate(
    source: Source,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    *,
    seed: int = 0,
    stop: Collection[int] = (),
    batch: int = 16,
) -> list[Continuation]:
    """Return how each prompt went on; arguments and errors are those of `stream`.

    >>> from bitlaw.lab.decode import Decoder
    >>> from bitlaw.lab.model import Transformer
    >>> from bitlaw.shapes import Shape
    >>> source = Decoder(Transformer(Shape(width=16, depth=1, heads=2, ffn=24)), vocab=256)
    >>> [text] = generate(source, [b"To be"], tokens=3, sampling=Sampling(temperature=0))
    >>> len(text.tokens), text.stopped
    (3, False)
    """
    found: list[list[int]] = [[] for _ in prompts]
    for row, token in stream(source, prompts, tokens, sampling, seed=seed, stop=stop, batch=batch):
        found[row].append(token)
    return [
        Continuation(prompt, drawn, drawn[-1] in stop) for prompt, drawn in zip(prompts, found, strict=True)
    ]


def check(
    prompts: Sequence[Sequence[int]],
    tokens: int | Sequence[int],
    limit: int | None = None,
    seed: int = 0,
    batch: int = 1,
) -> None:
    """See that all that is asked for can be, before any of it is done; tokens are of each prompt, or the same of all.

    Raises:
        ConfigError: it cannot.
    """
    counts = [tokens] * len(prompts) if isinstance(tokens, int) else tokens
    if min(counts, default=1) < 1 or batch < 1 or not 0 <= seed < 2**63:
        raise ConfigError(
            f"{min(counts)} tokens in batches of {batch} by seed {seed} cannot be drawn; tokens and batches are of 1 "
            "or more, a seed is 0 or more"
        )
    for number, (prompt, count) in enumerate(zip(prompts, counts, strict=True), start=1):
        if not prompt:
            raise ConfigError(
                f"prompt {number} is empty, and a model goes on from a token; give it one letter or more"
            )
        if limit is not None and len(prompt) + count > limit:
            room = limit - len(prompt)
            way = f"ask for {room} tokens or fewer" if room > 0 else "use a shorter prompt"
            raise ConfigError(
                f"prompt {number} of {len(prompt)} tokens and {count} more are beyond the {limit} that the model "
                f"was trained on, and it has learned nothing of places beyond; {way}, or go beyond all the same "
                "(limit=None, on the command line --beyond)"
            )


def _batch(
    source: Source,
    prompts: Sequence[Sequence[int]],
    rows: range,
    tokens: int,
    sampling: Sampling,
    seed: int,
    stop: Collection[int],
) -> Iterator[tuple[int, int]]:
    """Some prompts that go on together; a text that has stopped leaves the others."""
    chance = {row: chance_of(seed, row) for row in rows}
    live, session = list(rows), source.open(len(rows))
    logits_BV = _last(session, [prompts[row] for row in rows])
    for count in range(1, tokens + 1):
        uniform_B = torch.tensor([chance[row].random() for row in live], dtype=torch.float64)
        p_BV = sampling.probabilities(logits_BV)
        drawn = draw(p_BV, uniform_B.to(p_BV.device)).tolist()
        yield from zip(live, drawn, strict=True)
        going = [place for place, token in enumerate(drawn) if token not in stop]
        if not going or count == tokens:
            return
        if len(going) < len(live):
            session.keep(going)
            live = [live[place] for place in going]
        logits_BV = torch.cat(session.append([[drawn[place]] for place in going]))


def _last(session: Session, prompts: Sequence[Sequence[int]]) -> Tensor:
    """The logits after the last token of each prompt (B, V)."""
    last: dict[int, Tensor] = {}
    for found in read(session, prompts):
        last |= {row: logits_TV[-1].clone() for row, logits_TV in enumerate(found) if len(logits_TV)}
    return torch.stack([last[row] for row in range(len(prompts))])
