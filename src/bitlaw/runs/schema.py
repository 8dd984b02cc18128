"""The columns of the run table, each with its type, unit and bounds.

A row is one model at one moment: the end of a training run, or that model after quantisation (then
`post_format` is set and `parent` names the row it was made from). A loss is finite or absent; what went
wrong is a `status`, never a NaN.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import polars as pl

from ..errors import ConfigError
from ..formats import parse_format

Kind: TypeAlias = Literal["text", "integer", "number", "format"]

#: Control characters but for those of lines and tabs, and those that turn the direction of text.
UNSEEN = "\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"
_UNSEEN = re.compile(f"[{UNSEEN}]")
STATUSES = ("ok", "diverged", "failed")
_DTYPE: dict[str, type[pl.DataType]] = {
    "text": pl.String,
    "integer": pl.Int64,
    "number": pl.Float64,
    "format": pl.String,
}


@dataclass(frozen=True)
class Column:
    """One column: its kind, bounds (`low` may be exclusive; text has a longest), unit and meaning."""

    name: str
    kind: Kind
    meaning: str
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    exclusive: bool = False
    choices: tuple[str, ...] = ()
    longest: int = 10_000

    def problem(self, value: Any) -> str:
        """Say what is wrong with a value of the right type; an empty string means nothing."""
        if self.kind in ("integer", "number"):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                return f"{value!r} is not a number"
        elif not isinstance(value, str):
            return f"{value!r} is not text"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{value} is not finite; leave the cell empty and say why in `status`"
        if self.kind == "integer" and abs(value) >= 2**63:
            return f"{value} has more digits than a whole number of 64 bits holds"
        if self.kind in ("integer", "number"):
            if value < self.low or value > self.high or (self.exclusive and value == self.low):
                return f"{value:g} is out of range; {self.name} must be {self.range_text()}"
        elif self.kind == "format" and re.fullmatch("[0-9]+", value):
            return (
                f"{value!r} says how many bits, not of which format; write int{value}, a float like e4m3, or bf16 for "
                f"none; an import takes --map '{self.name}=COLUMN in int'"
            )
        elif self.kind == "format":
            try:
                parse_format(value)
            except ConfigError as error:
                return str(error)
        elif "\x00" in value:
            return "holds a NUL character; databases cannot keep it: take it out"
        elif found := _UNSEEN.search(value):
            return f"holds {found[0]!a}, which would move a cursor or turn the text about; take it out"
        elif len(value) > self.longest:
            return f"is longer than {self.longest:,} characters; shorten it"
        elif self.choices and value not in self.choices:
            return f"{value!r} is not one of {', '.join(self.choices)}"
        return ""

    def range_text(self) -> str:
        """The bounds in words."""
        low = "" if self.low == -math.inf else f"{'above' if self.exclusive else 'at least'} {self.low:g}"
        high = "" if self.high == math.inf else f"at most {self.high:g}"
        return " and ".join(part for part in (low, high) if part) or "finite"


def _count(part: str) -> Column:
    return Column(f"params_{part}", "integer", f"parameters of the {part} part", "parameters", low=0)


def _format(part: str, meaning: str) -> Column:
    return Column(f"{part}_format", "format", f"number format of {meaning} in training; empty means bf16")


def _scale(part: str) -> Column:
    choices = ("tensor", "channel", "token", "group", "block")
    return Column(f"{part}_granularity", "text", f"what shares one scale in `{part}_format`", choices=choices)


def _group(part: str) -> Column:
    return Column(f"{part}_group", "integer", f"elements that share one scale in `{part}_format`", low=1)


def _stored(part: str, meaning: str) -> Column:
    meaning = f"how updates of {meaning} were written back; empty means to a float master copy"
    return Column(f"{part}_stored", "text", meaning, choices=("nearest", "stochastic"))


def _error(task: str, meaning: str) -> Column:
    return Column(f"error_{task}", "number", f"top-1 error {meaning}", "share", low=0, high=1)


COLUMNS: tuple[Column, ...] = (
    Column(
        "id",
        "text",
        "unique name of the row; made from the row's place in the table if absent, in a store from what it holds",
    ),
    Column("status", "text", "`ok`, or why there is no loss; empty means ok", choices=STATUSES),
    Column("reason", "text", "what happened, when the status is not ok"),
    Column("trunk", "text", "training run that the row descends from; rows of one trunk are not independent"),
    Column("parent", "text", "id of the row before quantisation, or before tuning"),
    Column(
        "tuning",
        "text",
        "how `parent` was fine-tuned, `full` or `lora:RANK`; tokens, rate, corpus are of that; empty means it was not",
    ),
    Column("seed", "integer", "of initialisation and data order", low=0),
    Column("params", "number", "N, model size by the convention in `count`", "parameters", 0, exclusive=True),
    Column("count", "text", "convention of `params`", choices=("non_embedding", "total", "matmul")),
    _count("embedding"),
    _count("attention"),
    _count("mlp"),
    _count("norm"),
    _count("head"),
    Column("tokens", "number", "D, training tokens seen; laws need it", "tokens", 0, exclusive=True),
    Column(
        "unit",
        "text",
        "what `tokens` counts, `frames` of sound for one; empty means tokens of text. A fit takes rows of one unit",
        choices=("tokens", "frames"),
    ),
    Column("unique_tokens", "number", "distinct training tokens seen", "tokens", 0, exclusive=True),
    Column("flops", "number", "training FLOPs, matrix products counted exactly", "flops", 0, exclusive=True),
    Column("flops_6nd", "number", "6 N D with non-embedding N", "flops", 0, exclusive=True),
    _format("w", "weights"),
    _scale("w"),
    _group("w"),
    _stored("w", "weights"),
    Column(
        "w_sparsity",
        "number",
        "share of the weights that is zero; empty means unknown",
        "share",
        low=0,
        high=0.999,
    ),
    _format("a", "activations"),
    _scale("a"),
    _group("a"),
    _format("kv", "keys and values"),
    _scale("kv"),
    _format("q", "queries"),
    _format("emb", "embeddings"),
    _stored("emb", "embeddings"),
    _format("head", "the output head"),
    _stored("head", "the output head"),
    _format("grad", "gradients of activations"),
    _format("grad_w", "gradients of weights"),
    Column(
        "qat_share",
        "number",
        "last share of the tokens trained in these formats, 16 bits before; empty means all",
        low=0,
        high=1,
    ),
    Column("post_format", "format", "format the weights were quantised to after training; empty means none"),
    _scale("post"),
    _group("post"),
    Column("post_recipe", "text", "format, what shares a scale, how it is found, all in one"),
    Column("post_a_format", "format", "format of activations after training; empty means as trained"),
    Column("post_a_recipe", "text", "the same of `post_a_format`"),
    Column("post_kv_format", "format", "format of keys and values after training; empty means as trained"),
    Column("post_kv_recipe", "text", "the same of `post_kv_format`"),
    Column("method", "text", "how they were quantised: `rtn`, `gptq`, `awq`"),
    Column("calibration_samples", "integer", "texts that `method` was calibrated on", "texts", low=1),
    Column("calibration_sha256", "text", "hash of these texts, as tokens"),
    Column("bpw", "number", "bits per quantised weight, scales included", "bits", 0, exclusive=True),
    Column(
        "bytes", "number", "the whole model, quantised weights packed and all else in 16 bits", "bytes", 0
    ),
    Column(
        "lost_updates",
        "number",
        "share of the updates of stored weights that were rounded to nothing",
        "share",
        low=0,
        high=1,
    ),
    Column("loss", "number", "cross-entropy on the evaluation set", "nats/token", 0, 1e100, exclusive=True),
    Column(
        "objective",
        "text",
        "what `loss` is the mean of: `l1`, absolute difference in deviations of a bin; empty means cross-entropy",
        choices=("cross-entropy", "l1"),
    ),
    Column("loss_se", "number", "standard error of `loss` over the evaluation set", "nats/token", 0),
    Column(
        "bpb",
        "number",
        "the same in bits per byte of text: compares tokenizers",
        "bits/byte",
        0,
        exclusive=True,
    ),
    Column(
        "gap", "number", "loss after minus before quantisation, same tokens; may be negative", "nats/token"
    ),
    Column("gap_se", "number", "standard error of `gap`, paired", "nats/token", 0),
    Column("kl", "number", "divergence of next-token probabilities from those before", "nats/token"),
    Column("kl_se", "number", "standard error of `kl`", "nats/token", 0),
    Column(
        "rejection",
        "number",
        "share of tokens drafted by this copy that the model before would reject: the mean total variation of their "
        "next-token probabilities",
        "share",
        low=0,
        high=1,
    ),
    Column("rejection_se", "number", "standard error of `rejection`", "share", 0),
    Column("eval_clusters", "integer", "documents or windows that standard errors are over", low=1),
    Column(
        "ece",
        "number",
        "expected calibration error of the largest probability on the evaluation set, 15 bins",
        "share",
        low=0,
        high=1,
    ),
    Column(
        "temperature",
        "number",
        "what logits are divided by for the lowest loss on up to 16,384 tokens of calibration text",
        low=0,
        exclusive=True,
    ),
    Column("loss_scaled", "number", "`loss` at that temperature", "nats/token", 0, exclusive=True),
    Column(
        "error",
        "number",
        "top-1 error, the mean over downstream tasks; in our sweeps over those below",
        "share",
        low=0,
        high=1,
    ),
    _error("next", "on every token"),
    _error("bracket", "on brackets that close one opened in the same window"),
    _error("copy", "on bytes that followed the same eight earlier in the window, four of the nine different"),
    _error("word", "on letters of words after the third"),
    _error("keyword", "on bytes after the second of long words that are frequent in calibration text"),
    Column("chance", "number", "accuracy of guessing on these tasks", "share", low=0, high=0.999),
    Column("schedule", "text", "learning-rate schedule, like `constant` or `cosine`"),
    Column("cooldown", "number", "last share of the tokens over which the rate falls", low=0, high=1),
    Column("cooldown_shape", "text", "how it falls, like `1-sqrt`; empty means unknown"),
    Column(
        "optimizer", "text", "`adamw`, `muon` for matrices of blocks, or `schedule-free`; empty means unknown"
    ),
    Column(
        "average", "text", "of weights, like `swa:500:5` or `ema:0.999`; empty means the last step's weights"
    ),
    Column("learning_rate", "number", "peak learning rate", low=0, exclusive=True),
    Column("learning_rate_end", "number", "learning rate at the checkpoint", low=0),
    Column(
        "learning_rate_floor", "number", "share of the peak that the rate falls to", "share", low=0, high=1
    ),
    Column("warmup_steps", "integer", "steps over which the rate rises", "steps", low=0),
    Column("weight_decay", "number", "AdamW weight decay", low=0),
    Column("steps", "integer", "optimiser steps", "steps", low=0),
    Column("batch_size", "integer", "sequences a step", "sequences", low=1),
    Column("seq_len", "integer", "tokens a sequence", "tokens", low=1),
    Column(
        "curve",
        "text",
        "the training loss as it fell, JSON: pairs of tokens and the mean since the pair before, eight a doubling",
    ),
    Column("width", "integer", "residual stream", low=1),
    Column("depth", "integer", "blocks", low=1),
    Column("heads", "integer", "attention heads", low=1),
    Column("ffn", "integer", "feed-forward width", low=1),
    Column("vocab", "integer", "tokens the model knows", low=1),
    Column(
        "residual", "text", "depth scaling of the residual stream: `init` or `depth-mup`; empty means unknown"
    ),
    Column("autocast", "text", "type of matrix products in training, like `float32`; empty means unknown"),
    Column("corpus", "text", "what was read"),
    Column("corpus_sha256", "text", "hash of training and held-out text"),
    Column("train_text_sha256", "text", "hash of the training text, as tokens"),
    Column("calibration_text_sha256", "text", "hash of the text kept for calibration, as tokens"),
    Column("evaluation_text_sha256", "text", "hash of the text kept for evaluation, as tokens"),
    Column("tokenizer", "text", "`bytes`, or `bpe:` and how many tokens"),
    Column("eval_sha256", "text", "hash of the evaluation tokens"),
    Column("eval_tokens", "integer", "size of the evaluation set", "tokens", low=1),
    Column("eval_bytes", "integer", "text that these tokens stand for", "bytes", low=1),
    Column("eval_batch", "integer", "sequences evaluated at once; per-tensor scales depend on it", low=1),
    Column("config", "text", "the resolved configuration, as JSON", longest=1_000_000),
    Column("versions", "text", "of bitlaw, torch and Python, and the kind of machine", longest=1_000_000),
    Column("started", "text", "UTC time the work began, ISO 8601"),
    Column("seconds", "number", "time spent on the row", "s", low=0),
)
#: What a person looks at first.
OVERVIEW = (
    "id",
    "params",
    "tokens",
    *(f"{part}_format" for part in ("w", "a", "kv", "post")),
    "loss",
    "gap",
    "gap_se",
    "status",
)
COLUMN: dict[str, Column] = {column.name: column for column in COLUMNS}
SCHEMA: dict[str, type[pl.DataType]] = {column.name: _DTYPE[column.kind] for column in COLUMNS}
