"""J and its transpose, applied to vectors; losses, their slopes and curvatures in the outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...errors import ConfigError

EPS = 1e-8  # Adam's
Loss = Literal["cross-entropy", "mse"]


class Line:
    """J v and J^T u at one state of a model, from graphs that are made once; both in the measure of D^(-1/2) w."""

    def __init__(self, outputs: Tensor, model: nn.Module, moments: Mapping[str, Tensor] | None) -> None:
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.outputs, self.weights = outputs, list(named.values())
        self.scales = [
            torch.ones_like(p) if moments is None else 1 / (moments[name].to(p).sqrt() + EPS)
            for name, p in named.items()
        ]
        self.roots = torch.cat([scale.sqrt().flatten() for scale in self.scales])
        self.start = torch.cat([p.detach().flatten() for p in self.weights])
        self.size = self.start.numel()
        # J^T u is linear in u, and its own derivative is J.
        self.u = torch.zeros_like(outputs, requires_grad=True)
        self.pulled = self._grad(outputs, self.u, create_graph=True)

    def _grad(self, outputs: Tensor, u: Tensor, create_graph: bool = False) -> Tensor:
        found = torch.autograd.grad(
            outputs,
            self.weights,
            u,
            create_graph=create_graph,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return torch.cat([g.flatten() for g in found]) * self.roots

    def pull(self, u: Tensor) -> Tensor:
        """J^T u, of the shape (P,)."""
        return self._grad(self.outputs, u)

    def push(self, v: Tensor) -> Tensor:
        """J v, of the shape of the outputs."""
        (found,) = torch.autograd.grad(self.pulled, self.u, v, retain_graph=True)
        return found

    def way(self, model: nn.Module) -> Tensor:
        """How far another state of the model is from this one."""
        there = torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])
        return (there - self.start) / self.roots


def view(
    model: nn.Module, inputs: Tensor, targets: Tensor, loss: Loss, classes: int
) -> tuple[Callable[[nn.Module, Tensor], Tensor], Tensor]:
    """Return a function of (model, inputs) that gives outputs (W, T, C), and the targets of the same shape."""

    def whole(model: nn.Module, x: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
            f = model(x)
        return f[:, None] if f.ndim == 2 else f

    with torch.no_grad():
        f_WTC = whole(model, inputs)
    if f_WTC.ndim != 3:
        raise ConfigError(f"outputs of {f_WTC.ndim} dimensions; (W, C) or (W, T, C) can be linearised")
    shape = f_WTC.shape if loss == "mse" else f_WTC.shape[:2]
    if targets.numel() != math.prod(shape):
        raise ConfigError(f"targets of shape {tuple(targets.shape)} for outputs {tuple(f_WTC.shape)}")
    targets = targets.reshape(shape)
    if loss == "mse" or classes >= f_WTC.shape[-1]:
        return whole, targets
    first = f_WTC.scatter(-1, targets[..., None], math.inf)  # the target comes first, whatever its logit
    likeliest_WTK = first.topk(classes - 1, dim=-1).indices

    def joined(model: nn.Module, x: Tensor) -> Tensor:
        f_WTC, kept_WTK = whole(model, x), likeliest_WTK[: len(x)]  # all examples, or the first of them
        rest = f_WTC.scatter(-1, kept_WTK, -math.inf).logsumexp(-1, keepdim=True)
        return torch.cat([f_WTC.gather(-1, kept_WTK), rest], -1)

    return joined, torch.zeros_like(targets)


def mean_loss(f_WTC: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """The mean loss of outputs (W, T, C)."""
    if loss == "mse":
        return nn.functional.mse_loss(f_WTC, targets)
    return nn.functional.cross_entropy(f_WTC.flatten(0, 1), targets.flatten())


def slope(f_WTC: Tensor, targets: Tensor, loss: Loss, trained: int) -> Tensor:
    """The slope of the loss of the first examples in all outputs."""
    if loss == "mse":
        return _share(f_WTC, trained, 2 / f_WTC[:trained].numel()) * (f_WTC - targets)
    wrong = f_WTC.softmax(-1) - nn.functional.one_hot(targets, f_WTC.shape[-1])
    return _share(f_WTC, trained, 1 / f_WTC[:trained, :, 0].numel()) * wrong


def curved(f_WTC: Tensor, loss: Loss, trained: int, v: Tensor) -> Tensor:
    """L'' v: what the slope does where the outputs f change by v, or by each of several v (K, W, T, C)."""
    if loss == "mse":
        return _share(f_WTC, trained, 2 / f_WTC[:trained].numel()) * v
    p = f_WTC.softmax(-1)
    pv = p * v
    return _share(f_WTC, trained, 1 / f_WTC[:trained, :, 0].numel()) * (pv - p * pv.sum(-1, keepdim=True))


def _share(f_WTC: Tensor, trained: int, value: float) -> Tensor:
    out = f_WTC.new_zeros(len(f_WTC), 1, 1)
    out[:trained] = value
    return out
