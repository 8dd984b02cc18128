"""Losses on the fixed evaluation windows, and the paired gap between two models on them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model import Transformer

EVAL_BATCH = 16  # windows a forward pass; per-tensor scales of activations depend on it, so rows record it


@dataclass(frozen=True)
class PairedGap:
    """Loss after minus loss before, in nats a token, with its standard error over windows."""

    gap: float
    se: float


@torch.inference_mode()
def window_losses(model: Transformer, inputs_WT: Tensor, targets_WT: Tensor) -> Tensor:
    """Return the mean loss of each window (W,), in nats a token, as float64."""
    device = next(model.parameters()).device
    losses = []
    with torch.random.fork_rng():
        torch.manual_seed(0)  # for models that round by chance
        for x_BT, y_BT in zip(inputs_WT.split(EVAL_BATCH), targets_WT.split(EVAL_BATCH), strict=True):
            logits_BTV = model(x_BT.to(device))
            loss_BT = F.cross_entropy(logits_BTV.transpose(1, 2), y_BT.to(device), reduction="none")
            losses.append(loss_BT.double().mean(dim=1).cpu())
    return torch.cat(losses)


def mean_and_se(losses_W: Tensor) -> tuple[float, float]:
    """Mean over windows and its standard error, windows taken as independent."""
    return losses_W.mean().item(), losses_W.std().item() / math.sqrt(len(losses_W))


def paired_gap(after_W: Tensor, before_W: Tensor) -> PairedGap:
    """Return the gap between two models on the same windows.

    >>> paired_gap(torch.tensor([2.0, 3.0]), torch.tensor([1.9, 2.9])).gap  # doctest: +ELLIPSIS
    0.0999...
    """
    return PairedGap(*mean_and_se(after_W - before_W))
