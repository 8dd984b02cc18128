"""What determines a trunk and each of its ends, down to the last bit of the loss."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...formats import Scheme
from ...shapes import Shape


@dataclass(frozen=True)
class Branch:
    """A way from the trunk to an end: a budget, the last share of it over which the rate falls, the scheme then."""

    tokens: int
    cooldown: float
    scheme: str


class TrunkConfig(BaseModel):
    """One training run with a constant-rate trunk from which a branch cools down at every budget.

    Further branches may cool down over another share of their budget, in another precision: a 16-bit trunk then
    ends in training for low precision. With the cosine schedule there is no trunk: every budget is a run of its own
    from the first step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    shape: Shape
    scheme: str = Field(description="format of each part, as `Scheme.parse` reads it")
    seed: int = Field(ge=0, description="of initialisation and data order")
    corpus_sha256: str = Field(description="of the text in tokens; so ids cover the tokenizer")
    tokenizer: str = "bytes"
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
    late: tuple[tuple[str, float], ...] = Field(
        default=(), description="scheme and cooldown of further branches to every budget"
    )
    eval_tokens: int = Field(gt=0)

    def parts(self) -> Scheme:
        """The scheme, parsed."""
        return Scheme.parse(self.scheme)

    def steps(self, tokens: int) -> int:
        """Steps that a budget takes."""
        return max(2, round(tokens / (self.batch_size * self.seq_len)))

    def branches(self) -> list[Branch]:
        """The branches to every end, in the order in which they leave the trunk."""
        ways = dict.fromkeys([(self.scheme, self.cooldown), *self.late])
        found = [Branch(tokens, cooldown, scheme) for tokens in self.budgets for scheme, cooldown in ways]
        return sorted(found, key=lambda branch: (self.branch_step(branch), branch.tokens))

    def branch_step(self, branch: Branch) -> int:
        """The step at which a branch leaves the trunk."""
        steps = self.steps(branch.tokens)
        return 0 if self.schedule == "cosine" else steps - max(1, round(branch.cooldown * steps))

    def trunk_id(self) -> str:
        """Hash of everything but budgets and further branches: what rows of one trunk share."""
        return _digest(self._common())

    def work_id(self) -> str:
        """Name of the folder that its checkpoints go to; cosine runs of one trunk id are runs of their own."""
        return self.trunk_id() if self.schedule == "constant" else self.cell_id(self.branches()[0])

    def cell_id(self, branch: Branch) -> str:
        """Hash of everything that determines the end of one branch; the other branches do not."""
        way = (branch.scheme, branch.cooldown)
        late = {} if way == (self.scheme, self.cooldown) else {"late": way}
        return _digest({**self._common(), "tokens": branch.tokens, **late})

    def _common(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"budgets", "late", "tokenizer"})


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
