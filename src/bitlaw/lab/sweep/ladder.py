"""A sweep as data, and the trunks it consists of."""

from __future__ import annotations

import hashlib
from itertools import product
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ...errors import ConfigError
from ...formats import Recipe, Scheme
from ...shapes import ladder_shape
from ..corpus import Corpus, parse_tokenizer
from ..quantize import Setting
from ..train import TrunkConfig


class SweepConfig(BaseModel):
    """Sizes x token budgets x schemes, and what is done to the ends after training."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    seed: int = Field(default=0, ge=0, le=2**32, description="of the study; every trunk derives its own")
    tokenizer: str = Field(default="bytes", description="or 'bpe:512', trained on the training text")
    sizes: tuple[int, ...] = Field(min_length=1, description="non-embedding parameters")
    budgets: tuple[int, ...] = Field(min_length=1, description="training tokens")
    schemes: tuple[str, ...] = Field(min_length=1, description="like '16', 'w4', 'a8', 'w4a8kv6'")
    late_schemes: tuple[str, ...] = Field(
        default=(), description="that 16-bit trunks cool down in too; '16' for comparison"
    )
    late_cooldowns: tuple[float, ...] = Field(
        default=(), description="last shares of each budget trained in `late_schemes`"
    )
    post_formats: tuple[str, ...] = Field(default=(), description="weights after training, 16-bit ends only")
    post_methods: tuple[str, ...] = Field(default=("rtn",), description="how: rtn, gptq, awq")
    calibration_tokens: int = Field(default=32_768, gt=0, description="that gptq and awq look at")
    keep_models: bool = Field(default=False, description="16-bit ends as folders of safetensors, in `models`")
    batch_size: int = Field(default=8, gt=0, description="sequences a step")
    seq_len: int = Field(default=128, gt=1, description="tokens a sequence")
    schedule: Literal["constant", "cosine"] = "constant"
    cooldown: float = Field(default=0.2, gt=0, le=1, description="last share of each budget")
    warmup_steps: int = Field(default=20, ge=0)
    rate_times_width: float = Field(
        default=0.5,
        gt=0,
        description="peak learning rate times width: the rate falls as 1 / width, as muP has it for Adam",
    )
    weight_decay: float = Field(default=0.1, ge=0)
    eval_tokens: int = Field(default=65_536, gt=0)

    @field_validator("tokenizer")
    @classmethod
    def _tokenizer(cls, name: str) -> str:
        parse_tokenizer(name)
        return name

    @field_validator("post_formats")
    @classmethod
    def _canonical(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        recipes = [Recipe.parse(name, "channel") for name in names]
        for recipe in recipes:
            if not recipe.quantized:
                raise ValueError(f"'{recipe}' does not quantise anything; try int4")
        return tuple(map(str, recipes))

    @field_validator("post_methods")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            Setting.of(name, "int4")
        return names

    @field_validator("schemes", "late_schemes")
    @classmethod
    def _canonical_schemes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(Scheme.parse(name).name for name in names)

    @field_validator(
        "sizes", "budgets", "schemes", "late_schemes", "late_cooldowns", "post_formats", "post_methods"
    )
    @classmethod
    def _no_repeats(cls, values: tuple[float | str, ...]) -> tuple[float | str, ...]:
        if len(set(values)) < len(values):
            raise ValueError(f"has a value twice: {list(values)}")
        return values

    @field_validator("sizes", "budgets")
    @classmethod
    def _positive(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        for value in values:
            if value <= 0:
                raise ValueError(f"must be positive, not {value}")
        return tuple(sorted(values))

    @model_validator(mode="after")
    def _makes_sense(self) -> SweepConfig:
        for name in ("eval_tokens", "calibration_tokens"):
            if getattr(self, name) < 2 * self.seq_len:
                raise ValueError(
                    f"{name}: {getattr(self, name)} are fewer than two sequences of {self.seq_len}"
                )
        for share in self.late_cooldowns:
            if not 0 < share <= 1:
                raise ValueError(
                    f"late_cooldowns: {share} is no share of a budget; use values above 0, up to 1"
                )
        for name, method in product(self.post_formats, self.post_methods):
            Setting.of(method, name)
        late = [Scheme.parse(name) for name in self.late_schemes]
        if any(getattr(scheme, part).stored for scheme in late for part in ("w", "emb", "head")):
            raise ValueError(
                "late_schemes: weights that are stored begin with their trunk; put them in schemes"
            )
        if bool(self.late_schemes) != bool(self.late_cooldowns):
            raise ValueError("late_schemes and late_cooldowns belong together; give both or none")
        if self.late_schemes and (self.schedule != "constant" or "16" not in self.schemes):
            raise ValueError("late_schemes branch from 16-bit trunks of constant rate; add '16' to schemes")
        for size in self.sizes:
            ladder_shape(size)
        shortest = self.budgets[0] // (self.batch_size * self.seq_len)
        if shortest <= self.warmup_steps:
            raise ValueError(
                f"budgets: {self.budgets[0]} tokens are {shortest} steps, no more than the {self.warmup_steps} "
                "of warm-up; use more tokens or smaller batches"
            )
        return self


def trunks(config: SweepConfig, corpus: Corpus) -> list[TrunkConfig]:
    """Return the trunks of a sweep, the dearest first, so that workers end together.

    Every size and scheme has a seed of its own, derived from the study's: rows that a law is fitted to share
    neither initialisation nor data order, but for the budgets of one trunk (cosine runs of one size and
    scheme do share them, and so count as one trunk).

    Raises:
        ConfigError: the corpus is not in the tokens of the sweep.
    """
    if corpus.tokenizer != config.tokenizer:
        raise ConfigError(
            f"the corpus is in tokens of {corpus.tokenizer}, the sweep in those of {config.tokenizer}; "
            "read the corpus with the sweep's tokenizer"
        )
    result = []
    for size in config.sizes:
        for scheme in config.schemes:
            shape = ladder_shape(size, corpus.vocab)
            common = {
                "shape": shape,
                "scheme": scheme,
                "seed": _derive(config.seed, size, scheme),
                "corpus_sha256": corpus.sha256,
                "tokenizer": corpus.tokenizer,
                "batch_size": config.batch_size,
                "seq_len": config.seq_len,
                "learning_rate": config.rate_times_width / shape.width,
                "weight_decay": config.weight_decay,
                "warmup_steps": config.warmup_steps,
                "schedule": config.schedule,
                "cooldown": config.cooldown,
                "eval_tokens": config.eval_tokens,
            }
            if config.schedule == "cosine":  # nothing to share: one run a budget
                result += [TrunkConfig(budgets=(tokens,), **common) for tokens in config.budgets]
            else:
                late = tuple(product(config.late_schemes, config.late_cooldowns)) if scheme == "16" else ()
                result.append(TrunkConfig(budgets=config.budgets, late=late, **common))
    return sorted(result, key=lambda t: -t.shape.flops_per_token(t.seq_len) * max(t.budgets))


def _derive(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
