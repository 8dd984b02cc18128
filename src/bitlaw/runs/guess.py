"""What other people call our columns, to be shown and confirmed, never to be believed."""

from __future__ import annotations

import re
from functools import lru_cache

import polars as pl

from .check import MOST_FORMATS, check_column
from .convert import convert
from .schema import COLUMN


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


#: Names by column, the likeliest first, as `plain` writes them.
NAMES: dict[str, tuple[str, ...]] = {
    "params": _words(
        "params n_params num_params n_parameters num_parameters parameters param_count params_count model_params "
        "non_embedding_params n_params_non_embedding num_non_embedding_params total_params trainable_params "
        "model_num_parameters model_size size N"
    ),
    "tokens": _words(
        "tokens n_tokens num_tokens train_tokens training_tokens n_train_tokens num_train_tokens tokens_seen "
        "total_tokens consumed_tokens num_input_tokens_seen tokens_trained trained_tokens d_tokens D"
    ),
    "loss": _words(
        "eval_loss val_loss valid_loss validation_loss test_loss final_loss loss_final loss_nats loss loss_bits "
        "bits_per_token eval_ppl val_ppl valid_ppl eval_perplexity val_perplexity ppl perplexity"
    ),
    "id": ("id", "run_id", "run_name", "name"),
    "flops": ("train_flops", "flops", "total_flops", "compute_flops", "compute", "total_flos", "C"),
    "bpb": ("bpb", "bits_per_byte", "val_bpb", "eval_bpb"),
    "loss_se": ("loss_se", "loss_stderr", "eval_loss_stderr", "val_loss_stderr"),
    "gap": ("gap", "delta_loss", "loss_gap"),
    "gap_se": ("gap_se", "delta_loss_se", "gap_stderr"),
    "kl": ("kl", "kld", "mean_kld", "kl_divergence"),
    "bytes": ("bytes",),
    "method": ("method", "quant_method", "quantization_method", "ptq_method"),
    "kl_se": ("kl_se", "kld_se", "mean_kld_se"),
    "bpw": ("bpw", "bits_per_weight"),
    "seed": ("seed", "random_seed", "rng_seed"),
    "w_format": ("w_format", "weight_format", "weight_dtype", "torch_dtype", "dtype", "precision"),
    "post_format": ("post_format", "quantization", "quant", "quant_type"),
    "error": ("error", "error_rate", "accuracy", "acc"),
    "learning_rate": ("learning_rate", "lr", "peak_lr", "max_lr"),
    "learning_rate_end": ("learning_rate_end",),
    "weight_decay": ("weight_decay", "wd"),
    "optimizer": ("optimizer", "optim"),
    "schedule": ("schedule", "lr_scheduler_type", "lr_schedule"),
    "warmup_steps": ("warmup_steps", "num_warmup_steps"),
    "steps": ("steps", "global_step", "max_steps", "num_steps", "train_steps"),
    "batch_size": ("batch_size", "global_batch_size", "total_batch_size"),
    "seq_len": ("seq_len", "sequence_length", "seq_length", "context_length", "block_size", "max_seq_len"),
    "width": ("width", "d_model", "hidden_size", "n_embd"),
    "depth": ("depth", "n_layers", "n_layer", "num_layers", "num_hidden_layers"),
    "heads": ("heads", "n_heads", "n_head", "num_heads", "num_attention_heads"),
    "ffn": ("ffn", "d_ff", "intermediate_size", "ffn_hidden_size"),
    "vocab": ("vocab", "vocab_size"),
    "corpus": ("corpus", "dataset", "dataset_name"),
    "seconds": ("seconds", "runtime", "train_runtime", "duration"),
}
#: Names of columns that say how many bits, and not of which kind: they decide what a row is, so they are never guessed.
BITS: dict[str, str] = {
    **dict.fromkeys(
        ("bits", "weight_bits", "w_bits", "wbits", "n_bits", "num_bits", "bit_width", "precision_bits"),
        "w_format",
    ),
    **dict.fromkeys(
        ("precision", "dtype", "weight_dtype", "torch_dtype", "weight_format", "w_format"), "w_format"
    ),
    "abits": "a_format",
    **dict.fromkeys(
        ("q_bits_post", "post_bits", "quant_bits", "ptq_bits", "quantization_bits"), "post_format"
    ),
}
#: Words of a column's name that say which part it is of, where another says that it is of bits or formats.
_PARTS: dict[str, str] = {
    **dict.fromkeys(("a", "act", "acts", "activation", "activations"), "a_format"),
    **dict.fromkeys(("kv", "kvcache", "cache"), "kv_format"),
    **dict.fromkeys(("emb", "embed", "embedding", "embeddings"), "emb_format"),
    **dict.fromkeys(("grad", "grads", "gradient", "gradients"), "grad_format"),
    "head": "head_format",
}
_OF_FORMATS = {"bits", "bit", "dtype", "precision", "quant", "quantization"}
_SCHEME = r"^(?i)(w[0-9]+(a[0-9]+)?(kv[0-9]+)?|a[0-9]+kv[0-9]+|16|none|fp16|bf16)$"  # W8A8, and what stands beside it
#: In which units names of formats may come, the plainest first.
_FORMAT_UNITS = {"w_format": ("", "dtype"), "post_format": ("", "gguf")}
#: What counts as unquantised anyway.
_NATIVE = (
    r"^(torch\.)?(bf|fp|f|tf|b?float)?(16|32)(\.0)?([-_ ](mixed|true))?$|^(no|none|auto|half|float|false)$"
)
_OUTER = {
    "config",
    "summary",
    "params",
    "metrics",
    "hparams",
    "args",
    "training_args",
    "model",
    "data",
    "train_config",
}
_KEPT = 20_000  # names, of which each is looked at for every column of ours
#: Outer names of what was counted in evaluation, not in training.
_EVALUATION = {"eval", "evaluation", "val", "valid", "validation", "test"}
_ENDS = {"finished", "failed", "crashed", "killed", "running"}
_PREFIXES = {"k": "k", "m": "M", "mm": "M", "b": "B", "bn": "B", "t": "T", "g": "G"}
_PREFIXES |= {
    "million": "M",
    "millions": "M",
    "billion": "B",
    "billions": "B",
    "trillion": "T",
    "trillions": "T",
}
_TEXT_QUANTITY = (
    r"^[0-9]+(?:[.,_][0-9]+)*\s*(?:[kKMBGTP]\b|[kKMBGTP]?\s*(?:params|tokens|parameters)\b)"
    r"|^[0-9]{1,3}(?:[,_][0-9]{3})+$"
)


@lru_cache(_KEPT)
def plain(name: str) -> str:
    """A name as the lists above write it; single capitals stay.

    >>> plain("config/N-Params"), plain("eval/loss"), plain("N"), plain("metrics.val_loss")
    ('n_params', 'eval_loss', 'N', 'val_loss')
    """
    if len(name) == 1:
        return name if name.isupper() else f"_{name}"
    parts = re.split(r"[/.]", name)
    while len(parts) > 1 and parts[0].strip().lower() in _OUTER:
        parts = parts[1:]
    if len(parts) == 1 and len(parts[0]) == 1:
        return parts[0] if parts[0].isupper() else f"_{parts[0]}"
    joined = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", "_".join(parts))
    return re.sub(r"[^\w%]+|_+", "_", joined.lower()).strip("_")


def ends(name: str) -> list[str]:
    """A nested name, and what it ends in, as `plain` writes them.

    >>> ends("precision.weight_bits")
    ['precision_weight_bits', 'weight_bits']
    """
    parts = re.split(r"[/.]", name)
    return [plain(".".join(parts[k:])) for k in range(len(parts))]


@lru_cache(_KEPT)
def unit_in(name: str) -> tuple[str, str]:
    """A name without the unit that it ends in, and the unit.

    >>> unit_in("size (B)"), unit_in("params_m"), unit_in("tokens [billions]"), unit_in("n_params")
    (('size', 'B'), ('params', 'M'), ('tokens', 'B'), ('n_params', ''))
    """
    match = re.fullmatch(r"(.+?)\s*[\(\[]\s*([A-Za-z]+)\s*[\)\]]", name) or re.fullmatch(
        r"(.+?)[_ ]([A-Za-z]+)", name
    )
    if match and match[2].lower() in _PREFIXES:
        return match[1].strip(), _PREFIXES[match[2].lower()]
    return name, ""


def rank(name: str, ours: str) -> int | None:
    """How likely a name means one of ours: 0 is likeliest, None not at all."""
    names = NAMES.get(ours, ())
    for candidate in (plain(name), plain(unit_in(name)[0])):
        if candidate in names:
            return names.index(candidate)
    if ours in ("params", "tokens") and not _EVALUATION & set(re.split(r"[/.]", name.lower())):
        for candidate in (*ends(name), *ends(unit_in(name)[0])):
            if candidate in names:
                return len(names) + names.index(candidate)
    return None


def seems_loss(name: str) -> bool:
    """Whether a column may be a loss or a perplexity, by its name.

    >>> [seems_loss(name) for name in ("val_loss", "ppl_after", "wikitext_perplexity", "loss_se", "epoch")]
    [True, True, True, False, False]
    """
    return rank(name, "loss") is not None or bool({"ppl", "perplexity"} & set(plain(name).split("_")))


def unit_of(name: str, ours: str, series: pl.Series) -> str:
    """The unit that a column seems to be in, by its name and its cells."""
    short = plain(name)
    if ours in ("params", "tokens", "flops"):
        cells = filled(series)
        if series.dtype == pl.String and len(cells) and cells.str.contains(_TEXT_QUANTITY).mean() > 0.5:  # type: ignore[operator]
            return "quantity"
        return "" if {short, *ends(name)} & set(NAMES[ours]) else unit_in(name)[1]
    if ours == "loss" and ("ppl" in short or "perplexity" in short):
        return "ppl"
    if ours == "loss" and "bits" in short:
        return "bits"
    if ours == "error" and short in ("accuracy", "acc"):
        return "accuracy"
    return format_unit(ours, series) or "" if ours in _FORMAT_UNITS else ""


def formats_of(name: str, series: pl.Series) -> str | None:
    """The format that a column seems to say, by its name or its cells; None for others, and where all are 16 bits."""
    cells = filled(series).unique()
    if not len(cells) or cells.cast(pl.String, strict=False).str.to_lowercase().str.contains(_NATIVE).all():
        return None
    short = plain(name)
    by_name = next((BITS[end] for end in ends(name) if end in BITS), None)
    by_name = by_name or next((ours for ours in _FORMAT_UNITS if short in NAMES[ours]), None)
    if by_name:
        return by_name
    words = short.split("_")
    part = next((_PARTS[word] for word in words if word in _PARTS), None)
    named = format_unit("w_format", cells) is not None or is_scheme(cells)
    if part and (named or _OF_FORMATS & set(words)):
        return part
    return "w_format" if named else None


def is_scheme(series: pl.Series) -> bool:
    """Whether cells name formats of several parts at once, like W8A8."""
    cells = filled(series)
    scheme = series.dtype == pl.String and bool(cells.str.contains(_SCHEME).all())
    return scheme and bool(cells.str.contains(r"^(?i)w[0-9]+(a|kv)[0-9]").any())


def has_digits(series: pl.Series) -> bool:
    """Whether cells are bare numbers, which say how many bits and not of what."""
    return series.dtype.is_numeric() or (
        series.dtype == pl.String and bool(filled(series).str.contains(r"^[0-9]+(\.[0-9]*)?$").any())
    )


def format_unit(ours: str, series: pl.Series) -> str | None:
    """The unit in which all cells are names of formats; None if there is none."""
    cells = filled(series).unique()
    if series.dtype != pl.String or has_digits(series) or len(cells) > MOST_FORMATS:
        return None
    for unit in _FORMAT_UNITS.get(ours, ("", "dtype")):
        turned, flaws = convert(cells, ours, unit)
        if not flaws and not check_column(COLUMN[ours], turned)[1]:
            return unit
    return None


def meaning(name: str) -> str:
    """The format that a name most likely stands for, as a proposal to a person; `?` where nothing says it.

    >>> [meaning(name) for name in ("bfloat16", "fp8", "fp8_e5m2", "8bit", "nf4", "nf3", "16bit", "F16", "mixed")]
    ['bf16', 'e4m3', 'e5m2', 'int8', 'nf4', 'int3', '?', 'bf16', '?']
    """
    for unit in ("", "dtype", "gguf"):
        turned, flaws = convert(pl.Series([name]), "w_format", unit)
        if not flaws and not check_column(COLUMN["w_format"], turned)[1]:
            return str(turned[0] or "bf16")
    lowered = name.lower()
    if grid := re.search(r"e[1-8]m[0-9]", lowered):
        return grid[0]
    bits = re.search(r"(?<![0-9])[2-8](?![0-9])", lowered)
    if not bits:
        return "?"
    if "fp" in lowered or "float" in lowered:
        return {"4": "e2m1", "6": "e3m2", "8": "e4m3"}.get(bits[0], "?")
    return f"int{bits[0]}"


def states(frame: pl.DataFrame) -> tuple[str, dict[str, int]]:
    """The column in which a tracker says how runs ended, and how many ended otherwise than well, by what it says."""
    for name in frame.columns:
        if plain(name) == "state" and frame[name].dtype == pl.String:
            said = filled(frame[name]).str.to_lowercase()
            if _ENDS & set(said):
                counts = said.filter(said != "finished").value_counts().sort(said.name)
                return name, dict(counts.iter_rows())
    return "", {}


def filled(series: pl.Series) -> pl.Series:
    """Cells that hold something."""
    if series.dtype == pl.String:
        series = series.str.strip_chars()
        return series.filter((series != "").fill_null(False))
    return series.drop_nulls()
