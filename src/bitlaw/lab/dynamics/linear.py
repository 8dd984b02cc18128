"""A model linearised, and how long the straight line holds."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...errors import ConfigError, LabError
from ..precision import LowPrecisionLinear
from .directions import directions as span
from .line import Line, Loss, curved, mean_loss, slope, view
from .record import Linearised


def linearise(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    loss: Loss = "cross-entropy",
    trained: int | None = None,
    reference: float = math.nan,
    directions: int = 48,
    classes: int = 32,
    second_moments: Mapping[str, Tensor] | None = None,
    batch: int = 0,
    steps: int = 10,
) -> Linearised:
    """Linearise a model in those of its weights that require a gradient, and see how long the straight line holds.

    Args:
        model: from inputs to outputs; it stays as it is.
        inputs: examples (W, ...), windows of tokens for a language model; those that train first.
        targets: classes (W,) or (W, T); of squared errors, of the shape of the outputs.
        loss: `cross-entropy`, or `mse`, the mean over all outputs.
        trained: how many examples train; the others are measured. None: all do, and are measured too.
        reference: loss of the measured examples that is to be reached again, such as that of 16 bits.
        directions: of weight space that are kept; none is lost where there are no more weights, or outputs, than that.
        classes: outputs kept of each prediction: its target, the likeliest, and all others as one whose logit is the
            logarithm of their sum. The loss and its slope stay exact, and the spread among those others is lost.
        second_moments: of each gradient, as Adam divides by their roots; None means gradient descent.
        batch: examples in a batch of these moments, which fall as it grows: plans for another are then refused.
        steps: real steps at half the stable rate, on all examples that train, after which drift and progress are taken.

    Raises:
        ConfigError: arguments that do not fit together.
        LabError: a model whose training is no straight line even in small steps, or that is not finite.

    Source: Zancato et al. 2020 (2010.12478); Lanczos directions, classes and drift are ours.

    >>> model = nn.Linear(3, 2)
    >>> found = linearise(model, torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 1]))
    >>> found.exact, found.factor.shape, round(found.progress, 4)
    (True, torch.Size([5, 1, 2, 8]), 1.0)
    """
    began = time.perf_counter()
    _check(model, inputs, targets, loss, trained, directions, classes)
    trained = len(inputs) if trained is None else trained
    see, targets = view(model, inputs, targets, loss, classes)
    line = Line(see(model, inputs), model, second_moments)
    outputs = line.outputs.detach()
    if not torch.isfinite(outputs).all():
        raise LabError("the outputs are not finite; the model cannot be linearised there")
    r = slope(outputs, targets, loss, trained)
    g = line.pull(r)
    factor, exact = span(line, targets, loss, trained, most=directions)
    some_G = factor[:trained].movedim(-1, 0)
    small = curved(outputs[:trained], loss, trained, some_G).flatten(1) @ some_G.flatten(1).T
    sharpest = float(torch.linalg.eigvalsh((small + small.T) / 2)[-1])
    drift, moved, progress = 0.0, 0.0, 1.0
    if steps and sharpest > 0:
        some = inputs[:trained], targets[:trained]
        walker = copy.deepcopy(model)
        for _ in range(steps):
            _step(see(walker, some[0]), some[1], loss, walker, line.scales, 1 / sharpest)
        after = Line(see(walker, some[0]), walker, second_moments)
        way = line.way(walker)
        drift = float((after.pull(r[:trained]) - g).norm() / g.norm())
        moved = float(way.norm())
        start, real, straight = (
            float(mean_loss(f[:trained], some[1], loss))
            for f in (outputs, after.outputs.detach(), outputs + line.push(way))
        )
        progress = (start - real) / (start - straight)
        if not math.isfinite(drift + moved + progress):
            raise LabError(
                f"{steps} steps at half the stable rate are enough to lose the model: its training is no straight "
                "line; train it a little first"
            )
    return Linearised(
        outputs,
        targets,
        factor,
        loss,
        "sgd" if second_moments is None else "adam",
        trained,
        float(reference),
        exact,
        drift,
        moved,
        progress,
        line.size,
        time.perf_counter() - began,
        batch,
    )


def second_moments(
    model: nn.Module, inputs: Tensor, targets: Tensor, batch: int, loss: Loss = "cross-entropy"
) -> dict[str, Tensor]:
    """Return the mean square of each weight's gradient over batches, which is what Adam's own average settles at.

    Args:
        model: from inputs to outputs.
        inputs: examples that train.
        targets: theirs.
        batch: examples in a batch of the training that is predicted.
        loss: as in `linearise`.

    >>> model = nn.Linear(3, 2)
    >>> moments = second_moments(model, torch.randn(8, 3), torch.randint(2, (8,)), batch=2)
    >>> sorted(moments)
    ['bias', 'weight']
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    totals = {name: torch.zeros_like(p) for name, p in named.items()}
    see, targets = view(model, inputs, targets, loss, classes=2**31)
    count = len(inputs) // batch
    for some, theirs in zip(
        inputs[: count * batch].split(batch), targets[: count * batch].split(batch), strict=True
    ):
        gradients = torch.autograd.grad(mean_loss(see(model, some), theirs, loss), list(named.values()))
        for total, gradient in zip(totals.values(), gradients, strict=True):
            total += gradient.square() / count
    return totals


def _step(
    outputs: Tensor, targets: Tensor, loss: Loss, model: nn.Module, scales: list[Tensor], rate: float
) -> None:
    weights = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(
        mean_loss(outputs, targets, loss), weights, allow_unused=True, materialize_grads=True
    )
    with torch.no_grad():
        for p, gradient, scale in zip(weights, gradients, scales, strict=True):
            p -= rate * scale * gradient


def _check(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss: str,
    trained: int | None,
    directions: int,
    classes: int,
) -> None:
    if loss not in ("cross-entropy", "mse"):
        raise ConfigError(f"there is no loss {loss!r} here; use 'cross-entropy' or 'mse'")
    if len(inputs) != len(targets) or not len(inputs):
        raise ConfigError(
            f"{len(inputs)} examples with {len(targets)} targets; give one target, or row, each"
        )
    if trained is not None and not 0 < trained <= len(inputs):
        raise ConfigError(f"{trained} of {len(inputs)} examples cannot train; use 1 to {len(inputs)}")
    if directions < 1 or classes < 2:
        raise ConfigError(f"{directions} directions and {classes} classes; use 1 and 2, or more")
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError("no weight requires a gradient, so training would change nothing")
    for module in model.modules():
        if getattr(module, "stored", None) is not None:
            raise LabError("stored weights move by their own rounding, which no straight line tells")
        if isinstance(module, LowPrecisionLinear) and (
            module.scheme.grad_w.quantized or module.scheme.grad_a.quantized
        ):
            raise LabError("gradients that are rounded are no gradients of anything; linearise without them")
        if getattr(getattr(module, "recipe", None), "rounding", "nearest") == "stochastic":
            raise LabError(
                "what is rounded by chance is no function of the weights; linearise it rounded to nearest"
            )
