"""Models as folders of `config.json` and safetensors: our own, and Hugging Face's causal models."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import prod
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from ...errors import BitlawError, ConfigError, DataError, LabError, nearest
from ...formats import Scheme
from ...shapes import Shape
from ..precision import apply_scheme
from .pretrained import BLOCKS, Pretrained
from .safe import MANIFEST, check_manifest, read_json, sha256, tensor_shapes, weight_files, write_manifest
from .transformer import Transformer

WINDOW = 512  # tokens a window for a Hugging Face model, where it can read as many
ABOUT = "bitlaw.json"
OURS = "bitlaw"


@dataclass(frozen=True)
class Loaded:
    """A model, and what is known of it.

    Attributes:
        name: of its folder.
        digest: of all that its losses depend on, as hexadecimal digits.
        model: from tokens to logits; its `blocks` are where ours are.
        tokenizer: of the library `tokenizers`; None means bytes.
        vocab: tokens that the model knows.
        seq_len: tokens a window of text has.
        scheme: what is rounded while the model runs.
        row: what the run table says of it, as far as known.
    """

    name: str
    digest: str
    model: nn.Module
    tokenizer: Any
    vocab: int
    seq_len: int
    scheme: Scheme
    row: dict[str, Any]


def load_model(folder: str | Path, device: str | torch.device = "cpu") -> Loaded:
    """Read a model from a folder of ours, or of a Hugging Face causal model.

    Args:
        folder: with `config.json`, safetensors and, unless tokens are bytes, `tokenizer.json`.
        device: where the model is to be.

    Raises:
        DataError: there is no such folder, or what is in it is damaged, of an unknown kind, or could run code.
        LabError: it is of Hugging Face, and transformers is not installed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; name one with config.json and safetensors")
    if (folder / MANIFEST).exists():
        check_manifest(folder)
    config = read_json(folder / "config.json")
    about = read_json(folder / ABOUT) if (folder / ABOUT).exists() else {}
    files = weight_files(folder)
    shapes = tensor_shapes(files)
    kind = str(config.get("model_type"))
    if kind not in (OURS, *BLOCKS):
        raise DataError(f"{folder} holds a model of type {kind[:40]!r}; {nearest(kind, (OURS, *BLOCKS))}")
    try:
        scheme = Scheme.parse(str(about.get("scheme", "16")))
        row = dict(about.get("row", {}))
        widest = max((side for shape in shapes.values() for side in shape), default=0)
        if any((getattr(scheme, part.name).size or 0) > widest for part in fields(scheme)):
            raise DataError(f"{folder}: the scheme {scheme.name} has groups wider than the model")
        if kind == OURS:
            shape, seq_len = _shape(folder, config, shapes)
            model: nn.Module = apply_scheme(Transformer(shape), scheme)
            tensors = {name: t for file in files for name, t in safetensors.torch.load_file(file).items()}
            model.load_state_dict(tensors)
            vocab = shape.vocab
            tokenizer = _tokenizer(folder) if (folder / "tokenizer.json").exists() else None
        else:
            model = apply_scheme(Pretrained(_pretrained(folder, config, shapes)), scheme)
            tokenizer, vocab = _tokenizer(folder), int(config["vocab_size"])
            seq_len = min(WINDOW, int(config.get("max_position_embeddings", WINDOW)))
            if seq_len < 2:
                raise DataError(f"{folder}: a model of windows of {seq_len} tokens predicts nothing")
    except (BitlawError, ImportError):
        raise
    except Exception as error:  # of libraries that meet a config they did not expect
        reason = ascii(str(error).strip().split("\n")[0])[1:-1][:200]
        raise DataError(f"cannot read the model in {folder}: {type(error).__name__}: {reason}") from error
    read = [path for path in (*files, folder / "config.json", folder / "tokenizer.json") if path.exists()]
    digest = hashlib.sha256("".join([*map(sha256, read), scheme.name]).encode()).hexdigest()
    name = folder.resolve().name
    return Loaded(name, digest, model.to(device).eval(), tokenizer, vocab, seq_len, scheme, row)


def save_model(loaded: Loaded, folder: str | Path) -> None:
    """Write a model to a new folder, from which `load_model` reads one of the same losses.

    Weights are written as they are computed with, quantised or not: the file is as large as before.

    Args:
        loaded: the model, and what is to be said of it.
        folder: must not exist.

    Raises:
        ConfigError: the folder exists.
        DataError: it cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise ConfigError(f"{folder} exists already; name another folder, or remove it")
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        if isinstance(loaded.model, Pretrained):
            loaded.model.model.save_pretrained(temporary)
        else:
            assert isinstance(loaded.model, Transformer)
            weights = {name: tensor.contiguous() for name, tensor in loaded.model.state_dict().items()}
            safetensors.torch.save_file(weights, temporary / "model.safetensors")
            config = {"model_type": OURS, **asdict(loaded.model.shape), "seq_len": loaded.seq_len}
            _write_json(temporary / "config.json", config)
        if loaded.tokenizer is not None:
            (temporary / "tokenizer.json").write_text(loaded.tokenizer.to_str(), encoding="utf-8")
        _write_json(temporary / ABOUT, {"scheme": loaded.scheme.name, "row": loaded.row})
        write_manifest(temporary)
        temporary.rename(folder)
    except (OSError, safetensors.SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        why = getattr(error, "strerror", None) or ascii(str(error))[1:-1][:200]
        raise DataError(f"cannot write {folder}: {why}") from error


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _shape(
    folder: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Shape, int]:
    """The shape that a config of ours says, once the tensors agree: nothing is allocated for one that lies."""
    names = [field.name for field in fields(Shape)] + ["seq_len"]
    values = {name: config.get(name) for name in names}
    wrong = [f"{k} = {v!r}"[:60] for k, v in values.items() if type(v) is not int or not 0 < v < 2**31]
    if wrong:
        raise DataError(f"{folder / 'config.json'}: {', '.join(wrong)}; whole numbers from 1 are expected")
    seq_len = values.pop("seq_len")
    shape = Shape(**values)  # type: ignore[arg-type]
    beside = (".step", ".codes", ".updates")  # of learned and of stored weights
    held = sum(prod(s) for name, s in shapes.items() if not name.endswith(beside))
    if shape.counts().total != held or shape.depth > len(shapes) or shape.width % (2 * shape.heads):
        raise DataError(
            f"{folder}: config.json describes {shape.counts().total:,} parameters in {shape.depth} blocks of "
            f"{shape.heads} heads, the weights are {held:,} in {len(shapes)} tensors; they are not of one model"
        )
    return shape, seq_len  # type: ignore[return-value]


def _pretrained(folder: Path, config: dict[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """A model of transformers, once a skeleton without storage has the shapes that the files have."""
    try:
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise LabError(
            'Hugging Face models need transformers and tokenizers: pip install "bitlaw[hf]"'
        ) from error
    for key, why in (
        ("auto_map", "wants to run code of its own"),
        ("quantization_config", "is quantised already"),
    ):
        if key in config:
            raise DataError(f"{folder}: the model {why} ({key} in config.json); use one that does not")
    if (folder / "adapter_config.json").exists():
        raise DataError(f"{folder} holds an adapter; merge it into its model first")
    disable_progress_bar()
    layers = config.get("num_hidden_layers")
    if not isinstance(layers, int) or not 0 < layers <= len(shapes):
        raise DataError(f"{folder}: config.json has {layers!r} layers, the files {len(shapes)} tensors")
    # Keys with a leading underscore steer the library itself, down to whose kernels it fetches.
    plain = {key: value for key, value in config.items() if not key.startswith("_") and key != "model_type"}
    made = AutoConfig.for_model(config["model_type"], **plain)
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(made, attn_implementation="sdpa")
    missing = Counter(tuple(p.shape) for p in skeleton.parameters()) - Counter(shapes.values())
    if missing:
        raise DataError(
            f"{folder}: config.json asks for a tensor of shape {next(iter(missing))}, and the files have no such one "
            "left; they are not of one model"
        )
    model, loading = AutoModelForCausalLM.from_pretrained(
        folder,
        config=made,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=torch.float32,
        attn_implementation="sdpa",
        output_loading_info=True,
    )
    if loading["missing_keys"]:
        raise DataError(
            f"{folder}: the files have no {sorted(loading['missing_keys'])[0]}; they are not of one model"
        )
    return model


def _tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise DataError(f"there is no tokenizer.json in {folder}; save it with the model's fast tokenizer")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()  # documents are to be read whole
    tokenizer.no_padding()
    return tokenizer
