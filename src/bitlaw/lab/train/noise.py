"""How noisy a gradient is: the batch at which noise and signal are equal.

    E |G_B|^2 = |G|^2 + tr(Sigma) / B,   B_simple = tr(Sigma) / |G|^2

B_simple predicts the critical batch of plain gradient descent up to a factor of order one; Adam divides the gradient
by its size, so its critical batch may lie elsewhere (McCandlish et al. 2018, 1812.06162, appendix A).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ConfigError


@dataclass(frozen=True)
class GradientNoise:
    """Noise of a gradient at one state of a model.

    Attributes:
        signal: |G|^2 of the true gradient, without bias; below zero where noise drowns it.
        noise: tr(Sigma), the variance of the gradient of one token (or example), without bias.
        log_se: standard error of log(noise / signal), by the jackknife over parts; NaN where the signal, of all
            parts or without any one of them, is not above zero.
    """

    signal: float
    noise: float
    log_se: float

    @property
    def batch(self) -> float:
        """B_simple, in tokens (or examples); infinite where the signal is not above zero."""
        return self.noise / self.signal if self.signal > 0 else math.inf

    @classmethod
    def of(cls, gradients_KP: Tensor, examples: int) -> GradientNoise:
        """Estimate it from the mean gradients of K independent parts of a batch.

            tr(Sigma) = n / (K - 1) sum_k |G_k - G_mean|^2,   |G|^2 = |G_mean|^2 - tr(Sigma) / (K n)

        for parts of n examples each; the paper's two batch sizes, n and K n, give the same two numbers.

        Args:
            gradients_KP: a row for each part, (K, P).
            examples: n, tokens or examples in a part, whichever `batch` is to count.

        Raises:
            ConfigError: fewer than three parts, or no examples.

        Source: McCandlish et al. 2018 (1812.06162), appendix A.1.

        >>> GradientNoise.of(torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 0.0]]), examples=6).noise
        6.0
        """
        parts = len(gradients_KP)
        if parts < 3 or examples < 1:
            raise ConfigError(
                f"noise shows between parts of a batch: {parts} parts of {examples} are too few; use 16 or more"
            )
        squares = gradients_KP.double().square().sum(1)
        total = gradients_KP.double().sum(0)
        along = gradients_KP.double() @ total

        def estimate(count: int, sum_of_squares: Tensor, square_of_sum: Tensor) -> tuple[Tensor, Tensor]:
            spread = (sum_of_squares - square_of_sum / count) / (count - 1)
            return square_of_sum / count**2 - spread / count, spread * examples

        square = total @ total
        signal, noise = estimate(parts, squares.sum(), square)
        # Each part left out in turn: |T - g|^2 = |T|^2 - 2 T.g + |g|^2.
        without = estimate(parts - 1, squares.sum() - squares, square - 2 * along + squares)
        logs = without[1].log() - without[0].log()
        se = math.sqrt(parts - 1) * logs.std(correction=0).item()
        return cls(signal.item(), noise.item(), se if signal > 0 else math.nan)


def gradient_noise(model: nn.Module, tokens_BT: Tensor, targets_BT: Tensor, parts: int) -> GradientNoise:
    """Estimate the noise of a model's gradient, in tokens, from the parts of one batch.

    In low precision it is the gradient that training uses, straight through the rounding, with whatever noise
    rounding by chance adds. Tokens of one sequence are not independent, so a part is made of whole sequences. The
    gradients of all parts are held at once: `parts` times the size of the model.

    Args:
        model: from tokens to logits; its parameters keep their gradients as they are.
        tokens_BT: inputs (B, T).
        targets_BT: the token after each (B, T).
        parts: equal parts of the batch, 16 or more.

    Raises:
        ConfigError: a batch that is not so many equal parts.

    >>> from bitlaw.lab.model import Transformer
    >>> from bitlaw.shapes import ladder_shape
    >>> draw = torch.Generator().manual_seed(0)
    >>> tokens_BT = torch.randint(256, (16, 9), generator=draw)
    >>> found = gradient_noise(Transformer(ladder_shape(4_000), seed=0), tokens_BT[:, :-1], tokens_BT[:, 1:], parts=16)
    >>> found.noise > 0
    True
    """
    if parts < 1 or len(tokens_BT) % parts:
        raise ConfigError(f"{len(tokens_BT)} sequences are not {parts} equal parts")
    trained = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for some_BT, targets in zip(tokens_BT.chunk(parts), targets_BT.chunk(parts), strict=True):
        loss = F.cross_entropy(model(some_BT).float().flatten(0, 1), targets.flatten())
        found = torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([g.detach().flatten().float() for g in found]))
    return GradientNoise.of(torch.stack(rows), tokens_BT.numel() // parts)
