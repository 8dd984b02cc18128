"""A plan's model as a training configuration: the TOML that `bitlaw sweep` and `bitlaw train` read."""

from __future__ import annotations

from ..errors import ConfigError
from ..formats import Recipe, Scheme
from ..shapes import ladder_shape

SEQ_LEN = 128  # tokens a sequence, of small models
LONG = 2048  # and of those under DeepSeek's rule
RULED = 1e17  # FLOPs from which on DeepSeek's rule was fitted
OURS = 0.5, 8  # learning rate x width, and sequences a step


def training_toml(question: str, params: float, tokens: float, scheme: Scheme, post: Recipe | None) -> str:
    """Write a training configuration, with a rule for learning rate and batch and its source.

    From 1e17 FLOPs on it is that of DeepSeek: rate 0.3118 C^-0.125 and batch 0.2920 C^0.3271 tokens (Bi et al. 2024,
    2401.02954). Below, it is this project's ladder: rate 0.5 / width and a batch of 8 x 128 tokens, near the best at
    30k and 220k parameters (docs/log.md).

    Args:
        question: that the plan answered, for a comment.
        params: size without embeddings.
        tokens: training tokens.
        scheme: formats in training.
        post: recipe of the weights after training, if any.

    Returns:
        TOML; empty where the ladder has no model of that size.

    >>> print(training_toml("A small model", 1e6, 2e7, Scheme.parse("w4"), None))  # doctest: +ELLIPSIS
    # A small model
    # Learning rate and batch: ...
    """
    try:
        shape = ladder_shape(params)
    except ConfigError:
        return ""
    flops = 6 * params * tokens
    if flops < RULED:
        rate, batch, length = OURS[0] / shape.width, OURS[1], SEQ_LEN
        source = (
            "0.5 / width and 8 x 128 tokens, near the best from 30k to 220k parameters (this project's log)"
        )
    else:
        rate, length = 0.3118 * flops**-0.125, LONG
        batch = max(1, round(0.2920 * flops**0.3271 / length))
        source = "0.3118 C^-0.125 and 0.2920 C^0.3271 tokens at C = 6 N D (Bi et al. 2024, 2401.02954)"
    lines = [
        *(f"# {line}" for line in question.splitlines()),
        f"# Learning rate and batch: {source}.",
        'name = "planned"',
        "",
        "[sweep]",
        f"sizes = [{round(params)}]  # without embeddings: width {shape.width}, depth {shape.depth}",
        f"budgets = [{round(tokens)}]",
        f'schemes = ["{scheme.name}"]',
        f"rate_times_width = {rate * shape.width:.6g}  # a peak rate of {rate:.3g}",
        f"batch_size = {batch}",
        f"seq_len = {length}",
    ]
    if post is not None:
        lines.append(f'{"low_post_formats" if scheme.quantized else "post_formats"} = ["{post}"]')
    return "\n".join(lines) + "\n"
