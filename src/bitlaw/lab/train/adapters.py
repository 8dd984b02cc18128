"""Low-rank adapters (LoRA; Hu et al. 2021, 2106.09685) by the package `peft`, in any scheme.

    W' = W + (alpha / r) B A,   A: (r, in),  B: (out, r) = 0 at first;   y = Q_a(x) Q_w(W')^T

An adapter is trained through the rounding of the sum, not beside a rounded weight. So what is merged in the end is what
was trained, to the bit, and lies on the scheme's grid like any weight.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

from ...errors import LabError
from ..precision.draws import seeded

ModelT = TypeVar("ModelT", bound=nn.Module)
SCALE = 2  # alpha / r
NAME = "default"  # of the one adapter of a layer, as peft calls it


def peft() -> Any:
    """The package.

    Raises:
        LabError: it is not installed.
    """
    try:
        import peft as found
    except ImportError as error:
        raise LabError(
            'LoRA needs the package peft, which is not installed; install it with: pip install "bitlaw[tune]", or tune '
            "all weights"
        ) from error
    return found


def add_adapters(model: ModelT, rank: int, seed: int) -> ModelT:
    """Put an adapter of rank r beside every linear layer of a model's blocks, in place; it says what it said before.

    Of all that is there already, quantisation steps that are learned are still trained, and nothing else.

    Args:
        model: its scheme is on it.
        rank: r; no more than the smaller side of a layer is of use.
        seed: of A.

    Raises:
        LabError: peft is not installed.
    """
    found = peft()
    from peft.tuners.lora import Linear

    class Adapted(Linear):  # type: ignore[misc, valid-type]
        """A layer whose weight has an adapter added before it is rounded."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Multiply by the sum."""
            weight = self.base_layer.weight + self.get_delta_weight(NAME)
            return torch.func.functional_call(self.base_layer, {"weight": weight}, (x,))

    layers = [
        name
        for name, module in model.named_modules()
        if name.startswith("blocks.") and isinstance(module, nn.Linear)
    ]
    config = found.LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=layers)
    config._register_custom_module({nn.Linear: Adapted})
    with seeded(seed, next(model.parameters()).device):
        found.inject_adapter_in_model(config, model, NAME)
    for name, p in model.named_parameters():
        if name.endswith(".step"):
            p.requires_grad_(True)
    return model


@torch.no_grad()
def merge_adapters(model: ModelT) -> ModelT:
    """Add every adapter to its weight, and take it away, in place; logits stay what they were, to the bit."""
    for name, module in list(model.named_modules()):
        if hasattr(module, "get_delta_weight"):
            layer, (above, _, leaf) = module.base_layer, name.rpartition(".")
            layer.weight.copy_(layer.weight + module.get_delta_weight(NAME))
            setattr(model.get_submodule(above), leaf, layer)
    return model.requires_grad_(True)
