"""Constants that are published in part: enough to show how a law bends, not to predict with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .terms import Source


@dataclass(frozen=True)
class Incomplete:
    """Constants of which some are not published: they say how a law bends, and predict no loss.

    Attributes:
        law: name of the law.
        setting: what they are of.
        values: those that are published.
        missing: those that are not, in words.
        source: where they stand.
        regime: what they were fitted on.
    """

    law: str
    setting: str
    values: Mapping[str, float]
    missing: str
    source: Source
    regime: str


_ROUNDED = "; these look rounded there: look them up before you quote them"


def _zhou(
    task: str, alpha: float, beta: float, gamma: float, delta: float, fit: float, doubt: str = ""
) -> Incomplete:
    return Incomplete(
        "task-accuracy",
        f"{task} tasks",
        {"alpha": alpha, "beta": beta, "gamma": gamma, "delta": delta},
        "A is not published",
        Source(
            "Zhou et al. 2025", "2508.18609", f"as quoted by a secondary source; adjusted R2 {fit:g}{doubt}"
        ),
        "GPTQ of Qwen3 0.6B to 14B and Llama 3 1B to 8B at 3, 4 and 8 bits, groups of 32 to 1024",
    )


def _panferov(setting: str, alpha: float, beta: float, E: float, Lm: float, F: float, C: float) -> Incomplete:
    return Incomplete(
        "capacity-sparse",
        setting,
        {"E": E, "alpha": alpha, "beta": beta, "F": F, "C": C, "Lm": Lm},
        "A and B are not published",
        Source("Panferov et al. 2025", "2506.01863", "table 3"),
        "Llama 30M to 200M, 50 to 200 tokens a parameter, forward pass only"
        if "Llama" in setting
        else "OLMo 2 models on ClimbMix, forward pass only",
    )


INCOMPLETE: tuple[Incomplete, ...] = (
    _panferov("Llama on C4", 0.13, 0.33, 1.3, 1.0, 0.41, 1.39),
    _panferov("OLMo 2 on ClimbMix", 0.18, 0.26, 1.4, 0.84, 0.37, 1.24),
    _zhou("general", -0.359, -1.067, -0.032, 0.073, 0.9475),
    _zhou("memorisation", -0.315, -0.964, -0.040, 0.064, 0.935),
    _zhou("application", -0.400, -1.100, -0.030, 0.075, 0.95, _ROUNDED),
    _zhou("reasoning", -0.320, -1.200, -0.025, 0.085, 0.93, _ROUNDED),
)
