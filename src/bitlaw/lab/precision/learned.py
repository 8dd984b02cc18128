"""Steps that are learned together with the weights (LSQ, Esser et al. 2020, 1902.08153)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...formats import Float, Recipe, Uniform
from .rounding import round_values
from .scales import grouped


def round_by_step(x: Tensor, step: Tensor, grid: Uniform | Float, low: float, share: float) -> Tensor:
    """Return step R(clip(x / step, low, peak)), with LSQ's gradients.

    Args:
        x: the numbers.
        step: of each group, such that it broadcasts.
        grid: where the numbers are rounded to.
        low: where they are cut off below.
        share: what the gradient of the step is multiplied by.
    """
    rounded: Tensor = _OnSteps.apply(x, step, grid, low, share)  # type: ignore[no-untyped-call]
    return rounded


class _OnSteps(torch.autograd.Function):
    """Rounding to steps, in few passes over memory.

    `within(v, y, low, high)` is v where y lies between, and zero elsewhere: on a CPU several times faster than a
    mask of truth values.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, grid: Uniform | Float, low: float, share: float) -> Tensor:
        y = x / step
        rounded = round_values(y.clamp(low, grid.peak), grid)
        ctx.save_for_backward(y, rounded - within(y, y, low, grid.peak))
        ctx.ends, ctx.share, ctx.shape = (low, grid.peak), share, step.shape
        return rounded.mul_(step)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        y, slope = ctx.saved_tensors
        steps = (slope * gradient).sum_to_size(ctx.shape) * ctx.share
        return within(gradient, y, *ctx.ends), steps, None, None, None


within = torch.ops.aten.hardtanh_backward


class LearnedQuantizer(nn.Module):
    """Puts a tensor on a grid with one learned step for each group.

        x_hat = s R(clip(x / s, low, high));   d x_hat / d s = R(x / s) - x / s inside, the end of the grid outside

    and the gradient of s is divided by sqrt(numbers of the group x peak), as steps and weights should move alike.
    Gradients of x pass straight through inside the grid, and stop outside. A tensor's step is set at the first
    forward pass from its values then, 2 mean|x| / sqrt(peak).
    """

    def __init__(self, recipe: Recipe, like: Tensor | None = None) -> None:
        super().__init__()
        fmt = recipe.format
        if not isinstance(fmt, (Uniform, Float)) or getattr(fmt, "shifted", False):
            raise ConfigError(f"{fmt.name} has no step to learn; try int4 or e2m1")
        if like is None and recipe.granularity != "tensor":
            raise ConfigError(
                f"a step can be learned for each {recipe.granularity} of weights only; for activations try "
                f"'{fmt.name} tensor learned'"
            )
        self.recipe, self.grid = recipe, fmt
        first = torch.zeros(1) if like is None else self._first(like.detach())  # FSDP2 takes no scalars
        self.step = nn.Parameter(first)
        self.started = False  # asked once: to look into a tensor breaks a compiled graph

    def _first(self, x: Tensor) -> Tensor:
        split, dims, _ = grouped(x, self.recipe)
        mean = split.abs().mean(dims, keepdim=len(dims) < split.ndim)
        return 2 * torch.atleast_1d(mean) / math.sqrt(self.grid.peak)

    @torch.no_grad()
    def _start(self, x: Tensor) -> None:
        if not self.step.any():
            self.step.copy_(self._first(x))
        self.started = True

    def forward(self, x: Tensor) -> Tensor:
        """Round x."""
        if not self.started:
            self._start(x)
        split, _, back = grouped(x, self.recipe)
        share = 1 / math.sqrt(split.numel() / self.step.numel() * self.grid.peak)
        return back(round_by_step(split, self.step, self.grid, -self.grid.peak, share))
