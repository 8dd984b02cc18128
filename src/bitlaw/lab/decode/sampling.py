"""From logits to a distribution, and from a distribution to a token.

p(y) ~ exp(z_y / temperature)   for y in the set that top-k and top-p leave, and 0 elsewhere
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError

ROUNDING = 1e-12  # of a sum of probabilities that is to reach top-p


@dataclass(frozen=True)
class Sampling:
    """What is drawn from: the model's own distribution, or a sharper one.

    Temperature comes first, then top-k, then top-p of what top-k left. Among tokens that are as likely, the one of the
    lower number counts as the likelier. One object gives the very probabilities that are drawn from, which is what
    exact speculative decoding compares.

    Attributes:
        temperature: what logits are divided by; 0 always takes the likeliest token.
        top_k: tokens that are left, the likeliest; None leaves all.
        top_p: the fewest tokens are left whose probabilities sum to this or more: nucleus sampling (Holtzman et al.
            2020, 1904.09751, section 3.1); None leaves all.

    Raises:
        ConfigError: a value that leaves nothing to draw from.

    >>> Sampling(top_p=0.7).probabilities(torch.tensor([[0.5, 0.3, 0.2]]).log())
    tensor([[0.6250, 0.3750, 0.0000]], dtype=torch.float64)
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError(
                f"a temperature of {self.temperature} means nothing; use 0 for the likeliest token, 1 for the model's "
                "own distribution, or what lies between"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(
                f"the {self.top_k} likeliest tokens leave none to draw; use a top-k of 1 or more"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"a top-p of {self.top_p} is no share of probability; use one above 0, up to 1")

    def probabilities(self, logits_BV: Tensor) -> Tensor:
        """Return what is drawn from (B, V), as float64.

        Args:
            logits_BV: finite; log-probabilities do as well.
        """
        logits_BV = logits_BV.double()
        if self.temperature == 0:
            likeliest_B1 = logits_BV.argmax(-1, keepdim=True)
            return torch.zeros_like(logits_BV).scatter_(-1, likeliest_B1, 1.0)
        # The highest is taken off before the division, which a temperature near zero would make infinite.
        p_BV = ((logits_BV - logits_BV.amax(-1, keepdim=True)) / self.temperature).softmax(-1)
        if self.top_k is None and self.top_p is None:
            return p_BV
        sorted_BV, order_BV = p_BV.sort(dim=-1, descending=True, stable=True)
        if self.top_k is not None:
            sorted_BV[:, self.top_k :] = 0
        if self.top_p is not None:
            share_BV = sorted_BV / sorted_BV.sum(-1, keepdim=True)
            before_BV = share_BV.cumsum(-1) - share_BV
            sorted_BV[:, 1:][before_BV[:, 1:] >= self.top_p - ROUNDING] = 0
        p_BV = torch.zeros_like(p_BV).scatter_(-1, order_BV, sorted_BV)
        return p_BV / p_BV.sum(-1, keepdim=True)


def chance_of(seed: int, number: int) -> np.random.Generator:
    """The uniform numbers of one prompt of several, which hang on the seed and its number alone."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, number], dtype=np.uint64)))


def draw(p_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """Return the token (B,) at which the sum of probabilities passes a number drawn uniformly from [0, 1).

    Args:
        p_BV: probabilities; their sum need not be 1.
        uniform_B: one number a row.

    >>> draw(torch.tensor([[0.25, 0.0, 0.75]] * 3), torch.tensor([0.0, 0.25, 0.99]))
    tensor([0, 2, 2])
    """
    sums_BV = p_BV.double().cumsum(-1)
    passed_B1 = uniform_B.to(sums_BV)[:, None] * sums_BV[:, -1:]
    found_B = torch.searchsorted(sums_BV, passed_B1, right=True)[:, 0]
    last_B = p_BV.shape[-1] - 1 - (p_BV.flip(-1) > 0).int().argmax(-1)
    return torch.minimum(found_B, last_B)  # a product that was rounded up to the whole sum passes none
