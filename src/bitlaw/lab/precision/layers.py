"""Precision is put onto a model from outside; the model never asks about bits."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...formats import Recipe, Scheme
from .learned import LearnedQuantizer
from .quantizer import fake_quantize, quantize
from .stored import stored

ModelT = TypeVar("ModelT", bound=nn.Module)


class FakeQuantize(nn.Module):
    """Stands where a tensor is stored, and rounds it as the store would."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe

    def forward(self, x: Tensor) -> Tensor:
        """Round x."""
        return fake_quantize(x, self.recipe)


def quantizer(recipe: Recipe, like: Tensor | None = None) -> nn.Module:
    """Return a module that puts tensors on a recipe's grid; `like` is the weight whose steps are learned, if any."""
    if not recipe.quantized or recipe.stored:  # what is stored lies on its grid already
        return nn.Identity()
    return LearnedQuantizer(recipe, like) if recipe.scale == "learned" else FakeQuantize(recipe)


class _RoundGradient(torch.autograd.Function):
    """The identity, whose gradient is put on a grid on its way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, recipe: Recipe) -> Tensor:
        ctx.recipe = recipe
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return quantize(gradient, ctx.recipe), None


def round_gradient(x: Tensor, recipe: Recipe) -> Tensor:
    """Return x; its gradient is put on a recipe's grid on the way back."""
    rounded: Tensor = _RoundGradient.apply(x, recipe) if recipe.quantized else x  # type: ignore[no-untyped-call]
    return rounded


def store(layer: nn.Linear | nn.Embedding, recipe: Recipe, headroom: float | None = None) -> None:
    """Put a layer's weight on a grid, and keep its codes and steps beside it as `stored`."""
    layer.stored = stored(layer.weight, recipe, headroom)
    layer.weight.data = layer.stored.read()


class LowPrecisionLinear(nn.Linear):
    """A linear layer whose weight and input are rounded on the way forward, and whose gradients on the way back.

        y = Q_a(x) Q_w(W)^T;   with g = Q_grad_a(dy):  dx = g Q_w(W),  dW = Q_grad_w(g^T Q_a(x))

    Both products of the backward pass take one rounded gradient. With a scale a tensor that is what hardware does; with
    groups, blocks or tokens hardware rounds anew for dW, along the tokens that it sums over.
    """

    def __init__(self, linear: nn.Linear, scheme: Scheme, headroom: float | None = None) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.scheme = scheme
        self.quantize_weight = quantizer(scheme.w, linear.weight)
        self.quantize_input = quantizer(scheme.a)
        if scheme.w.stored:
            store(self, scheme.w, headroom)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the rounded weight."""
        weight = self.quantize_weight(round_gradient(self.weight, self.scheme.grad_w))
        return round_gradient(F.linear(self.quantize_input(x), weight, self.bias), self.scheme.grad_a)


class LowPrecisionEmbedding(nn.Embedding):
    """An embedding table whose rows are rounded; where rows have scales of their own, only those looked up."""

    def __init__(self, embedding: nn.Embedding, recipe: Recipe) -> None:
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim
        self.weight = embedding.weight
        self.by_row = recipe.granularity in ("channel", "token", "group") and recipe.scale != "learned"
        self.quantize_weight = quantizer(recipe, embedding.weight)
        if recipe.stored:
            store(self, recipe)

    def forward(self, tokens: Tensor) -> Tensor:
        """Look rows up."""
        if self.by_row:
            rows: Tensor = self.quantize_weight(F.embedding(tokens, self.weight))
            return rows
        return F.embedding(tokens, self.quantize_weight(self.weight))


@torch.no_grad()
def settle(layer: nn.Module) -> None:
    """Make the weights that a layer of low precision computes with its only ones; others are left alone."""
    if isinstance(layer, (LowPrecisionLinear, LowPrecisionEmbedding)):
        layer.weight.copy_(layer.quantize_weight(layer.weight))
        layer.quantize_weight = nn.Identity()
        layer.stored = None


def apply_scheme(model: ModelT, scheme: Scheme) -> ModelT:
    """Put a scheme on a model in place.

    Weights and activations are those of the linear layers of the blocks; norms stay as they are. Parameters keep
    their names, so checkpoints do not depend on the scheme; learned steps are added to them. A weight that is stored
    is put on its grid here, and stays on it if it is trained between `StoredWeights.read` and `write`.
    """
    stored = {"cached_k": scheme.kv, "cached_v": scheme.kv, "queries": scheme.q}
    inside = any(recipe.quantized for recipe in (scheme.w, scheme.a, scheme.grad_a, scheme.grad_w))
    for name, module in list(model.named_modules()):
        parent = model.get_submodule(name.rpartition(".")[0])
        leaf = name.rpartition(".")[2]
        if isinstance(module, nn.Linear) and name.startswith("blocks.") and inside:
            setattr(parent, leaf, LowPrecisionLinear(module, scheme))
        elif name == "head" and scheme.head.quantized:
            # It begins with deviations of 1 / fan in, and ends with a few 1 / sqrt(fan in): docs/log.md.
            headroom = 3 * module.in_features**0.5
            setattr(parent, leaf, LowPrecisionLinear(module, Scheme(w=scheme.head), headroom))
        elif name == "embedding" and scheme.emb.quantized:
            setattr(parent, leaf, LowPrecisionEmbedding(module, scheme.emb))
        elif leaf in stored and isinstance(module, nn.Identity):
            setattr(parent, leaf, quantizer(stored[leaf]))
    return model
