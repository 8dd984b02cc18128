"""Round to nearest: the plainest way to quantise the weights of a trained model."""

from __future__ import annotations

import copy

import torch
from torch import nn

from ...formats import Recipe
from ..model import Transformer
from ..precision import quantize


@torch.no_grad()
def quantize_rtn(model: Transformer, recipe: Recipe) -> Transformer:
    """Return a copy of a model whose block weights are rounded to a format's grid.

    The same matrices are quantised as in low-precision training, those of the blocks; embedding, head and norms stay.
    """
    quantized = copy.deepcopy(model)
    for name, module in quantized.named_modules():
        if isinstance(module, nn.Linear) and name.startswith("blocks."):
            module.weight.copy_(quantize(module.weight, recipe))
    return quantized
