"""Means over tokens with standard errors that take what hangs together as one draw."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

FEW = 8  # documents below which windows are the independent units instead


@dataclass(frozen=True)
class Mean:
    """A mean over tokens, and its standard error with `clusters` independent units."""

    value: float
    se: float
    clusters: int


def clustered_mean(values_WT: Tensor, documents_WT: Tensor) -> Mean:
    """Return a mean over tokens and its standard error, tokens of one document taken as one draw.

    With S_g the sum and n_g the tokens of document g, and m the mean over all n tokens:

        se^2 = G / (G - 1) sum_g (S_g - n_g m)^2 / n^2

    Of fewer than `FEW` documents, windows are the units: then what a document has of its own is not in the error.

    >>> clustered_mean(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 2, dtype=torch.long))
    Mean(value=2.5, se=1.0, clusters=2)
    """
    _, units = documents_WT.unique(return_inverse=True)
    if int(units.max()) + 1 < FEW:
        units = torch.arange(len(values_WT))[:, None].expand(values_WT.shape)
    return mean_of_units(values_WT, units)


def mean_of_units(values: Tensor, units: Tensor) -> Mean:
    """Return a mean, and its standard error as above where numbers of one unit (0, 1, ..., as many) are one draw."""
    count = int(units.max()) + 1
    mean = values.mean()
    sums = torch.zeros(count, dtype=torch.float64)
    sums.index_add_(0, units.flatten(), (values - mean).flatten().double())
    correction = count / (count - 1) if count > 1 else math.nan
    se = math.sqrt(correction * sums.square().sum().item()) / values.numel()
    return Mean(mean.item(), se, count)
