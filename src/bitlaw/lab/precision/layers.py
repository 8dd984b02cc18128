"""Precision is put onto a model from outside; the model never asks about bits."""

from __future__ import annotations

from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from ...formats import Format, Granularity, Scheme
from .quantizer import fake_quantize

ModelT = TypeVar("ModelT", bound=nn.Module)


class LowPrecisionLinear(nn.Linear):
    """A linear layer whose weight (per output channel) and input (per tensor) are fake-quantised."""

    def __init__(self, linear: nn.Linear, w: Format, a: Format) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.w_format, self.a_format = w, a

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the rounded weight."""
        weight = fake_quantize(self.weight, self.w_format, "channel")
        return F.linear(fake_quantize(x, self.a_format, "tensor"), weight, self.bias)


class FakeQuantize(nn.Module):
    """Stands where a tensor is stored, and rounds it as the store would."""

    def __init__(self, fmt: Format, granularity: Granularity = "tensor") -> None:
        super().__init__()
        self.format, self.granularity = fmt, granularity

    def forward(self, x: Tensor) -> Tensor:
        """Round x."""
        return fake_quantize(x, self.format, self.granularity)


def apply_scheme(model: ModelT, scheme: Scheme) -> ModelT:
    """Put a scheme on a model in place: linear layers of the blocks, and the keys and values they cache.

    Embedding, output head and norms stay as they are: the paper does not say how it treated them, and
    its N counts only the blocks. Parameters keep their names, so checkpoints do not depend on the scheme.
    """
    for name, module in list(model.named_modules()):
        parent = model.get_submodule(name.rpartition(".")[0])
        leaf = name.rpartition(".")[2]
        if isinstance(module, nn.Linear) and name.startswith("blocks.") and scheme.quantized:
            setattr(parent, leaf, LowPrecisionLinear(module, scheme.w, scheme.a))
        elif leaf in ("cached_k", "cached_v") and isinstance(module, nn.Identity):
            setattr(parent, leaf, FakeQuantize(scheme.kv))
    return model
