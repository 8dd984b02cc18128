"""Exact speculative decoding: a cheap draft says what comes, and the target reads it in one pass and corrects it.

    token y of the draft, drawn from q, is accepted with probability    min(1, p(y) / q(y))
    in place of the first that is not, one is drawn from                max(p - q, 0) / sum max(p - q, 0)
    after the last of k that all are, one more is drawn from            p

What comes out is distributed as p, the target's own, whatever the draft (Leviathan et al. 2023, 2211.17192, appendix
A.1; Chen et al. 2023, 2302.01318). p and q are what is drawn from, after temperature, top-k and top-p.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError
from .decoder import Session, Source, lowest_limit, read, same_tokens
from .generate import check
from .sampling import Sampling, chance_of, draw


@dataclass(frozen=True)
class Round:
    """What one pass of the target gave.

    Attributes:
        tokens: that the text goes on with; up to `accepted` are the draft's.
        drafted: tokens that the draft made.
        accepted: of these, how many were, up to the first that was not.
        overlap: sum_y min(p, q) at each drafted token up to that one: the probability that it would be accepted.
    """

    tokens: list[int]
    drafted: int
    accepted: int
    overlap: list[float]

    @property
    def judged(self) -> int:
        """Drafted tokens that were accepted or rejected; behind a rejection nothing is judged."""
        return len(self.overlap)


@dataclass(frozen=True)
class Speculated:
    """A text that was drafted and corrected.

    Attributes:
        prompt: its tokens.
        tokens: that came after, the one that stopped it included.
        stopped: whether such a one came.
        rounds: passes of the target, one by one.
    """

    prompt: Sequence[int]
    tokens: list[int]
    stopped: bool
    rounds: list[Round]

    @property
    def acceptance(self) -> float:
        """Accepted tokens over those that were judged; NaN where none was."""
        return acceptance(self.rounds)


def acceptance(rounds: Sequence[Round]) -> float:
    """Return the share of drafted tokens that were accepted, of those that were judged; NaN where none was.

    >>> acceptance([Round([1, 2, 3], 2, 2, [0.9, 0.8]), Round([4], 2, 0, [0.5])])
    0.6666666666666666
    """
    judged = sum(each.judged for each in rounds)
    return sum(each.accepted for each in rounds) / judged if judged else float("nan")


def residual(p_BV: Tensor, q_BV: Tensor) -> Tensor:
    """Return what is drawn from in place of a rejected token: max(p - q, 0), normalised; p where p = q.

    >>> residual(torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.2, 0.5, 0.3]])).tolist()
    [[1.0, 0.0, 0.0]]
    """
    more_BV = (p_BV - q_BV).clamp(min=0)
    sum_B1 = more_BV.sum(-1, keepdim=True)
    return torch.where(sum_B1 > 0, more_BV / sum_B1, p_BV)


class Speculation:
    """One text that a target reads on with a draft.

    Args:
        target: whose text it is.
        draft: of the same tokens.
        prompt: tokens, one or more.
        sampling: what is drawn from, of both.
        chance: uniform numbers.
    """

    def __init__(
        self,
        target: Source,
        draft: Source,
        prompt: Sequence[int],
        sampling: Sampling,
        chance: np.random.Generator,
    ) -> None:
        self.text, self.sampling, self.chance = list(prompt), sampling, chance
        self.target, self.draft = target.open(1), draft.open(1)
        for session in (self.target, self.draft):
            for _ in read(session, [self.text[:-1]]):
                pass

    def ahead(self, count: int) -> tuple[list[int], list[Tensor]]:
        """Return tokens that the draft goes on with, and what each was drawn from (1, V)."""
        tokens: list[int] = []
        drawn_from: list[Tensor] = []
        for uniform in self.chance.random(count):
            logits_TV = self._unread(self.draft, tokens)
            q_1V = self.sampling.probabilities(logits_TV[-1:])
            drawn_from.append(q_1V)
            tokens.append(int(draw(q_1V, torch.tensor([uniform], device=q_1V.device))))
        return tokens, drawn_from

    @torch.inference_mode()
    def correct(self, drafted: list[int], drawn_from: list[Tensor]) -> Round:
        """Let the target correct what `ahead` drafted, and put what comes of it behind the text."""
        count = len(drafted)
        p_TV = self.sampling.probabilities(self._unread(self.target, drafted)[-count - 1 :])
        accepted, overlap = 0, []
        if drafted:
            q_TV = torch.cat(drawn_from).to(p_TV.device)
            p_T, q_T = (each[torch.arange(count), drafted].tolist() for each in (p_TV[:-1], q_TV))
            common = torch.minimum(p_TV[:-1], q_TV).sum(-1).tolist()
            # u q < p rather than u < p / q: what q made possible and p does not is never accepted.
            for uniform, p, q in zip(self.chance.random(count), p_T, q_T, strict=True):
                overlap.append(common[accepted])
                if uniform * q >= p:
                    break
                accepted += 1
        last_1V = p_TV[accepted][None]
        if accepted < count:
            last_1V = residual(last_1V, q_TV[accepted][None])
        uniform_1 = torch.tensor([self.chance.random()], dtype=torch.float64, device=p_TV.device)
        tokens = [*drafted[:accepted], int(draw(last_1V, uniform_1))]
        self.text += tokens
        for session in (self.target, self.draft):
            session.truncate([min(session.lengths[0], len(self.text) - 1)])
        return Round(tokens, count, accepted, overlap)

    def _unread(self, session: Session, more: Sequence[int]) -> Tensor:
        """Logits of the tokens of the text, and some more, that a session has not read yet (T, V)."""
        held = session.lengths[0]
        here = len(self.text)
        return session.append([[*self.text[held:], *more[max(0, held - here) :]]])[0]


def speculations(
    target: Source,
    draft: Source,
    prompt: Sequence[int],
    tokens: int,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    *,
    ahead: int = 4,
    seed: int = 0,
    number: int = 0,
    stop: Collection[int] = (),
) -> Iterator[Round]:
    """Yield what each pass of the target gives; the arguments and errors are those of `speculate`.

    `number` is that of the prompt, where there are several: each has random numbers of its own.
    """
    same_tokens(target, draft)
    if ahead < 1:
        raise ConfigError(f"a draft of {ahead} tokens is none; draft 1 or more")
    check([prompt], tokens, lowest_limit(target, draft), seed)
    speculation = Speculation(target, draft, prompt, sampling, chance_of(seed, number))
    left = tokens
    while left > 0:
        done = speculation.correct(*speculation.ahead(min(ahead, left - 1)))
        ends = [place for place, token in enumerate(done.tokens, start=1) if token in stop]
        if ends:
            end = ends[0]
            overlap = done.overlap[:end] if end <= done.accepted else done.overlap
            done = Round(done.tokens[:end], done.drafted, min(done.accepted, end), overlap)
        yield done
        left = 0 if ends else left - len(done.tokens)


def speculate(
    target: Source,
    draft: Source,
    prompt: Sequence[int],
    tokens: int,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    *,
    ahead: int = 4,
    seed: int = 0,
    stop: Collection[int] = (),
) -> Speculated:
    """Return how a prompt goes on by a target, drafted by something cheaper; its distribution is the target's own.

    The likeliest text (a temperature of 0) is the one that `generate` gives, but where rounding lets two tokens change
    places: several tokens read in one pass have logits that differ from those read one by one in the last bits. Drawn
    texts are others than those of `generate`, of the same distribution. The target may be an `Emulated` one, the draft
    its small tuned model or a copy of the target in fewer bits.

    Args:
        target: whose text it is.
        draft: of the same tokens.
        prompt: tokens, one or more.
        tokens: drawn at most.
        sampling: what is drawn from, of both.
        ahead: tokens that are drafted for each pass of the target; `rehearse` finds the best number.
        seed: another one gives another text, but for a temperature of 0.
        stop: tokens after which the text ends.

    Raises:
        ConfigError: sources of other tokens, an empty prompt, one with no room behind it for so many tokens, or a
            number that means nothing.
        DataError: a token that the sources do not know.
        LabError: logits that are not finite.

    Example:
        >>> from bitlaw.lab.decode import Decoder, generate
        >>> from bitlaw.lab.model import Transformer
        >>> from bitlaw.shapes import Shape
        >>> large, small = (
        ...     Decoder(Transformer(Shape(width=16, depth=d, heads=2, ffn=24)), vocab=256) for d in (3, 1)
        ... )
        >>> text = speculate(large, small, b"To be", tokens=20, sampling=Sampling(temperature=0))
        >>> text.tokens == generate(large, [b"To be"], 20, Sampling(temperature=0))[0].tokens
        True
    """
    found = list(speculations(target, draft, prompt, tokens, sampling, ahead=ahead, seed=seed, stop=stop))
    drawn = [token for each in found for token in each.tokens]
    return Speculated(prompt, drawn, drawn[-1] in stop, found)
