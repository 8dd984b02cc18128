"""Autoregressive predictive coding of speech: the language model's blocks, frames instead of tokens.

A causal transformer reads log-mel frames and predicts the frame some steps ahead; the loss is the mean absolute
difference (Chung et al. 2019, 1904.03240). All else is the trainer's.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from ..corpus import Windows
from ..model import Transformer
from ..train import TrunkConfig
from ..train.loop import Loss, State

EVAL_BATCH = 64  # sequences


class SpeechConfig(TrunkConfig):
    """A run on frames; `shape.vocab` is how many numbers a frame has."""

    ahead: int = Field(default=3, gt=0, description="frames from the last one read to the one predicted")


class FramePredictor(Transformer):
    """The transformer with a linear map from frames where tokens are looked up: (B, T, bins) in, (B, T, bins) out."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__(config.shape, config.seed, config.residual)
        self.embedding = nn.Linear(config.shape.vocab, config.shape.width, bias=False)
        self.initialise(config.seed)


class SpeechState(State):
    """Model, optimiser and step of a run on frames."""

    def build(self, config: TrunkConfig) -> FramePredictor:
        """Return the model before its first step."""
        return FramePredictor(config)

    def loss(self) -> Loss:
        """Return what gives the mean absolute difference over frames and bins."""
        ahead = self.config.ahead
        return lambda predicted_BTM, next_BTM: frame_losses(predicted_BTM, next_BTM, ahead).mean()


def frame_losses(predicted_BTM: Tensor, next_BTM: Tensor, ahead: int) -> Tensor:
    """Return the mean absolute difference over the bins of each predicted frame, (B, T - ahead + 1).

    Args:
        predicted_BTM: what was predicted at each frame.
        next_BTM: the frame right after each.
        ahead: frames to the one that was to be predicted; the last `ahead - 1` have none in the window.
    """
    last = predicted_BTM.shape[1] - ahead + 1
    return (predicted_BTM[:, :last] - next_BTM[:, ahead - 1 :]).abs().mean(-1)


@torch.inference_mode()
def evaluate(model: nn.Module, windows: Windows, ahead: int) -> tuple[Tensor, Tensor]:
    """Return the loss of every predicted frame of some windows, and the recording that the frame is of."""
    pairs = zip(windows.inputs.split(EVAL_BATCH), windows.targets.split(EVAL_BATCH), strict=True)
    losses = torch.cat([frame_losses(model(x_BTM), y_BTM, ahead) for x_BTM, y_BTM in pairs])
    return losses, windows.documents[:, ahead - 1 :]
