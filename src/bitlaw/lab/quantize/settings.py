"""Ways of quantising a model, each tried and scored on the same tokens."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from ...errors import ConfigError, nearest
from ...formats import Native, Recipe, Scheme
from ..corpus import Windows
from ..precision import apply_scheme
from .apply import METHODS, linears_of, quantize_model
from .evaluate import distances, keep_logits
from .means import Mean, clustered_mean
from .scores import Exam, Scores, score

PLAIN = Recipe(Native("bf16", 16))
REST_BITS = 16  # a weight that is not quantised, and a factor of AWQ


@dataclass(frozen=True)
class Setting:
    """What is quantised after training, to what, and how.

    >>> Setting.of("gptq", "int3", group=128).name
    'gptq int3 group128'
    >>> Setting.of("rtn", "nvfp4", group=128, activations="int8 token").name
    'rtn nvfp4, a=int8 token'
    """

    method: str
    weights: Recipe
    activations: Recipe = PLAIN
    kv: Recipe = PLAIN

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"there is no method {self.method!r}; {nearest(self.method, METHODS)}")
        for recipe in (self.weights, self.activations, self.kv):
            if recipe.scale == "learned" or recipe.stored:
                raise ConfigError(
                    f"'{recipe}' is of training; after it nothing is learned: try 'absmax' or 'mse'"
                )
        if self.method != "rtn" and self.weights.rounding == "stochastic":
            raise ConfigError(
                f"{self.method} chooses the values that fit its inputs, and leaves nothing to chance; drop "
                f"'stochastic' in '{self.weights}', or use rtn"
            )
        if self.method == "gptq" and self.weights.granularity == "block":
            raise ConfigError("GPTQ rounds columns, which square blocks hold together; try 'group128'")

    @classmethod
    def of(
        cls, method: str, weights: str, group: int | None = None, activations: str = "bf16", kv: str = "bf16"
    ) -> Setting:
        """Read a setting; weights of which the recipe does not say otherwise have a scale an output, or a group.

        Raises:
            ConfigError: an unknown method, or an impossible recipe.
        """
        usual = "channel" if group is None else f"group{group}"
        return cls(method, Recipe.parse(weights, usual), Recipe.parse(activations), Recipe.parse(kv))

    @property
    def calibrated(self) -> bool:
        """Whether the method looks at text."""
        return self.method != "rtn"

    @property
    def scheme(self) -> Scheme:
        """What is rounded while the model runs."""
        return Scheme(a=self.activations, kv=self.kv)

    @property
    def name(self) -> str:
        """For people and for ids of rows."""
        rest = f", {self.scheme.name}" if self.scheme.quantized else ""
        return f"{self.method} {self.weights}{rest}"


@dataclass(frozen=True)
class Outcome:
    """What a setting did to a model.

    Attributes:
        setting: what was done.
        model: the quantised copy.
        loss: after, in nats per token.
        gap: loss after minus loss before, on the same tokens.
        kl: divergence from the model before, in nats per token.
        rejection: share of tokens drafted by the copy that the model before would reject.
        bytes: of the whole model: quantised weights packed with their scales, all else in 16 bits.
        bpw: bits of a quantised weight, scales included.
        seconds: that quantising took.
        scores: errors on tasks and confidence.
    """

    setting: Setting
    model: nn.Module
    loss: Mean
    gap: Mean
    kl: Mean
    rejection: Mean
    bytes: int
    bpw: float
    seconds: float
    scores: Scores


class Reference:
    """A model before it is quantised, and what it makes of the evaluation text; `compile`d, its copies are so too."""

    def __init__(
        self, model: nn.Module, evaluation: Windows, exam: Exam | None = None, compile: bool = False
    ) -> None:
        self.model, self.evaluation, self.exam, self.compile = model, evaluation, exam or Exam(), compile
        self.logits = keep_logits(model, evaluation, compile)
        self.losses, self.scores = score(model, self.logits(), evaluation, self.exam, compile)
        self.loss = clustered_mean(self.losses, evaluation.documents)


def try_settings(
    before: Reference, settings: Iterable[Setting], calibration: Windows | None = None
) -> Iterator[Outcome]:
    """Quantise a model in every way of a list, and score each copy on the tokens that the model was scored on.

    Args:
        before: the model.
        settings: what to do.
        calibration: text that GPTQ and AWQ look at; rounding to nearest needs none.
    """
    documents = before.evaluation.documents
    device = next(before.model.parameters()).device
    for setting in settings:
        clock = time.perf_counter()
        text = calibration.inputs.to(device) if calibration and setting.calibrated else None
        model = quantize_model(before.model, setting.weights, setting.method, text)
        if setting.scheme.quantized:
            apply_scheme(model, setting.scheme)
        seconds = time.perf_counter() - clock
        after = keep_logits(model, before.evaluation, before.compile)
        losses, scores = score(model, after(), before.evaluation, before.exam, before.compile)
        divergence, variation = distances(after(), before.logits(), before.compile)
        packed, weights = packed_size(before.model, setting)
        yield Outcome(
            setting,
            model,
            clustered_mean(losses, documents),
            clustered_mean(losses - before.losses, documents),
            clustered_mean(divergence, documents),
            clustered_mean(variation, documents),
            bytes_of(before.model, setting),
            8 * packed / weights,
            seconds,
            scores,
        )


def bytes_of(model: nn.Module, setting: Setting) -> int:
    """Bytes of a model whose weights are in a setting; what is not quantised takes 16 bits each."""
    packed, weights = packed_size(model, setting)
    return packed + (sum(p.numel() for p in model.parameters()) - weights) * REST_BITS // 8


def bytes_read(model: nn.Module, setting: Setting) -> int:
    """Bytes that a pass over one token reads: those of `bytes_of` but for tables in which rows are only looked up."""
    multiplied = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    tables = {id(m.weight): m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding)}
    looked_up = sum(size for table, size in tables.items() if table not in multiplied)
    return bytes_of(model, setting) - looked_up * REST_BITS // 8


def packed_size(model: nn.Module, setting: Setting) -> tuple[int, int]:
    """Bytes that the quantised weights of a model take, and how many weights these are."""
    matrices = [linear.weight for block in model.blocks for linear in linears_of(block).values()]
    size = sum(setting.weights.stored_bytes((w.shape[0], w.shape[1])) for w in matrices)
    if setting.method == "awq" and setting.weights.quantized:
        size += sum(w.shape[1] * REST_BITS // 8 for w in matrices)
    return size, sum(w.numel() for w in matrices)
