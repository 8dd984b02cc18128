"""Weights of which only integers and step sizes exist: no float master copy (LPT; Li et al. 2023, ALPT, 2212.05735).

    w = step q,   q in {low, ..., high};   an update to w' is written back as  q <- R(clip(w' / step, low, high))

Rounding to nearest loses every update smaller than half a step; rounding by chance keeps it on the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...formats import Recipe, Rounding, Uniform
from .quantizer import own_state
from .rounding import round_values
from .scales import grouped, scale_of

#: Range of a stored weight, in units of the range that its first values take: weights grow in training, and the step
#: is fixed. On tiny transformers 1 and 2 cannot be told apart, and 4 is worse at 4 bits (docs/log.md).
HEADROOM = 2.0


class StoredTensor(nn.Module):
    """A matrix held as packed codes and float32 steps, one a row or one in all.

    Attributes:
        codes: uint8 (rows, bytes a row); places on the grid, lowest bits first; a code takes 1, 2, 4 or 8 bits.
        step: float32, (rows, 1) or (1, 1).
        updates: int64 (2,): numbers that writes were to change, and those of them whose code stayed the same.

    Args:
        values: float (rows, width); put on the grid to nearest.
        grid: integers or half-integers of at most 8 bits.
        step: distance of two values of the grid, (rows, 1) or (1, 1).
        rounding: of what is written later.

    >>> table = StoredTensor(torch.tensor([[0.1, -0.3, 0.26]]), Recipe.parse("int4").format, torch.tensor([[0.1]]))
    >>> table.codes.tolist(), table.bytes
    ([[89, 11]], 6)
    >>> table.read()
    tensor([[ 0.1000, -0.3000,  0.3000]])
    >>> table.write(torch.tensor([[0.1, -0.2, 0.34]]))  # of two updates one is smaller than half a step
    0.5
    """

    codes: Tensor
    step: Tensor
    updates: Tensor

    def __init__(self, values: Tensor, grid: Uniform, step: Tensor, rounding: Rounding = "nearest") -> None:
        super().__init__()
        self.grid, self.rounding, self.width = grid, rounding, values.shape[1]
        self.bits = grid.code_bits
        places = round_values(values.detach() / step, grid) - grid.low
        self.register_buffer("codes", _pack(places.to(torch.uint8), self.bits))
        self.register_buffer("step", step.detach().clone())
        self.register_buffer("updates", torch.zeros(2, dtype=torch.int64, device=values.device))

    @property
    def bytes(self) -> int:
        """Of codes and steps."""
        return self.codes.nbytes + self.step.nbytes

    def read(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """Return rows as floats; all of them if none are named."""
        return self._on_grid(rows) * self._step(rows)

    def write(
        self,
        values: Tensor,
        rows: Tensor | slice = slice(None),
        step: Tensor | None = None,
        chance: torch.Generator | None = None,
    ) -> float:
        """Put rows back, and return the share of the changed numbers whose change was rounded to nothing.

        A number that has not changed keeps its code, whatever the rounding, if its step has not changed.

        Args:
            values: float (rows, width).
            rows: their places, each at most once.
            step: new steps of these rows; None leaves the old ones.
            chance: where stochastic rounding draws from; None for torch's own state.
        """
        values, before = values.detach(), self._on_grid(rows)
        changed = values != before * self._step(rows)
        if step is not None:
            self.step[rows] = step
        step = self._step(rows)
        chance = (chance or own_state(values.device)) if self.rounding == "stochastic" else None
        # values / step, arranged so that q step / step is q: a rounded product over its factor may miss it by an ulp
        after = round_values(before + (values - before * step) / step, self.grid, chance)
        self.codes[rows] = _pack((after - self.grid.low).to(torch.uint8), self.bits)
        counts = torch.stack([changed.sum(), (changed & (after == before)).sum()])
        self.updates += counts
        asked, lost = counts.tolist()
        return lost / asked if asked else 0.0

    def _on_grid(self, rows: Tensor | slice) -> Tensor:
        return _unpack(self.codes[rows], self.bits, self.width) + self.grid.low

    def _step(self, rows: Tensor | slice) -> Tensor:
        return self.step if len(self.step) == 1 else self.step[rows]


def stored(weight: Tensor, recipe: Recipe, headroom: float | None = None) -> StoredTensor:
    """Store a weight as a recipe says, on `headroom` times the range that its values would have; None is `HEADROOM`."""
    assert isinstance(recipe.format, Uniform)
    split, dims, _ = grouped(weight.detach(), recipe)
    step = (headroom or HEADROOM) / scale_of(split, dims, recipe)
    return StoredTensor(weight, recipe.format, step.reshape(-1, 1), recipe.rounding)


class StoredWeights:
    """The stored weights of a model, which are floats within a training step only.

    Within a step, from `read` to `write`, parameters are ordinary ones; between steps they are empty.
    """

    def __init__(self, model: nn.Module) -> None:
        self.pairs: Sequence[tuple[nn.Parameter, StoredTensor]] = [
            (module.weight, module.stored)
            for module in model.modules()
            if isinstance(getattr(module, "stored", None), StoredTensor)
        ]

    def read(self) -> None:
        """Fill the parameters."""
        for parameter, held in self.pairs:
            parameter.data = held.read()

    def write(self) -> None:
        """Write the parameters back, and empty them."""
        for parameter, held in self.pairs:
            held.write(parameter)
        self.release()

    def release(self) -> None:
        """Empty the parameters."""
        for parameter, _ in self.pairs:
            parameter.data = parameter.new_empty(0)

    @property
    def lost(self) -> float | None:
        """Share of all updates so far that were rounded to nothing; None where nothing is stored."""
        if not self.pairs:
            return None
        asked, lost = map(sum, zip(*(held.updates.tolist() for _, held in self.pairs), strict=True))
        return lost / asked if asked else None


def _pack(places: Tensor, bits: int) -> Tensor:
    """Codes of each row side by side in bytes, lowest bits first; the last byte of a row is filled with zeros."""
    each = 8 // bits
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=places.device)
    padded = F.pad(places, (0, -places.shape[-1] % each)).unflatten(-1, (-1, each))
    return (padded << shifts).sum(-1, dtype=torch.uint8)


def _unpack(codes: Tensor, bits: int, width: int) -> Tensor:
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device)
    places = (codes[..., None] >> shifts) & (2**bits - 1)
    return places.flatten(-2)[..., :width].float()
