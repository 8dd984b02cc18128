"""A whole scheme put on a model after training, by any method for its weights."""

from __future__ import annotations

from dataclasses import fields, replace

from torch import Tensor

from ...errors import ConfigError, DataError
from ...formats import Scheme
from ..model import Loaded
from ..model.pretrained import Pretrained
from ..precision import apply_scheme
from .apply import ModelT, quantize_model
from .settings import PLAIN, Setting

NOT_THEIRS = ("q", "emb", "head")  # parts that are not put on models of transformers


def quantize_parts(
    model: ModelT, scheme: Scheme, method: str = "rtn", calibration: Tensor | None = None
) -> ModelT:
    """Return a copy of a model in a scheme: weights by a method, all else rounded while the model runs.

    Args:
        model: with no scheme of its own that rounds while it runs.
        scheme: recipes of its parts.
        method: of the blocks' weights: `rtn`, `gptq` or `awq`.
        calibration: token windows (W, T), for the last two.

    Raises:
        ConfigError: a part that a model after training does not have, or a recipe that it cannot.

    >>> from bitlaw.lab.model import Transformer
    >>> from bitlaw.shapes import Shape
    >>> model = Transformer(Shape(width=16, depth=1, heads=2, ffn=24))
    >>> low = quantize_parts(model, Scheme.parse("w=int4, a=int8 token"))
    >>> len(low.blocks[0].mlp.down.weight[0].unique()) <= 15
    True
    """
    Setting(method, scheme.w, scheme.a, scheme.kv)  # refuses what cannot be
    given = [part.name for part in fields(scheme) if getattr(scheme, part.name).quantized]
    for part in given:
        if part.startswith("grad"):
            raise ConfigError(f"{part} is of training, and a trained model has no gradients; leave it out")
        if getattr(scheme, part).scale == "learned" or getattr(scheme, part).stored:
            raise ConfigError(f"{part}={getattr(scheme, part)} is of training; try 'absmax' or 'mse'")
        if part in NOT_THEIRS and isinstance(model, Pretrained):
            raise ConfigError(
                f"{part} of a Hugging Face model stays as it is; leave it out, or use w, a and kv"
            )
    low = quantize_model(model, scheme.w, method, calibration)
    rest = replace(scheme, w=PLAIN)
    return apply_scheme(low, rest) if rest.quantized else low


def running(loaded: Loaded, scheme: Scheme) -> Scheme:
    """Return what a model from a folder rounds while it runs, once a scheme is put on it; weights are rounded before.

    Raises:
        DataError: it does so already, and would be made to do it twice.
    """
    kept, asked = (replace(s, w=PLAIN, grad_a=PLAIN, grad_w=PLAIN) for s in (loaded.scheme, scheme))
    if kept.quantized and asked.quantized:
        raise DataError(
            f"{loaded.name} rounds {kept.name} while it runs already; name the folder of the model that it was made "
            f"from, or leave {asked.name} out of the scheme"
        )
    return kept if kept.quantized else asked
