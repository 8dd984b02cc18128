"""What a model is scored on in the same pass as its loss: errors on tasks, and how far its confidence is right.

`bitlaw.calibration` measures the same on arrays, with intervals; this is made for thousands of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..corpus import Text, Windows, spread_windows
from ..train.speed import compiled
from .evaluate import EVAL_BATCH, MEMORY, cross_entropy, logits, pieces
from .tasks import task_masks

BINS = 15  # as in bitlaw.calibration, like the ends of temperatures
COLDEST, HOTTEST = 1e-3, 1e3
TOLERANCE = 1e-4  # of log temperature
NEWTON, STEPS = 10, 40  # where there is no lowest point, Newton creeps
TEMPERATURE_TOKENS = 16_384


@dataclass(frozen=True)
class Exam:
    """What models are scored on beside their loss.

    Attributes:
        tasks: which tokens of the evaluation windows each task judges (W, T).
        calibration: windows that the temperature is fitted to; None means that none is.
    """

    tasks: Mapping[str, Tensor] = field(default_factory=dict)
    calibration: Windows | None = None

    @classmethod
    def of(cls, evaluation: Windows, calibration: Text) -> Exam:
        """The tasks of some evaluation windows, and up to 16,384 tokens of calibration text in windows as long."""
        length = evaluation.inputs.shape[1]
        there = (len(calibration.tokens) - 1) // length * length
        tokens = min(there, TEMPERATURE_TOKENS)
        windows = spread_windows(calibration, tokens, length) if tokens >= length else None
        return cls(task_masks(evaluation, calibration), windows)


@dataclass(frozen=True)
class Scores:
    """How a model did.

    Attributes:
        ece: expected calibration error of its largest probability, 15 bins.
        errors: share of the places of each task at which its first choice is wrong.
        temperature: the one that is best on calibration text; None if none was fitted.
        loss_scaled: evaluation loss at that temperature, nats per token.
    """

    ece: float
    errors: dict[str, float]
    temperature: float | None
    loss_scaled: float | None


def score(
    model: nn.Module, logits_BTV: Iterable[Tensor], windows: Windows, exam: Exam, compile: bool = False
) -> tuple[Tensor, Scores]:
    """Return the loss of each token (W, T) as `token_losses` does, and the scores, in one pass over logits.

    Args:
        model: which makes the logits, for those of the calibration windows.
        logits_BTV: of the evaluation windows.
        windows: the evaluation windows.
        exam: what is scored.
        compile: run it with torch's compiler.
    """
    t = fit_temperature(model, exam.calibration, compile) if exam.calibration else None
    run = compiled(judge) if compile else judge
    at = None if t is None else torch.tensor(t)
    batches = zip(logits_BTV, windows.targets.split(EVAL_BATCH), strict=True)
    found = [
        [measure.cpu() for measure in run(z_BTV, y_BT.to(z_BTV.device), at)]
        for batch in batches
        for z_BTV, y_BT in pieces(*batch)
    ]
    loss, scaled, sure, hit = map(torch.cat, zip(*found, strict=True))
    return loss.double(), Scores(
        calibration_error(sure, hit),
        {task: 1 - hit[mask].double().mean().item() for task, mask in exam.tasks.items()},
        t,
        scaled.double().mean().item() if t is not None else None,
    )


def judge(z_BTV: Tensor, y_BT: Tensor, t: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return of each token (B, T) its loss, that at temperature t, the largest probability, and whether it hits."""
    y_BT1, first_BT1 = y_BT[..., None], z_BTV.argmax(-1, keepdim=True)
    own_BT, top_BT = z_BTV.gather(-1, y_BT1)[..., 0], z_BTV.gather(-1, first_BT1)[..., 0]
    loss_BT = cross_entropy(z_BTV, y_BT)
    scaled_BT = loss_BT if t is None else (z_BTV / t).logsumexp(-1) - own_BT / t
    sure_BT = (top_BT - own_BT - loss_BT).exp()  # the loss is the logarithm of the sum less `own`
    return loss_BT, scaled_BT, sure_BT, (first_BT1 == y_BT1)[..., 0]


def calibration_error(confidence: Tensor, hit: Tensor) -> float:
    """Expected calibration error of predictions, sum_b |sum of (hit - confidence) in bin b| / n.

    >>> round(calibration_error(torch.tensor([0.982] * 4), torch.tensor([True, True, True, False])), 3)
    0.232
    """
    p = confidence.flatten().double()
    if not p.isfinite().all():
        return math.nan
    place = ((p * BINS).ceil().long() - 1).clamp(0, BINS - 1)
    off = torch.bincount(place, hit.flatten().double() - p, BINS)
    return off.abs().sum().item() / p.numel()


def fit_temperature(model: nn.Module, windows: Windows, compile: bool = False) -> float | None:
    """The temperature at which a model's loss on some windows is lowest, from 1/1000 to 1000.

    Of logits that would not fit into memory, the first are taken.

    Returns:
        The temperature; None if a logit is not finite.
    """
    kept: list[Tensor] = []
    batches = zip(logits(model, windows, compile), windows.targets.split(EVAL_BATCH), strict=True)
    for z_BTV, y_BT in (part for batch in batches for part in pieces(*batch)):
        if kept and sum(part.nbytes for part in kept) + z_BTV.nbytes > MEMORY:
            break
        kept.append((z_BTV - z_BTV.gather(-1, y_BT.to(z_BTV.device)[..., None])).flatten(0, 1))
    return best_temperature(torch.cat(kept))


def best_temperature(beyond_NV: Tensor) -> float | None:
    """The temperature for logits less that of the true token, whose loss at t is the mean of logsumexp(z / t).

    It is convex in 1 / t: Newton steps in that, and halves of what holds the lowest point where they leave it.

    >>> best = best_temperature(torch.tensor([[0.0, -4.0]] * 3 + [[4.0, 0.0]]))  # sure, and right three times of four
    >>> abs(best - 4 / math.log(3)) < 1e-3
    True
    """
    if not beyond_NV.isfinite().all():
        return None
    low, u, high = math.log(COLDEST), 0.0, math.log(HOTTEST)  # of log t
    for count in range(STEPS):
        s = math.exp(-u)
        p_NV = (beyond_NV * s).softmax(-1)
        by_NV = p_NV * beyond_NV
        mean_N = by_NV.sum(-1)
        slope = mean_N.double().mean().item()  # by s; falls as u rises
        bend = ((by_NV * beyond_NV).sum(-1) - mean_N.square()).double().mean().item()
        low, high = (u, high) if slope > 0 else (low, u)
        step = s - slope / bend if bend > 0 else 0.0
        there = -math.log(step) if step > 0 else math.inf
        there = there if low < there < high and count < NEWTON else (low + high) / 2
        if abs(there - u) < TOLERANCE or high - low < TOLERANCE:
            return math.exp(there)
        u = there
    return math.exp(u)
