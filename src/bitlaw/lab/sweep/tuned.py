"""Tune a model from a folder to a text, and keep what came of it in another, with its row."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import ConfigError, DataError
from ...formats import Scheme
from ..corpus import Corpus, spread_windows
from ..model import Loaded, Transformer, load_model, save_model
from ..quantize import Exam, Reference, clustered_mean
from ..quantize.means import Mean
from ..train import End, TuningConfig, peft, tune, tuning_config
from .folders import encoded
from .place import alone
from .processes import device_named
from .rows import ago, scored, trained_row

EVAL_TOKENS = 16_384
RATE = 2e-5  # where a parent does not say the rate it was trained at
OF_THE_PARENT = 0.25  # share of that rate
OF_ADAPTERS = 10  # times the rate of Hugging Face's models; ours are trained at rates that serve both


@dataclass(frozen=True)
class Tuned:
    """What came of tuning a model.

    Attributes:
        row: of the tuned model, as its folder has it too.
        before: loss of the parent on the held-out side of the text, in nats per token.
        gain: loss of the parent minus that of the tuned model on the same tokens: log-likelihood gained a token.
    """

    row: dict[str, Any]
    before: Mean
    gain: Mean


def tune_folder(
    folder: str | Path,
    corpus: Corpus,
    out: str | Path,
    *,
    tokens: int,
    lora: int = 0,
    rate: float | None = None,
    scheme: str | None = None,
    batch_size: int = 16,
    seed: int = 0,
    eval_tokens: int = EVAL_TOKENS,
    device: str = "auto",
    on_tokens: Callable[[int], None] = lambda tokens: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Tuned:
    """Fine-tune the model of a folder, and write a folder with the result.

    The loss is that of the next token, as in training; the rate rises over 5 % of the steps and falls to 0 in a line.
    State is kept in `OUT.tuning` until the folder is there: what was stopped goes on when it is called again.

    Args:
        folder: as `load_model` reads it: ours, or of Hugging Face.
        corpus: what it is tuned to: of bytes, or of the model's own tokens.
        out: the new folder; must not exist.
        tokens: to train on; text that is shorter is read more than once.
        lora: rank of low-rank adapters, which are merged in the end; 0 trains all weights.
        rate: peak learning rate; None for a quarter of that which the parent was trained at, if its row says it, else
            2e-5, and 2e-4 for adapters.
        scheme: what is rounded in training and afterwards; None for what the parent has.
        batch_size: sequences a step, each as long as the parent's windows.
        seed: of the order of the text, and of adapters.
        eval_tokens: held-out tokens that are scored, at most.
        device: `auto`, `cpu` or `cuda`.
        on_tokens: told the tokens of every step.
        should_stop: asked after every step; when true, state is saved and `Interrupted` raised.

    Raises:
        ConfigError: `out` exists, the text is in other tokens, or a scheme or number that cannot be.
        DataError: a folder that cannot be read, or too little text.
        Interrupted: after `should_stop` said so.
        LabError: peft or transformers is not installed, or the loss diverged.

    Source: full tuning is training; LoRA is of Hu et al. 2021 (2106.09685).

    >>> import tempfile
    >>> from bitlaw.formats import Scheme
    >>> from bitlaw.lab.corpus import read_corpus
    >>> from bitlaw.shapes import Shape
    >>> model = Transformer(Shape(width=16, depth=1, heads=1, ffn=24))
    >>> with tempfile.TemporaryDirectory() as place:
    ...     save_model(Loaded("base", "", model, None, 256, 32, Scheme(), {}), f"{place}/base")
    ...     tuned = tune_folder(f"{place}/base", read_corpus(), f"{place}/tuned", tokens=2048, rate=0.02)
    ...     load_model(f"{place}/tuned").row["tuning"], tuned.gain.value > 0
    ('full', True)
    """
    out = Path(out)
    if out.exists():
        raise ConfigError(f"{out} exists already; name another folder, or remove it")
    if (
        tokens < 1
        or batch_size < 1
        or eval_tokens < 1
        or lora < 0
        or seed < 0
        or (rate is not None and not 0 < rate < math.inf)
    ):
        raise ConfigError(
            f"{tokens} tokens in batches of {batch_size} at rate {rate} with adapters of rank {lora}, seed {seed} and "
            f"{eval_tokens} tokens to score cannot be; tokens, batches and rate are above 0, the others 0 or more"
        )
    if lora:
        peft()  # before a model is read
    parent = load_model(folder, device_named(device))
    corpus = in_tokens_of(parent, corpus)
    if rate is None:
        known = parent.row.get("learning_rate")
        rate = OF_THE_PARENT * float(known) if known else RATE * (OF_ADAPTERS if lora else 1)
    config = tuning_config(
        parent, corpus, tokens, lora=lora, learning_rate=rate, scheme=scheme, batch_size=batch_size, seed=seed
    )
    room = (len(corpus.evaluation.tokens) - 1) // parent.seq_len * parent.seq_len
    evaluation = spread_windows(
        corpus.evaluation, max(min(eval_tokens, room), parent.seq_len), parent.seq_len
    )
    place = out.with_name(out.name + ".tuning")
    with alone(place):
        began = time.perf_counter()
        end = tune(parent, config, corpus, place, on_tokens, should_stop)
        before = Reference(parent.model, evaluation)
        after = Reference(end.model, evaluation, Exam.of(evaluation, corpus.calibration))  # type: ignore[arg-type]
        row = _row(parent, config, end, corpus, after)
        row |= {"started": ago(time.perf_counter() - began), "seconds": time.perf_counter() - began}
        made = replace(parent, name=out.name, model=end.model, scheme=Scheme.parse(config.scheme), row=row)
        save_model(made, out)
    shutil.rmtree(place, ignore_errors=True)
    gain = clustered_mean(before.losses - after.losses, evaluation.documents)
    return Tuned(row, before.loss, gain)


def in_tokens_of(loaded: Loaded, corpus: Corpus) -> Corpus:
    """A corpus in a model's tokens.

    Raises:
        ConfigError: it is in tokens of another tokenizer.
        DataError: the tokenizer gives numbers that the model does not know.
    """
    own = None if loaded.tokenizer is None else loaded.tokenizer.to_str()
    if corpus.coder is not None and corpus.coder.to_str() != own:
        raise ConfigError(
            f"corpus {corpus.name} is in tokens of {corpus.tokenizer}, and {loaded.name} has others; read it as bytes, "
            "and the model's tokenizer does the rest"
        )
    if corpus.coder is not None or loaded.tokenizer is None:
        for text in corpus.sides.values():
            encoded(replace(loaded, tokenizer=None), text)  # are all of them known?
        return corpus
    return Corpus.of(
        corpus.name,
        *(encoded(loaded, text) for text in corpus.sides.values()),
        copies=corpus.copies,
        tokenizer=str(loaded.row.get("tokenizer", "of the model")),
        vocab=loaded.vocab,
        coder=loaded.tokenizer,
    )


def _row(parent: Loaded, config: TuningConfig, end: End, corpus: Corpus, after: Reference) -> dict[str, Any]:
    """What the run table says of a tuned model."""
    loss = after.loss
    if not math.isfinite(loss.value):
        raise DataError(f"the loss of the tuned model is {loss.value} on held-out text; try a smaller rate")
    row = trained_row(config, end, corpus, after.evaluation)
    if not isinstance(parent.model, Transformer):  # whose parts are not what their shape would have in ours
        total = sum(p.numel() for p in parent.model.parameters())
        for name in [*(name for name in row if name.startswith(("params_", "flops"))), "residual"]:
            del row[name]
        row |= {"params": total, "count": "total"}
    row |= scored(loss, after.scores, row)
    name = str(parent.row.get("id") or f"{parent.name}-{parent.digest[:8]}")
    known = {key: parent.row[key] for key in ("trunk",) if key in parent.row}
    return row | {
        **known,
        "parent": name,
        "tuning": config.method,
        "loss_se": loss.se if math.isfinite(loss.se) else None,
    }
