"""How many tokens a draft should go ahead, and how much faster that is: predicted from acceptance and costs.

    tokens a round    (1 - a^(k + 1)) / (1 - a)             a: acceptance, k: drafted tokens
    seconds a round   k c + v(k)                            c: a drafted token, v(k): a pass over k + 1 tokens
    speed-up          tokens a round * plain / seconds      plain: a token of the target alone

after Leviathan et al. 2023, theorem 3.8, where v(k) = plain. Each drafted token is taken to be accepted with the same
probability whatever came before.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import ConfigError
from .decoder import Source, lowest_limit, same_tokens
from .generate import check, stream
from .sampling import Sampling, chance_of
from .speculate import Round, Speculation

MOST = 8  # tokens that a draft is let go ahead


def expected_tokens(acceptance: float, ahead: int) -> float:
    """Return the mean tokens of a round, (1 - a^(k + 1)) / (1 - a).

    Args:
        acceptance: a, probability that a drafted token is accepted.
        ahead: k, tokens that are drafted.

    Raises:
        ConfigError: an acceptance that is no probability, or fewer than no tokens.

    >>> expected_tokens(0.5, 2), expected_tokens(1.0, 3), expected_tokens(0.0, 3)
    (1.75, 4.0, 1.0)
    """
    if not 0 <= acceptance <= 1 or ahead < 0:
        raise ConfigError(
            f"an acceptance of {acceptance} with {ahead} tokens ahead means nothing; give a probability and a count"
        )
    return math.fsum(acceptance**place for place in range(ahead + 1))


@dataclass(frozen=True)
class Costs:
    """What decoding costs, in seconds or any other unit.

    Attributes:
        plain: a token of the target alone.
        draft: a drafted token.
        verify: a pass of the target over 1, 2, ... drafted tokens and the one before, with what corrects them.
    """

    plain: float
    draft: float
    verify: Sequence[float]

    def __post_init__(self) -> None:
        values = [self.plain, self.draft, *self.verify]
        if (
            not self.verify
            or not all(math.isfinite(value) and value >= 0 for value in values)
            or not self.plain
        ):
            raise ConfigError(
                f"costs of {values} are none; give a plain one above 0, a draft's, and one or more of verifying"
            )

    def speedup(self, acceptance: float, ahead: int) -> float:
        """Return how many times as fast as the target alone decoding is.

        Args:
            acceptance: probability that a drafted token is accepted.
            ahead: drafted tokens a round.

        Raises:
            ConfigError: more tokens ahead than there are costs of.

        >>> round(Costs(plain=1.0, draft=0.1, verify=[1.0, 1.0, 1.0]).speedup(0.8, ahead=3), 3)
        2.271
        """
        if not 1 <= ahead <= len(self.verify):
            raise ConfigError(
                f"verifying was measured for 1 to {len(self.verify)} tokens ahead, not for {ahead}"
            )
        seconds = ahead * self.draft + self.verify[ahead - 1]
        return expected_tokens(acceptance, ahead) * self.plain / seconds

    def best(self, acceptance: float) -> tuple[int, float]:
        """Return how many tokens to draft, and the speed-up then; 0 and 1 where no draft is worth it.

        >>> Costs(plain=1.0, draft=0.5, verify=[1.1] * 4).best(0.3)
        (0, 1.0)
        """
        ways = [(self.speedup(acceptance, ahead), ahead) for ahead in range(1, len(self.verify) + 1)]
        speedup, ahead = max(ways)
        return (ahead, speedup) if speedup > 1 else (0, 1.0)


@dataclass(frozen=True)
class Rehearsal:
    """What was measured on some text before the rest is spoken.

    Attributes:
        acceptance: mean probability that a judged token is accepted.
        judged: tokens that this is of.
        costs: in seconds, middle ones.
        ahead: how many tokens to draft; 0 where the target alone is faster.
        speedup: that is predicted then.
    """

    acceptance: float
    judged: int
    costs: Costs
    ahead: int
    speedup: float


def _line(times: Sequence[Sequence[float]]) -> list[float]:
    """Medians of the times of 1, 2, ... tokens, on a line that does not fall, and nowhere below the least of them."""
    middle = np.array([statistics.median(each) for each in times])
    place = np.arange(len(middle)) - (len(middle) - 1) / 2
    slope = max(0.0, float(place @ middle / (place @ place or 1.0)))
    return [float(value) for value in np.maximum(middle.mean() + slope * place, middle.min())]


def rehearse(
    target: Source,
    draft: Source,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    *,
    most: int = MOST,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Rehearsal:
    """Measure acceptance and costs on text of the target's own, and choose how far a draft should go ahead.

    Rounds of 1 to `most` tokens and plain tokens take turns, so that a slow moment of the machine falls on all of them.
    Middle times of verifying are put on a line: the best of several noisy numbers would be one that is too good by
    chance.

    Args:
        target: whose text it is.
        draft: of the same tokens.
        prompts: tokens, one or more each.
        tokens: of each prompt, about.
        sampling: what is drawn from, of both.
        most: tokens ahead, at most.
        seed: of what is drawn.
        clock: gives seconds; `time.process_time` where other programs run beside.

    Raises:
        ConfigError: sources of other tokens, no prompt, or no room behind one for so many tokens.
        DataError, LabError: as of the sources.

    Example:
        >>> from bitlaw.lab.decode import Decoder
        >>> from bitlaw.lab.model import Transformer
        >>> from bitlaw.shapes import Shape
        >>> large, small = (
        ...     Decoder(Transformer(Shape(width=16, depth=d, heads=2, ffn=24)), vocab=256) for d in (3, 1)
        ... )
        >>> found = rehearse(large, small, [b"To be"], tokens=20, most=3)
        >>> 0 <= found.acceptance <= 1, len(found.costs.verify)
        (True, 3)
    """
    same_tokens(target, draft)
    if not prompts or most < 1:
        raise ConfigError(
            f"{len(prompts)} prompts with {most} tokens ahead measure nothing; give one or more"
        )
    check(prompts, tokens + most, lowest_limit(target, draft), seed)
    rounds: list[Round] = []
    drafting: list[float] = []
    verifying: list[list[float]] = [[] for _ in range(most)]
    plain: list[float] = []
    turn = 0
    for number, prompt in enumerate(prompts):
        own = chance_of(seed, 2**63 + number)  # not what the text itself will be drawn by
        spoken = Speculation(target, draft, prompt, sampling, own)
        alone = stream(target, [prompt], tokens, sampling, seed=seed)
        next(alone)  # reads the prompt
        while len(spoken.text) < len(prompt) + tokens:
            ahead = turn % most + 1
            times = [clock()]
            drafted = spoken.ahead(ahead)
            times.append(clock())
            rounds.append(spoken.correct(*drafted))
            times.append(clock())
            drafting.append((times[1] - times[0]) / ahead)
            verifying[ahead - 1].append(times[2] - times[1])
            for _ in rounds[-1].tokens:
                begun = clock()
                if next(alone, None) is not None:
                    plain.append(clock() - begun)
            turn += 1
    if not all(verifying) or not plain:
        raise ConfigError(
            f"{tokens} tokens of {len(prompts)} prompts are too few to try 1 to {most} tokens ahead; ask for more"
        )
    costs = Costs(statistics.median(plain), statistics.median(drafting), _line(verifying))
    overlap = [probability for each in rounds for probability in each.overlap]
    mean = min(1.0, statistics.fmean(overlap))
    return Rehearsal(mean, len(overlap), costs, *costs.best(mean))
