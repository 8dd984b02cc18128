"""The loss of training as it falls, in some hundred points however long training goes on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

AN_OCTAVE = 8  # points for each doubling of the steps


class Curve:
    """Means of the training loss over stretches of steps, each an eighth of a doubling long.

    It is part of a run's state, so that a run that is resumed has the same one.

    >>> curve = Curve()
    >>> for step in range(1, 1001):
    ...     curve.add(step, 2.0)
    >>> len(curve.points), curve.points[-1]
    (63, (1000, 2.0))
    """

    def __init__(self) -> None:
        self._stretches: list[list[float]] = []  # place, last step, sum, count

    @property
    def points(self) -> list[tuple[int, float]]:
        """The last step of each stretch, and the mean loss over it, in nats per token before the step's update."""
        return [(int(step), total / count) for _, step, total, count in self._stretches]

    def add(self, step: int, loss: float) -> None:
        """Note the loss of a step, the first of which is 1."""
        place = math.floor(AN_OCTAVE * math.log2(step))
        if self._stretches and self._stretches[-1][0] == place:
            before = self._stretches[-1]
            self._stretches[-1] = [place, step, before[2] + loss, before[3] + 1]
        else:
            self._stretches.append([place, step, loss, 1])

    def tensor(self) -> Tensor:
        """All of it (n, 4), for a checkpoint."""
        return torch.tensor(self._stretches, dtype=torch.float64).reshape(-1, 4)

    def load(self, tensor: Tensor | None) -> None:
        """Take over what `tensor` gave; None, of older checkpoints, is a curve that begins here."""
        self._stretches = [] if tensor is None else tensor.tolist()
