"""Losses on fixed windows of text, and the paired gap between two models on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..corpus import Windows
from ..precision.draws import seeded
from ..train.speed import compiled

EVAL_BATCH = 16  # windows a forward pass; per-tensor scales of activations depend on it, so rows record it
MEMORY = 2**30  # bytes up to which logits are kept rather than made again
AT_ONCE = 2**27  # bytes of logits up to which measures are taken at once: they need several times as many


def logits(model: nn.Module, windows: Windows, compile: bool = False) -> Iterator[Tensor]:
    """Yield a model's logits (B, T, V) of `EVAL_BATCH` windows at a time, as float32.

    Args:
        model: of tokens (B, T).
        windows: what it reads.
        compile: run it with torch's compiler, which pays for many models of one shape; the last bits are others.
    """
    run = compiled(forward) if compile else forward
    device = next(model.parameters()).device
    for place, x_BT in enumerate(windows.inputs.split(EVAL_BATCH)):
        # Entered and left for each batch, as generators of two models may be read in turn.
        with torch.inference_mode(), seeded(place, device):  # for models that round by chance
            found = run(model, x_BT.to(device))
        yield found


def forward(model: nn.Module, x_BT: Tensor) -> Tensor:
    """A model's logits (B, T, V), as float32; one function, so that it is compiled once."""
    found: Tensor = model(x_BT).float()
    return found


def keep_logits(model: nn.Module, windows: Windows, compile: bool = False) -> Callable[[], Iterable[Tensor]]:
    """Return what gives a model's logits again and again: kept, where they fit into memory."""
    batches = logits(model, windows, compile)
    first = next(batches)
    if first[0].nbytes * len(windows.inputs) > MEMORY:
        return lambda: logits(model, windows, compile)
    kept = [first, *batches]
    return lambda: kept


def pieces(logits_BTV: Tensor, other: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Split a batch and what goes with it by windows, where its logits are large."""
    windows = max(1, AT_ONCE // logits_BTV[0].nbytes)
    return zip(logits_BTV.split(windows), other.split(windows), strict=True)


def token_losses(logits_BTV: Iterable[Tensor], windows: Windows) -> Tensor:
    """Return the loss of each token (W, T), in nats, as float64."""
    batches = zip(logits_BTV, windows.targets.split(EVAL_BATCH), strict=True)
    return torch.cat([cross_entropy(*part).cpu() for batch in batches for part in pieces(*batch)]).double()


def distances(
    after_BTV: Iterable[Tensor], before_BTV: Iterable[Tensor], compile: bool = False
) -> tuple[Tensor, Tensor]:
    """Return how far each next-token distribution q is from the one before, p, in two measures (W, T).

    sum p (log p - log q)       Kullback-Leibler divergence, in nats
    1/2 sum |p - q|             total variation: the share of tokens drawn from q that p would reject as a draft's
                                (Leviathan et al. 2023, 2211.17192, corollary 3.6)
    """
    run = compiled(distance) if compile else distance
    batches = zip(after_BTV, before_BTV, strict=True)
    found = [[measure.cpu() for measure in run(*part)] for batch in batches for part in pieces(*batch)]
    divergence, variation = map(torch.cat, zip(*found, strict=True))
    return divergence.double(), variation.double()


def distance(after_BTV: Tensor, before_BTV: Tensor) -> tuple[Tensor, Tensor]:
    """Return both of each token of a batch (B, T)."""
    log_p, log_q = before_BTV.log_softmax(-1), after_BTV.log_softmax(-1)
    p = log_p.exp()
    return (p * (log_p - log_q)).sum(-1), (p - log_q.exp()).abs().sum(-1) / 2


def cross_entropy(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Return the loss of each token of a batch (B, T), in nats."""
    return F.cross_entropy(logits_BTV.transpose(1, 2), targets_BT.to(logits_BTV.device), reduction="none")
