"""Quantise the weights of a whole model after training, block by block, each on what the blocks before it make."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ...errors import ConfigError, LabError, nearest
from ...formats import Recipe
from ..precision import quantize, settle
from ..precision.draws import seeded
from .awq import awq
from .evaluate import EVAL_BATCH
from .gptq import gptq

ModelT = TypeVar("ModelT", bound=nn.Module)
Method = Callable[[Tensor, Tensor, Recipe], Tensor]

METHODS: dict[str, Method] = {
    "rtn": lambda weight, moments, recipe: quantize(weight, recipe),
    "gptq": gptq,
    "awq": awq,
}


@torch.no_grad()
def quantize_model(
    model: ModelT, recipe: Recipe, method: str = "rtn", calibration: Tensor | None = None
) -> ModelT:
    """Return a copy of a model with the weights of its blocks' linear layers quantised; the rest stays.

    Blocks are taken in order, and each sees its inputs as the quantised blocks before it make them; statistics are of
    inputs before a linear layer rounds them, if it does. Rounding by chance draws from a seed of its own.

    Args:
        model: a decoder with its blocks in `blocks`.
        recipe: format, groups and scales.
        method: `rtn`, `gptq` or `awq`.
        calibration: token windows (W, T) that the inputs' statistics are of; rounding to nearest needs none.

    Raises:
        ConfigError: an unknown method, or no calibration for one that needs it.
        LabError: inputs that are not finite.
    """
    if method not in METHODS:
        raise ConfigError(f"there is no method {method!r}; {nearest(method, METHODS)}")
    if calibration is None and method != "rtn":
        raise ConfigError(f"{method} needs calibration text; give some that is not evaluated on")
    with seeded(0, next(model.parameters()).device):
        return _quantized(copy.deepcopy(model), recipe, method, calibration)


def _quantized(quantized: ModelT, recipe: Recipe, method: str, calibration: Tensor | None) -> ModelT:
    blocks: list[nn.Module] = list(quantized.blocks)
    for block in blocks:
        for linear in linears_of(block).values():
            settle(linear)
    if calibration is None or not recipe.quantized:
        for block in blocks:
            for linear in linears_of(block).values():
                linear.weight.copy_(quantize(linear.weight, recipe))
        return quantized
    inputs = list(_entering(quantized, blocks[0], calibration))
    for block in blocks:
        moments = {name: _Moments(linear) for name, linear in linears_of(block).items()}
        for x, rest in inputs:
            block(x, *rest[0], **rest[1])
        for name, linear in linears_of(block).items():
            linear.weight.copy_(METHODS[method](linear.weight, moments[name].stop(), recipe))
        inputs = [(_hidden(block(x, *rest[0], **rest[1])), rest) for x, rest in inputs]
    return quantized


def linears_of(block: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of a block by name."""
    return {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear)}


class _Moments:
    """Gathers E[x x^T] of what enters a linear layer."""

    def __init__(self, linear: nn.Linear) -> None:
        width = linear.in_features
        self.total = torch.zeros(width, width, dtype=torch.float64, device=linear.weight.device)
        self.count = 0
        self.handle = linear.register_forward_pre_hook(self._see)

    def _see(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        x = arguments[0].reshape(-1, arguments[0].shape[-1]).float()
        self.total += (x.T @ x).double()
        self.count += len(x)

    def stop(self) -> Tensor:
        """Stop listening, and return what was gathered."""
        self.handle.remove()
        if not torch.isfinite(self.total).all():
            raise LabError("an input is not finite; the model diverges on the calibration text")
        return self.total / max(self.count, 1)


class _Arrived(Exception):
    """The first block has been reached."""


def _entering(
    model: nn.Module, first: nn.Module, calibration: Tensor
) -> Iterator[tuple[Tensor, tuple[tuple[Any, ...], dict[str, Any]]]]:
    """What enters the first block for each window of text: hidden states, and whatever else it is given."""
    seen: list[tuple[Tensor, tuple[tuple[Any, ...], dict[str, Any]]]] = []

    def stop(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        hidden, *rest = arguments if arguments else (named.pop("hidden_states"),)
        seen.append((hidden, (tuple(rest), named)))
        raise _Arrived

    handle = first.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        for window in calibration.split(EVAL_BATCH):
            try:
                model(window)
            except _Arrived:
                yield seen.pop()
    finally:
        handle.remove()


def _hidden(output: Any) -> Tensor:
    """The hidden states among what a block returns."""
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found
