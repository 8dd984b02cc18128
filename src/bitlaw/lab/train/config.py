"""What determines a trunk and its ends: to the last bit of the loss, where machine and threads are alike."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ...formats import Scheme
from ...shapes import Shape
from .averages import Average

#: Settings that came after rows had been stored: at their defaults no part of an id, so that those rows keep theirs.
LATER = (
    "cooldown_shape",
    "floor",
    "optimizer",
    "averages",
    "residual",
    "accumulate",
    "recompute",
    "autocast",
    "compile",
)


@dataclass(frozen=True)
class Branch:
    """A way from the trunk to an end: a budget, the last share of it over which the rate falls, the scheme then."""

    tokens: int
    cooldown: float
    scheme: str


class TrainingConfig(BaseModel):
    """How models are trained, whatever their size: what a trunk and a sweep both say."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    optimizer: Literal["adamw", "muon", "schedule-free"] = Field(
        default="adamw",
        description="muon: for matrices of blocks, AdamW for the rest; schedule-free: AdamW without a cooldown, for "
        "which beta1 = 0.95 and beta2 = 0.99 are better than the defaults (Hagele et al. 2024)",
    )
    weight_decay: float = Field(
        default=0.1, ge=0, allow_inf_nan=False, description="of matrices; gains and embedding have none"
    )
    beta1: float = Field(default=0.9, ge=0, lt=1, description="of AdamW; Muon's matrices have momentum 0.95")
    beta2: float = Field(default=0.95, ge=0, lt=1, description="of AdamW")
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm")
    schedule: Literal["constant", "cosine"] = Field(
        default="constant",
        description="constant: one trunk that branches cool down from; cosine: a run of its own for every budget",
    )
    cooldown: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="last share of a budget, over which the rate falls; 0: it does not",
    )
    cooldown_shape: Literal["1-sqrt", "linear", "cosine", "mirror-cosine", "square", "exponential"] = Field(
        default="1-sqrt", description="how the rate falls"
    )
    floor: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="share of the peak that the rate falls to; None is 0, and 0.1 for the cosine schedule",
    )
    averages: str = Field(
        default="none",
        description="of weights, whose ends are rows too: `swa:WINDOW:EVERY`, in steps, or `ema:DECAY`",
    )
    residual: Literal["init", "depth-mup"] = Field(
        default="init",
        description="where a branch of the residual stream is made smaller by sqrt(2 depth): in its first weights "
        "(GPT-2), or as a factor that stays (depth-muP: Yang et al. 2023, 2310.02244)",
    )
    accumulate: int = Field(default=1, gt=0, description="parts that a batch goes through the model in")
    recompute: bool = Field(
        default=False, description="activations again in the backward pass, instead of keeping them"
    )
    autocast: Literal["float32", "bfloat16", "auto"] = Field(
        default="float32",
        description="of matrix products; auto: bfloat16 where the processor or GPU is fast at it. It has 8 significant "
        "bits: grids of more bits than that, like w10 or a12, are then no finer than unquantised",
    )
    compile: bool = Field(
        default=False,
        description="training and evaluation, with torch's compiler: pays from some minutes of training on, and losses "
        "differ in the last bits",
    )

    @field_validator("averages")
    @classmethod
    def _known_average(cls, text: str) -> str:
        Average.parse(text)
        return text

    @model_validator(mode="after")
    def _goes_together(self) -> TrainingConfig:
        if self.cooldown_shape == "exponential" and not self.floor:
            raise ValueError("floor: an exponential cooldown falls to a share above 0; try 0.01")
        if self.optimizer == "schedule-free" and (self.schedule, self.cooldown) != ("constant", 0):
            raise ValueError(
                "cooldown: schedule-free training has none; set it to 0, and the schedule to constant"
            )
        if self.optimizer == "schedule-free" and self.averages != "none":
            raise ValueError("averages: schedule-free weights are averages already; use 'none'")
        return self

    @property
    def lowest(self) -> float:
        """Share of the peak that the rate falls to."""
        return self.floor if self.floor is not None else 0.1 if self.schedule == "cosine" else 0.0


class TrunkConfig(TrainingConfig):
    """One training run with a constant-rate trunk from which a branch cools down at every budget.

    Further branches may cool down over another share of their budget, in another precision: a 16-bit trunk then
    ends in training for low precision. With the cosine schedule there is no trunk: every budget is a run of its own
    from the first step.
    """

    shape: Shape
    scheme: str = Field(description="format of each part, as `Scheme.parse` reads it")
    seed: int = Field(ge=0, description="of initialisation and data order")
    corpus_sha256: str = Field(description="of the text in tokens; so ids cover the tokenizer")
    tokenizer: str = "bytes"
    budgets: tuple[int, ...] = Field(description="training tokens of each end, rising")
    batch_size: int = Field(gt=0, description="sequences a step")
    seq_len: int = Field(gt=1, description="tokens a sequence")
    learning_rate: float = Field(gt=0, allow_inf_nan=False, description="peak")
    warmup_steps: int = Field(ge=0)
    late: tuple[tuple[str, float], ...] = Field(
        default=(), description="scheme and cooldown of further branches to every budget"
    )
    eval_tokens: int = Field(gt=0)

    @model_validator(mode="after")
    def _can_be_trained(self) -> TrunkConfig:
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate: {self.batch_size} sequences are not {self.accumulate} equal parts")
        for scheme, share in self.late:
            if not 0 <= share <= 1 or (share == 0 and scheme != self.scheme):
                raise ValueError(
                    f"late: {share} is no share of a budget to train {scheme} in; use 0.2, or up to 1"
                )
        if self.late and self.schedule == "cosine":
            raise ValueError("late: branches leave a trunk of constant rate, and a cosine run has none")
        if list(self.budgets) != sorted(set(self.budgets)):
            raise ValueError(f"budgets: {self.budgets} do not rise; give each once, the smallest first")
        schemes = [self.parts(), *(Scheme.parse(scheme) for scheme, _ in self.late if scheme != self.scheme)]
        stored = any(scheme.stored for scheme in schemes)
        if stored and len(schemes) > 1:
            raise ValueError("late: weights that are stored begin with their trunk, and stay what they are")
        if self.optimizer == "schedule-free" and (self.late or stored):
            raise ValueError(
                "optimizer: schedule-free keeps a float copy of every weight, and has one way to each end; it goes "
                "neither with stored weights nor with late branches"
            )
        return self

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
        if self.schedule == "cosine":
            return 0
        return steps - max(1, round(branch.cooldown * steps)) if branch.cooldown else steps

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

    def end_ids(self, branch: Branch) -> list[str]:
        """Names of the ends of a branch: as it was trained, and its average, if any."""
        cell = self.cell_id(branch)
        return [cell] if self.averages == "none" else [cell, f"{cell}-{self.averages.replace(':', '-')}"]

    def _common(self) -> dict[str, Any]:
        told = self.model_dump(mode="json", exclude={"budgets", "late", "tokenizer"})
        same = {name for name in LATER if told[name] == type(self).model_fields[name].default}
        return {name: value for name, value in told.items() if name not in same}


def derived_seed(*parts: object) -> int:
    """A seed of its own for what has these names, in 32 bits: torch's generator for processors reads no more."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
