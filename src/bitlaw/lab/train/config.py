"""What determines a trunk and each of its ends, down to the last bit of the loss."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ...formats import Scheme
from ...shapes import Shape


class TrunkConfig(BaseModel):
    """One training run with a constant-rate trunk from which a branch cools down at every budget.

    With the cosine schedule there is no trunk: every budget is a run of its own from the first step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    shape: Shape
    scheme: str = Field(description="format of each part, as `Scheme.parse` reads it")
    seed: int = Field(ge=0, description="of initialisation and data order")
    corpus_sha256: str
    budgets: tuple[int, ...] = Field(description="training tokens of each end, rising")
    batch_size: int = Field(gt=0, description="sequences a step")
    seq_len: int = Field(gt=1, description="tokens a sequence")
    learning_rate: float = Field(gt=0, description="peak")
    weight_decay: float = Field(default=0.1, ge=0, description="of matrices; gains and embedding have none")
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm")
    warmup_steps: int = Field(ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    cooldown: float = Field(default=0.2, gt=0, le=1, description="last share of a budget, rate falling to 0")
    eval_tokens: int = Field(gt=0)

    def parts(self) -> Scheme:
        """The scheme, parsed."""
        return Scheme.parse(self.scheme)

    def steps(self, tokens: int) -> int:
        """Steps that a budget takes."""
        return max(2, round(tokens / (self.batch_size * self.seq_len)))

    def branch_step(self, tokens: int) -> int:
        """The step at which the branch to a budget leaves the trunk."""
        steps = self.steps(tokens)
        return 0 if self.schedule == "cosine" else steps - max(1, round(self.cooldown * steps))

    def trunk_id(self) -> str:
        """Hash of everything but the budgets: what rows of one trunk share."""
        return _digest(self.model_dump(mode="json", exclude={"budgets"}))

    def work_id(self) -> str:
        """Name of the folder that its checkpoints go to; cosine runs of one trunk id are runs of their own."""
        return self.trunk_id() if self.schedule == "constant" else self.cell_id(self.budgets[0])

    def cell_id(self, tokens: int) -> str:
        """Hash of everything that determines the end at one budget; the other budgets do not."""
        return _digest({**self.model_dump(mode="json", exclude={"budgets"}), "tokens": tokens})


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
