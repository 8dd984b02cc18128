"""Fine-tuning: training that begins with the weights of a model from a folder, on another text, at another rate.

The loop, its checkpoints and its schedules are those of `loop`; only where weights come from is another. One process
tunes a model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from torch import nn

from ...errors import ConfigError, DataError, LabError
from ...formats import Scheme
from ...shapes import Shape
from ..corpus import Corpus
from ..model import Loaded
from ..model.pretrained import Pretrained
from ..precision import apply_scheme
from .adapters import add_adapters, merge_adapters
from .config import TrunkConfig, derived_seed
from .distributed import ALONE, World
from .loop import End, State, train_trunk

SHARE = 0.05  # of the steps that warm up


class TuningConfig(TrunkConfig):
    """What determines a tuned model: all that determines a trunk of one budget, and what it begins from."""

    parent: str = Field(description="digest of the model it begins from")
    lora: int = Field(default=0, ge=0, description="rank of the adapters; 0: all weights are trained")
    weight_decay: float = Field(default=0.0, ge=0, description="towards zero, which is away from the parent")
    cooldown: float = Field(
        default=1.0, ge=0, le=1, description="last share of the steps over which the rate falls"
    )

    @model_validator(mode="after")
    def _can_be_tuned(self) -> TuningConfig:
        if len(self.budgets) != 1 or self.late:
            raise ValueError("budgets: one model is tuned to one end")
        if self.averages != "none":
            raise ValueError("averages: one model is tuned to one end; use 'none'")
        if self.lora and self.parts().stored:
            raise ValueError(
                "lora: weights that are stored are on their grid, with no room for an adapter; tune all of them"
            )
        return self

    @property
    def method(self) -> str:
        """How it is tuned, as a row says it."""
        return f"lora:{self.lora}" if self.lora else "full"


class Tuning(State):
    """A model on its way from a parent."""

    def __init__(self, config: TuningConfig, scheme: Scheme, world: World, parent: Loaded) -> None:
        self.parent, self.rank = parent, config.lora
        super().__init__(config, scheme, world)

    def fresh(self) -> Any:
        """The parent, in the scheme, with adapters if they are what is trained."""
        model: nn.Module = copy.deepcopy(self.parent.model)
        if not self.parent.scheme.quantized:
            apply_scheme(model, self.scheme)
        if self.rank:
            add_adapters(model, self.rank, derived_seed(self.config.seed, "adapters"))
        return model.to(self.device)


def tuning_config(parent: Loaded, corpus: Corpus, tokens: int, **how: Any) -> TuningConfig:
    """Return the config of tuning a model, with all that is not said as it usually is.

    Args:
        parent: the model.
        corpus: in its tokens.
        tokens: to train on.
        how: fields of the config.

    Raises:
        ConfigError: the model rounds in a scheme already and another is asked for, or the values do not go together.
        DataError: the text is shorter than one window.
    """
    if len(corpus.train.tokens) <= parent.seq_len:
        raise DataError(
            f"corpus {corpus.name} has {len(corpus.train.tokens):,} tokens to train on, fewer than one window of "
            f"{parent.seq_len:,} of {parent.name}; use a longer text"
        )
    asked = Scheme.parse(how.pop("scheme", None) or parent.scheme.name)
    if parent.scheme.quantized and asked != parent.scheme:
        raise ConfigError(
            f"{parent.name} rounds {parent.scheme.name} while it runs, and is tuned in that; leave the scheme out, or "
            "tune the model that it was made from"
        )
    learned = any(getattr(asked, part.name).scale == "learned" for part in fields(asked))
    if isinstance(parent.model, Pretrained) and (learned or asked.stored):
        raise ConfigError(
            f"a Hugging Face folder holds no steps or codes, which {asked.name} needs; try {asked.name.split()[0]!r}"
        )
    values: dict[str, Any] = {
        "batch_size": 16,
        "seed": 0,
        "eval_tokens": 1,
        "cooldown_shape": "linear",
        **how,
    }
    steps = max(2, round(tokens / (values["batch_size"] * parent.seq_len)))
    try:
        return TuningConfig(
            shape=shape_of(parent),
            scheme=asked.name,
            corpus_sha256=corpus.sha256,
            tokenizer=corpus.tokenizer,
            budgets=(tokens,),
            seq_len=parent.seq_len,
            warmup_steps=values.pop("warmup_steps", round(SHARE * steps)),
            parent=parent.digest,
            **values,
        )
    except ValueError as error:
        said = str(error).splitlines()
        raise ConfigError(f"cannot tune so: {' '.join(said[1:3]).strip()}") from error


def shape_of(parent: Loaded) -> Shape:
    """The shape of a model; of Hugging Face's, its sides alone: parameters differ where heads or tables are shared."""
    if not isinstance(parent.model, Pretrained):
        shape: Shape = parent.model.shape  # type: ignore[assignment]
        return shape
    config = parent.model.model.config
    return Shape(
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.intermediate_size,
        parent.vocab,
    )


def tune(
    parent: Loaded,
    config: TuningConfig,
    corpus: Corpus,
    folder: Path,
    on_tokens: Callable[[int], None] = lambda tokens: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> End:
    """Tune a model, which itself stays what it is.

    Args:
        parent: what it begins from.
        config: by `tuning_config`.
        corpus: in the model's tokens; its training side is read.
        folder: where checkpoints go, the last of them at the end; tuning that was interrupted goes on from them.
        on_tokens: told the tokens of every step, for progress.
        should_stop: asked after every step; when true, state is saved and `Interrupted` raised.

    Returns:
        The end, with adapters merged into their weights.

    Raises:
        Interrupted: after `should_stop` said so.
        LabError: it diverged, or peft is not installed.
    """
    device = next(parent.model.parameters()).device
    state: Any = partial(Tuning, parent=parent)
    ends = train_trunk(
        config,
        corpus,
        folder,
        (),
        on_tokens,
        should_stop,
        replace(ALONE, device=device),
        state,
        keep_ends=True,
    )
    end = next(ends)  # its checkpoint stays: who runs `ends` on removes it
    if end.model is None:
        raise LabError(f"tuning {parent.name} diverged: {end.reason}; try a smaller --rate")
    return replace(end, model=merge_adapters(end.model).eval())
