"""Few directions of weight space that hold the way of training.

J is too large to keep; kept is G = J Q for orthonormal directions Q. The first few are Lanczos vectors: the span of g,
H g, H^2 g, ... with g the gradient of the loss and H = J^T L'' J its curvature, in which gradient descent stays for as
long as L'' does. L'' of cross-entropy moves as the outputs do, so the others are gradients of the linearised model
further along its own way, at times that grow geometrically: where the directions so far lead, and what they miss there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import LabError
from .line import Line, Loss, curved, slope

LANCZOS = 8
LONGEST = 3000.0  # the last time at which a gradient is taken, in units of 1 / largest curvature


def directions(line: Line, targets: Tensor, loss: Loss, trained: int, most: int) -> tuple[Tensor, bool]:
    """Return G (W, T, C, K) of at most so many directions, and whether no other direction is missing."""
    f = line.outputs.detach()
    if line.size <= most:
        unit = torch.eye(line.size, dtype=f.dtype, device=f.device)
        return torch.stack([line.push(q) for q in unit], -1), True
    if f.numel() <= most:
        unit = torch.eye(f.numel(), dtype=f.dtype, device=f.device)
        rows = torch.stack([line.pull(u.view_as(f)) for u in unit])
        basis_PK, _ = torch.linalg.qr(rows.T)
        return (rows @ basis_PK).view(*f.shape, -1), True
    span = Span(line, most)
    q = line.pull(slope(f, targets, loss, trained))
    for _ in range(min(LANCZOS, most)):
        if not span.add(q):
            break
        q = line.pull(curved(f, loss, trained, span.images[span.count - 1]))
    if not span.count:
        raise LabError("the gradient is zero; there is nothing that training would do")
    a = f.new_zeros(most)
    ratio = LONGEST ** (1 / max(1, most - span.count))
    before, now, unit_of_time = 0.0, 1.0, 1 / span.curvature(f, loss, trained)[0][-1]
    while span.count < most and now <= LONGEST:
        a = span.flow(a, targets, loss, trained, (now - before) * unit_of_time)
        span.add(line.pull(slope(span.at(a), targets, loss, trained)), least=1e-3)
        before, now = now, now * ratio
    return span.images[: span.count].movedim(0, -1), False


class Span:
    """Directions that grow in number, each orthogonal to those before it, and what the outputs do along them."""

    def __init__(self, line: Line, most: int) -> None:
        self.line, self.count = line, 0
        self.start = line.outputs.detach()
        self.basis = self.start.new_zeros(most, line.size)
        self.images = self.start.new_zeros(most, *self.start.shape)  # (K, W, T, C)

    def add(self, q: Tensor, least: float = 1e-6) -> bool:
        """Take the part of a direction that is new, unless that is hardly any of it."""
        size, basis = q.norm(), self.basis[: self.count]
        for _ in range(2):  # once leaves what rounding brought in
            q = q - basis.T @ (basis @ q)
        if not q.norm() > least * size:
            return False
        self.basis[self.count] = q / q.norm()
        self.images[self.count] = self.line.push(self.basis[self.count])
        self.count += 1
        return True

    def at(self, a: Tensor) -> Tensor:
        """The outputs at a place of the span (most,)."""
        return self.start + torch.tensordot(a[: self.count], self.images[: self.count], 1)

    def curvature(self, f: Tensor, loss: Loss, trained: int) -> tuple[Tensor, Tensor]:
        """Rising eigenvalues and eigenvectors of the loss's curvature in the span, at some outputs."""
        some = self.images[: self.count, :trained]
        found = curved(f[:trained], loss, trained, some).flatten(1) @ some.flatten(1).T
        return torch.linalg.eigh((found + found.T) / 2)

    def flow(self, a: Tensor, targets: Tensor, loss: Loss, trained: int, time: Tensor) -> Tensor:
        """Go along the gradient for a time, as if the curvature stayed what it is: a - (1 - exp(-H t)) / H g."""
        f = self.at(a)
        values, vectors = self.curvature(f, loss, trained)
        some = self.images[: self.count, :trained].flatten(1)
        g = vectors.T @ (some @ slope(f, targets, loss, trained)[:trained].flatten())
        exponent = values.clamp_min(values[-1] * 1e-9) * time
        out = a.clone()
        out[: self.count] -= vectors @ (-torch.expm1(-exponent) / exponent * time * g)
        return out
