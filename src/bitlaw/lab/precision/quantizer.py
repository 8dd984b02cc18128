"""Round a tensor onto a format's grid and back: what the hardware would have computed with.

    scale = q_max / max|x|,   x_hat = clamp(round(x * scale), q_min, q_max) / scale

(Kumar et al. 2024, appendix D.1.) The maximum is over the whole tensor, or over each output channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...formats import Format, Granularity, Integer


def fake_quantize(x: Tensor, fmt: Format, granularity: Granularity = "tensor") -> Tensor:
    """Return x on the grid of a format, with the gradient passed straight through.

    The forward value is rounded; the backward pass sees the identity (Bengio et al. 2013), so everything
    behind the quantiser trains in full precision.

    Args:
        x: any tensor; for `channel`, its last dimension is reduced and every other index has a scale.
        fmt: an integer format; native formats return x itself.
        granularity: `tensor` or `channel`.

    >>> fake_quantize(torch.tensor([0.2, -0.9, 1.4]), Integer(3))
    tensor([ 0.0000, -0.9333,  1.4000])
    """
    return x + (round_to_grid(x.detach(), fmt, granularity) - x.detach()) if isinstance(fmt, Integer) else x


def round_to_grid(x: Tensor, fmt: Format, granularity: Granularity = "tensor") -> Tensor:
    """Return x on the grid of a format; ties go to the even level; a group of zeros stays zero."""
    if not isinstance(fmt, Integer):
        return x
    if granularity == "channel":
        peak = x.abs().amax(-1, keepdim=True)
    else:
        low, high = torch.aminmax(x)  # much cheaper than abs().max() on a CPU
        peak = torch.maximum(-low, high)
    top = peak.new_tensor(
        float(fmt.q_max)
    )  # a Python number here would be multiplied by a rounded reciprocal
    scale = top / peak.clamp_min(torch.finfo(x.dtype).tiny * fmt.q_max)
    return (x * scale).round_().clamp_(fmt.q_min, fmt.q_max).div_(scale)
