"""Optimisers of torch and of the package `schedulefree`, with all of their state as tensors by name.

The rate of every part is the schedule's. Muon's updates are scaled to the size of AdamW's, 0.2 sqrt(longer side), so
that one rate serves both (Liu et al. 2025, 2502.16982).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...errors import LabError
from .config import TrunkConfig
from .distributed import share

EPS = 1e-15  # as Kumar et al. 2024; the usual 1e-8 is not small beside the gradients of tiny models


class Optimizers:
    """What a config asks for, over a model's parameters.

    Matrices but the embedding decay; gains, the embedding (an output head that is tied to it too) and learned steps do
    not.

    Raises:
        LabError: torch has no Muon yet, or `schedulefree` is not installed.
    """

    def __init__(self, config: TrunkConfig, model: nn.Module, named: dict[str, nn.Parameter]) -> None:
        self.named = named
        self.names = {id(p): name for name, p in named.items()}
        tables = {
            id(p) for layer in model.modules() if isinstance(layer, nn.Embedding) for p in layer.parameters()
        }
        decayed = [
            name
            for name, p in named.items()
            if p.ndim == 2
            and id(p) not in tables
            and not name.startswith("embedding")  # of frames, a linear map
            and not name.endswith(".step")
        ]
        others = [name for name in named if name not in decayed]
        orthogonal = [n for n in decayed if n.startswith("blocks.")] if config.optimizer == "muon" else []
        groups = [
            {
                "params": [named[n] for n in decayed if n not in orthogonal],
                "weight_decay": config.weight_decay,
            },
            {"params": [named[n] for n in others], "weight_decay": 0},
        ]
        adam: dict[str, Any] = {"lr": config.learning_rate, "betas": (config.beta1, config.beta2), "eps": EPS}
        self.parts: dict[str, Any] = {}
        if config.optimizer == "schedule-free":
            self.parts["free"] = _schedule_free()(groups, **adam)
            self.parts["free"].train()
        else:
            self.parts["adam"] = torch.optim.AdamW(groups, **adam, fused=True)
        if orthogonal:
            self.parts["muon"] = _muon()(
                [named[name] for name in orthogonal],
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )

    def step(self, rate: float) -> None:
        """Update the parameters at a rate, and drop their gradients."""
        for part in self.parts.values():
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
            part.zero_grad(set_to_none=True)

    def finish(self) -> None:
        """Leave in the parameters what is to be evaluated; there is no way back to training."""
        if "free" in self.parts:
            self.parts["free"].eval()

    def tensors(self) -> dict[str, Tensor]:
        """The whole state by name."""
        out = {}
        for kind, part in self.parts.items():
            for p, state in part.state.items():
                out |= {f"{kind}.{key}.{self.names[id(p)]}": value for key, value in state.items()}
        for key in FREE if "free" in self.parts else ():  # the same in every group
            out[f"free.{key}"] = torch.tensor(self.parts["free"].param_groups[0][key], dtype=torch.float64)
        return out

    def load(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        """Take over the state of parameters that have some; others begin anew."""
        for kind, part in self.parts.items():
            for full, value in tensors.items():
                found, _, rest = full.partition(".")
                key, _, name = rest.partition(".")
                if found == kind and name in self.named:
                    p = self.named[name]
                    part.state[p][key] = share(value.clone().to(device), p)
                elif found == kind == "free" and key in FREE:
                    for group in part.param_groups:
                        group[key] = type(group[key])(value.item())


#: Steps taken, sum of the averaging weights, and highest rate so far: numbers that `schedulefree` keeps for a group.
FREE = ("k", "weight_sum", "lr_max")


def _muon() -> Any:
    try:
        return torch.optim.Muon
    except AttributeError:
        raise LabError(
            f"torch {torch.__version__} has no Muon; install torch 2.9 or newer, or use adamw"
        ) from None


def _schedule_free() -> Any:
    try:
        from schedulefree import AdamWScheduleFree
    except ImportError:
        raise LabError(
            'schedule-free training needs schedulefree; install it with: pip install "bitlaw[lab]"'
        ) from None
    return AdamWScheduleFree
