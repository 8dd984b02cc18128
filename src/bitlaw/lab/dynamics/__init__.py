"""A model near where it stands, as a straight line in its weights: what predicts how long fine-tuning takes.

    f_w = f_0 + J (w - w_0),   Theta = J J^T

(Zancato et al. 2020, 2010.12478.) Through a rounded tensor J goes straight, as training does. `planning.recovery`
reads what is written here, without torch.
"""

from .linear import linearise, second_moments
from .record import Linearised

__all__ = ["Linearised", "linearise", "second_moments"]
