"""A sweep as data, and the trunks it consists of.

One dial, the size, gives all that a trunk needs; each rule of this ladder is a field with its source:

| what | rule | fields |
|---|---|---|
| width, depth, heads, SwiGLU | `bitlaw.shapes.ladder_shape` | |
| peak learning rate | r / width; with depth-muP r / (width sqrt(depth)) | `rate_times_width`, `residual` |
| first weights | `bitlaw.lab.model.Transformer.initialise` | `residual` |
| batch | B (params / reference)^p | `batch_size`, `batch_reference`, `batch_power` |
| warm-up | steps, or a share of the shortest budget | `warmup_steps`, `warmup_share` |
"""

from __future__ import annotations

import math
from itertools import product

from pydantic import Field, ValidationError, field_validator, model_validator

from ...errors import ConfigError
from ...formats import Recipe, Scheme
from ...shapes import Shape, ladder_shape
from ..corpus import Corpus, parse_tokenizer
from ..quantize import Setting
from ..train import TrainingConfig, TrunkConfig, derived_seed


class SweepConfig(TrainingConfig):
    """Sizes x token budgets x schemes, how all are trained, and what is done to the ends after training."""

    seed: int = Field(default=0, ge=0, le=2**32, description="of the study; every trunk derives its own")
    seeds: tuple[int, ...] = Field(default=(), description="several of them, in place of `seed`")
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
    low_post_formats: tuple[str, ...] = Field(
        default=(),
        description="the same of ends of low precision, where these are fewer bits than their weights have",
    )
    post_methods: tuple[str, ...] = Field(default=("rtn",), description="how: rtn, gptq, awq")
    low_post_methods: tuple[str, ...] = Field(
        default=(), description="how ends of low precision are; those of `post_methods` if none is given"
    )
    calibration_tokens: int = Field(default=32_768, gt=0, description="that gptq and awq look at")
    keep_models: bool = Field(
        default=False,
        description="16-bit ends as folders of safetensors, in `models`, as they come from training",
    )
    keep_low: bool = Field(default=False, description="with `keep_models`, ends of low precision too")
    batch_size: int = Field(
        default=8, gt=0, le=2**31, description="sequences a step, at `batch_reference` parameters"
    )
    batch_reference: int = Field(default=24_000, gt=0, description="size that `batch_size` is meant for")
    batch_power: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="power of the size that the batch grows with; 0 is Kumar et al.'s one batch for all (appendix A)",
    )
    seq_len: int = Field(default=128, gt=1, description="tokens a sequence")
    warmup_steps: int = Field(default=20, ge=0, description="over which the rate rises")
    warmup_share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="of the shortest budget, instead of `warmup_steps`; with the cosine schedule, of every budget",
    )
    rate_times_width: float = Field(
        default=0.5,
        gt=0,
        allow_inf_nan=False,
        description="peak learning rate times width: the rate falls as 1 / width, as muP has it for Adam (Yang et al. "
        "2022, 2203.03466); depth-muP divides it by sqrt(depth) too (Yang et al. 2023, 2310.02244)",
    )
    eval_tokens: int = Field(default=65_536, gt=0, description="that every loss is measured on")

    @field_validator("tokenizer")
    @classmethod
    def _tokenizer(cls, name: str) -> str:
        parse_tokenizer(name)
        return name

    @field_validator("post_formats", "low_post_formats")
    @classmethod
    def _canonical(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        recipes = [Recipe.parse(name, "channel") for name in names]
        for recipe in recipes:
            if not recipe.quantized:
                raise ValueError(f"'{recipe}' does not quantise anything; try int4")
        return tuple(map(str, recipes))

    @field_validator("post_methods", "low_post_methods")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            Setting.of(name, "int4")
        return names

    @field_validator("schemes", "late_schemes")
    @classmethod
    def _canonical_schemes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(Scheme.parse(name).name for name in names)

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 0 <= seed <= 2**32 for seed in seeds):
            raise ValueError(f"{list(seeds)}: use whole numbers from 0 to 2^32")
        return seeds

    @field_validator(
        "seeds",
        "sizes",
        "budgets",
        "schemes",
        "late_schemes",
        "late_cooldowns",
        "post_formats",
        "low_post_formats",
        "post_methods",
        "low_post_methods",
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
        if self.seeds and "seed" in self.model_fields_set:
            raise ValueError("seed and seeds exclude each other; give one")
        fields = type(self).model_fields  # rows of older versions may have these, and are read
        if self.schedule == "cosine" and (
            self.cooldown not in (0, fields["cooldown"].default)
            or self.cooldown_shape != fields["cooldown_shape"].default
        ):
            raise ValueError(
                "cooldown: a cosine has none, nor a shape of it; leave out cooldown and cooldown_shape"
            )
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
        for name, method in (
            *product(self.post_formats, self.post_methods),
            *product(self.low_post_formats, self.low_post_methods or self.post_methods),
        ):
            Setting.of(method, name)
        if bool(self.late_schemes) != bool(self.late_cooldowns):
            raise ValueError("late_schemes and late_cooldowns belong together; give both or none")
        if self.late_schemes and (self.schedule != "constant" or "16" not in self.schemes):
            raise ValueError("late_schemes branch from 16-bit trunks of constant rate; add '16' to schemes")
        for size in self.sizes:
            ladder_shape(size)
        shortest = self.budgets[0] // (max(map(self.batch, self.sizes)) * self.seq_len)
        warmup = self.warmup_steps if self.warmup_share is None else 0
        if shortest <= warmup:
            raise ValueError(
                f"budgets: {self.budgets[0]} tokens are {shortest} steps, no more than the {warmup} "
                "of warm-up; use more tokens or smaller batches"
            )
        if self.keep_low and not self.keep_models:
            raise ValueError("keep_low: it adds to keep_models; set that to true as well")
        if self.keep_models and self.residual != "init":
            raise ValueError(
                "keep_models: a folder does not say that a model is depth-muP; keep 'init' models only"
            )
        for size, scheme in product(self.sizes, self.schemes):
            try:
                trunk = self.trunk(size, scheme, self.seed, "")
            except ValidationError as error:
                raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
            if len(set(map(trunk.steps, self.budgets))) < len(self.budgets):
                raise ValueError(
                    f"budgets: two of {list(self.budgets)} are as many steps of {trunk.batch_size} x {self.seq_len} "
                    f"tokens at size {size}; leave one out"
                )
        return self

    def only(self, **chosen: float | str) -> SweepConfig:
        """The sweep with one value of `sizes`, `schemes` or `seeds` in place of several.

        Raises:
            ConfigError: one that it does not have.
        """
        for name, value in chosen.items():
            values = getattr(self, name) or (self.seed,)
            if value not in values:
                raise ConfigError(f"{name}: {value!r} is none of the sweep's: {', '.join(map(str, values))}")
        return self.model_copy(update={name: (value,) for name, value in chosen.items()})

    def batch(self, size: int) -> int:
        """Sequences a step at a size: `batch_size` (size / `batch_reference`)^`batch_power`, rounded to whole parts."""
        if not self.batch_power:
            return self.batch_size
        grown: float = self.batch_size * (size / self.batch_reference) ** self.batch_power
        return max(1, round(grown / self.accumulate)) * self.accumulate

    def rate(self, shape: Shape) -> float:
        """Peak learning rate of a shape: `rate_times_width` / width, with depth-muP / sqrt(depth) as well."""
        rate = self.rate_times_width / shape.width
        return rate / math.sqrt(shape.depth) if self.residual == "depth-mup" else rate

    def trunk(self, size: int, scheme: str, seed: int, corpus_sha256: str) -> TrunkConfig:
        """The trunk of a size, a scheme and a seed of the study, with all budgets."""
        shape = ladder_shape(size, parse_tokenizer(self.tokenizer) or 256)
        batch_size = self.batch(size)
        late = tuple(product(self.late_schemes, self.late_cooldowns)) if scheme == "16" else ()
        warmup, own_warmup = self.warmup_steps, self.warmup_share is not None and self.schedule == "cosine"
        if self.warmup_share is not None:
            warmup = round(self.warmup_share * self.budgets[0] / (batch_size * self.seq_len))
        return TrunkConfig(
            **{name: getattr(self, name) for name in TrainingConfig.model_fields},
            shape=shape,
            scheme=scheme,
            # A warm-up of its own makes a run of its own; else the budgets of a cosine share a trunk's id and seed.
            seed=derived_seed(seed, size, scheme, *(self.budgets if own_warmup else ())),
            corpus_sha256=corpus_sha256,
            tokenizer=self.tokenizer,
            budgets=self.budgets,
            batch_size=batch_size,
            seq_len=self.seq_len,
            learning_rate=self.rate(shape),
            warmup_steps=warmup,
            late=late,
            eval_tokens=self.eval_tokens,
        )


def trunks(config: SweepConfig, corpus: Corpus) -> list[TrunkConfig]:
    """Return the trunks of a sweep, the costliest first, so that workers end together.

    Every size and scheme has a seed of its own, derived from the study's: rows that a law is fitted to share
    neither initialisation nor data order, but for the budgets of one trunk (cosine runs of one size and
    scheme do share them, and so count as one trunk, unless their warm-ups are shares of their budgets).

    Raises:
        ConfigError: the corpus is not in the tokens of the sweep.
    """
    if corpus.tokenizer != config.tokenizer:
        raise ConfigError(
            f"the corpus is in tokens of {corpus.tokenizer}, the sweep in those of {config.tokenizer}; "
            "read the corpus with the sweep's tokenizer"
        )
    result = []
    for seed in config.seeds or (config.seed,):
        for size, scheme in product(config.sizes, config.schemes):
            if config.schedule == "cosine":  # nothing to share: one run a budget
                alone = [config.model_copy(update={"budgets": (tokens,)}) for tokens in config.budgets]
            else:
                alone = [config]
            result += [each.trunk(size, scheme, seed, corpus.sha256) for each in alone]
    return sorted(result, key=lambda t: -t.shape.flops_per_token(t.seq_len) * max(t.budgets))
